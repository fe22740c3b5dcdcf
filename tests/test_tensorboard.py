"""A run as TensorBoard events, read back record by record."""

import struct
from pathlib import Path

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from mtf_engine.registry import RunRow, RunState, now
from mtf_engine.runs import metrics
from mtf_engine.runs.tensorboard import export
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

ROWS = [
    {"step": 0, "validation_gauc": 0.5},
    {"step": 50, "critic_loss": 0.25, "share_outside/pow_click": 0.125, "seconds": 2.0},
]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    columns = {"kind": "train", "name": "", "state": RunState.RUNNING, "created_at": now()}
    workspace.registry.add_run(RunRow(id="train-1", config={"eta": 1.2}, started_at=now(), **columns))
    workspace.run_dir("train-1").mkdir()
    return workspace


def events(path: Path) -> list[Event]:
    """Returns the events of a TFRecord file: length, its checksum, data, its checksum."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        data = content[12 : 12 + length]
        (checksum,) = struct.unpack("<I", content[12 + length : 16 + length])
        crc = crc32c(data)
        assert checksum == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
        found.append(Event.FromString(data))
        content = content[16 + length :]
    return found


def test_every_logged_number_is_a_scalar_at_its_step_and_time(workspace, tmp_path):
    for row in ROWS:
        metrics.append(workspace.run_dir("train-1"), row)
    path, n = export(workspace, "train-1", tmp_path / "to")
    assert n == 3 and path.parent == tmp_path / "to" / "train-1"
    start = workspace.registry.run("train-1").started_at.timestamp()
    scalars = {
        (value.tag, event.step): (value.simple_value, round(event.wall_time - start, 3))
        for event in events(path)
        for value in event.summary.value
        if value.HasField("simple_value")
    }
    assert scalars == {
        ("validation_gauc", 0): (0.5, 0.0),
        ("critic_loss", 50): (0.25, 2.0),
        ("share_outside/pow_click", 50): (0.125, 2.0),
    }


def test_exporting_again_replaces_the_file(workspace, tmp_path):
    metrics.append(workspace.run_dir("train-1"), ROWS[0])
    path, _ = export(workspace, "train-1", tmp_path / "to")
    metrics.append(workspace.run_dir("train-1"), ROWS[1])
    again, n = export(workspace, "train-1", tmp_path / "to")
    assert (again, n) == (path, 3) and list(path.parent.iterdir()) == [path]


def test_a_run_without_metrics_is_refused(workspace, tmp_path):
    with pytest.raises(Refusal, match="train-1 has no metrics"):
        export(workspace, "train-1", tmp_path / "to")
    assert not (tmp_path / "to").exists()
