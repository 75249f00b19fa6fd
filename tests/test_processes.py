"""One edit in two processes (accelerate, gloo) is the edit of one process with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY

from causaledit.methods.shared.processes import agreed
from causaledit.methods.shared.supervised import micro_batches


def launch(folder, processes, *arguments):
    """Run `edit_in_processes.py` and give each process's losses and weights."""
    folder.mkdir()
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    # what `accelerate launch` starts for GPUs; for CPUs alone it would need MPI
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*command, str(REPOSITORY / "tests" / "edit_in_processes.py"), str(folder), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [
        (json.loads((folder / f"losses{rank}.json").read_text()), torch.load(folder / f"weights{rank}.pt"))
        for rank in range(processes)
    ]


def test_two_processes_edit_as_one_does(tmp_path):
    [(losses, weights)] = launch(tmp_path / "one", 1, 4, 2)
    found = launch(tmp_path / "two", 2, 2, 1)
    assert {"bootstrap", "internalise", "internalise_preservation"} <= set(losses)
    for theirs, their_weights in found:
        for name, value in weights.items():
            torch.testing.assert_close(their_weights[name], value, atol=1e-4, rtol=1e-4, msg=name)
        for stage, values in losses.items():
            assert theirs[stage] == pytest.approx(values, abs=1e-4, rel=1e-4), stage


def test_parts_of_a_batch_can_be_made_as_many_as_another_process_has():
    lengths = [5, 3, 9, 4]
    assert micro_batches(lengths, 100) == [[1, 3, 0, 2]]
    three = micro_batches(lengths, 100, at_least=3)
    assert len(three) == 3 and sorted(row for part in three for row in part) == [0, 1, 2, 3] and all(three)
    assert len(micro_batches(lengths, 100, at_least=9)) == 4  # a row is not split


def test_one_process_agrees_with_itself(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    value = object()
    assert agreed(value, torch.device("cpu")) is value
