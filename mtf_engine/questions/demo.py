"""What the demonstration workspace calls its logs and trainings, by the exploration behind them, and its rounds."""

LOGS = {"uniform": "demo uniform", "gaussian": "demo gaussian", "baseline": "demo baseline"}
TRAININGS = {"uniform": "demo on uniform", "gaussian": "demo on gaussian"}
ROUNDS = "demo rounds"
