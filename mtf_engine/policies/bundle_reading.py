"""Reading a bundle that anybody may have made: every size is known before anything is read, every byte is hashed.

Nothing heavy is imported at the top, so that a bundle is checked where there is no PyTorch.
"""

import hashlib
import io
import json
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mtf_engine.policies import answering

SCHEMA_VERSION = 2
SCORES, GOLDEN, MANIFEST = "scores.onnx", "golden.npz", "manifest.json"
MEMBERS = ("policy.onnx", SCORES, "policy.safetensors", GOLDEN)
"""All but the scores are in every bundle; a policy of what shows no candidates has nothing to score."""
LARGEST = dict.fromkeys(MEMBERS, 64 << 20) | {MANIFEST: 4 << 20}
"""Bytes that a member may have once it is inflated."""
MOST_INFLATED = 1_000
"""Bytes that one of the archive may become: deflate reaches 1,032 on zeros, and no policy is made of those."""
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SECONDS = 30.0
"""Wall time in which the graphs have to answer."""
GOLDEN_ARRAYS = ("observations", "actions", "predictions", "log_final_scores", "item_features")


def read(path: Path | io.BytesIO, name: str) -> dict[str, bytes]:
    """Returns the files of the bundle `name`, its manifest too, each with the hash that this gives it; else a Refusal.

    The manifest's own hash is of all of it. What is in the archive beside them is refused, too.
    """
    try:
        with zipfile.ZipFile(path) as file:
            held = _held(file, name)
            members = {member: file.read(member) for member in held}
        manifest = json.loads(members[MANIFEST])
    except (
        OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, ValueError,
    ) as error:  # fmt: skip
        raise refusal(
            f"{name} cannot be read as a bundle: {_short(error)}; export the policy again"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise refusal(f"{name} is no bundle of version {SCHEMA_VERSION}; export the policy again")
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict):
        raise refusal(f"{name} is no bundle: its manifest has no hashes; export the policy again")
    found = {member: hashlib.sha256(content).hexdigest() for member, content in members.items()}
    found |= {MANIFEST: manifest_hash(manifest)}
    if not set(found) <= set(hashes):
        raise refusal(
            f"{name} is no bundle: its manifest has no hash of a file in it; export the policy again"
        )
    if lacking := sorted(set(hashes) - set(found)):
        raise refusal(f"{name} is no bundle: {lacking[0][:100]} is missing; export the policy again")
    for member, digest in found.items():
        if hashes[member] != digest:
            raise refusal(f"{member} in {name} is not the one that was exported; export the policy again")
    if not _is_safetensors(members["policy.safetensors"]):
        raise refusal(f"policy.safetensors in {name} holds no weights; export the policy again")
    return members


def head_of(content: bytes) -> dict[str, Any]:
    """Returns the head of a safetensors file, its tensors by name and `__metadata__`; else a ValueError."""
    start = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:start]) if start <= len(content) else None
    if not isinstance(head, dict):
        raise ValueError("it has no head")
    return head


def _is_safetensors(content: bytes) -> bool:
    """Returns whether the head of a safetensors file tells of as many bytes as follow it."""
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        ends = [of["data_offsets"][1] for name, of in head_of(content).items() if name != "__metadata__"]
        return bool(ends) and max(ends) == len(content) - start
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """Returns the hash of a manifest, all of it but this hash itself."""
    others = {k: v for k, v in dict(manifest.get("sha256") or {}).items() if k != MANIFEST}
    text = json.dumps({**manifest, "sha256": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _held(file: zipfile.ZipFile, name: str) -> list[str]:
    """Returns the names in an archive, once all are a bundle's, each there once, and no larger than it may be."""
    infos = file.infolist()
    names = [info.filename for info in infos]
    lacking = [m for m in (*MEMBERS, MANIFEST) if m not in names and m != SCORES]
    if lacking:
        raise refusal(f"{name} is no bundle: {lacking[0]} is missing; export the policy again")
    for info in infos:
        told = info.filename[:100]
        if info.filename not in LARGEST or names.count(info.filename) > 1:
            raise refusal(f"{name} is no bundle: {told!r} does not belong there; export the policy again")
        most = min(LARGEST[info.filename], MOST_INFLATED * max(info.compress_size, 1))
        if info.file_size > most:
            raise refusal(f"{name} is no bundle: {told} is larger than it can be; export the policy again")
        if info.compress_type not in PACKED:
            raise refusal(f"{name} is no bundle: {told} is packed by what no export packs with")
        if info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16):
            raise refusal(f"{name} is no bundle: {told} is encrypted, or a link; export the policy again")
    return names


def arrays(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of golden.npz, float32 each; a Refusal where one is not, or not as large as it says."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            infos = {info.filename: info for info in file.infolist()}
            if not set(infos) <= {f"{one}.npy" for one in GOLDEN_ARRAYS} or len(infos) != len(
                file.infolist()
            ):
                raise ValueError("it holds other arrays")
            if any(info.compress_type not in PACKED for info in infos.values()):
                raise ValueError("its arrays are packed by what no export packs with")
            if sum(info.file_size for info in infos.values()) > LARGEST[GOLDEN]:
                raise ValueError("its arrays are larger than they can be")
            return {one.removesuffix(".npy"): _array(file.read(one)) for one in infos}
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        ValueError,
        SyntaxError,
    ) as error:
        raise refusal(
            f"{GOLDEN} in {name} cannot be read: {_short(error)}; export the policy again"
        ) from None


def _array(content: bytes) -> np.ndarray:
    """Returns the array in an .npy file, once its header is known to tell of as many bytes as there are."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    n_values = 1
    for n in shape:
        n_values *= n
    if dtype != np.float32 or n_values * 4 != len(content) - file.tell() or n_values < 0:
        raise ValueError("an array is not the float32 that it says")
    return np.load(io.BytesIO(content), allow_pickle=False)


def answers(
    graphs: Mapping[str, bytes], asked: Iterable[Mapping[str, np.ndarray]], name: str
) -> list[dict[str, np.ndarray]]:
    """Returns what each graph answers to each question, by the graph's name; a Refusal where one cannot.

    They run in a process of their own, which may take `answering.CPU_SECONDS` and `answering.MEMORY_MB`.
    """
    asked = list(asked)
    with TemporaryDirectory() as temp:
        folder = Path(temp)
        for graph, content in graphs.items():
            (folder / graph).write_bytes(content)
        questions = {f"{i}/{key}": value for i, one in enumerate(asked) for key, value in one.items()}
        np.savez(folder / "asked.npz", allow_pickle=False, **questions)
        command = [sys.executable, "-I", str(Path(answering.__file__)), str(folder)]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise refusal(f"a graph in {name} does not come to an end; export the policy again") from None
        if done.returncode:
            problem = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it takes too much"]
            stopped = f"it takes more than {answering.CPU_SECONDS} s or {answering.MEMORY_MB} MB"
            told = stopped if done.returncode < 0 else problem[0][:200]
            raise refusal(f"a graph in {name} cannot be run: {told}; export the policy again")
        with np.load(folder / "answers.npz", allow_pickle=False) as found:
            return [{graph: found[f"{graph}/{i}"] for graph in graphs} for i in range(len(asked))]


def refusal(sentence: str) -> Exception:
    """Returns a Refusal; its module is not loaded by who only checks a good bundle."""
    from mtf_engine.spec import Refusal

    return Refusal(sentence)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
