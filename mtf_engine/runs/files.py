"""Names of the files in a run's folder; its worker alone writes them."""

LOG, REPORT, LOCK = "run.log", "report.json", "worker.lock"
CONFIG, RESULT, METRICS = "config.json", "result.json", "metrics.jsonl"
PROVENANCE, ROW = "provenance.json", "run.json"
"""The row is what the registry knows of the run, but for its result."""
CHECKPOINT, POLICY, CRITICS = "checkpoint.pt", "policy.safetensors", "critics.safetensors"
BEST_POLICY, EXAMPLES = "policy_best.safetensors", "examples.safetensors"
BUNDLE, EVALUATION, LOOKS = "policy.zip", "evaluation.json", "looks.json"
