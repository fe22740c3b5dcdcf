"""Prints docs/log-format.md from the code: `make docs` writes it, a test holds it up to date."""

from collections.abc import Iterator

from docs.reference import table
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.schema import IMPRESSION_FILE, REQUEST_FILE, FileColumn

INTRODUCTION = """\
# Log format

Written by `make docs` from `mtf_engine/logs/schema.py`.

A log is a folder of two tables. A *request* is one ranked list for one user: the fusion weights that were served
(the *action*), and the bounds they were drawn in. An *impression* is an item that was shown in a request: what the
ranking model predicted of it, and what the user did. Each table is one file, `requests` and `impressions`, of CSV,
JSON lines or Parquet (`.csv`, `.tsv`, `.jsonl`, `.ndjson`, also with `.gz` or `.zst` behind it, `.parquet`, `.pq`), or
a folder of such parts.

[example_log](example_log) is one of ten requests by four users:

    mtf dataset import docs/example_log --name example

A list is a column of lists, `"[0.05, -0.1]"` in a CSV, or a column for each number: `action_0`, `action_1`. Columns
with other names are named in a [mapping](#mapping-file). Columns that nothing reads are told and left out."""

ALONE = """\
## Impressions alone

A log without requests is the one table of impressions, with a `user_id` and a `timestamp` on each row. `request_id` and
`session_id` are used where they are there; without them what a user was shown at one time is a request, and 30
minutes of silence end a session. `segment` and `split` may be there too. Such a log has no actions: explore on it by
replay, `dataset collect --env replay --from NAME`."""

MAPPING = """\
## Mapping file

`dataset import FOLDER --mapping mapping.yaml`; the page of imports writes it in a form."""

KINDS = {
    "text": "text or integer",
    "integer": "integer",
    "number": "number",
    "real": "number",
    "flag": "true or false",
    "time": "time",
    "list": "list of numbers",
}


def rows(columns: tuple[FileColumn, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the cells of a table of `columns`."""
    for column in columns:
        unit = "" if column.unit == KINDS[column.kind] else column.unit
        yield (
            f"`{column.name}`",
            column.meaning,
            KINDS[column.kind],
            unit,
            column.need,
            f"`{column.example}`",
            column.missing,
        )


def log_format() -> str:
    """Returns the page as Markdown."""
    head = ("column", "what it holds", "type", "unit", "need", "example", "where it is missing")
    documentation = str(Mapping.__doc__)
    listing = documentation[documentation.index("```yaml") : documentation.rindex("```") + 3]
    parts = [
        INTRODUCTION,
        "## Requests",
        table(head, rows(REQUEST_FILE)),
        "`with action`: needed where there is a column `action`.",
        "## Impressions",
        table(head, rows(IMPRESSION_FILE)),
        ALONE,
        MAPPING,
        "\n".join(line.removeprefix("    ") for line in listing.splitlines()),
        "What a log is refused for is in the [reference](reference.md#defects).",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(log_format(), end="")
