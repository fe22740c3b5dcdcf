"""What installs is what was tested: the locks hold the whole tree, and a wheel works where no checkout is."""

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from playwright.sync_api import expect

import mtf_engine
from docs.versions import declared, pinned
from tests.browsing import Server, Tab
from tests.fixtures.logs import clean, write
from tests.titles import TITLES

ROOT = Path(__file__).parent.parent
LOCKS = {"requirements.txt": (), "requirements-dev.txt": ("dev",)}
CUDA = re.compile("nvidia-|cuda-|triton$")
"""What PyTorch's CUDA build asks for by itself."""


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_pyproject_asks_for_and_nothing_else(lock: str) -> None:
    wanted = {canonicalize_name(r.name): r.specifier for r in declared(*LOCKS[lock])}
    versions = pinned(ROOT / lock)
    assert {name for name, specifier in wanted.items() if versions.get(name) not in specifier} == set()
    text = (ROOT / lock).read_text()
    asked = re.findall(
        r"^([\w.-]+)==.*(?:\n +#.*)*?\n +# .*mtf-engine \(pyproject\.toml\)", text, re.MULTILINE
    )
    assert {canonicalize_name(name) for name in asked} == set(wanted), "run `make lock`"


@pytest.mark.locked
@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_installed_is_what_is_locked(lock: str) -> None:
    versions = pinned(ROOT / lock)
    installed = {name: _installed(name) for name in versions}
    assert {n: v for n, v in installed.items() if v is None or v.partition("+")[0] != versions[n]} == {}
    missing = {name for name in _tree(LOCKS[lock]) if name not in versions and not CUDA.match(name)}
    assert missing == set(), "run `make lock`"


def test_an_audit_says_what_is_vulnerable_what_was_left_out_and_whether_there_was_one():
    verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]
    whole = {"name": "numpy", "version": "2.4.6", "vulns": []}
    holed = {"name": "jinja2", "version": "2.4", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.4.1"]}]}
    unknown = {"name": "own", "skip_reason": "not found"}
    assert verdict([whole]) == (["ONLINE: 1 packages audited, 0 problems"], 0)
    told, code = verdict([whole, holed, unknown])
    assert told[:2] == ["jinja2 2.4: PYSEC-1, mended in 2.4.1", "own: not audited: not found"] and code == 1
    for nothing in ([], [unknown, unknown]):
        told, code = verdict(nothing)
        assert "OFFLINE" in told[-1] and code is None


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _tree(extras: tuple[str, ...]) -> set[str]:
    """Returns every package that what is installed here asks for, one after the other."""
    found: set[str] = set()
    open_ends = declared(*extras)
    while open_ends:
        requirement = open_ends.pop()
        name = canonicalize_name(requirement.name)
        if name in found or _installed(name) is None:
            continue
        found.add(name)
        wanted = ({"extra": extra} for extra in ("", *requirement.extras))
        environments = list(wanted)
        for inner in map(Requirement, metadata.requires(name) or ()):
            if inner.marker is None or any(inner.marker.evaluate(e) for e in environments):
                open_ends.append(inner)
    return found


def test_the_version_has_one_place() -> None:
    assert metadata.version("mtf_engine") == mtf_engine.__version__
    assert mtf_engine.__version__ not in (ROOT / "pyproject.toml").read_text().partition("dependencies")[0]
    printed = subprocess.run(
        [Path(sys.executable).with_name("mtf"), "--version"], capture_output=True, text=True
    )
    assert printed.stdout == f"mtf {mtf_engine.__version__}\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def new_environment(wheel: Path, folder: Path, *, alone: bool) -> Path:
    """Returns the folder of commands of a virtual environment that the wheel is installed in.

    `alone`, everything that the wheel asks for is installed there too; else what is installed here is lent to it,
    but for this checkout.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", wheel]
    if alone:
        pip += ["--constraint", ROOT / "requirements.txt"]
    else:
        pip += ["--no-deps"]
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "lent.pth").write_text(str(metadata.distribution("numpy").locate_file("")))
    subprocess.run(pip, check=True, cwd=folder)
    return folder / "bin"


def walk(bin: Path, folder: Path, tab: Tab, to: str = "a bundle") -> None:
    """Takes a small log to a dataset or a bundle with the installed `mtf`, then opens two pages of its dashboard."""

    def mtf(*words: object) -> Any:
        command = [bin / "mtf", "--workspace", workspace, "--json", *map(str, words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    workspace, bundle = folder / "workspace", folder / "policy.zip"
    log = write(clean(n_users=30), folder / "log")
    mtf("dataset", "import", log, "--mapping", log / "mapping.yaml", "--name", "mine")
    if to == "a bundle":
        bring_to_a_bundle(mtf, bundle)
    server = Server(workspace, folder / "server.log", mtf=[bin / "mtf"], cwd=folder)
    try:
        for page in ("datasets", "runs"):
            expect(tab.open(f"{server.url}/{page}").locator("h1")).to_have_text(TITLES[page])
            tab.check()
    finally:
        server.stop()


def bring_to_a_bundle(mtf: Callable[..., Any], bundle: Path) -> None:
    run = mtf("train", "mine", "--algo", "integrated_rl", "--preset", "demo", "--set", "n_steps=20")["run_id"]
    scores = mtf("evaluate", run, "baseline", "--on", "mine")
    assert {row["run_id"] for row in scores if not row["floor"]} == {run, "baseline"}
    mtf("export", run, "--to", bundle)
    assert mtf("verify", bundle)["ok"]


@pytest.mark.slow
@pytest.mark.browser
def test_a_wheel_works_where_no_checkout_is(wheel: Path, tmp_path: Path, tab: Tab) -> None:
    walk(new_environment(wheel, tmp_path / "venv", alone=False), tmp_path, tab, to="a dataset")


@pytest.mark.slow
@pytest.mark.browser
def test_a_wheel_brings_all_that_it_needs(wheel: Path, tmp_path: Path, tab: Tab) -> None:
    walk(new_environment(wheel, tmp_path / "venv", alone=True), tmp_path, tab)
