"""Users of a served bundle: sessions of an environment whose requests are scored over HTTP, and their feedback."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

import httpx
import numpy as np
from fastapi import FastAPI

from mtf_engine.environments.play import each_request
from mtf_engine.environments.session import SessionEnvironment

Post = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Sends a body to a path and returns the answer, of a call that must not be refused."""


AS_JSON = {"Content-Type": "application/json"}


class Client:
    """Calls an application in this process, in a context that is from its start to its end."""

    def __init__(self, app: FastAPI) -> None:
        self._life = app.router.lifespan_context(app)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._runner.run(self._life.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._life.__aexit__(None, None, None))
        self._runner.close()

    def post(self, to: str, body: Any) -> httpx.Response:
        """Returns the answer to a body: bytes as they are, else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._runner.run(self._http.post(to, content=content, headers=AS_JSON))

    def get(self, what: str, **headers: str) -> httpx.Response:
        return self._runner.run(self._http.get(what, headers=headers))


def play(env: SessionEnvironment, post: Post, n_requests: int, batch: int = 32) -> tuple[int, int]:
    """Returns how many requests whole sessions made, at least `n_requests`, and how many were shown the server's top.

    The environment ranks by the action that was served, so it shows what the server puts first but for ties.
    """
    first = asked = same = 0
    while asked < n_requests:
        env.reset(*env.visits(first, batch, seed=0))
        for active, observations in each_request(env):
            offered = env.candidates(slice(0, len(active)))
            requests = [
                {
                    "session_id": int(first + active.sessions[row]),
                    "user_id": str(active.users[row]),
                    "segment": str(active.segments[row]),
                    "step": active.step,
                    "timestamp": float(active.seconds[row]),
                    "observation": observations[row].tolist(),
                    "item_ids": offered.item_id[row].tolist(),
                    "predictions": offered.predictions[row].tolist(),
                }
                for row in range(len(active))
            ]
            answers = post("/score", {"requests": requests})["answers"]
            shown = env.step(np.array([one["action"] for one in answers], np.float32)).impressions
            for row, answer in enumerate(answers):
                items = shown.item_id[row].tolist()
                same += [requests[row]["item_ids"][i] for i in answer["order"][: len(items)]] == items
                told = [
                    {
                        "item_id": item,
                        "position": position,
                        "signals": dict(zip(env.signals, shown.signals[row, position].tolist(), strict=True)),
                    }
                    for position, item in enumerate(items)
                ]
                post("/feedback", {"request_id": answer["request_id"], "impressions": told})
            asked += len(active)
        first += batch
    return asked, same
