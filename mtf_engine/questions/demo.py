"""What the demonstration workspace calls its logs and trainings, by the exploration behind them."""

LOGS = {"uniform": "demo uniform", "gaussian": "demo gaussian", "baseline": "demo baseline"}
TRAININGS = {"uniform": "demo on uniform", "gaussian": "demo on gaussian"}
