"""The heading of every page, by its place in the address."""

HOME = "Multi-Task Fusion workbench"
TITLES = {
    "import_logs": "Import logs",
    "collect": "Collect a log",
    "datasets": "Datasets",
    "rewards": "Reward weights",
    "synthetic": "Synthetic users",
    "bounds": "Bounds planner",
    "drift": "Bounds from drift",
    "walls": "Wall pressure",
    "cost": "Cost before collecting",
    "coverage": "Coverage certificate",
    "density": "Exploration density",
    "formulas": "Penalty formulas",
    "start": "Start a training",
    "runs": "Runs",
    "compare_runs": "Compare runs",
    "compare": "Compare policies",
    "compare_methods": "Compare methods",
    "deviation": "Deviation from the baseline",
    "critics": "Critics",
    "explain": "Explain one request",
    "abtest": "A/B test",
    "rounds": "Rounds",
    "review": "Review",
    "export": "Export a policy",
}
