"""Who may do what in the dashboard: roles, the one table of what each takes, and the file that says who has which."""

import stat
import time
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from mtf_engine.spec import Refusal, Spec

NO_FOLDER = "The login names no folder of logs on the server ([imports] folder, docs/deploy.md)"
LOGIN = "MTF_LOGIN"
"""Names the file that says who may come in; where it is not set, nobody is asked."""


class Role(StrEnum):
    """What a person may do; each role may do what those before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    APPROVER = "approver"

    def covers(self, other: "Role") -> bool:
        """Returns whether this role may do all that the `other` may."""
        return [*Role].index(self) >= [*Role].index(other)


class Action(StrEnum):
    """What a page lets a visitor do, as a sentence has it."""

    LOOK = "look"
    DOWNLOAD = "download"
    IMPORT = "import a log"
    COLLECT = "collect a log"
    TRAIN = "start a training"
    TUNE = "start a search"
    EVALUATE = "start an evaluation"
    ABTEST = "start an A/B test"
    COMPARE = "start a comparison"
    START_ROUNDS = "start rounds"
    EXPORT = "export a policy"
    IMPORT_POLICY = "import a policy"
    STEER_RUN = "cancel, resume or move a run"
    DESCRIBE_RUN = "name, note, tag or archive a run"
    SAVE_PLAN = "save or delete a plan"
    SAVE_VIEW = "save or delete a view"
    DELETE_RUN = "delete a run"
    DELETE_DATASET = "delete a dataset"
    DECIDE = "decide on a round"
    ROLL_BACK = "roll back what is live"


PERMISSIONS: Mapping[Action, Role] = {
    Action.LOOK: Role.VIEWER,
    Action.DOWNLOAD: Role.VIEWER,
    Action.IMPORT: Role.EDITOR,
    Action.COLLECT: Role.EDITOR,
    Action.TRAIN: Role.EDITOR,
    Action.TUNE: Role.EDITOR,
    Action.EVALUATE: Role.EDITOR,
    Action.ABTEST: Role.EDITOR,
    Action.COMPARE: Role.EDITOR,
    Action.START_ROUNDS: Role.EDITOR,
    Action.EXPORT: Role.EDITOR,
    Action.IMPORT_POLICY: Role.EDITOR,
    Action.STEER_RUN: Role.EDITOR,
    Action.DESCRIBE_RUN: Role.EDITOR,
    Action.SAVE_PLAN: Role.EDITOR,
    Action.SAVE_VIEW: Role.EDITOR,
    Action.DELETE_RUN: Role.APPROVER,
    Action.DELETE_DATASET: Role.APPROVER,
    Action.DECIDE: Role.APPROVER,
    Action.ROLL_BACK: Role.APPROVER,
}
"""The least role that each action takes; one that is not here is nobody's."""


def needed_for(action: Action) -> str:
    """Returns which role `action` takes, as a sentence."""
    return f"It takes the role {PERMISSIONS.get(action, 'that nobody has')} to {action}"


class Person(NamedTuple):
    """Who is logged in, by the name that decisions, runs, plans and deletions carry."""

    name: str
    role: Role

    def may(self, action: Action) -> bool:
        """Returns whether the person's role is at least the one that `action` takes."""
        least = PERMISSIONS.get(action)
        return least is not None and self.role.covers(least)


class Provider(Spec):
    """The section `[auth]`: the OpenID Connect provider, as Streamlit's `st.login` has it."""

    redirect_uri: str = Field(pattern=r"^https?://.+/oauth2callback$")
    cookie_secret: str = Field(min_length=32)
    client_id: str = Field(min_length=1)
    client_secret: str = Field(min_length=1)
    server_metadata_url: str = Field(pattern=r"^https?://")
    client_kwargs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("redirect_uri")
    @classmethod
    def _names_a_host(cls, address: str) -> str:
        if not urlsplit(address).hostname:
            raise ValueError("names no host")
        return address


class Roles(Spec):
    """The section `[roles]`: which values of a claim make a viewer, an editor, an approver; without it, people do."""

    claim: str | None = None
    viewer: tuple[str, ...] = (Role.VIEWER,)
    editor: tuple[str, ...] = (Role.EDITOR,)
    approver: tuple[str, ...] = (Role.APPROVER,)

    def of(self, claims: Mapping[str, Any]) -> set[Role]:
        """Returns the roles that the claim gives, which is a text or a list of them."""
        value = claims.get(self.claim) if self.claim else None
        values = {value} if isinstance(value, str) else {*value} if isinstance(value, list | tuple) else set()
        return {role for role in Role if values & {*getattr(self, role)}}


class Session(Spec):
    """The section `[session]`: after how many hours one logs in again, and which claim a person is known by."""

    hours: float = Field(8, gt=0, le=24 * 30)
    person: str = "email"


class Imports(Spec):
    """The section `[imports]`: the folder in which paths lie that a page may be told; without it, it is told none."""

    folder: Path | None = None

    @field_validator("folder")
    @classmethod
    def _begins_at_the_root(cls, folder: Path | None) -> Path | None:
        if folder and not folder.is_absolute():
            raise ValueError("is no absolute path")
        return folder

    def held(self, path: Path) -> Path:
        """Returns `path`, from the folder if it is relative, without links.

        A Refusal where it leaves the folder, or something in it does by a link; whether it exists is not said.
        """
        if self.folder is None:
            raise Refusal(NO_FOLDER)
        try:
            folder = self.folder.resolve()
            found = (folder / path.expanduser()).resolve()
            if found.is_relative_to(folder):
                links = (link for link in found.rglob("*") if link.is_symlink())
                if all(link.resolve().is_relative_to(folder) for link in links):
                    return found
        except (OSError, RuntimeError, ValueError):  # links in a circle, `~nobody`, a NUL
            raise Refusal(f"{path} is no path that can be followed; check it") from None
        raise Refusal(f"{path} leaves {self.folder}, where the logs to import lie; move or copy it there")


class Login(Spec):
    """Who may come in: the provider that is asked, and the roles, by a claim or by name.

    `people` maps what a person is known by to a role; an e-mail address only where the provider does not deny it.
    """

    auth: Provider
    roles: Roles = Roles()
    people: dict[str, Role] = Field(default_factory=dict)
    session: Session = Session()
    imports: Imports = Imports()

    def person(self, claims: Mapping[str, Any]) -> Person:
        """Returns who the claims of a checked token are of; a Refusal says why they let nobody in."""
        issued, known_by = claims.get("iat"), self.session.person
        name = claims.get(known_by)
        if not isinstance(issued, int | float) or time.time() - issued > 3600 * self.session.hours:
            raise Refusal("your session has ended; log in again")
        if not isinstance(name, str) or not name.strip():
            raise Refusal(f"your provider does not tell your {known_by}, by which people are known here")
        verified = claims.get("email_verified", True)  # which some providers write as a text
        if known_by == "email" and not (verified is True or verified == "true"):
            raise Refusal(f"your provider has not verified that {name} is yours; have it do so")
        roles = self.roles.of(claims) | ({self.people[name]} if name in self.people else set())
        if not roles:
            raise Refusal(f"{name} has no role here; ask whoever runs this dashboard for one")
        return Person(name, max(roles, key=[*Role].index))


def read_login(path: Path) -> Login:
    """Returns what a TOML file says of the login; a Refusal of one that is none, or that everybody can read."""
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise Refusal(
                f"{path} holds secrets and everybody on this machine can read it; `chmod 600 {path}`"
            )
        login = Login.asked(f"the login {path}", tomllib.loads(path.read_text()))
        folder = login.imports.folder
        if folder and path.resolve().is_relative_to(folder.resolve()):
            raise Refusal(f"the login {path} lies in the folder {folder} that pages read; name another")
        return login
    except OSError as error:
        raise Refusal(f"the login {path} cannot be read: {error.strerror}; name another by --login") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise Refusal(f"the login {path} is no TOML: {error}; docs/deploy.md has an example") from None
