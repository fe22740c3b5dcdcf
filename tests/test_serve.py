"""A bundle that is served: it answers as its graphs do, explores inside its bounds, and logs what an import reads."""

import json
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.exploration.coverage import certify_coverage
from mtf_engine.logs.aggregates import coverage
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.like import Like
from mtf_engine.policies.bundle_reading import MANIFEST, read
from mtf_engine.runs.storage import open_dataset
from mtf_engine.serving.app import MOST_BYTES, create_app
from mtf_engine.serving.log import ServedLog, mapping_of
from mtf_engine.serving.scoring import Exploring, ServedBundle
from mtf_engine.serving.server import LOCAL
from mtf_engine.serving.service import Service
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.work.export import fetch_bundle
from tests.browsing import MTF, free_port
from tests.serving import AS_JSON, Client, play
from tests.test_bundle import as_if_exported, contents, raw_zip
from tests.test_cli import Shell
from tests.test_log_files import imported
from tests.waiting import PATIENCE, wait_until

SIGNALS = {"watch_time": 12.5, "like": 0}


@pytest.fixture(scope="module")
def path(small_workspace, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("served") / "policy.zip"
    (exported,) = small_workspace.registry.runs(kind="export")
    fetch_bundle(small_workspace, exported.id, path)
    return path


@pytest.fixture(scope="module")
def bundle(path) -> ServedBundle:
    return ServedBundle(path)


def asking(bundle: ServedBundle, n: int = 1, k: int = 5, **more: Any) -> dict[str, Any]:
    """Returns a body for /score: sessions s0, s1, ... at their first step."""
    g = np.random.default_rng(n + k)
    f, p = len(bundle.features), len(bundle.fusion.predictions)
    return {
        "requests": [
            {
                "session_id": f"s{i}",
                "user_id": f"u{i}",
                "step": 0,
                "observation": g.normal(size=f).round(3).tolist(),
                "predictions": g.uniform(size=(k, p)).round(3).tolist(),
                **more,
            }
            for i in range(n)
        ]
    }


def served(bundle: ServedBundle, kind: str = "baseline", log: Path | None = None, **how: Any) -> Client:
    exploring = Exploring.of(bundle, kind, how.pop("plan", None), **how)
    mapping = mapping_of(bundle.fusion, bundle.features, bundle.manifest["standardised"], kind)
    service = Service(bundle, exploring, ServedLog(log, mapping) if log else None)
    return Client(create_app(service, LOCAL))


def scored(client: Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    return client.post("/score", body).raise_for_status().json()["answers"]


def test_scores_are_those_of_the_graph_and_the_order_is_theirs(bundle, path):
    call = asking(bundle, n=3, k=40)
    with served(bundle) as client:
        answers = scored(client, call)
        (alone,) = scored(client, {"requests": [{"observation": call["requests"][0]["observation"]}]})
        assert client.get("/health", host="evil.example.org").status_code == 400
    graph = onnxruntime.InferenceSession(read(path, path.name)["scores.onnx"])
    for one, answer in zip(call["requests"], answers, strict=True):
        observations, predictions = (np.array([one[n]], np.float32) for n in ("observation", "predictions"))
        (expected,) = graph.run(None, {"observations": observations, "predictions": predictions})
        np.testing.assert_array_equal(np.array(answer["log_final_scores"], np.float32), expected[0])
        assert answer["order"] == np.argsort(-expected[0], kind="stable").tolist()
        explored = bundle.score(observations, predictions, bundle.act(observations))
        np.testing.assert_allclose(explored, expected, atol=1e-5, rtol=1e-5)
        for action, d in zip(answer["action"], bundle.fusion.dimensions, strict=True):
            assert answer["weights"][d.name] == pytest.approx(d.low + (action + 1) / 2 * (d.high - d.low))
    assert alone == {name: answers[0][name] for name in ("action", "weights")}


def test_exploration_stays_in_the_bundles_bounds_and_its_density_is_exact(bundle):
    plan = BoundsPlan.model_validate(bundle.manifest["origin"]["plan"])
    call = asking(bundle, n=64)
    drawn = []
    for seed in (1, 1, 2):
        with served(bundle, "uniform", seed=seed, control_share=0) as client:
            drawn.append(scored(client, call))
    first, again, other = drawn
    assert first == again and first != other
    actions, lower, upper = (np.array([a[n] for a in first]) for n in ("action", "lower", "upper"))
    base = bundle.act(np.array([one["observation"] for one in call["requests"]], np.float32))
    assert (actions >= base + lower - 1e-6).all() and (actions <= base + upper + 1e-6).all()
    assert (lower >= np.float32(plan.lower) - 1e-7).all() and (upper <= np.float32(plan.upper) + 1e-7).all()
    assert np.ptp((actions - base - lower) / (upper - lower), axis=0).min() > 0.8
    np.testing.assert_allclose([a["pscore"] for a in first], 1 / np.prod(upper - lower, axis=1), rtol=1e-6)
    with served(bundle, "gaussian", sigma=0.1, control_share=0.3) as client:
        kept = [a["pscore"] is None for a in scored(client, call)]
        told = client.get("/metrics").text
    assert 8 < sum(kept) < 32
    assert "mtf_requests_total 64.0\n" in told and f"mtf_explored_requests_total {64.0 - sum(kept)}\n" in told


def test_what_was_served_is_imported_like_the_log_that_the_bundle_learned_from(
    bundle, small_workspace, tmp_path
):
    log, env = tmp_path / "served", SessionEnvironment()
    with served(bundle, "uniform", log) as client:
        asked, same = play(
            env, lambda to, body: client.post(to, body).raise_for_status().json(), 100, batch=10
        )
        assert same >= 0.99 * asked
        assert client.get("/health").json()["signals"] == list(env.signals)
    explored = open_dataset(small_workspace, "explored")
    like = Like(small_workspace.dataset("explored").id, explored.meta)
    dataset = imported(log, tmp_path / "dataset", mapping=log / "mapping.yaml", name="served", like=like)
    assert dataset.n_requests == asked and dataset.meta.exploration == "uniform"
    assert dataset.meta.feature_names == bundle.features and dataset.meta.reward == env.reward
    certificate = certify_coverage(coverage(dataset), bundle.fusion.names)
    assert certificate.failed == ("rows",), "it asks for 1,000 rows, which benchmarks/serve_loop.py has"
    alone = read_log(log, mapping=log / "mapping.yaml", name="served")
    assert alone.meta.fusion == bundle.fusion and alone.meta.numeric_mask == explored.meta.numeric_mask
    assert len(dataset.transitions()) == asked


WRONG = {
    "no JSON": (b"{", 422, "JSON decode error"),
    "no object": (b"[]", 422, "is no JSON object; send one, with Content-Type: application/json"),
    "not a number": ({"observation": ["x"]}, 422, "requests.0.observation.0: Input should be a valid number"),
    "infinite": (b'{"requests": [{"observation": [NaN]}]}', 422, "finite number"),
    "another field": ({"observations": [1]}, 422, "requests.0.observations: Extra inputs"),
    "a short observation": ({"observation": [1.0]}, 422, "requests.0.observation: has 1 numbers; send"),
    "a short candidate": ({"predictions": [[0.1]]}, 422, "requests.0.predictions.0: has 1 numbers; send 8"),
    "below zero": ({"predictions": [[-0.1] * 8]}, 422, "below 0"),
    "too large": ({"predictions": [[1e300] * 8]}, 422, "too large for float32"),
    "an item twice": ({"item_ids": ["a", "a", "b", "c", "d"]}, 422, "item_ids: send one for each of the 5"),
    "nobody": (
        {"user_id": None},
        422,
        "requests.0.user_id: is missing; send it, since its request is logged",
    ),
    "no candidates": ({"predictions": []}, 422, "requests.0.predictions: has no candidates"),
    "a later step": ({"step": 3}, 409, "step: is 3, and session s0 goes on with 0"),
    "another year": ({"timestamp": "1850-01-01"}, 422, "lies in the year 1850"),
    "far from UTC": ({"timestamp": "0001-01-01T00:00:00+14:00"}, 422, "lies in the year 1;"),
    "an invisible id": ({"session_id": "s\0"}, 422, "requests.0.session_id: is not text that can be"),
    "a deep body": (b"[" * 100_000, 400, "parsing the body"),
    "a huge body": (b" " * (MOST_BYTES + 1), 413, "has more than"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_is_refused_in_a_sentence_and_nothing_is_logged(bundle, tmp_path, name):
    wrong, status, sentence = WRONG[name]
    with served(bundle, "uniform", tmp_path / "log") as client:
        body = json.dumps(asking(bundle, **wrong)).encode() if isinstance(wrong, dict) else wrong
        answer = client.post("/score", body)
        assert (answer.status_code, [*answer.json()]) == (status, ["error"])
        assert sentence in answer.json()["error"] and "\n" not in answer.json()["error"]
        assert f'mtf_refused_calls_total{{status="{status}"}} 1.0' in client.get("/metrics").text
        assert client.post("/score", asking(bundle, n=65)).status_code == 422
        assert client.get("/nowhere").json() == {"error": "Not Found"}
    assert (tmp_path / "log" / "requests.jsonl").read_bytes() == b""


def test_a_request_is_logged_once_and_its_feedback_too(bundle, tmp_path):
    log = tmp_path / "log"
    with served(bundle, "uniform", log) as client:
        call = asking(bundle)
        answer = client.post("/score", call)
        assert client.post("/score", call).json() == answer.json()
        other = client.post("/score", asking(bundle, k=6))
        assert other.status_code == 409 and "answered with other values" in other.json()["error"]
        for else_ in ({"user_id": "other"}, {"segment": "other"}):  # by which other actions would be drawn
            assert client.post("/score", asking(bundle, **else_)).status_code == 409

        def told(**changes: Any) -> tuple[int, str]:
            shown = {"item_id": 3, "position": 0, "signals": SIGNALS} | changes
            body = {"request_id": shown.pop("request_id", "s0:0"), "impressions": [shown]}
            answer = client.post("/feedback", body)
            return answer.status_code, str(answer.json().get("error", ""))

        for wrong, status, sentence in (
            ({"request_id": "s9:0"}, 404, "none of the last 10,000 requests"),
            ({"item_id": 17}, 422, "17 was no candidate of s0:0"),
            ({"signals": {"like": 1}}, 422, "neither watch_time nor valid"),
            ({"signals": SIGNALS | {"reward": 1}}, 422, "reward is a column of the log"),
            ({"signals": SIGNALS | {"like": 3}}, 422, "like: is 3; send 0 to 1"),
            ({"signals": SIGNALS | {"watch_time": 1e308}}, 422, "watch_time: is 1e+308; send"),
        ):
            assert told(**wrong)[0] == status and sentence in told(**wrong)[1]
        assert told() == (200, "") and told()[0] == 409
        assert told(item_id=4, position=1, signals={"watch_time": 1})[0] == 422
    assert len((log / "requests.jsonl").read_text().splitlines()) == 1
    (row,) = map(json.loads, (log / "impressions.jsonl").read_text().splitlines())
    assert row["predictions"] == np.float32(call["requests"][0]["predictions"][3]).tolist()


def test_a_session_that_rested_too_long_does_not_begin_again(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("mtf_engine.serving.service.SESSIONS", 2)
    with served(bundle, "uniform", tmp_path / "log") as client:
        scored(client, asking(bundle, n=3))
        again = client.post("/score", asking(bundle, step=1))
        assert again.status_code == 409 and "s0 rested while 2 others went on" in again.json()["error"]
        assert client.post("/score", asking(bundle, session_id="s2", user_id="u2", step=1)).status_code == 200


def test_a_log_goes_on_after_a_line_that_was_cut_off_and_is_one_servers(bundle, tmp_path):
    log = tmp_path / "log"
    with served(bundle, "uniform", log) as client:
        client.post("/score", asking(bundle, n=2))
        with pytest.raises(Refusal, match="another server writes to"):
            served(bundle, "uniform", log)
    requests = log / "requests.jsonl"
    whole = requests.read_bytes()
    requests.write_bytes(whole + b'{"request_id": "s9')
    with served(bundle, "uniform", log) as client:
        assert requests.read_bytes() == whole
        assert client.post("/score", asking(bundle)).status_code == 409, "step 0 of s0 is in the log"
        assert client.post("/score", asking(bundle, step=1)).status_code == 200
    assert [json.loads(line)["request_id"] for line in requests.read_text().splitlines()] == [
        "s0:0",
        "s1:0",
        "s0:1",
    ]
    with pytest.raises(Refusal, match="another exploration; name a new folder"):
        served(bundle, "baseline", log)
    requests.write_bytes(whole + b"[]\n")
    with pytest.raises(Refusal, match="a line that no server of a bundle wrote"):
        served(bundle, "uniform", log)
    with pytest.raises(Refusal, match="is a file, and a log is a folder"):
        served(bundle, "uniform", requests)


def test_what_cannot_be_explored_or_reached_is_refused(bundle, path, tmp_path):
    bounded = ServedBundle(path)
    bounded.manifest = bundle.manifest | {"clipped_to_bounds": True}
    with pytest.raises(Refusal, match=r"is held in bounds around its baseline.*--bounds"):
        Exploring.of(bounded, "uniform", None)
    bounded.manifest = bundle.manifest | {"origin": {}}
    with pytest.raises(Refusal, match="has no bounds of its own"):
        Exploring.of(bounded, "uniform", None)
    with pytest.raises(Refusal, match=r"2 dimensions and the actions of policy\.zip 10"):
        Exploring.of(bundle, "uniform", BoundsPlan.symmetric(0.1, 2))
    shell = Shell(tmp_path / "workspace")
    assert "0.0.0.0 is reached by others" in shell.refused("serve", str(path), "--host", "0.0.0.0")
    assert "cannot be read as a bundle" in shell.refused("serve", str(tmp_path / "none.zip"))
    assert "says nothing of --explore baseline" in shell.refused("serve", str(path), "--bounds", "narrow")
    assert "there is no port 0" in shell.refused("serve", str(path), "--port", "0")
    assert "mixed is not served" in shell.refused("serve", str(path), "--explore", "mixed")


@pytest.mark.parametrize(
    "change", [{"inputs": None}, {"fusion": {}}, {"origin": []}, {"origin": {"plan": "x"}}, {"features": [1]}]
)
def test_a_manifest_that_no_export_wrote_is_refused_whatever_its_hashes(path, tmp_path, change):
    members = contents(path)
    members[MANIFEST] = json.dumps(json.loads(members[MANIFEST]) | change).encode()
    (evil := tmp_path / "evil.zip").write_bytes(raw_zip(as_if_exported(members)))
    with pytest.raises(Refusal, match=r"manifest of evil\.zip does not say what an export writes"):
        ServedBundle(evil)


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_a_readable_log_and_one_that_is_stopped_all_of_it(
    path, bundle, tmp_path
):
    port, log = free_port(), tmp_path / "log"
    command = [
        *MTF,
        "--workspace",
        tmp_path / "workspace",
        "serve",
        path,
        "--port",
        str(port),
        "--explore",
        "uniform",
    ]

    def started() -> subprocess.Popen:
        process = subprocess.Popen([*command, "--log", log], stdout=subprocess.DEVNULL)
        wait_until(lambda: answers("/health"), "the server answers")
        return process

    def answers(to: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{to}", body and json.dumps(body).encode(), AS_JSON
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return json.loads(answer.read())
        except (ConnectionError, urllib.error.URLError):
            return None

    n = 0
    for how in (signal.SIGKILL, signal.SIGTERM):
        process = started()
        for _ in range(50):
            assert answers("/score", asking(bundle, session_id=f"s{n}"))
            n += 1
        process.send_signal(how)
        process.wait(PATIENCE)
        assert len([json.loads(line) for line in (log / "requests.jsonl").read_text().splitlines()]) == n
    assert not (tmp_path / "workspace").exists(), "serving needs no workspace"
