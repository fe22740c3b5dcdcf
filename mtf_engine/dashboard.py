"""Starts the dashboard's server: what `mtf dashboard` and `make app` do."""

import errno
import os
import socket
import tomllib
from pathlib import Path

from mtf_engine.spec import Refusal

HERE = Path(__file__).parent
APP = next(path for path in (HERE.parent / "app.py", HERE / "_dashboard" / "app.py") if path.is_file())
"""app.py beside the engine, as in the repository, or inside it, where a wheel puts it."""
EVERY_ADDRESS = ("", "0.0.0.0", "::")
"""Ways to say that a server listens on all of its machine's addresses, localhost among them."""


def main(workspace: Path, port: int = 8501, headless: bool = False) -> None:
    """Serves the dashboard of `workspace` on this machine's `port` until it is stopped.

    A Refusal where the port cannot be listened on. The workspace travels by the environment, so that
    `streamlit run app.py` finds it the same way. The settings of `.streamlit/config.toml` beside app.py apply.
    Streamlit's welcome gives way to a line of ours: with it would come an offer over the page to install things
    for coding assistants.
    """
    from streamlit.web import cli

    address = _setting("address", "STREAMLIT_SERVER_ADDRESS")
    base = _setting("baseUrlPath", "STREAMLIT_SERVER_BASE_URL_PATH").strip("/")
    refuse_port(port, address)
    forbid_legacy_pages()
    os.environ["MTF_WORKSPACE"] = str(workspace.absolute())
    options = [f"--server.port={port}", f"--server.headless={str(headless).lower()}"]
    options += [f"--server.address={address}"] if address else []
    options += [f"--server.baseUrlPath={base}", "--logger.hideWelcomeMessage=true"]
    host = "localhost" if address in (*EVERY_ADDRESS, "127.0.0.1") else address
    url = f"http://{host}:{port}{f'/{base}/' if base else ''}"
    print(f"The dashboard of {workspace}: {url} (Ctrl+C stops it)", flush=True)
    cli.main(["run", str(APP), *options], prog_name="streamlit")


def _setting(name: str, variable: str) -> str:
    """Returns a setting of the server: the environment's, else that of `.streamlit/config.toml`; empty if none."""
    stored = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())["server"]
    return os.environ.get(variable) or str(stored.get(name, ""))


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
