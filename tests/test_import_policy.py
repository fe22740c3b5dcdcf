"""Policies from another machine: a good bundle is a policy like any other, and of a broken one nothing is left."""

import hashlib
import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load, save

from mtf_engine.policies.bundle import MANIFEST
from mtf_engine.policies.heads import KEY
from mtf_engine.policies.importing import import_bundle
from mtf_engine.runs import files
from mtf_engine.runs.storage import load_policy
from mtf_engine.spec import Refusal
from mtf_engine.work.import_policy import submit_import_policy
from mtf_engine.workspace import Workspace
from tests.test_bundle import EVIL, as_if_exported, contents, npz, raw_zip
from tests.test_cli import Shell, filled  # noqa: F401 (a fixture)
from tests.test_pages import button, checked, opened, texts

Members = dict[str, bytes]


def weights(change: Callable[[dict, dict], None]) -> Callable[[Members], bytes]:
    """Returns what changes the head and the tensors of a bundle's weights, and hashes it as whoever exports does."""

    def made(members: Members) -> bytes:
        content = members["policy.safetensors"]
        size = int.from_bytes(content[:8], "little")
        head = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])
        tensors = load(content)
        change(head, tensors)
        return raw_zip(
            as_if_exported(members | {"policy.safetensors": save(tensors, {KEY: json.dumps(head)})})
        )

    return made


def golden(change: Callable[[dict], None]) -> Callable[[Members], bytes]:
    def made(members: Members) -> bytes:
        arrays = dict(np.load(io.BytesIO(members["golden.npz"])))
        change(arrays)
        return raw_zip(as_if_exported(members | {"golden.npz": npz(**arrays)}))

    return made


def manifest(**told: object) -> Callable[[Members], bytes]:
    def made(members: Members) -> bytes:
        return raw_zip(
            as_if_exported(members | {MANIFEST: json.dumps(json.loads(members[MANIFEST]) | told).encode()})
        )

    return made


def first(tensors: dict) -> str:
    return next(name for name, tensor in tensors.items() if tensor.ndim == 2)


def scaled(head: dict, tensors: dict) -> None:
    tensors[first(tensors)] *= 1.5


def not_finite(head: dict, tensors: dict) -> None:
    tensors[first(tensors)][0, 0] = torch.nan


def empty(arrays: dict) -> None:
    arrays.update({name: array[:0] for name, array in arrays.items()})


HELD: dict[str, tuple[Callable[[Members], bytes], str]] = {
    "other weights": (weights(scaled), "answer otherwise than its examples say"),
    "weights that are not finite": (weights(not_finite), "are not finite"),
    "weights of another shape": (weights(lambda h, t: t.update({first(t): t[first(t)][:1]})), "in another shape"),
    "a weight less": (weights(lambda h, t: t.pop(first(t))), "lack"),
    "a weight more": (weights(lambda h, t: t.update(more=torch.zeros(1))), "hold more, which its network has not"),
    "weights of halves": (weights(lambda h, t: t.update({first(t): t[first(t)].half()})), "in another shape"),
    "a network that is not known": (weights(lambda h, t: h.update(kind="system")), "no network of this version"),
    "a vast network": (weights(lambda h, t: h["architecture"].update(hidden=[10**9, 10**9])), "larger than a policy"),
    "a deep network": (weights(lambda h, t: h["architecture"].update(hidden=[1] * 10_000)), "too great a length"),
    "another argument": (weights(lambda h, t: h["architecture"].update(run="rm")), "unexpected keyword"),
    "fewer features": (weights(lambda h, t: h["feature_names"].pop()), "features are not those"),
    "a feature twice": (weights(lambda h, t: h.update(feature_names=h["feature_names"][:1] * 4)), "features are not"),
    "another fusion": (weights(lambda h, t: h["fusion"]["dimensions"][0].update(high=9)), "another policy"),
    "no fusion": (weights(lambda h, t: h.update(fusion=[])), "no policy that is known here"),
    "other features in its manifest": (manifest(features=["a", "b", "c", "d"]), "another policy than its weights"),
    "held in bounds": (manifest(clipped_to_bounds=True), "export it without --clip"),
    "no examples": (golden(empty), "not of its features"),
    "other features": (golden(lambda a: a.update(observations=a["observations"][:, :2])), "not of its features"),
    "other answers": (golden(lambda a: a.update(actions=a["actions"] + np.float32(1e-3))), "answer otherwise"),
    "other scores": (golden(lambda a: a.update(log_final_scores=a["log_final_scores"] * 2)), "answer otherwise"),
    "an upload that is text": (lambda m: b"weights", "cannot be read as a bundle"),
}  # fmt: skip
REASONS = {
    "another fusion": "is not the one",
    "an endless graph": "loops or branches",
    "no graph": "graph cannot be read",
    "a graph that takes more memory than it may": "invalid dimensions",  # it takes other features than this policy
}
"""What an import says that looks at more than `verify` does."""


def tree(folder: Path) -> dict[str, str]:
    """Returns the hash of every file below a folder."""
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def exported(small_workspace) -> Path:
    """A bundle of a training."""
    (run,) = small_workspace.registry.runs(kind="export")
    return small_workspace.run_dir(run.id) / files.BUNDLE


def test_a_bundle_that_holds_another_policy_than_it_says_is_refused(exported, tmp_path):
    workspace, members = Workspace(tmp_path / "workspace"), contents(exported)
    for make, reason in HELD.values():
        refused(workspace, make(members), reason)


def refused(workspace: Workspace, content: bytes, reason: str) -> None:
    before = tree(workspace.path)
    with pytest.raises(Refusal, match=reason):
        submit_import_policy(workspace, content, "evil.zip")
    assert tree(workspace.path) == before


@pytest.mark.slow
def test_every_broken_bundle_is_refused_in_under_a_second_and_nothing_is_written(exported, tmp_path, capsys):
    workspace = Workspace(tmp_path / "workspace")
    broken = [*EVIL.items(), *HELD.items()]
    taken, waited = {}, {}
    for name, (make, reason) in broken:
        content = make(contents(exported))
        began, worked = time.perf_counter(), processor_seconds()
        refused(workspace, content, f"{REASONS.get(name, reason)}|{reason}|no policy")
        taken[name], waited[name] = processor_seconds() - worked, time.perf_counter() - began
    with capsys.disabled():
        for what, of in (("processor time", taken), ("waiting", waited)):
            print(
                f"\n{len(broken)} refused, the longest {what} {max(of.values()):.2f} s: {max(of, key=of.get)}"
            )
    assert len(broken) >= 30 and max(taken.values()) < 1, taken


def processor_seconds() -> float:
    """Returns what this process and those that it waited for have taken, which other work hardly changes."""
    return sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def test_a_good_bundle_is_the_same_policy_and_says_where_it_is_from(small_workspace, exported, filled):  # noqa: F811
    (trained,) = small_workspace.registry.runs(kind="train")
    told = filled("import-policy", str(exported), "--name", "theirs")
    assert told["run_id"].startswith("policy-") and told["name"] == "theirs"
    assert filled("import-policy", str(exported), "--name", " \x1b[31m ")["name"] == "[31m"
    assert filled("import-policy", str(exported), "--name", "  ")["name"] == exported.stem
    assert told["sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert told["origin"]["run_id"] == trained.id and told["manifest"]["approved"] is False
    ours, theirs = (load_policy(filled.workspace, run_id) for run_id in (trained.id, told["run_id"]))
    observations = np.load(io.BytesIO(contents(exported)["golden.npz"]))["observations"]
    np.testing.assert_array_equal(ours.act(observations), theirs.act(observations))
    shadowed = filled("shadow", told["run_id"], "--against", trained.id, "--on", "test")
    assert shadowed["overlap"]["value"] == 1 and not shadowed["requests"]
    assert "has one policy" in filled.refused("export", f"{told['run_id']}@best", "--to", "policy.zip")


@pytest.mark.slow
def test_an_imported_policy_stands_wherever_one_is_named(small_workspace, exported, filled, tmp_path):  # noqa: F811
    """Compared, exported again, explored around, A/B tested: the same scores to 1e-6."""
    (trained,) = small_workspace.registry.runs(kind="train")
    run_id = filled("import-policy", str(exported))["run_id"]
    theirs, ours = filled("evaluate", run_id, trained.id, "--on", "test", "--no-floors")
    assert theirs["weighted_gauc"] == pytest.approx(ours["weighted_gauc"], abs=1e-6)
    assert "imported" in theirs["differs"][0]
    filled("export", run_id, "--to", str(tmp_path / "again.zip"))
    bundles = (contents(path) for path in (exported, tmp_path / "again.zip"))
    one, other = (dict(np.load(io.BytesIO(of["golden.npz"]))) for of in bundles)
    asked = {name: one[name] for name in ("observations", "predictions")}
    graphs = (contents(path)["scores.onnx"] for path in (exported, tmp_path / "again.zip"))
    before, after = (onnxruntime.InferenceSession(graph).run(None, asked)[0] for graph in graphs)
    np.testing.assert_allclose(after, before, atol=1e-6)
    np.testing.assert_allclose(other["actions"], one["actions"], atol=1e-6)
    around = ("dataset", "collect", "--env", "session", "--explore", "uniform", "--requests", "60")
    collected = filled(*around, "--baseline", run_id)
    assert filled.workspace.dataset(collected["dataset_id"]).meta["baseline"] == run_id
    assert filled("abtest", run_id, "--users", "20")["run_id"]


def test_what_a_strangers_bundle_says_of_itself_names_nothing_here(exported):
    """A module to import, a policy to explore around, a file: texts to be shown, and no more."""
    info = {"algo": "../evil", "env": "gym:os:Evil-v0", "baseline": "train-12345678", "plan": {"lower": [0]}}
    content = weights(lambda head, _: head.update(info=info | {"run_id": "../../x"}))(contents(exported))
    found = import_bundle(content, "named.zip").policy.info
    assert (found["algo"], found["baseline"]) == ("imported", "baseline") and not {"env", "plan"} & set(found)
    assert found["told"]["env"] == "gym:os:Evil-v0" and found["told"]["run_id"] == "../../x"


def test_the_page_takes_a_bundle_and_refuses_another(exported, tmp_path, monkeypatch, in_process):
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "fresh"))
    workspace = Workspace(tmp_path / "fresh")
    app = opened("export")
    app.file_uploader(key="policy_bundle").set_value(("evil.zip", b"no bundle", "application/zip"))
    checked(button(app.run(), "Import the policy").click().run())
    assert "cannot be read as a bundle" in app.error[0].value and not workspace.registry.runs()
    bundle = ("../../theirs.zip", exported.read_bytes(), "application/zip")
    app.file_uploader(key="policy_bundle").set_value(bundle)
    checked(button(app.run(), "Import the policy").click().run())
    (run,) = workspace.registry.runs(kind="policy")
    assert run.name == "theirs" and "import-policy" in texts(app)
