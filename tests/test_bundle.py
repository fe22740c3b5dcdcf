"""The bundle: it answers as the policy does, says what it is, and refuses what it is not."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from mtf_engine.fusion import log_final_score
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.bundle import MANIFEST, MEMBERS, export, verify
from mtf_engine.policies.graphs import Clip
from mtf_engine.policies.networks import Actor, Standardise
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan, Box, FusionSpec, Refusal

FUSION = FusionSpec.default(("click", "watch", "skip"), negative=("skip",), bias=("click",))
FEATURES = ("age", "clicks", "new", "left")
HALF_WIDTH = 0.15


@pytest.fixture(scope="module")
def policy() -> Policy:
    standardise = Standardise(torch.tensor([30.0, 2.0, 0.0, 3.0]), torch.tensor([9.0, 1.0, 1.0, 2.0]))
    network = Actor(4, 4, (16, 16)).initialise(standardise, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(1))
    info = {"algo": "integrated_rl", "run_id": "run-1", "dataset_id": "data-1", "dataset_hash": "abc"}
    return Policy(network.requires_grad_(False), FUSION, FEATURES, (True, True, False, True), info)


@pytest.fixture(scope="module")
def rows() -> EvaluationRows:
    g = np.random.default_rng(0)
    n, m = 40, 100
    return EvaluationRows(
        split="test",
        request_id=np.arange(n),
        user=np.arange(n) // 2,
        segment=np.full(n, "all"),
        observations=g.normal(20, 20, (n, 4)).astype(np.float32),
        baseline_actions=None,
        lower=None,
        upper=None,
        request=np.sort(g.integers(0, n, m)),
        predictions=g.uniform(0, 1, (m, 3)).astype(np.float32),
        reward=g.uniform(0, 1, m),
        label=g.uniform(0, 1, m) > 0.5,
        fusion=FUSION,
        feature_names=FEATURES,
    )


@pytest.fixture(scope="module")
def bundle(policy, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "policy.zip"
    path.with_suffix(".json").write_text(
        json.dumps(export(policy, path, rows=rows, evaluation={"value": 0.7}))
    )
    return path


def contents(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def written(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_a_bundle_answers_as_the_policy_for_any_number_of_requests_and_candidates(bundle, policy):
    found = verify(bundle)
    assert found["ok"] is True and found["max_abs_diff"] < 1e-5
    members = contents(bundle)
    actor, scorer = (onnxruntime.InferenceSession(members[f"{n}.onnx"]) for n in ("policy", "scores"))
    g = np.random.default_rng(3)
    for n, k in ((1, 1), (1, 500), (33, 7)):
        observations = g.normal(20, 30, (n, 4)).astype(np.float32)
        predictions = g.uniform(-0.1, 1, (n, k, 3)).astype(np.float32)
        (actions,) = actor.run(None, {"observations": observations})
        np.testing.assert_allclose(actions, policy.act(observations), atol=1e-5)
        (scores,) = scorer.run(None, {"observations": observations, "predictions": predictions})
        expected = log_final_score(FUSION, policy.act(observations), predictions)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_the_manifest_says_what_is_needed_to_serve_and_no_path(bundle):
    manifest = json.loads(contents(bundle)[MANIFEST])
    assert manifest == json.loads(bundle.with_suffix(".json").read_text())
    assert manifest["features"] == list(FEATURES)
    assert manifest["standardised"] == ["age", "clicks", "left"]
    assert manifest["approved"] is False and manifest["clipped_to_bounds"] is False
    assert manifest["origin"]["dataset_hash"] == "abc"
    assert manifest["evaluation"] == {"value": 0.7}
    assert FusionSpec.model_validate(manifest["fusion"]) == FUSION
    assert set(manifest["sha256"]) == set(MEMBERS)
    everything = b"".join(contents(bundle).values())
    assert b"site-packages" not in everything and b"mtf_engine/" not in everything


def test_the_policy_inside_is_the_policy(bundle, policy, tmp_path):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(contents(bundle)["policy.safetensors"])
    assert Policy.load(path).to_bytes() == policy.to_bytes()


def test_verify_needs_numpy_and_onnxruntime_alone(bundle):
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'pandas', 'duckdb', 'pyarrow', 'scipy', 'safetensors', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from mtf_engine.policies.bundle import verify\n"
        "print(verify(Path(sys.argv[1]))['ok'])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(bundle)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr


@pytest.mark.parametrize("name", [MANIFEST, *MEMBERS])
def test_a_bundle_without_one_of_its_files_is_refused(bundle, tmp_path, name):
    rest = {k: v for k, v in contents(bundle).items() if k != name}
    with pytest.raises(Refusal, match=rf"half\.zip is no bundle: {name} is missing"):
        verify(written(tmp_path / "half.zip", rest))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_changed_file_is_refused(bundle, tmp_path, name):
    members = contents(bundle)
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])
    with pytest.raises(Refusal, match=f"{name} in changed.zip is not the one that was exported"):
        verify(written(tmp_path / "changed.zip", members))


def test_a_file_that_is_no_bundle_is_refused(bundle, tmp_path):
    (tmp_path / "text.zip").write_text("not a zip")
    (tmp_path / "cut.zip").write_bytes(bundle.read_bytes()[:-200])
    for name in ("text.zip", "cut.zip", "absent.zip"):
        with pytest.raises(Refusal, match=f"{name} cannot be read as a bundle"):
            verify(tmp_path / name)
    damaged = bytearray(bundle.read_bytes())
    damaged[1_000:1_100] = bytes(100)
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(Refusal, match=r"damaged\.zip"):
        verify(tmp_path / "damaged.zip")
    for manifest in (b"[]", b"{", b'{"schema_version": 99}', b'{"schema_version": 1}'):
        with pytest.raises(Refusal, match="foreign"):
            verify(written(tmp_path / "foreign.zip", contents(bundle) | {MANIFEST: manifest}))


def test_other_answers_than_the_policys_are_found(bundle, tmp_path):
    members = contents(bundle)
    golden = dict(np.load(io.BytesIO(members["golden.npz"])))
    golden["actions"] = golden["actions"] + np.float32(1e-3)
    buffer = io.BytesIO()
    np.savez(buffer, **golden)
    members["golden.npz"] = buffer.getvalue()
    manifest = json.loads(members[MANIFEST])
    manifest["sha256"]["golden.npz"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    members[MANIFEST] = json.dumps(manifest).encode()
    found = verify(written(tmp_path / "other.zip", members))
    assert found["ok"] is False and found["max_abs_diff"] == pytest.approx(1e-3, rel=0.01)


def test_rows_with_other_names_are_refused_and_nothing_is_written(policy, rows, tmp_path):
    with pytest.raises(Refusal, match="features"):
        export(policy, tmp_path / "p.zip", rows=replace(rows, feature_names=("a", "b", "c", "d")))
    assert not list(tmp_path.iterdir())


def test_a_policy_of_what_shows_no_candidates_is_written_alone(policy, rows, tmp_path):
    path = tmp_path / "alone.zip"
    manifest = export(policy, path, rows=replace(rows, predictions=rows.predictions[:0]))
    assert [*manifest["inputs"]] == ["observations"]
    held = contents(path)
    assert set(held) == {MANIFEST, *MEMBERS} - {"scores.onnx"} == {MANIFEST, *manifest["sha256"]}
    assert [*np.load(io.BytesIO(held["golden.npz"]))] == ["observations", "actions"]
    assert verify(path) == {"ok": True, "max_abs_diff": verify(path)["max_abs_diff"]}
    (actions,) = onnxruntime.InferenceSession(held["policy.onnx"]).run(
        None, {"observations": rows.observations}
    )
    np.testing.assert_allclose(actions, policy.act(rows.observations), atol=1e-6)


def test_clipped_actions_stay_in_the_bounds_around_the_baseline(policy, rows, tmp_path):
    baseline = Policy.baseline(FUSION, FEATURES, policy.numeric_mask)
    clip = Clip(baseline, BoundsPlan.symmetric(HALF_WIDTH, 4))
    manifest = export(policy, tmp_path / "clipped.zip", rows=rows, clip=clip)
    assert manifest["clipped_to_bounds"] is True and manifest["clip_bounds"]["upper"] == [HALF_WIDTH] * 4
    assert verify(tmp_path / "clipped.zip")["ok"]
    session = onnxruntime.InferenceSession(contents(tmp_path / "clipped.zip")["policy.onnx"])
    (actions,) = session.run(None, {"observations": rows.observations})
    expected = policy.act(rows.observations).clip(-HALF_WIDTH, HALF_WIDTH)
    np.testing.assert_allclose(actions, expected, atol=1e-6)
    assert np.abs(expected).max() == pytest.approx(HALF_WIDTH), "the clip must have had something to do"


def test_bounds_per_segment_cannot_be_clipped_to(policy, rows, tmp_path):
    box = Box(lower=(-0.1,) * 4, upper=(0.1,) * 4)
    plan = BoundsPlan(lower=box.lower, upper=box.upper, segments={"new": box})
    clip = Clip(Policy.baseline(FUSION, FEATURES, policy.numeric_mask), plan)
    with pytest.raises(Refusal, match="not told the segment"):
        export(policy, tmp_path / "p.zip", rows=rows, clip=clip)


@pytest.mark.slow
def test_the_same_export_gives_the_same_bytes(bundle, policy, rows, tmp_path):
    export(policy, tmp_path / "again.zip", rows=rows, evaluation={"value": 0.7})
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()
