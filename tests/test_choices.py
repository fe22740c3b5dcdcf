"""Choices are kept by what they mean: no page takes up a choice of another that means something else."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.test_pages import checked, filled, opened  # noqa: F401 (a fixture)

ROOT = Path(__file__).parent.parent
WIDGETS = {
    "number_input", "slider", "select_slider", "text_input", "text_area", "toggle", "checkbox", "radio", "selectbox",
    "multiselect", "segmented_control", "pills",
}  # fmt: skip
SHARED = {
    "algo": "the method that is trained",
    "control": "users kept at the baseline",
    "dataset": "the log in focus",
    "env": "the users that are met",
    "on": "the log that policies are scored on",
    "run": "the run in focus, where it is of a kind that the page shows",
    "segment": "the user segment in focus",
    "segments": "segments are judged by themselves",
    "sigma": "of Gaussian noise",
    "x": "the dimension in focus",
    "y": "the dimension beside it",
}
"""Choices that several pages share, and what each means on all of them."""


def keys_of(path: Path) -> set[str]:
    """Returns the names under which a file keeps the choices of its widgets."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("choice", "choices") and ast.unparse(node.func.value) == "links":
                found |= {key.value for key in node.args[2:3] if isinstance(key, ast.Constant)}
            if node.func.attr in WIDGETS:
                found |= {
                    k.value.value
                    for k in node.keywords
                    if k.arg == "key" and isinstance(k.value, ast.Constant)
                }
    return found


def test_a_choice_that_several_files_keep_means_the_same_in_all():
    files = defaultdict(set)
    for path in (ROOT / "pages").rglob("*.py"):
        for key in keys_of(path):
            files[key].add(path.name)
    assert {key for key, paths in files.items() if len(paths) > 1} == set(SHARED)


@pytest.mark.parametrize(
    ("first", "key", "value", "second", "label"),
    [
        ("bounds", "requests_a_session", 6.0, "collect", "Requests"),
        ("collect", "collect_seed", 7, "start", "Seed"),
        ("bounds", "samples_a_cell", 50, "cost", "Places shown"),
    ],
)
def test_a_number_of_one_page_is_not_taken_for_another_of_the_next(filled, first, key, value, second, label):  # noqa: F811
    fresh = widget(opened(second), label)
    app = opened(first)
    app.number_input(key=key).set_value(value)
    checked(app.run())
    app.switch_page(
        "pages/train/start.py"
        if second == "start"
        else "pages/explore/bounds.py"
        if second == "cost"
        else "pages/explore/collect.py"
    )
    app.query_params.clear()
    if second == "cost":
        app.query_params["tab"] = "Cost"
    assert widget(checked(app.run()), label).value == fresh.value


def widget(app, label):
    return next(one for one in [*app.number_input, *app.text_input] if one.label.startswith(label))
