"""The memo of a round: one page, Markdown or HTML, that needs no network and nothing of the workspace.

The same case and decision give the same bytes.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from mtf_engine.policies.monotony import sentences
from mtf_engine.registry import DecisionRow
from mtf_engine.release.criteria import shown
from mtf_engine.release.review import RULE, Case
from mtf_engine.release.rounds import Estimate

WIDTH, ROW, LEFT = 640, 34, 240
"""Of the picture, in pixels: its width, the height of a row, and where its axis starts."""
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1d2530}"
    "table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #c8ced6;padding:.25rem .6rem;"
    "text-align:left}pre{background:#f3f5f7;padding:.7rem;white-space:pre-wrap}"
)
Table = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]
Part = str | Table | list[str]
"""Of a memo: a paragraph, a table (head and rows), or lines of commands."""


def memo_parts(case: Case, row: DecisionRow | None) -> Iterator[tuple[str, list[Part]]]:
    """Yields the memo's sections: a heading, and what stands below it."""
    one = case.round
    yield "Decision", [_decided(case, row)]
    yield (
        "What was explored",
        [
            f"{one.sessions:,} sessions ({one.requests:,} requests) in the environment {case.env}"
            f"{', whose users and feedback are synthetic' if one.synthetic else ''}, around {one.baseline}.",
            (("dimension", "lower", "upper"), _bounds(case)),
            f"Dataset {one.dataset_id}, content hash {case.dataset_hash or 'unknown: the dataset is deleted'}.",
        ],
    )
    yield (
        "What it cost",
        [
            (
                ("users", "mean session reward (95 % interval)"),
                [
                    ("control, at the baseline action", text(one.log.control_reward, "{:.2f}")),
                    ("explored", text(one.log.explored_reward, "{:.2f}")),
                ],
            )
        ],
    )
    yield (
        "What was learned",
        [
            f"{case.algo}, {one.steps:,} gradient steps: {one.candidate}, {one.policy.path:.4f} from the first "
            f"baseline, {one.policy.share_at_wall:.1%} of its explored weights at a wall of the bounds.",
            *_signal(case),
            *(f"Mind that {sentence}." for sentence in sentences(one.policy.negative_pows)),
            (
                ("gain over the round's baseline", "95 % interval"),
                [(n, text(e, f)) for n, e, f in _gains(case)],
            ),
        ],
    )
    yield "The rule", [*_rule(case)]
    plan = ["# plan.yaml", *one.plan.to_yaml().splitlines()]
    yield "To reproduce it", [_commands(case), plan]


def text(found: Estimate, form: str = "{:+.4f}") -> str:
    """Returns a figure with its interval."""
    if found.value is None:
        return "not known"
    if found.ci_low is None or found.ci_high is None:
        return form.format(found.value)
    return f"{form.format(found.value)} ({form.format(found.ci_low)} to {form.format(found.ci_high)})"


def _decided(case: Case, row: DecisionRow | None) -> str:
    if row is None:
        return f"Nobody has decided yet. The rule recommends: {case.recommendation} ({case.because})."
    reason = f" Reason: {row.reason}" if row.reason else ""
    against = (
        "" if row.decision == {"promote": "promote", "do not": "reject"}.get(row.recommendation) else "not "
    )
    return (
        f"{row.name} decided on {row.created_at:%Y-%m-%d %H:%M} UTC: {row.decision}, {against}as the rule "
        f"recommends ({row.recommendation}: {case.because}). Live from then on: {row.live}.{reason}"
    )


def _bounds(case: Case) -> list[tuple[str, ...]]:
    plan = case.round.plan
    boxes = [("", plan), *((f"{name}: ", box) for name, box in plan.segments.items())]
    return [
        (f"{of}{i + 1}", f"{low:g}", f"{high:g}")
        for of, box in boxes
        for i, (low, high) in enumerate(zip(box.lower, box.upper, strict=True))
    ]


def _signal(case: Case) -> Iterator[str]:
    """Yields what the log that was trained on can teach, where that is known."""
    if found := case.round.signal:
        chi2 = f"chi2 {found.chi2:.1f} with {found.df} degrees of freedom, p {found.p_value:.3g}"
        yield f"{found.sentence.removesuffix('.')} ({chi2}, {found.sessions:,} explored sessions)."


def _gains(case: Case) -> list[tuple[str, Estimate, str]]:
    """Returns name, figure and format of every gain that was measured."""
    tested = [
        (
            f"A/B {effect.metric.replace('_', ' ')}",
            Estimate(value=effect.relative, ci_low=effect.ci_low, ci_high=effect.ci_high, n_users=0),
            "{:+.2%}",
        )
        for effect in case.round.effects
    ]
    return [("weighted GAUC", case.round.policy.difference, "{:+.4f}"), *tested]


def _rule(case: Case) -> Iterator[Part]:
    yield RULE
    yield f"Primary metric, fixed before the round: {case.criteria.metric}. Live at the review: {case.live}."
    says = {True: "holds", False: "broken", None: "not known"}
    figures = ["-" if f.value is None else shown(f.guardrail.metric, f.value) for f in case.findings]
    rows = [
        (str(f.guardrail), figure, says[f.holds]) for f, figure in zip(case.findings, figures, strict=True)
    ]
    if rows:
        yield ("guardrail", "figure", "verdict"), rows
    yield f"Recommendation: {case.recommendation} ({case.because})."


def _commands(case: Case) -> list[str]:
    config = case.config
    size = ("--rounds", config["rounds"], "--sessions-per-round", config["sessions_per_round"])
    how = ("--train-on", config["train_on"], "--promote", config["promote"], "--ab-users", config["ab_users"])
    settings = [
        part
        for name, value in config["training"].items()
        if name != "seed"
        for part in ("--set", f"{name}={_setting(value)}")
    ]
    source = ("--from", config["source"]) if config["source"] else ()
    words = (
        "progressive",
        "--env",
        case.env,
        *source,
        *size,
        "--algo",
        case.algo,
        *how,
        "--bounds",
        "plan.yaml",
    )
    rounds = [*words, "--baseline", config["baseline"], "--seed", config["seed"], *settings]
    return [
        f"mtf {shlex.join(map(str, rounds))}",
        f"mtf review show {case.run_id} --round {case.round.number}",
        f"mtf evaluate {case.round.candidate} {case.round.baseline} --on {case.round.dataset_id}",
    ]


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def title(case: Case) -> str:
    """Returns the memo's title."""
    return f"Round {case.round.number} of {case.run_name}"


def markdown(case: Case, row: DecisionRow | None = None) -> str:
    """Returns the memo as Markdown."""
    return document(title(case), memo_parts(case, row))


def document(title: str, sections: Iterable[tuple[str, list[Part]]]) -> str:
    """Returns a page of sections, each a heading and what stands below it, as Markdown."""
    lines = [f"# {_plain(title)}"]
    for heading, parts in sections:
        lines += ["", f"## {heading}"]
        for part in parts:
            lines += ["", *_markdown(part)]
    return "\n".join(lines) + "\n"


def _markdown(part: Part) -> list[str]:
    if isinstance(part, str):
        return [_plain(part)]
    if isinstance(part, list):
        return ["```", *part, "```"]
    head, rows = part
    return [f"| {' | '.join(map(_plain, line))} |" for line in (head, ("---",) * len(head), *rows)]


def _plain(words: str) -> str:
    """Returns `words` on one line, so that Markdown takes nothing in them for markup."""
    return escape(" ".join(words.split()), quote=False).replace("|", "\\|").replace("`", "\\`")


def html(case: Case, row: DecisionRow | None = None) -> str:
    """Returns the memo as one HTML file with its picture inside."""
    body = [f"<h1>{escape(title(case))}</h1>"]
    for heading, parts in memo_parts(case, row):
        body.append(f"<h2>{escape(heading)}</h2>")
        body += map(_html, parts)
        if heading == "What was learned":
            body.append(picture(_gains(case)))
    head = f'<meta charset="utf-8"><title>{escape(title(case))}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _html(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    if isinstance(part, list):
        return f"<pre>{escape(chr(10).join(part))}</pre>"
    head, rows = part
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{top}</tr>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>"


def picture(gains: Sequence[tuple[str, Estimate, str]]) -> str:
    """Returns the gains with their intervals as SVG: a line for 0, each row on a scale of its own."""
    zero = LEFT + (WIDTH - LEFT) / 2
    drawn = [
        f'<line x1="{zero:g}" y1="0" x2="{zero:g}" y2="{ROW * len(gains)}" stroke="#c2364f" stroke-dasharray="4"/>'
    ]
    for i, (name, found, form) in enumerate(gains):
        y = ROW * i + ROW / 2
        drawn.append(
            f'<text x="0" y="{y + 5:g}">{escape(name)} {escape(text(found, form).split(" (")[0])}</text>'
        )
        if found.value is None or found.ci_low is None or found.ci_high is None:
            continue
        reach = max(abs(found.ci_low), abs(found.ci_high)) or 1.0
        x, low, high = (
            zero + (WIDTH - LEFT) / 2 * 0.95 * value / reach
            for value in (found.value, found.ci_low, found.ci_high)
        )
        drawn.append(
            f'<line x1="{low:.1f}" y1="{y:g}" x2="{high:.1f}" y2="{y:g}" stroke="#2f86b8" stroke-width="2"/>'
        )
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:g}" r="5" fill="#2f86b8"/>')
    label = "Gains over the round's baseline with 95 % intervals, each on a scale of its own; the dashed line is 0"
    size = f'width="{WIDTH}" height="{ROW * len(gains)}" viewBox="0 0 {WIDTH} {ROW * len(gains)}"'
    return f'<svg {size} role="img" aria-label="{label}" font-size="14">{"".join(drawn)}</svg><p>{label}.</p>'
