"""Finding runs: what is known of a run, by name, and expressions over it such as `params.eta > 1`.

Names are those of MLflow's search: `params.` before a setting, `metrics.` before what was measured.
"""

import ast
import difflib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mtf_engine.registry import RunRow
from mtf_engine.runs import metrics
from mtf_engine.runs.differences import settings
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

PARAMS, METRICS = "params.", "metrics."
ABOUT = (
    "run_id",
    "kind",
    "state",
    "name",
    "note",
    "tags",
    "dataset",
    "method",
    "seed",
    "group",
    "archived",
    "part",
    "executor",
    "host",
)
FIGURES = ("best_score", "best_step", "step", "n_steps", "seconds", "memory_mb")
LONGEST = 500
"""Characters of an expression."""
EXAMPLE = "params.eta > 1 and metrics.validation_gauc >= 0.7"

Facts = Mapping[str, Any]
"""What is known of one run by name; a name that it lacks is as good as None."""
Holds = Callable[[Facts], bool]
_Value = Callable[[Facts], Any]
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda part, whole: part in whole,
    ast.NotIn: lambda part, whole: part not in whole,
}
_ABSENT_ALLOWED = (ast.Eq, ast.NotEq)


def facts(run: RunRow, dataset: str | None = None, last: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns what is known of a run by name: what it is, its settings, and what was measured.

    `dataset` is the name of its log, `last` the last row of its metrics. Of the settings and of the result those
    are there that are a number, a text or a short list; a name such as `share_outside/click` has `.` for `/`.
    """
    about = (
        *(run.id, run.kind, run.state.value, run.name, run.note, run.tags, dataset or run.dataset_id),
        *(
            run.algo,
            run.seed,
            run.seed_group,
            run.archived,
            run.parent_id is not None,
            run.executor,
            run.host,
        ),
    )
    figures = (run.best_score, run.best_step, run.step, run.n_steps, run.seconds)
    memory = (run.provenance or {}).get("peak_memory_mb")
    known = dict(zip(ABOUT, about, strict=True)) | dict(zip(FIGURES, (*figures, memory), strict=True))
    measured = {name: value for name, value in _flat(run.result or {}) if isinstance(value, int | float)}
    measured |= {name.replace("/", "."): value for name, value in (last or {}).items()}
    return (
        known
        | {PARAMS + name: value for name, value in _flat(settings(run))}
        | {METRICS + name: value for name, value in measured.items()}
    )


def measured_last(workspace: Workspace, run_id: str) -> Mapping[str, Any]:
    """Returns the last row of a run's metrics; none where they are damaged, which is told of the run, not of all."""
    try:
        return metrics.last(workspace.run_dir(run_id))
    except Refusal:
        return {}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    """Yields what the leaves of nested values are called, and what they are; long lists and lists of more are none."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is None or isinstance(value, str | int | float):
            yield before + name.replace(" ", "_"), value
        elif len(value) <= 10 and all(isinstance(one, str | int | float) for one in value):
            yield before + name.replace(" ", "_"), list(value)


def found(
    workspace: Workspace, runs: Sequence[RunRow], where: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns what is called `names` of each of `runs` of which the expression `where` holds, if there is one."""
    datasets = {row.id: row.name for row in workspace.registry.datasets()}
    each = [facts(run, datasets.get(run.dataset_id or ""), measured_last(workspace, run.id)) for run in runs]
    known = {name for one in each for name in one}
    values = {name: _named(name, {*known, *ABOUT, *FIGURES}) for name in names}
    holds = matching(where, known) if where else (lambda _: True)
    return [{name: value(one) for name, value in values.items()} for one in each if holds(one)]


def matching(expression: str, known: Iterable[str]) -> Holds:
    """Returns whether an expression holds of the facts of a run; a Refusal where it cannot be read.

    It is compared with `== != < <= > >= in` and joined by `and`, `or`, `not`. A comparison with what a run lacks
    does not hold, but for `== None` and `!= None`. `known` are the names that any run has; it is an error to ask
    for others. Nothing of it is ever evaluated by Python.
    """
    if len(expression) > LONGEST:
        raise Refusal(f"the expression has {len(expression)} characters; {LONGEST} are the most")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Refusal(f"{expression!r} cannot be read: {_why(expression, error)}") from None
    return _condition(tree, {*known, *ABOUT, *FIGURES})


def _why(expression: str, error: Exception) -> str:
    where = f" near character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
    return f"{getattr(error, 'msg', '') or error}{where}; write it as in {EXAMPLE}"


def _condition(node: ast.expr, known: set[str]) -> Holds:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            parts = [_condition(value, known) for value in values]
            return lambda found: all(part(found) for part in parts)
        case ast.BoolOp(values=values):
            parts = [_condition(value, known) for value in values]
            return lambda found: any(part(found) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            negated = _condition(operand, known)
            return lambda found: not negated(found)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            operands = [_value(one, known) for one in (left, *others)]
            pairs = list(zip(ops, operands, operands[1:], strict=False))
            return lambda found: all(_compared(op, a(found), b(found)) for op, a, b in pairs)
        case ast.Name() | ast.Attribute():
            value = _value(node, known)
            return lambda found: bool(value(found))
    raise Refusal(f"{ast.unparse(node)!r} is no comparison; write it as in {EXAMPLE}")


def _value(node: ast.expr, known: set[str]) -> _Value:
    match node:
        case ast.Constant(value=str() | int() | float() | None):
            return lambda found: node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda found: -number
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            values = [_value(part, known) for part in parts]
            return lambda found: [value(found) for value in values]
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node), known)
    raise Refusal(f"{ast.unparse(node)!r} is neither a name nor a value; write it as in {EXAMPLE}")


def _named(name: str, known: set[str]) -> _Value:
    if name not in known:
        endings = {one.rpartition(".")[2]: one for one in known}
        near = difflib.get_close_matches(name, known, 1) or [
            endings[one] for one in difflib.get_close_matches(name.rpartition(".")[2], endings, 1)
        ]
        hint = f"did you mean {near[0]}?" if near else f"names are {', '.join(ABOUT)}, params.X and metrics.X"
        raise Refusal(f"no run has {name!r}; {hint}")
    return lambda found: found.get(name)


def _compared(op: ast.cmpop, left: Any, right: Any) -> bool:
    """Returns whether a comparison holds: none does of what is missing; a Refusal where the kinds differ."""
    if not isinstance(op, _ABSENT_ALLOWED) and (left is None or right is None):
        return False
    try:
        return _COMPARE[type(op)](left, right)
    except TypeError:
        raise Refusal(
            f"{left!r} cannot be compared with {right!r}: one is a text and one a number; put texts in quotes"
        ) from None
