"""Imports of policies: a bundle from another machine becomes a policy that stands wherever a training's does."""

from pathlib import Path
from typing import Any

from pydantic import Field

from mtf_engine import sealed
from mtf_engine.policies.bundle_reading import LARGEST
from mtf_engine.runs import files
from mtf_engine.runs.executor import submit
from mtf_engine.runs.keeping import LONGEST_NAME
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Spec, Threads
from mtf_engine.workspace import Workspace

SHOWN = ("features", "fusion", "evaluation", "approved", "approval", "purpose")
"""Of the manifest: what whoever exported it says, kept to be shown."""


class ImportPolicyConfig(Spec):
    """Take the policy out of the bundle that lies in the run's folder."""

    sha256: str = Field(description="of the bundle")
    source: str = Field(description="what the bundle's file was called; a label, never a path")
    n_threads: Threads = 1


def read_bundle_file(path: Path) -> bytes:
    """Returns the content of a bundle's file; a Refusal where there is none, or it is larger than a bundle can be."""
    try:
        if path.stat().st_size > sum(LARGEST.values()):
            raise Refusal(f"{path.name} is larger than a bundle can be; export the policy again")
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}; name the bundle of an export") from None


def submit_import_policy(workspace: Workspace, content: bytes, source: str, name: str | None = None) -> str:
    """Returns the id of the run that imports the policy of the bundle `content`, whose file was called `source`.

    It is read whole before anything is written: a bundle that is refused leaves the workspace as it was.
    """
    from mtf_engine.policies.importing import import_bundle

    if len(content) > sum(LARGEST.values()):
        raise Refusal(f"{source} is larger than a bundle can be; export the policy again")
    found = import_bundle(content, source)
    config = ImportPolicyConfig(sha256=found.sha256, source=source)
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=_plain(name or "") or _plain(Path(source).stem),
        algo=found.policy.info["algo"],
        kept={files.BUNDLE: content},
    )


def _plain(name: str) -> str:
    """Returns a name that people typed, or that a file has, on one line and without what a terminal obeys."""
    return " ".join("".join(one if one.isprintable() else " " for one in name).split())[:LONGEST_NAME]


def import_policy(job: Job, config: ImportPolicyConfig) -> dict[str, Any]:
    """Writes the policy of the bundle in the run's folder beside it, with the rows that an export of it needs."""
    from mtf_engine.policies.importing import import_bundle

    content = sealed.read(job.folder / files.BUNDLE, "import the bundle again")
    found = import_bundle(content, config.source)
    found.examples.save(job.folder / files.EXAMPLES)
    sealed.write(job.folder / files.POLICY, found.policy.to_bytes())
    told = {name: found.manifest.get(name) for name in SHOWN}
    return {
        "sha256": found.sha256,
        "origin": found.policy.info["told"],
        "by": job.run.person,
        "manifest": told,
    }


KIND = RunKind("policy", ImportPolicyConfig, import_policy)
