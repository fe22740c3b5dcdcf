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
JSON lines or Parquet (`.csv`, `.tsv`, `.dat`, RecBole's `.inter`, `.jsonl`, `.ndjson`, also with `.gz` or `.zst` behind
it, `.parquet`, `.pq`), or a folder of such parts. Values of a text are parted by commas, tabs, semicolons or `::`.

[example_log](example_log) is one of ten requests by four users:

    mtf dataset import docs/example_log --name example

A list is a column of lists, `"[0.05, -0.1]"` or `0.05 -0.1` in a CSV, or a column for each number: `action_0`,
`action_1`. Columns with other names are named in a [mapping](#mapping-file). Columns that nothing reads are told and
left out."""

ALONE = """\
## Impressions alone

A log without requests is the one table of impressions, with a `user_id` and a `timestamp` on each row. `request_id` and
`session_id` are used where they are there; without them what a user was shown at one time is a request, and 30
minutes of silence end a session. `segment` and `split` may be there too. Such a log has no actions: explore on it by
replay, `dataset collect --env replay --from NAME`.

Where it has no predictions either, `predict` in the mapping names signals of 0 or 1 and features of user, item and
context. A network for each day is fitted on the days before it; the first three days only warm up and are left out. It
reads those features, the hour, and what the user and the item came to on earlier days. Which signals are predicted is
decided on validation rows: those with 50 positives that are not told to be predicted worse than by chance."""

STEPS = """\
## Steps alone

Transitions, as reinforcement learning knows them, are one table with a row a step and nothing shown: `observation`,
`action`, `reward`, and what tells where sessions end: `terminal`, `truncated`, `session_id` or `next_observation`. It
is recognised by its header, or said: `dataset import steps.csv --format transitions`.

- Names of others are known: `obs`, `actions`, `done`, `terminals`, `timeouts`, `next_obs`, `episode`, ... (with numbers
  behind them for lists: `obs_0`, `obs_1`). A mapping names the rest under `requests:`.
- Actions are in units of their own. `fusion: {dimensions: [{prediction: torque, kind: pow, low: -2, high: 2}]}` states
  the range of each; otherwise it is that of the data. `baseline_action`, `lower` and `upper` are in the same units;
  without them the mean of the actions stands for the baseline policy, and the box that holds all actions for the
  bounds.
- Where a session was cut off, `next_observation` or a last row with a blank action says where it led. It is kept as a
  request without an action, from which critics bootstrap. Otherwise its last step is not learned from.
- `pscore` and bounds together make the log an explored one; without them nobody knows how its actions were drawn, and
  no certificate and no signal is told. `exploration:` in the mapping says it of a log with bounds; `uniform` is
  believed without a `pscore`, too. Actions of a uniform log lie in their bounds.
- A session is of one user and one split; its `step` counts up by one, its `timestamp` does not go back. Numbers are
  finite. A gap in bounds is filled in the row without an action alone, from the step that led there. What breaks a rule
  is refused with its row, or in files of episodes its session and step.
- Of a mapping, only `requests`, `columns`, `fill`, `categories`, `features`, `binary_features`, `exploration` and the
  dimensions of the fusion are read, with those `predictions` and `on_unit` (actions are on [-1, 1] already), and with a
  `timestamp` how it is written. Whatever else it says is refused.

Rewards may be of any sign. There is no weighted GAUC, so no validation and no search by it; the policy of the last step
is kept."""

LIBRARIES = """\
## Minari and d3rlpy

`dataset import FOLDER` reads the folder of a [Minari](https://minari.farama.org) dataset with a Box of actions, and a
file `.h5` of [d3rlpy](https://github.com/takuseno/d3rlpy) (what `ReplayBuffer.dump` writes, or flat: `observations`,
`actions`, `rewards`, `terminals` and `episode_terminals` or `timeouts`). They need packages of their own:
`pip install minari h5py`, for d3rlpy's files h5py alone (the extras `minari` and `d3rlpy`). Episodes are sessions; the
last observation of one that was cut off is kept. A file of theirs with links, with arrays that lie in other files, or
whose arrays are far larger than it is, is refused.

`dataset export NAME --format minari --to FOLDER` writes the steps of any dataset with actions, on [-1, 1] as policies
give them, so that Minari loads them (`MINARI_DATASETS_PATH`); baseline action, bounds, density, user and split go
along as infos, and an import of it has the same transitions to the bit. `--format d3rlpy` writes observations,
actions, rewards and ends alone; since d3rlpy keeps no last observation, an episode that was cut off has a row more,
of which d3rlpy makes no transition. `--format parquet` writes the tables and the mapping that an import takes. What
was shown in requests is in Parquet alone."""

MAPPING = """\
## Mapping file

`dataset import FOLDER --mapping mapping.yaml`; the page of imports writes it in a form. Its schema is
[mapping.schema.json](mapping.schema.json), which an editor checks it by where its first line says so."""

SHAPES = """\
What is unknown in a mapping, is not read of the log's format (such as `requests` of impressions alone), or changes a
column that the log lacks, is refused; a mapping beside KuaiRand's files is too, since their columns are known. Several
columns for one text, say of users without an id, are put together.

A **slate** is a row that holds all items of a request. `slate` takes it apart: `items` is the column of the list;
`chosen` makes a signal of a column that lists the items where it happened; `marks` makes one of what stands behind the
last hyphen of each item (`N11-1 N12-0`); `each` are columns of lists with a value for each item, such as predictions.
Lists are lists, or texts as `[11, 12]` or `11 12`. A row without a `request_id` is a request of its own. A defect names
the row of the file and the entry of its list; of other columns of a slate, only those that a log has or the mapping
names are taken along.

Blanks are filled first (`fill`). A signal that is a count is divided by its cap (`counts`: with a cap of 3, five likes
are 1 and one is 1/3); one that is a rating is 1 above a threshold (`thresholds`). `categories` names the values of a
text that are told apart; all others are `other`, blanks stay blank.

`exploration: uniform` is believed: where no `pscore` is logged, all actions that are off their baseline action count
as drawn evenly in their bounds, and the certificate of coverage tells whether they look so.

Mappings of published layouts, each with columns of predictions, which these logs lack and which are needed:
[EB-NeRD](mappings/ebnerd.yaml), [MIND](mappings/mind.yaml), [MovieLens](mappings/movielens.yaml),
[RecBole](mappings/recbole.yaml), [Open Bandit](mappings/open_bandit.yaml), whose positions and propensities are kept;
a policy over items is not what is learned here."""

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
        STEPS,
        LIBRARIES,
        MAPPING,
        "\n".join(line.removeprefix("    ") for line in listing.splitlines()),
        SHAPES,
        "What a log is refused for is in the [reference](reference.md#defects).",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(log_format(), end="")
