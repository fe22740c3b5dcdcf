"""The bundle: it answers as the policy does, says what it is, and refuses what it is not."""

import hashlib
import io
import json
import re
import resource
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mtf_engine.fusion import log_final_score
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies import answering, reference_scorer
from mtf_engine.policies.bundle import MANIFEST, export, verify
from mtf_engine.policies.bundle_reading import MEMBERS, manifest_hash
from mtf_engine.policies.bundle_readme import SCORER, bundle_readme, serving_lines
from mtf_engine.policies.graphs import Clip
from mtf_engine.policies.networks import Actor, Standardise
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan, Box, FusionDimension, FusionSpec, Refusal
from tests import mutants

FUSION = FusionSpec.default(("click", "watch", "skip"), negative=("skip",), bias=("click",))
FEATURES = ("age", "clicks", "new", "left")
HALF_WIDTH = 0.15
SERVING = Path(__file__).parent.parent / "docs" / "serving.md"


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


def as_if_exported(members: dict[str, bytes]) -> dict[str, bytes]:
    """Returns the members with a manifest whose hashes are theirs: whoever makes a bundle can do as much."""
    manifest = json.loads(members[MANIFEST])
    others = {name: content for name, content in members.items() if name != MANIFEST}
    manifest["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in others.items()}
    manifest["sha256"][MANIFEST] = manifest_hash(manifest)
    return {**others, MANIFEST: json.dumps(manifest).encode()}


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
    assert manifest["negative_pows"] == [], "the only one is that of a negative behaviour"
    assert manifest["origin"]["dataset_hash"] == "abc"
    assert manifest["evaluation"] == {"value": 0.7}
    assert FusionSpec.model_validate(manifest["fusion"]) == FUSION
    assert set(manifest["sha256"]) == {*MEMBERS, MANIFEST}
    everything = b"".join(contents(bundle).values())
    assert b"site-packages" not in everything and b"mtf_engine/" not in everything


def test_the_policy_inside_is_the_policy(bundle, policy, tmp_path):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(contents(bundle)["policy.safetensors"])
    assert Policy.load(path).to_bytes() == policy.to_bytes()


def test_the_lines_that_serve_it_run_and_the_reference_scorer_agrees_with_the_graphs(bundle, tmp_path):
    manifest, told = json.loads(contents(bundle)[MANIFEST]), str(bundle)
    served: dict = {}
    exec(serving_lines(manifest, told), served)
    assert served["log_final_scores"].shape == served["best_first"].shape == (1, 60)
    assert len([line for line in serving_lines(manifest, told).splitlines() if line]) <= 10
    assert f"```python\n{serving_lines(manifest, 'policy.zip')}```" in SERVING.read_text()
    readme = bundle_readme(manifest, "policy.zip")
    assert (
        all(f'"{name}"' in readme for name in (*FEATURES, *FUSION.predictions)) and "not approved" in readme
    )

    assert set(re.findall(r"^ *(?:import|from) (\w+)", SCORER.read_text(), re.MULTILINE)) == {
        "io", "json", "sys", "typing", "zipfile", "numpy",
    }  # fmt: skip
    assert len(SCORER.read_text().splitlines()) < 100
    command = [sys.executable, "-I", shutil.copy(SCORER, tmp_path), bundle]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [float(off) < 1e-5 for off in re.findall(r"most (\S+) off", done.stdout)] == [True, True]
    g = np.random.default_rng(4)
    observations, predictions = g.normal(20, 30, (9, 4)).astype(np.float32), g.uniform(0, 1, (9, 7, 3))
    actions = reference_scorer.act(
        *reference_scorer.read(contents(bundle)["policy.safetensors"]), observations
    )
    scores = reference_scorer.log_final_scores(manifest["fusion"], actions, predictions)
    session = onnxruntime.InferenceSession(contents(bundle)["scores.onnx"])
    asked = {"observations": observations, "predictions": predictions.astype(np.float32)}
    np.testing.assert_allclose(scores, session.run(None, asked)[0], atol=1e-5, rtol=1e-5)


def test_verify_needs_numpy_and_onnxruntime_alone(bundle):
    """Here, and in the process that runs the graphs, which reads one file and imports these two."""
    behind = re.findall(r"^ *(?:import|from) (\w+)", Path(answering.__file__).read_text(), re.MULTILINE)
    assert set(behind) - {"resource", "sys", "pathlib"} == {"numpy", "onnxruntime"}
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
    found = verify(written(tmp_path / "other.zip", as_if_exported(members)))
    assert found["ok"] is False and found["max_abs_diff"] == pytest.approx(1e-3, rel=0.01)


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(header: str) -> bytes:
    """Returns a golden.npz whose first array has that header and four bytes."""
    text = header.encode().ljust(118) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(4)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("observations.npy", array)
    return buffer.getvalue()


def graph(*nodes: onnx.NodeProto, given: str = "observations") -> bytes:
    """Returns a graph of these nodes from observations [n, 4] to actions [n, 4]."""
    made = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info(given, onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("actions", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def constant(name: str, values: np.ndarray) -> onnx.NodeProto:
    return onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(values))


def endless() -> bytes:
    """Returns a graph that loops as long as an int64 can count."""
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    boolean, real = onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT
    body = onnx.helper.make_graph(
        [node("Identity", ["on"], ["still"]), node("Sin", ["x"], ["y"])],
        "body",
        [info("i", onnx.TensorProto.INT64, []), info("on", boolean, []), info("x", real, None)],
        [info("still", boolean, []), info("y", real, None)],
    )
    trips, on = constant("trips", np.array(2**62)), constant("yes", np.array(True))
    return graph(trips, on, node("Loop", ["trips", "yes", "observations"], ["actions"], body=body))


def huge() -> bytes:
    """Returns a graph that asks for 64 GB."""
    shape = constant("shape", np.array([2**16, 2**16, 1, 4]))
    return graph(shape, onnx.helper.make_node("Expand", ["observations", "shape"], ["actions"]))


def large() -> bytes:
    """Returns a graph that takes 1.3 GB on the way for 40 requests, which machines have, and answers with little."""
    shape, axes = constant("shape", np.array([2**10, 2**11, 1, 4])), constant("axes", np.array([0, 1]))
    return graph(
        shape,
        axes,
        onnx.helper.make_node("Expand", ["observations", "shape"], ["much"]),
        onnx.helper.make_node("ReduceMax", ["much", "axes"], ["actions"], keepdims=0),
    )


def raw_zip(members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            if change and name == "policy.onnx":
                change(info)
            packed = info.compress_type if change and name == "policy.onnx" else zipfile.ZIP_DEFLATED
            file.writestr(info, content, packed)
    return buffer.getvalue()


def lzma(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_LZMA


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


def twice(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO(raw_zip(members))
    with zipfile.ZipFile(buffer, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("policy.onnx", b"another")
    return buffer.getvalue()


def encrypted(members: dict[str, bytes]) -> bytes:
    content = bytearray(raw_zip(members))
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(sign) + at] |= 1
    return bytes(content)


def fused_otherwise(members: dict[str, bytes]) -> bytes:
    manifest = json.loads(members[MANIFEST])
    manifest["fusion"]["dimensions"][0]["high"] = 99.0
    return raw_zip(members | {MANIFEST: json.dumps(manifest).encode()})


def replaced(**changed: bytes) -> Callable[[dict[str, bytes]], bytes]:
    """Returns what puts other members into a bundle, and their hashes into its manifest."""
    named = {name.replace("__", "."): content for name, content in changed.items()}
    return lambda members: raw_zip(as_if_exported({**members, **named}))


HEAD = b'{"a": {"data_offsets": [0, 4]}, "b": {"data_offsets": [0, "x"]}}'
NOWHERE = len(HEAD).to_bytes(8, "little") + HEAD + bytes(4)


ALIKE = np.zeros((2, 4), np.float32)
EVIL: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "a path out of the folder": (lambda m: raw_zip(as_if_exported(m | {"../../evil": b"x"})), "does not belong"),
    "a file more": (lambda m: raw_zip(as_if_exported(m | {"run.sh": b"x"})), "does not belong"),
    "a file twice": (twice, "does not belong"),
    "a link": (lambda m: raw_zip(m, link), "or a link"),
    "an encrypted file": (encrypted, "encrypted"),
    "another fusion": (fused_otherwise, "manifest.json in evil.zip is not the one"),
    "a bomb": (replaced(policy__safetensors=bytes(200 << 20)), "larger than it can be"),
    "no hashes": (lambda m: raw_zip(m | {MANIFEST: b'{"schema_version": 2, "sha256": "abc"}'}), "has no hashes"),
    "a list of hashes": (lambda m: raw_zip(m | {MANIFEST: b'{"schema_version": 2, "sha256": [1]}'}), "no hashes"),
    "another packing": (lambda m: raw_zip(m, lzma), "packed by"),
    "a deep manifest": (lambda m: raw_zip(m | {MANIFEST: b"[" * 100_000}), "cannot be read"),
    "a manifest that is not text": (lambda m: raw_zip(m | {MANIFEST: b"\xff\xfe"}), "cannot be read"),
    "no weights": (replaced(policy__safetensors=b"garbage" * 100), "holds no weights"),
    "weights at no place": (replaced(policy__safetensors=NOWHERE), "holds no weights"),
    "cut weights": (lambda m: replaced(policy__safetensors=m["policy.safetensors"][:-4])(m), "holds no weights"),
    "a huge array": (replaced(golden__npz=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}")),
                     "not the float32"),
    "a pickled array": (replaced(golden__npz=npz(observations=np.array([{}], object))), "golden.npz"),
    "an array of texts": (replaced(golden__npz=npz(observations=np.array(["x"]))), "golden.npz"),
    "another array": (replaced(golden__npz=npz(observations=ALIKE, more=ALIKE)), "other arrays"),
    "no answers": (replaced(golden__npz=npz(observations=ALIKE)), "lacks answers"),
    "no golden file": (replaced(golden__npz=b"PK"), "cannot be read"),
    "no graph": (replaced(policy__onnx=b"garbage"), "cannot be run"),
    "another input": (replaced(policy__onnx=graph(onnx.helper.make_node("Sin", ["x"], ["actions"]), given="x")),
                      "cannot be run"),
    "another shape": (replaced(policy__onnx=graph(onnx.helper.make_node("Size", ["observations"], ["actions"]))),
                      "cannot be run|another shape"),
    "an endless graph": (replaced(policy__onnx=endless()), "takes more than"),
    "a graph without bounds": (replaced(policy__onnx=huge()), "cannot be run"),
    "a graph that takes more memory than it may": (replaced(policy__onnx=large()), "running Expand"),
}  # fmt: skip


def at_work() -> float:
    """Returns the seconds of processor time that processes of this one have taken."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


@pytest.mark.parametrize("name", EVIL)
def test_a_bundle_of_a_strangers_is_refused_with_its_reason_and_nothing_is_written(bundle, tmp_path, name):
    make, reason = EVIL[name]
    (tmp_path / "evil.zip").write_bytes(make(contents(bundle)))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, at_work()
    with pytest.raises(Refusal, match=reason):
        verify(tmp_path / "evil.zip")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1_024  # KiB
    assert at_work() - began < 3 * answering.CPU_SECONDS
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]


def test_rows_with_other_names_are_refused_and_nothing_is_written(policy, rows, tmp_path):
    with pytest.raises(Refusal, match="features"):
        export(policy, tmp_path / "p.zip", rows=replace(rows, feature_names=("a", "b", "c", "d")))
    assert not list(tmp_path.iterdir())


def test_a_policy_of_what_shows_no_candidates_is_written_alone(policy, rows, tmp_path):
    path = tmp_path / "alone.zip"
    manifest = export(policy, path, rows=replace(rows, predictions=rows.predictions[:0]))
    assert [*manifest["inputs"]] == ["observations"]
    held = contents(path)
    assert set(held) == {MANIFEST, *MEMBERS} - {"scores.onnx"} == set(manifest["sha256"])
    assert [*np.load(io.BytesIO(held["golden.npz"]))] == ["observations", "actions"]
    assert verify(path) == {"ok": True, "max_abs_diff": verify(path)["max_abs_diff"]}
    (actions,) = onnxruntime.InferenceSession(held["policy.onnx"]).run(
        None, {"observations": rows.observations}
    )
    np.testing.assert_allclose(actions, policy.act(rows.observations), atol=1e-6)


def test_clipped_actions_stay_in_the_bounds_around_the_baseline(policy, rows, tmp_path):
    wide = FusionDimension(prediction="click", kind="pow", low=-1, high=1)  # the pow is the action itself
    fusion = FUSION.model_copy(update={"dimensions": (wide, *FUSION.dimensions[1:])})
    policy, rows = replace(policy, fusion=fusion), replace(rows, fusion=fusion)
    baseline = Policy.baseline(fusion, FEATURES, policy.numeric_mask)
    clip = Clip(baseline, BoundsPlan.symmetric(HALF_WIDTH, 4))
    manifest = export(policy, tmp_path / "clipped.zip", rows=rows, clip=clip)
    assert manifest["clipped_to_bounds"] is True and manifest["clip_bounds"]["upper"] == [HALF_WIDTH] * 4
    assert verify(tmp_path / "clipped.zip")["ok"]
    session = onnxruntime.InferenceSession(contents(tmp_path / "clipped.zip")["policy.onnx"])
    (actions,) = session.run(None, {"observations": rows.observations})
    expected = policy.act(rows.observations).clip(-HALF_WIDTH, HALF_WIDTH)
    np.testing.assert_allclose(actions, expected, atol=1e-6)
    assert np.abs(expected).max() == pytest.approx(HALF_WIDTH), "the clip must have had something to do"
    (told,) = manifest["negative_pows"]
    assert (told["prediction"], told["share"]) == ("click", pytest.approx((expected[:, 0] < 0).mean()))
    assert told["lowest"] == pytest.approx(min(expected[:, 0])) and told["share"] > 0, (
        "as it is served, in its bounds"
    )


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


def mutants_of_bundles(bundle: Path, folder: Path, first: int, n: int) -> int:
    """Returns how many of `n` mutants were refused; what others hold is what was exported, or was hashed anew."""
    members, path, refused = contents(bundle), folder / "mutant.zip", 0
    for seed in range(first, first + n):
        generator = np.random.default_rng(seed)
        name = mutants.some(generator, sorted(members))
        is_hashed = seed % 3 == 2 and name != MANIFEST
        if seed % 3:
            changed = members | {name: mutants.of_bytes(members[name], generator)}
            path.write_bytes(raw_zip(as_if_exported(changed) if is_hashed else changed))
        else:
            path.write_bytes(mutants.of_bytes(bundle.read_bytes(), generator))
        began, reason = time.monotonic(), ""
        try:
            verify(path)
        except Refusal as refusal:
            reason, refused = str(refusal), refused + 1
        assert time.monotonic() - began < 10, seed
        assert path.name in reason if reason else is_hashed or contents(path) == members, seed
        assert list(folder.iterdir()) == [path], seed
    return refused


def test_mutants_of_a_bundle_are_refused_or_are_what_was_exported(bundle, tmp_path):
    assert mutants_of_bundles(bundle, tmp_path, 0, 12) >= 8


@pytest.mark.slow
def test_500_mutants_of_a_bundle_are_refused_or_are_what_was_exported(bundle, tmp_path):
    refused = mutants_of_bundles(bundle, tmp_path, 1_000, 500)
    print(f"500 tried: {refused} refused")
    assert refused >= 300
