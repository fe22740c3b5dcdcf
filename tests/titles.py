"""The heading of every page, by its place in the address; and of the page that each earlier address leads to."""

from pathlib import PurePath

from pages.shared.places import MOVED

HOME = "Multi-Task Fusion workbench"
TITLES = {
    "import_logs": "Import logs",
    "datasets": "Datasets",
    "bounds": "Bounds planner",
    "density": "Exploration density",
    "collect": "Collect a log",
    "start": "Start a training",
    "runs": "Runs",
    "policies": "Policies",
    "methods": "Methods",
    "rounds": "Rounds",
    "review": "Review",
    "export": "Export a policy",
    "synthetic": "Synthetic users",
    "glossary": "Glossary",
}
EARLIER = {old: TITLES[PurePath(place.page).stem] for old, place in MOVED.items()}
