"""What a server answers: scores of requests, explored where it is to, and what their feedback adds to the log."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field

from mtf_engine.disk import refusals
from mtf_engine.exploration.policies import Exploration
from mtf_engine.logs.schema import IMPRESSION_FILE, REQUEST_FILE
from mtf_engine.serving.log import ServedLog
from mtf_engine.serving.scoring import Exploring, ServedBundle
from mtf_engine.spec import MOST, Refusal, Spec

MOST_REQUESTS, MOST_CANDIDATES = 64, 10_000
"""Requests of one call, and candidates of one request."""
REMEMBERED, REMEMBERED_CANDIDATES = 10_000, 1_000_000
"""Requests whose feedback is waited for, and their candidates in all, some 100 MB."""
SESSIONS = 100_000
"""Sessions whose next step is known; those that rested longest may not go on."""
LARGEST = float(np.finfo(np.float32).max)
YEARS = range(1970, 2100)
RESERVED = {column.name for column in (*REQUEST_FILE, *IMPRESSION_FILE)} - {"watch_time"}


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _plain(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("is not text that can be printed, without blanks around it")
    return value


Id = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=200), AfterValidator(_plain)]
Number = Annotated[float, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]


class Asked(Spec):
    """A request to score: the observation and, a row each, the predictions of its candidates."""

    observation: list[Number]
    predictions: list[list[Number]] = Field(default=[], max_length=MOST_CANDIDATES)
    item_ids: list[Id] | None = Field(default=None, description="of the candidates; else they are numbered")
    session_id: Id | None = None
    user_id: Id | None = None
    step: Count | None = Field(default=None, description="0, 1, 2, ... within the session")
    timestamp: datetime | None = Field(default=None, description="UTC where it says no zone; default: now")
    segment: Id = "all"


class Call(Spec):
    """What /score is sent."""

    requests: list[Asked] = Field(min_length=1, max_length=MOST_REQUESTS)


class Shown(Spec):
    """An item that was shown, and what the user did."""

    item_id: Id
    position: Count
    signals: dict[Annotated[str, Field(pattern="^[a-z_][a-z0-9_]{0,59}$")], Number]


class Feedback(Spec):
    """What /feedback is sent: what was shown of one request."""

    request_id: Id
    impressions: list[Shown] = Field(min_length=1, max_length=MOST_CANDIDATES)


class Refused(Refusal):
    """A call that is not answered: why, and the status of HTTP that says so."""

    def __init__(self, sentence: str, status: int = 422) -> None:
        super().__init__(sentence)
        self.status = status


class Session(NamedTuple):
    """Where a session is."""

    user_id: str
    step: int
    timestamp: datetime


@dataclass(frozen=True)
class Request:
    """A request as it is scored."""

    observation: NDArray[np.float32]  # [1, f]
    predictions: NDArray[np.float32]  # [1, k, p]
    items: tuple[str, ...]
    user_id: str | None
    segment: str
    told: set[str | int] = field(default_factory=set)  # items and positions that had their feedback

    def is_again(self, other: "Request") -> bool:
        """Returns whether the other is served with the same: what is drawn hangs on user and segment too."""
        same = all(getattr(self, name) == getattr(other, name) for name in ("items", "user_id", "segment"))
        return same and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("observation", "predictions")
        )


class Served(NamedTuple):
    """What one request is served with: the bundle's own action [1, d], and what was drawn around it."""

    baseline: NDArray[np.float32]
    drawn: Exploration


class Service:
    """One bundle, served; with a log, what was served goes there before it is answered."""

    def __init__(self, bundle: ServedBundle, exploring: Exploring, log: ServedLog | None = None) -> None:
        if log and not bundle.scores_candidates:
            raise Refusal(
                f"{bundle.name} scores no candidates, so nothing is shown that could be logged; leave --log out"
            )
        self.bundle, self.exploring, self.log = bundle, exploring, log
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._over: set[int] = set()  # hashes of the ids of sessions that may not go on
        self._waiting: OrderedDict[str, Request] = OrderedDict()
        self._n_waiting = 0
        try:
            for row in log.requests if log else ():
                when = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC)
                self._move({row["session_id"]: Session(row["user_id"], row["step"], when)})
        except (ValueError, LookupError, TypeError):
            assert log is not None
            log.close()
            raise Refusal("the log has a line that no server of a bundle wrote; name a new folder") from None

    def score(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """Returns an answer a request; a Refused where one is wrong, and then none of them is logged."""
        answers, rows = [], []
        moved: dict[str, Session] = {}
        new: dict[str, Request] = {}
        for i, one in enumerate(asked):
            request = self._request(one, f"requests.{i}")
            self._refuse_nobody(one, f"requests.{i}")
            served = self._served(one, request)
            answer = self._answer(request, served.drawn)
            if one.session_id is not None and one.step is not None:
                answer |= {"request_id": f"{one.session_id}:{one.step}"}
            answers.append(answer)
            if self.log and not self._is_known(answer["request_id"], request, f"requests.{i}", new):
                moved[one.session_id or ""] = now = self._next(one, f"requests.{i}", moved)
                new[answer["request_id"]] = request
                rows.append(_row(answer, now, one, served))
        if self.log and rows:
            self._write(self.log.requests.append, rows)
            self._move(moved)
            self._wait_for(new)
        return answers

    def feedback(self, told: Feedback) -> int:
        """Returns how many impressions were added to the log; a Refused where one is wrong, and then none."""
        if self.log is None:
            raise Refused("this server keeps no log; start it with --log DIR", 409)
        request = self._waiting.get(told.request_id)
        if request is None:
            raise Refused(
                f"request_id: {told.request_id} is none of the last {REMEMBERED:,} requests that were answered since "
                "the server was started; send feedback sooner",
                404,
            )
        names = self.log.signals or _first_signals(told)
        seen: set[str | int] = set()
        rows = []
        for i, shown in enumerate(told.impressions):
            _check_signals(shown, names, f"impressions.{i}")
            for what, one in (("item_id", shown.item_id), ("position", shown.position)):
                if one in seen | request.told:
                    raise Refused(f"impressions.{i}.{what}: {one} had its feedback; send each item once", 409)
                seen.add(one)
            if shown.item_id not in request.items:
                raise Refused(
                    f"impressions.{i}.item_id: {shown.item_id} was no candidate of {told.request_id}"
                )
            predictions = request.predictions[0, request.items.index(shown.item_id)].tolist()
            rows.append(
                {"request_id": told.request_id, "item_id": shown.item_id, "position": shown.position}
                | {"predictions": predictions, **{name: shown.signals[name] for name in names}}
            )
        if not self.log.signals:
            self._write(self.log.know, names)
        self._write(self.log.impressions.append, rows)
        request.told.update(seen)
        return len(rows)

    def health(self) -> dict[str, Any]:
        """Returns what is served and what it takes, JSON-able."""
        bundle, exploring = self.bundle, self.exploring
        origin = bundle.manifest["origin"]
        return {
            "status": "ok",
            "bundle": bundle.name,
            "sha256": bundle.sha256,
            "approved": bundle.manifest["approved"],
            "algo": origin.get("algo"),
            "run_id": origin.get("run_id"),
            "features": list(bundle.features),
            "predictions": list(bundle.fusion.predictions),
            "dimensions": list(bundle.fusion.names),
            "explore": exploring.kind,
            "bounds": None if exploring.kind == "baseline" else exploring.plan.model_dump(mode="json"),
            "log": str(self.log.folder) if self.log else None,
            "signals": list(self.log.signals) if self.log else [],
            "waiting_for_feedback": len(self._waiting),
        }

    def _request(self, one: Asked, where: str) -> Request:
        """Returns the arrays of a request; a Refused where it does not have the bundle's sizes."""
        f, p = len(self.bundle.features), len(self.bundle.fusion.predictions)
        if len(one.observation) != f:
            raise Refused(
                f"{where}.observation: has {len(one.observation)} numbers; send {f}, in the order of /health"
            )
        if one.predictions and not self.bundle.scores_candidates:
            raise Refused(f"{where}.predictions: {self.bundle.name} scores no candidates; leave them out")
        for j, row in enumerate(one.predictions):
            if len(row) != p:
                raise Refused(
                    f"{where}.predictions.{j}: has {len(row)} numbers; send {p}, in the order of /health"
                )
        with np.errstate(over="ignore"):
            observation = np.array([one.observation], np.float32)
            predictions = np.array(one.predictions, np.float32).reshape(1, -1, p)
        if not np.isfinite(observation).all() or not np.isfinite(predictions).all():
            raise Refused(f"{where}: has a number that is too large for float32; send smaller ones")
        if (predictions < 0).any():
            raise Refused(
                f"{where}.predictions: has a number below 0; send probabilities or other numbers from 0 on"
            )
        k = predictions.shape[1]
        items = tuple(one.item_ids) if one.item_ids is not None else tuple(map(str, range(k)))
        if len(items) != k or len(set(items)) < k:
            raise Refused(f"{where}.item_ids: send one for each of the {k} candidates, each once")
        return Request(observation, predictions, items, one.user_id, one.segment)

    def _refuse_nobody(self, one: Asked, where: str) -> None:
        """Refuses a request that lacks what exploration or the log asks for."""
        if self.log is None and self.exploring.kind == "baseline":
            return
        why = "its request is logged" if self.log else "the bundle is explored around"
        for name in ("session_id", "user_id", "step"):
            if getattr(one, name) is None:
                raise Refused(f"{where}.{name}: is missing; send it, since {why}")
        if self.log and not one.predictions:
            raise Refused(f"{where}.predictions: has no candidates; send them, since {why}")

    def _served(self, one: Asked, request: Request) -> Served:
        actions = self.bundle.act(request.observation)
        who = (one.user_id or "", one.session_id or "", one.step or 0)
        return Served(actions, self.exploring.draw(actions, one.segment, *who))

    def _answer(self, request: Request, served: Exploration) -> dict[str, Any]:
        explored = self.exploring.kind != "baseline"
        action = served.actions[0].astype(float)
        dimensions = self.bundle.fusion.dimensions
        real = [
            (d.high + d.low) / 2 + (d.high - d.low) / 2 * a for d, a in zip(dimensions, action, strict=True)
        ]
        answer: dict[str, Any] = {
            "action": action.tolist(),
            "weights": dict(zip(self.bundle.fusion.names, real, strict=True)),
        }
        if request.items:
            actions = served.actions if explored else None
            scores = self.bundle.score(request.observation, request.predictions, actions)[0]
            order = np.argsort(-scores, kind="stable")
            answer |= {"log_final_scores": scores.tolist(), "order": order.tolist()}
        if explored:
            answer |= _propensity(served)
        return answer

    def _is_known(self, request_id: str, request: Request, where: str, new: Mapping[str, Request]) -> bool:
        """Returns whether a request is one that was answered already; a Refused where it says otherwise than then."""
        before = new.get(request_id) or self._waiting.get(request_id)
        if before is not None and not before.is_again(request):
            raise Refused(f"{where}: {request_id} was answered with other values; send the next step", 409)
        return before is not None

    def _next(self, one: Asked, where: str, moved: Mapping[str, Session]) -> Session:
        """Returns where a session is with this request; a Refused where an import would refuse the log for it."""
        assert one.session_id is not None and one.user_id is not None and one.step is not None
        when = one.timestamp or datetime.now(UTC)
        if when.year not in YEARS:
            raise Refused(f"{where}.timestamp: lies in the year {when.year}; send a time from 1970 to 2099")
        when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        before = moved.get(one.session_id) or self._sessions.get(one.session_id)
        if before is None and hash(one.session_id) in self._over:
            raise Refused(
                f"{where}.session_id: {one.session_id} rested while {SESSIONS:,} others went on; begin a new session",
                409,
            )
        step = before.step + 1 if before else 0
        if one.step != step:
            raise Refused(
                f"{where}.step: is {one.step}, and session {one.session_id} goes on with {step}", 409
            )
        if before and before.user_id != one.user_id:
            raise Refused(f"{where}.user_id: session {one.session_id} is of {before.user_id}", 409)
        if before and when < before.timestamp:
            raise Refused(f"{where}.timestamp: lies before that of the step before; send times in order", 409)
        return Session(one.user_id, one.step, when)

    def _move(self, moved: Mapping[str, Session]) -> None:
        for session_id, session in moved.items():
            self._sessions[session_id] = session
            self._sessions.move_to_end(session_id)
            if len(self._sessions) > SESSIONS:
                self._over.add(hash(self._sessions.popitem(last=False)[0]))

    def _wait_for(self, new: Mapping[str, Request]) -> None:
        self._waiting |= new
        self._n_waiting += sum(len(request.items) for request in new.values())
        while len(self._waiting) > REMEMBERED or self._n_waiting > REMEMBERED_CANDIDATES:
            _, oldest = self._waiting.popitem(last=False)
            self._n_waiting -= len(oldest.items)

    def _write(self, write: Any, what: Iterable[Any]) -> None:
        assert self.log is not None
        try:
            with refusals(Path(self.log.folder)):
                write(what)
        except Refusal as refusal:
            raise Refused(str(refusal), 503) from None


def _propensity(served: Exploration) -> dict[str, Any]:
    """Returns bounds and density of one request as JSON has them; no density where nothing was drawn."""
    pscore = float(served.pscore[0])
    lower, upper = served.lower[0].tolist(), served.upper[0].tolist()
    return {"lower": lower, "upper": upper, "pscore": None if np.isnan(pscore) else pscore}


def _row(answer: Mapping[str, Any], now: Session, one: Asked, served: Served) -> dict[str, Any]:
    """Returns the row of a request, as `dataset import` reads it."""
    return {
        "request_id": answer["request_id"],
        "session_id": one.session_id,
        "user_id": now.user_id,
        "step": now.step,
        "timestamp": now.timestamp.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "segment": one.segment,
        "observation": one.observation,
        "baseline_action": served.baseline[0].tolist(),
        "action": answer["action"],
        "clipped": int(served.drawn.clipped[0]),
        **_propensity(served.drawn),
    }


def _first_signals(told: Feedback) -> tuple[str, ...]:
    """Returns the signals that all impressions of the log will have; a Refused where an import could not read them."""
    names = tuple(told.impressions[0].signals)
    if taken := sorted(RESERVED & set(names)):
        raise Refused(f"impressions.0.signals: {taken[0]} is a column of the log; name the signal otherwise")
    if not {"watch_time", "valid"} & set(names):
        raise Refused(
            "impressions.0.signals: has neither watch_time nor valid, one of which a log needs; send one"
        )
    return names


def _check_signals(shown: Shown, names: Sequence[str], where: str) -> None:
    if set(shown.signals) != set(names):
        raise Refused(f"{where}.signals: are {', '.join(shown.signals)}; send {', '.join(names)} as at first")
    for name, value in shown.signals.items():
        if not 0 <= value <= (LARGEST if name == "watch_time" else 1):
            raise Refused(f"{where}.signals.{name}: is {value:g}; send 0 to 1, of watch_time seconds")
