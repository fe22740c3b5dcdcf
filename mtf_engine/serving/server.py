"""Starts the server of a bundle: what `mtf serve` does."""

from contextlib import suppress

import uvicorn

from mtf_engine.dashboard import loopback, refuse_port
from mtf_engine.serving.app import create_app
from mtf_engine.serving.service import Service
from mtf_engine.spec import Refusal

LOCAL = ("localhost", "127.0.0.1", "[::1]")
GRACE_SECONDS = 10
"""Until a call in flight is given up when the server is stopped."""


def refuse_place(host: str, port: int, insecure: bool) -> None:
    """Refuses an address that others reach, unless that is to be, and a port that cannot be listened on."""
    if not (insecure or loopback(host)):
        raise Refusal(
            f"{host or 'every address'} is reached by others, and nobody is asked who they are: serve on 127.0.0.1, or "
            "give --insecure, which lets whoever comes ask and write to the log"
        )
    refuse_port(port, host)


def serve(service: Service, host: str, port: int) -> None:
    """Serves until it is stopped: SIGTERM and Ctrl+C let calls in flight end, and have the log on the disk."""
    hosts = (*LOCAL, host) if loopback(host) else ("*",)
    config = uvicorn.Config(
        create_app(service, hosts),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()
