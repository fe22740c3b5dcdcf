"""The house: who may import whom, held by reading every import statement."""

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("spec", "disk", "sealed", "permissions"),
    (
        "workspace",
        "registry",
        "registry_tables",
        "registry_versions",
        "fusion",
        "reward",
        "observation",
    ),
    ("exploration",),
    ("logs",),
    ("environments",),
    ("policies",),
    ("evaluation",),
    ("learning",),
    ("algos",),
    ("learning.best_step", "learning.training"),
    ("release",),
    ("study",),
    ("runs",),
    ("questions",),
    ("work",),
    ("dashboard",),
    ("serving",),
    ("commands", "cli", "__main__", "__init__"),
)
"""Rooms of the engine from the ground up: a file imports from its own layer and those before it.

A file that is named stands elsewhere than its room: what trains any method knows them all, and they share the rest.
"""
LONGEST_FUNCTION = 60

ENGINE = sorted((ROOT / "mtf_engine").rglob("*.py"))
PAGES = sorted((ROOT / "pages").rglob("*.py"))
SHARED = [path for path in PAGES if path.parent.name == "shared"]
SECTIONS = [path for path in PAGES if path not in SHARED]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> set[str]:
    """Returns every module that `path` imports, at the top or inside a function; types alone do not count."""
    tree = tree_of(path)
    types_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return {name for node in ast.walk(tree) if node not in types_only for name in _imported(node)}


def _imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names):
            yield from (f"{module}.{alias.name}" for alias in names)


def module_of(path: Path) -> str:
    """Returns the dotted name of a file, without its package's own `__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in [*ENGINE, *PAGES]}


def files_behind(imports: set[str]) -> set[str]:
    """Returns the files of the house behind imports, by dotted name: a module, or what is imported from one."""
    found = (name if name in MODULES else name.rpartition(".")[0] for name in imports)
    return {name for name in found if name in MODULES}


def layer_of(module: str) -> int:
    """Returns the layer of a file of the engine: its own where it is named, else that of its room."""
    _, *rest = module.split(".")
    names = (".".join(rest[:2]), rest[0]) if rest else ("__init__",)
    return next(i for name in names for i, rooms in enumerate(LAYERS) if name in rooms)


def wrong(paths: Iterable[Path], told: Callable[[Path], Iterable[object] | bool]) -> dict[str, object]:
    """Returns what is `told` to be wrong with each file, by its name: one test for all files, which are hundreds."""
    return {name_of(path): found for path in paths if (found := told(path))}


def test_the_engine_imports_downwards():
    def above(path):
        own = layer_of(module_of(path))
        return {
            name
            for name in files_behind(imports_of(path)) - {"mtf_engine"}
            if name.startswith("mtf_engine") and layer_of(name) > own
        }

    assert not wrong(ENGINE, above), "a file imports what lies above it"


def test_no_file_is_behind_itself():
    """Types alone may look back; what is imported, at the top or inside a function, may not."""
    behind = {name: files_behind(imports_of(path)) - {name} for name, path in MODULES.items()}
    tuple(TopologicalSorter(behind).static_order())  # a CycleError names the files


def test_every_file_is_imported_by_another():
    """A kind of run, and a revision of the registry, is found where it lies; what a benchmark imports is measured."""
    users = [*MODULES.values(), ROOT / "app.py", *(ROOT / "benchmarks").glob("*.py")]
    behind = set().union(*(files_behind(imports_of(path)) - {module_of(path)} for path in users))
    engine = {module_of(path) for path in ENGINE if path.name not in ("__init__.py", "__main__.py")}
    found = ("mtf_engine.work.", "mtf_engine.registry_versions.")
    assert not {name for name in engine - behind if not name.startswith(found)}


def test_the_engine_knows_no_dashboard():
    def foreign(path):
        found = {name for name in imports_of(path) if name.split(".")[0] in ("streamlit", "pages", "plotly")}
        served = {"streamlit.App", "streamlit.runtime.pages_manager.PagesManager"}
        return found - served if path.name == "dashboard.py" else found

    assert not wrong(ENGINE, foreign)


def test_what_is_slow_to_load_waits_until_it_is_called():
    """`scipy.stats` takes a second of every worker that loads it; `scipy.special` has the functions alone."""

    def slow(path):
        at_the_top = {name for node in tree_of(path).body for name in _imported(node)}
        return {name for name in at_the_top if name.startswith("scipy.stats")}

    assert not wrong([*ENGINE, *PAGES], slow)


def test_no_algorithm_imports_another():
    def others(path):
        return {name for name in imports_of(path) if name.startswith("mtf_engine.algos")}

    algorithms = sorted((ROOT / "mtf_engine/algos").glob("[!_]*.py"))
    assert algorithms and not wrong(algorithms, others)


def test_pages_act_through_the_engine_alone():
    def past_it(path):
        behind = ("duckdb", "torch", "sqlalchemy", "sqlite3")
        return {name for name in imports_of(path) if name.split(".")[0] in behind}

    assert not wrong([ROOT / "app.py", *PAGES], past_it)


def test_what_a_page_imports_lies_beside_it_or_is_shared():
    """A file whose name begins with `_` helps the pages of its own folder alone."""

    def foreign(path):
        own = f"pages.{path.parent.name}._"
        return {
            name
            for name in files_behind(imports_of(path))
            if name.startswith("pages.") and not name.startswith(("pages.shared.", own))
        }

    assert not wrong(PAGES, foreign)


def test_what_lies_in_shared_serves_several_files():
    behind = [files_behind(imports_of(path)) for path in [ROOT / "app.py", *PAGES]]
    served = {module_of(path): sum(module_of(path) in names for names in behind) for path in SHARED}
    assert not [name for name, n in served.items() if n < 2]


def test_loaders_alone_cache():
    def caches(path):
        return "st.cache_" in path.read_text() and path.name != "loaders.py"

    assert not wrong([ROOT / "app.py", *PAGES], caches)


def test_no_page_lies_directly_under_pages():
    """Streamlit would take it for a page of its own and show it without the app's frame."""
    assert not list((ROOT / "pages").glob("*.py"))


def test_functions_fit_on_a_screen():
    def long(path):
        functions = (
            n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        return [(f.name, f.lineno) for f in functions if f.end_lineno - f.lineno >= LONGEST_FUNCTION]

    assert not wrong([*ENGINE, *PAGES], long)


def test_how_long_a_test_waits_is_said_in_one_place():
    """Seconds of its own would make it fail where the machine is busy; `tests/waiting.py` has enough for all."""

    def waits(path):
        return path.name != Path(__file__).name and "time.monotonic() +" in path.read_text()

    assert not wrong(sorted((ROOT / "tests").glob("test_*.py")), waits)


def test_what_a_table_does_not_know_is_blank_and_not_a_grey_none():
    def grey(path):
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        tables = (
            call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "dataframe"
        )
        return [call.lineno for call in tables if "placeholder" not in [word.arg for word in call.keywords]]

    assert not wrong(PAGES, grey)
