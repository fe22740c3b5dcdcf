"""The process that runs the graphs of a bundle: `python answering.py FOLDER`, with numpy and onnxruntime alone.

It reads the graphs and `asked.npz` in FOLDER and writes `answers.npz`. A graph is a stranger's: it may take so much
time and memory and no more, and what it does to this process is nobody else's loss.
"""

import resource
import sys
from pathlib import Path

CPU_SECONDS = 3
MEMORY_MB, LARGEST_MB = 1_024, 64
"""Data of the process, of which the two libraries take some 150 MB, and of what it answers."""


def main(folder: Path) -> None:
    """Writes what each graph in `folder` answers to each of the questions, numbered as they are."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MB << 20, MEMORY_MB << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_MB << 20, LARGEST_MB << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    asked = dict(np.load(folder / "asked.npz", allow_pickle=False))
    answers = {}
    for path in sorted(folder.glob("*.onnx")):
        session = onnxruntime.InferenceSession(path.read_bytes(), options)
        wanted = [one.name for one in session.get_inputs()]
        for number in sorted({name.partition("/")[0] for name in asked}):
            given = {name: asked[f"{number}/{name}"] for name in wanted}
            (answers[f"{path.name}/{number}"],) = session.run(None, given)
    np.savez(folder / "answers.npz", allow_pickle=False, **answers)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Exception as error:
        first, *_ = [*str(error).splitlines(), type(error).__name__]
        sys.exit(first[:300])
