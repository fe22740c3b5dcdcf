"""Known vulnerabilities of the locked packages, by pip-audit: `python .ci/audit.py UV requirements.txt ...`.

UV is the uv that runs pip-audit, in an environment of its own. Where the data cannot be reached there is no audit: then
pip-audit's dry run shows that every pin could be looked up, and the last line says that none was.
"""

import json
import subprocess
import sys
from typing import Any

AUDIT = ["tool", "run", "--quiet", "--from", "pip-audit==2.10.1", "pip-audit"]
OPTIONS = ["--no-deps", "--disable-pip", "--progress-spinner", "off"]


def main(uv: str, *locks: str) -> int:
    """Prints what was found and returns the exit code: 1 for vulnerabilities and for packages that were left out."""
    files = [word for lock in locks for word in ("--requirement", lock)]
    audit = [uv, *AUDIT, *OPTIONS, *files]
    asked = subprocess.run([*audit, "--format", "json"], capture_output=True, text=True)
    report = json.loads(asked.stdout)["dependencies"] if asked.stdout.startswith("{") else []
    told, code = verdict(report)
    if code is None:
        dry = subprocess.run([*audit, "--dry-run"], capture_output=True, text=True)
        print(*(line for line in dry.stderr.splitlines() if dry.returncode or "Dry run" in line), sep="\n")
        code = dry.returncode
    print("\n".join(told))
    return code


def verdict(report: list[dict[str, Any]]) -> tuple[list[str], int | None]:
    """Returns the lines on what pip-audit reported of each package, and the exit code; None if it reached no data."""
    left_out = [one for one in report if "skip_reason" in one]
    if len(left_out) == len(report):
        return [
            "OFFLINE: no data on vulnerabilities was reached; nothing was audited, the pins were read alone"
        ], None
    found = [
        f"{one['name']} {one['version']}: {bug['id']}, mended in {', '.join(bug['fix_versions']) or 'no version'}"
        for one in report
        for bug in one.get("vulns", ())
    ]
    found += [f"{one['name']}: not audited: {one['skip_reason']}" for one in left_out]
    return [*found, f"ONLINE: {len(report) - len(left_out)} packages audited, {len(found)} problems"], bool(
        found
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
