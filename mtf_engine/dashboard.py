"""Starts the dashboard's server: what `mtf dashboard` and `make app` do."""

import os
from pathlib import Path

HERE = Path(__file__).parent
APP = next(path for path in (HERE.parent / "app.py", HERE / "_dashboard" / "app.py") if path.is_file())
"""app.py beside the engine, as in the repository, or inside it, where a wheel puts it."""


def main(workspace: Path, port: int = 8501, headless: bool = False) -> None:
    """Serves the dashboard of `workspace` on http://localhost:`port` until it is stopped.

    The workspace travels by the environment, so that `streamlit run app.py` finds it the same way. The settings
    of `.streamlit/config.toml` beside app.py apply. Streamlit's welcome gives way to a line of ours: with it would
    come an offer over the page to install things for coding assistants.
    """
    from streamlit.web import cli

    forbid_legacy_pages()
    os.environ["MTF_WORKSPACE"] = str(workspace.absolute())
    options = [f"--server.port={port}", f"--server.headless={str(headless).lower()}"]
    options.append("--logger.hideWelcomeMessage=true")
    print(f"The dashboard of {workspace}: http://localhost:{port} (Ctrl+C stops it)", flush=True)
    cli.main(["run", str(APP), *options], prog_name="streamlit")


def forbid_legacy_pages() -> None:
    """Tells Streamlit, before its first request, that the folder `pages/` is ours.

    Its own guess holds until app.py has run once: the first deep link on a fresh server would show a
    "Page not found" dialog over the right page. The attribute is private, so it is touched here only.
    """
    from streamlit.runtime.pages_manager import PagesManager

    PagesManager.uses_pages_directory = False
