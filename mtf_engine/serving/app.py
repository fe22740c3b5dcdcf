"""The HTTP of a served bundle: `/score`, `/feedback`, `/health`, `/metrics`; what is refused is told in a sentence."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mtf_engine.serving.service import Call, Feedback, Refused, Service
from mtf_engine.spec import one_line

MOST_BYTES = 8 << 20
"""Of the body of a call: 64 requests of 1,000 candidates are some 6 MB."""
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """What Prometheus is told of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("mtf_requests", "Requests that were scored.", **own)
        self.explored = Counter(
            "mtf_explored_requests", "Of them, those with an action drawn in the bounds.", **own
        )
        self.candidates = Counter("mtf_candidates", "Candidates that were scored.", **own)
        self.impressions = Counter("mtf_impressions", "Impressions that came back as feedback.", **own)
        self.refused = Counter("mtf_refused_calls", "Calls that were refused, by status.", ["status"], **own)
        self.seconds = Histogram("mtf_score_seconds", "Seconds of a call to /score.", buckets=SECONDS, **own)

    def note(self, answers: Sequence[dict[str, Any]], seconds: float) -> None:
        """Counts one call to /score."""
        self.requests.inc(len(answers))
        self.explored.inc(sum(answer.get("pscore") is not None for answer in answers))
        self.candidates.inc(sum(len(answer.get("order", ())) for answer in answers))
        self.seconds.observe(seconds)


class SmallBodies:
    """An ASGI application around another, which refuses a body of more than `MOST_BYTES` without reading it whole."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        n_bytes = 0

        async def counted() -> Any:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MOST_BYTES:
                raise HTTPException(
                    413, f"the body has more than {MOST_BYTES:,} bytes; send fewer requests at once"
                )
            return message

        await self.app(scope, counted, send)


def create_app(service: Service, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """Returns the application that serves `service`, whose log it closes at its end; it answers to `hosts` alone."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        if service.log:
            service.log.close()

    app = FastAPI(
        title="mtf serve", lifespan=life, docs_url=None, redoc_url=None
    )  # their pages ask the internet
    metrics = Metrics()
    app.add_middleware(SmallBodies)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    _tell_refusals(app, metrics)

    @app.post("/score")
    async def score(call: Call) -> Response:
        began = time.perf_counter()
        answers = service.score(call.requests)
        metrics.note(answers, time.perf_counter() - began)
        return JSONResponse({"answers": answers})

    @app.post("/feedback")
    async def feedback(told: Feedback) -> Response:
        n = service.feedback(told)
        metrics.impressions.inc(n)
        return JSONResponse({"impressions": n})

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse(service.health())

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _tell_refusals(app: FastAPI, metrics: Metrics) -> None:
    """Has the application answer what it refuses with one sentence, and count it."""

    def told(status: int, sentence: str, headers: Any = None) -> Response:
        metrics.refused.labels(status).inc()
        return JSONResponse({"error": one_line(sentence)}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return told(error.status, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first, *rest = error.errors()
        if first["loc"] == ("body",):
            return told(422, "the body is no JSON object; send one, with Content-Type: application/json")
        place = ".".join(map(str, first["loc"][1:]))
        more = f" ({len(rest)} more like it)" if rest else ""
        return told(
            422,
            f"{place}: {first['msg'].removeprefix('Value error, ')}{more}; docs/serving.md tells what is taken",
        )

    @app.exception_handler(AnyHTTPException)
    async def other(_: Request, error: AnyHTTPException) -> Response:
        return told(error.status_code, str(error.detail), error.headers)
