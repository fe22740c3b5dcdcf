"""Notices: a webhook is told when a run ends, once for each end; and the way there, for whoever sends one."""

import html
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from http.client import HTTPException
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import AfterValidator, AwareDatetime, HttpUrl, ValidationError
from pydantic_core import to_json

from mtf_engine import __version__
from mtf_engine.disk import temp_of, write_atomically
from mtf_engine.registry import RunRow, RunState, now
from mtf_engine.spec import Refusal, Spec
from mtf_engine.workspace import Workspace

FILE = "notices.json"
SECONDS, TRIES, PAUSE = 5.0, 3, 1.0
"""Of one try, how many there are, and seconds between two."""
ENDED = {
    RunState.COMPLETED: "was completed",
    RunState.WAITING: "waits for a decision",
    RunState.CANCELLED: "was cancelled",
    RunState.INTERRUPTED: "was interrupted",
    RunState.FAILED: "failed",
}


def _without_password(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("has a name or a password before its host, which are not sent; leave them out")
    return url


Address = Annotated[HttpUrl, AfterValidator(_without_password)]


class Receiver(Spec):
    """Where notices go, what their links begin with, and from when on ends are told."""

    url: Address
    dashboard: Address | None = None
    since: AwareDatetime

    @property
    def masked(self) -> str:
        """The URL as far as it may be shown: path and query of a webhook are its password."""
        parts = urlsplit(str(self.url))
        return f"{parts.scheme}://{parts.netloc}/…"

    def public(self) -> dict[str, Any]:
        """Returns what the command line shows of a receiver."""
        return {"url": self.masked, **self.model_dump(mode="json", include={"dashboard", "since"})}


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follows none: where it leads, and by which scheme, is not what was set."""


def receiver(workspace: Workspace) -> Receiver | None:
    """Returns where notices of the workspace go, None if nowhere; a Refusal if the file cannot be read."""
    path = workspace.path / FILE
    try:
        return Receiver.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise Refusal(f"{path} cannot be read; set the webhook anew (`notify set URL`)") from None


def set_receiver(workspace: Workspace, url: str, dashboard: str | None = None) -> Receiver:
    """Returns the receiver that from now on is told of ends, kept in a file that its owner alone may read."""
    asked = {"url": url, "dashboard": dashboard, "since": now()}
    found = Receiver.asked("the webhook", asked)
    with workspace.lock():
        write_atomically(workspace.path / FILE, found.model_dump_json(indent=2).encode(), mode=0o600)
    return found


def remove_leavings(workspace: Workspace) -> None:
    """Removes the URL that `set_receiver` was writing when it was stopped; whoever calls holds the lock."""
    temp_of(workspace.path / FILE).unlink(missing_ok=True)


def remove_receiver(workspace: Workspace) -> bool:
    """Returns whether there was a receiver; from now on there is none."""
    path = workspace.path / FILE
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def claimed(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Yields the notices of ends that nobody has told yet, each for this process alone to send.

    Where the webhook's file cannot be read, perhaps by this user alone, the ends stay for whoever can.
    """
    with suppress(Refusal):
        if there := receiver(workspace):
            for run in workspace.registry.ends(there.since, untold=True):
                if workspace.registry.claim_end(run):
                    yield notice(run, there)


def notice(run: RunRow, to: Receiver) -> dict[str, Any]:
    """Returns what is sent of a run's end: `text` for a chat, which shows nothing else, and the rest for programs."""
    link = to.dashboard and f"{str(to.dashboard).rstrip('/')}/runs?run={run.id}"
    after = "" if run.seconds is None else f" after {timedelta(seconds=round(run.seconds))}"
    summary = " ".join(f"{run.kind} {run.name} ({run.id}) {ENDED[run.state]}{after}".split())
    summary += f": {' '.join(run.error.split())}" if run.error else ""
    shown = run.model_dump(mode="json", include={"name", "kind", "state", "finished_at", "error"})
    text = html.escape(summary, quote=False)  # as Slack asks, where <!channel> would call everybody
    told = {"text": f"{text} {link}" if link else text, "run_id": run.id, "summary": summary, "link": link}
    return {**told, **shown, "seconds": run.seconds}


def send(to: Receiver, content: Mapping[str, Any]) -> None:
    """Sends `content` as JSON; a Refusal says why it did not arrive, without the secrets of the URL.

    Tried anew where the receiver was not reached or says that it could not take it. One that was reached and
    says nothing may have taken it, and is not told twice.
    """
    headers = {"Content-Type": "application/json", "User-Agent": f"mtf/{__version__}"}
    request = Request(str(to.url), to_json(content), headers)
    for left in reversed(range(TRIES)):
        try:
            build_opener(_NoRedirects).open(request, timeout=SECONDS).close()
            return
        except HTTPError as error:
            error.close()
            why, again = f"answered {error.code}", error.code == 429 or error.code >= 500
        except URLError as error:
            why, again = f"was not reached ({_reason(error.reason)})", True
        except (OSError, HTTPException) as error:
            why, again = f"gave no answer ({_reason(error)})", False
        if not (left and again):
            raise Refusal(f"{to.masked} {why}, so it was not told; `notify test` tries again")
        time.sleep(PAUSE)


def _reason(error: object) -> object:
    return getattr(error, "strerror", None) or error
