"""What `table1.py` and `table2.py` share: the comparison behind both, and its figures as markdown.

One comparison serves both scripts: with the same `--workspace` the second prints what the first has made, and a
call that was stopped goes on where it was.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.algos import ALGOS
from mtf_engine.commands.foreground import finish
from mtf_engine.commands.options import parse_seeds, parse_settings
from mtf_engine.environments.names import session_of, world_of
from mtf_engine.environments.replay import ReplayConfig
from mtf_engine.environments.world import DEFAULT_WORLD, names
from mtf_engine.evaluation.deviation import Deviation
from mtf_engine.evaluation.result import EvaluationResult
from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import files
from mtf_engine.study.comparison import Cell, Comparison, Difference, marked
from mtf_engine.study.factorial import Factorial, OverSeeds, gain_split, values_of
from mtf_engine.study.factorial import over_seeds as of_seeds
from mtf_engine.study.paper_tables import BASE, OURS, Row
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.study import submit_compare
from mtf_engine.workspace import Workspace

ROOT = Path(__file__).parents[1]
KUAIRAND = Path(os.environ.get("MTF_KUAIRAND", ROOT / "../shared/data/kuairand"))
RESULTS = ROOT / "docs/results.md"
SESSIONS = {"session": 20_000, "replay": 7_500}
"""Of a dataset, by environment."""
REPLAY = ReplayConfig()
Format = Callable[[float], str]
Told = Callable[[Comparison, Workspace], Iterable[str]]
HALF_WIDTH = 0.15
"""Of the box that dataset 2 explores."""


def arguments(description: str | None, envs: Sequence[str]) -> argparse.Namespace:
    """Returns the options of a script, `sessions` by its environment where none are asked for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", choices=envs, default=envs[0], help="replay: of the KuaiRand folder")
    parser.add_argument("--world", choices=names(), default=DEFAULT_WORLD, help="of synthetic users")
    parser.add_argument("--methods", default="all")
    parser.add_argument("--datasets", default="1,1b,2,3")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--sessions", type=int, help="of each dataset")
    parser.add_argument("--users", type=int, default=10_000, help="of each A/B test")
    parser.add_argument("--reuse", choices=("same-code", "any"), default="same-code", help="stored results")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--n-critics", default="2,4,8,24")
    parser.add_argument("--workspace", type=Path, help="kept, so that a second call does what is missing")
    parser.add_argument("--write", action="store_true", help="put the section into docs/results.md, too")
    options = parser.parse_args()
    options.sessions = options.sessions or SESSIONS[options.env]
    return options


def report(options: argparse.Namespace, title: str, told: Told) -> None:
    """Carries out what is missing of the comparison, and prints the section that `told` makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(options.workspace or folder)
        run = compared(workspace, options)
        found = Comparison.model_validate(run.result)
        section = "\n\n".join(
            [f"## {title}", introduced(workspace, run, found), *filter(None, told(found, workspace))]
        )
    print(section)
    if options.write:
        put(section)


def compared(workspace: Workspace, options: argparse.Namespace) -> RunRow:
    """Returns the completed run of the comparison."""
    run_id = submit_compare(
        workspace,
        methods=tuple(ALGOS) if options.methods == "all" else tuple(options.methods.split(",")),
        preset=options.preset,
        settings=parse_settings(options.set),
        source=kuairand(workspace) if options.env == "replay" else None,
        datasets=tuple(options.datasets.split(",")),
        seeds=parse_seeds(options.seeds),
        env=REPLAY.name if options.env == "replay" else session_of(options.world),
        sessions=options.sessions,
        rounds=True,
        n_critics=tuple(filter(None, options.n_critics.split(","))),
        users=options.users,
        reuse=options.reuse,
    )
    return finish(workspace, run_id)


def kuairand(workspace: Workspace) -> str:
    """Returns the dataset of the KuaiRand folder, imported where it is not yet."""
    known = [row.id for row in workspace.registry.datasets() if row.source == "kuairand"]
    if known:
        return known[0]
    run_id = submit_import(workspace, KUAIRAND, format="kuairand")
    return str(finish(workspace, run_id).dataset_id)


def introduced(workspace: Workspace, run: RunRow, found: Comparison) -> str:
    """Returns what was compared, by which command, how long it took and on what machine."""
    words = [name for name in sys.argv[1:] if name != "--write"]
    if "--workspace" in words:
        del words[words.index("--workspace") : words.index("--workspace") + 2]
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    config, parts = run.config, workspace.registry.runs(RunState.COMPLETED, parent_id=run.id)
    commits = sorted({_commit(part) for part in (run, *parts)})
    longest = max(found.cells, key=lambda cell: (cell.dataset != "rounds", cell.seconds or 0))
    where = (
        f"Synthetic users of the world {world_of(found.env)}."
        if found.synthetic
        else f"Replayed KuaiRand, test days; {REPLAY.n_shown} of {REPLAY.n_candidates} impressions shown."
    )
    return (
        f"`{command}`. {where} {len(config['training'])} methods, {len(config['seeds'])} seeds, "
        f"{config['sessions']:,} sessions a dataset, each method as in its preset "
        f"`{config['preset']}`. "
        f"{len(parts)} runs, {sum(part.seconds or 0 for part in parts) / 60:.0f} minutes of work, two at a time "
        f"in {(run.seconds or 0) / 60:.0f} minutes; the longest training on one dataset took "
        f"{longest.seconds or 0:.0f} s ({longest.method}). {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB. Intervals are 95 %, Student's t. {found.seeds_said} "
        f"{found.reuse_said}Code: {', '.join(commits)}."
    )


def _commit(run: RunRow) -> str:
    code = (run.provenance or {}).get("code", {})
    changed = " with changes" if code.get("changed") else ""
    return f"{code.get('commit', 'no commit')[:10]}{changed}"


def put(section: str) -> None:
    """Puts the section into docs/results.md, in the place of one with its title."""
    title = section.partition("\n")[0]
    kept = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    before, there, after = kept.partition(title + "\n")
    rest = after.partition("\n## ")
    later = f"\n## {rest[2]}" if there and rest[1] else ""
    RESULTS.write_text(f"{before.rstrip()}\n\n{section}\n{later}")


def plain(value: float) -> str:
    """Returns a score."""
    return f"{value:.4f}"


def signed(value: float) -> str:
    """Returns a difference of scores."""
    return f"{value:+.4f}"


def percent(value: float) -> str:
    """Returns a relative difference."""
    return f"{value:+.2%}"


def told(found: OverSeeds | None, form: Format, against: bool = False) -> str:
    """Returns a mean over seeds with its interval, `against` 0 with its p-value; nothing where there is none."""
    if found is None:
        return ""
    if found.ci_low is None or found.ci_high is None:
        return form(found.value)
    p_value = f", p {found.p_value:.2g}" if against else ""
    return f"{form(found.value)} ({form(found.ci_low)} to {form(found.ci_high)}{p_value})"


def named(metric: str) -> str:
    """Returns what a metric is called."""
    return metric.replace("_", " ").replace("gauc", "GAUC")


def code(method: str) -> str:
    """Returns a method as code, marked where it is a floor."""
    return marked(method, f"`{method}`")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def paper(rows: Sequence[Row], forms: dict[str, Format]) -> str:
    """Returns a table of the paper: published and found side by side, absent cells blank."""
    names = [named(metric) for metric in forms]
    head = ["in the paper", "method", "trained on"]
    head += [f"{name}, {what}" for name in names for what in ("published", "found")]
    body = []
    for row in rows:
        cells = [row.name, f"`{row.method}`", row.dataset]
        for metric, form in forms.items():
            published = row.published[metric]
            cells += ["" if published is None else form(published), told(row.found[metric], form)]
        body.append(cells)
    return markdown(head, body)


def grid(cells: Sequence[Cell], metric: str, form: Format) -> str:
    """Returns a metric of every method on every dataset."""
    known = values_of(cells, metric)
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    methods = list(dict.fromkeys(cell.method for cell in cells))
    head = ["method", *("own five rounds" if d == "rounds" else f"dataset {d}" for d in datasets)]
    rows = (
        [code(m), *(told(of_seeds(known[m, d]), form) if (m, d) in known else "" for d in datasets)]
        for m in methods
    )
    return markdown(head, rows)


def effects(found: Factorial, form: Format, kinds: Sequence[str]) -> str:
    """Returns the effects of some kinds, with the shares of the variance among cells below."""
    body = (
        [
            one.of,
            code(one.method) if one.method else "all",
            one.dataset or "all",
            told(one.found, form, True),
        ]
        for one in found.effects
        if one.of in kinds
    )
    shares = ", ".join(f"{of} {share:.0%}" for of, share in found.shares.items())
    below = f"\n\nOf the variance among the cells: {shares}." if shares else ""
    left_out = (
        f" Left out, without a value on every dataset: {', '.join(found.left_out)}." if found.left_out else ""
    )
    return markdown(["effect of", "method", "dataset", "difference"], body) + below + left_out


def splits(cells: Sequence[Cell], found: Factorial, form: Format) -> str:
    """Returns which part of what integrated_rl on dataset 2 and 3 gains over each method on 1 is the data's."""
    body = []
    for method in found.methods if BASE[1] in found.datasets else ():
        for dataset in ("2", "3"):
            split = gain_split(cells, found.metric, (OURS, dataset), (method, BASE[1]))
            if method != OURS and split:
                parts = (split.total, split.data, split.method, split.both)
                body.append([code(method), dataset, *(told(part, form) for part in parts)])
    head = ["over, on dataset 1", f"{OURS} on", "total", "the data's", "the method's", "both together"]
    return f"Which part of a gain is the data's:\n\n{markdown(head, body)}" if body else ""


def reach(cells: Sequence[Cell], workspace: Workspace) -> str:
    """Returns how far each method's policies go from the baseline on the test log, and how often beyond the box."""
    evaluations = workspace.registry.runs(RunState.COMPLETED, kind="evaluate")
    scored = {(policy, one.dataset_id): one.id for one in evaluations for policy in one.config["policies"]}
    means: dict[tuple[str, str], dict[int, float]] = {}
    shares: dict[tuple[str, str], dict[int, float]] = {}
    for cell in cells:
        run_id = scored.get((str(cell.policy), cell.test_dataset))
        if cell.n_critics is None and run_id:
            went, key = _deviation(workspace, run_id, str(cell.policy)), (cell.method, cell.dataset)
            inside = round(HALF_WIDTH / went.bin_width)
            beyond = [1 - sum(one.counts[:inside]) / went.n_requests for one in went.dimensions]
            means.setdefault(key, {})[cell.seed] = statistics.mean(one.mean for one in went.dimensions)
            shares.setdefault(key, {})[cell.seed] = statistics.mean(beyond)
    body = (
        [
            code(method),
            dataset,
            told(of_seeds(mean), plain),
            f"{statistics.mean(shares[method, dataset].values()):.0%}",
        ]
        for (method, dataset), mean in means.items()
    )
    head = ["method", "trained on", "mean deviation of a weight", f"share beyond ±{HALF_WIDTH}"]
    said = "How far the policies go from the baseline, on the test log:"
    return f"{said}\n\n{markdown(head, body)}" if means else ""


def _deviation(workspace: Workspace, run_id: str, policy: str) -> Deviation:
    text = (workspace.run_dir(run_id) / files.EVALUATION).read_bytes()
    (found,) = (one for one in EvaluationResult.model_validate_json(text).policies if one.run_id == policy)
    return found.deviation


def against_baseline(cells: Sequence[Cell]) -> str:
    """Returns weighted GAUC minus the baseline's on the same users, with intervals over them, of every cell."""
    found: dict[tuple[str, str], list[Difference]] = {}
    for cell in cells:
        known = cell.gauc_difference
        if cell.n_critics is None and known and None not in (known.value, known.ci_low, known.ci_high):
            found.setdefault((cell.method, cell.dataset), []).append(known)

    def mean(of: list[Difference], name: str) -> str:
        return signed(statistics.mean(getattr(one, name) for one in of))

    body = (
        [code(method), dataset, f"{mean(of, 'value')} ({mean(of, 'ci_low')} to {mean(of, 'ci_high')})"]
        for (method, dataset), of in found.items()
    )
    return markdown(["method", "trained on", "minus the baseline"], body)


def searches(cells: Sequence[Cell]) -> str:
    """Returns what each search method looked for, and what it consumed in a training."""
    first = {cell.method: cell for cell in cells if cell.search}
    body = (
        [
            code(method),
            cell.fitness or "",
            ", ".join(f"{n:,} {named(what)}" for what, n in (cell.search or {}).items()),
        ]
        for method, cell in first.items()
    )
    return markdown(["search", "fitness", "consumed by a training"], body) if first else ""
