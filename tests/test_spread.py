"""Work on shards: in order, with one process's result, and no process that outlives what asked for it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from mtf_engine.runs.spread import spread
from mtf_engine.spec import Refusal
from tests.waiting import wait_until


def slowest_first(shard):
    time.sleep(0.2 * (shard == 0))
    return shard, os.getpid()


def fails(shard):
    raise Refusal(f"shard {shard} is wrong")


def dies(shard):
    os.kill(os.getpid(), signal.SIGKILL)


def tells_and_stays(folder, shard):
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def test_results_come_in_the_order_of_the_shards_from_other_processes():
    with closing(spread(slowest_first, iter(range(7)), 2)) as results:
        found = list(results)
    assert [shard for shard, _ in found] == list(range(7))
    pids = {pid for _, pid in found}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_of_shards_without_an_end_few_are_done_beyond_what_is_taken():
    asked = []
    with closing(spread(slowest_first, (asked.append(i) or i for i in range(10**9)), 1)) as results:
        assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    assert len(asked) == 5


@pytest.mark.parametrize(("work", "told"), [(fails, "shard 0 is wrong"), (dies, "was killed")])
def test_what_a_shard_refuses_and_a_killed_process_are_told_in_a_sentence(work, told):
    with pytest.raises(Refusal, match=told):
        list(spread(work, range(3), 1))


def test_processes_end_with_the_one_that_asked_even_where_that_is_killed(tmp_path):
    script = tmp_path / "asks.py"
    script.write_text(
        "from functools import partial\nfrom mtf_engine.runs.spread import spread\n"
        "from tests.test_spread import tells_and_stays\n"
        f"if __name__ == '__main__':\n    list(spread(partial(tells_and_stays, {str(tmp_path)!r}), range(2), 2))\n"
    )
    asking = subprocess.Popen([sys.executable, script])
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2, "both work")
    asking.kill()
    asking.wait()
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "both end")
