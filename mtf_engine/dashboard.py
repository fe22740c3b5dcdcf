"""Starts the dashboard's server: what `mtf dashboard` and `make app` do."""

import errno
import os
import socket
import sys
import tomllib
import webbrowser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mtf_engine.permissions import LOGIN, read_login
from mtf_engine.spec import Refusal

HERE = Path(__file__).parent
APP = next(path for path in (HERE.parent / "app.py", HERE / "_dashboard" / "app.py") if path.is_file())
"""app.py beside the engine, as in the repository, or inside it, where a wheel puts it."""
EVERY_ADDRESS = ("", "0.0.0.0", "::")
"""Ways to say that a server listens on all of its machine's addresses, localhost among them."""
SECURITY_HEADERS = {
    "content-security-policy": "frame-ancestors 'self'",
    "x-frame-options": "SAMEORIGIN",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
"""No other site shows the dashboard in a frame of its own, guesses what a file is, or is told where a visitor was."""


class SecurityHeaders:
    """An ASGI application around another, which adds `SECURITY_HEADERS` to each of its answers."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message = message | {"headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def main(
    workspace: Path,
    port: int = 8501,
    headless: bool = False,
    host_names: Sequence[str] = (),
    login: Path | None = None,
    insecure: bool = False,
) -> None:
    """Serves the dashboard of `workspace` on this machine's `port` until it is stopped.

    A Refusal where the port cannot be listened on, or where others reach it and no `login` asks who they are, unless
    that is to be (`insecure`). Requests to another host than `localhost`, `host_names`, the login's, the address it
    listens at and those of the settings are answered 400. The workspace travels by the environment, so that
    `streamlit run app.py` finds it the same way. The settings of `.streamlit/config.toml` beside app.py apply.
    Streamlit's welcome gives way to a line of ours: with it would come an offer over the page to install things for
    coding assistants.
    """
    address = _setting("address", "STREAMLIT_SERVER_ADDRESS")
    base = _setting("baseUrlPath", "STREAMLIT_SERVER_BASE_URL_PATH").strip("/")
    refuse_port(port, address)
    host_names = [*host_names, *_prepare_login(login)]
    if not (login or insecure or loopback(address)):
        raise Refusal(
            f"{address or 'every address'} is reached by others, and nobody is asked who they are: give a --login "
            "FILE (docs/deploy.md), or --insecure, which lets whoever comes start, delete and decide in any name"
        )
    hosts = allowed_hosts([*host_names, *([] if address in EVERY_ADDRESS else [_in_url(address)])])
    forbid_legacy_pages()
    os.environ["MTF_WORKSPACE"] = str(workspace.absolute())
    options = {
        "server.port": port,
        "server.headless": headless,
        "server.baseUrlPath": base,
        "server.allowedHosts": [host.strip("[]") for host in hosts],  # as Streamlit compares them
        "logger.hideWelcomeMessage": True,
        "secrets.files": [str(login.absolute())] if login else [],
    }
    options |= {"server.address": address} if address else {}
    host = "localhost" if address in (*EVERY_ADDRESS, "127.0.0.1") else _in_url(address)
    url = f"http://{host}:{port}{f'/{base}/' if base else ''}"
    print(f"The dashboard of {workspace}: {url} (Ctrl+C stops it)", flush=True)
    serve(hosts, options, open_at=None if headless else url)


def _prepare_login(path: Path | None) -> list[str]:
    """Has pages ask who comes by the login at `path`, and returns the names of the host to which people come back."""
    if path is None:
        os.environ.pop(LOGIN, None)
        return []
    if find_spec("authlib") is None:
        raise Refusal("a login needs Authlib, which is not installed; `pip install 'mtf_engine[auth]'`")
    host = urlsplit(read_login(path).auth.redirect_uri).hostname
    os.environ[LOGIN] = str(path.absolute())
    return [_in_url(host)] if host else []


def _in_url(host: str) -> str:
    """Returns a name or an address as addresses of pages and the header Host have it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def loopback(address: str) -> bool:
    """Returns whether nobody but this machine reaches a server that listens at `address`."""
    try:
        return ip_address(address).is_loopback
    except ValueError:  # a name
        return address == "localhost"


def serve(hosts: Sequence[str], options: dict[str, Any], open_at: str | None) -> None:
    """Serves app.py with Streamlit's `options` until it is stopped; a browser opens the address `open_at` once it does.

    Streamlit itself refuses a foreign host name for its websocket alone.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from streamlit import App

    @asynccontextmanager
    async def started(_app: object) -> AsyncIterator[None]:
        if open_at:
            webbrowser.open(open_at)
        yield

    sys.argv = [str(APP)]  # beside it Streamlit looks for its settings
    around = [
        Middleware(SecurityHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
    ]
    App(APP, lifespan=started, middleware=around).run(config=options)


def allowed_hosts(named: Sequence[str] = ()) -> list[str]:
    """Returns the host names that are answered: those of the settings and those `named`; Refusal of what is none.

    `*.example.org` stands for every name below `example.org`, and `*` for every name at all.
    """
    hosts = _settings()["allowedHosts"]
    if given := os.environ.get("STREAMLIT_SERVER_ALLOWED_HOSTS"):
        hosts = given.replace(",", " ").split()
    for name in (*hosts, *named):
        rest = name.removeprefix("*.")
        ipv6 = name.startswith("[") and name.endswith("]") and _is_ipv6(name[1:-1])
        if name != "*" and not ipv6 and (not rest or set(rest) & set("*/:@?[] ")):
            raise Refusal(f"{name!r} is no host name; give it as a browser has it, such as team.example.org")
    return [*dict.fromkeys(name.lower() for name in (*hosts, *named))]


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _settings() -> dict[str, Any]:
    """Returns the section of `.streamlit/config.toml` on the server."""
    return dict(tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())["server"])


def _setting(name: str, variable: str) -> str:
    """Returns a setting of the server: the environment's, else that of `.streamlit/config.toml`; empty if none."""
    return os.environ.get(variable) or str(_settings().get(name, ""))


def refuse_port(port: int, address: str) -> None:
    """Refuses a port that is none or cannot be listened on at `address`, before anybody is sent there."""
    if not 1 <= port <= 65_535:
        raise Refusal(f"there is no port {port}; give 1 to 65535")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a port just left rests, and can be taken
        try:
            probe.bind((address, port))
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            why = "is in use, perhaps by another dashboard" if used else f"is refused: {error.strerror}"
            raise Refusal(f"port {port} {why}; name another by --port") from None


def forbid_legacy_pages() -> None:
    """Tells Streamlit, before its first request, that the folder `pages/` is ours.

    Its own guess holds until app.py has run once: the first deep link on a fresh server would show a
    "Page not found" dialog over the right page. The attribute is private, so it is touched here only.
    """
    from streamlit.runtime.pages_manager import PagesManager

    PagesManager.uses_pages_directory = False
