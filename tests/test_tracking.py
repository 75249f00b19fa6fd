"""Experiment trackers: each stage a run of its own, with the losses of its parts and its rewards, on this machine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer

from causaledit.errors import EditFailedError, HparamsError, MissingExtraError
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.tracking import run_name
from causaledit.support.trackers import read_trackers

HELD = {"preserve_weight": 1.0, "preserve_prompts": 4}
# method → further hyper-parameters, and per run the values that are logged beside `loss`
LOGGED = {
    "CausalEdit": (HELD, {"bootstrap": {"preservation"}, "internalise": {"preservation", "dropped_rollouts"}}),
    "EtCon": (HELD, {
        "proximal": {"preservation", "clipped"},
        "consolidate": {"preservation", "reward", "reward_correctness", "reward_format", "kl"},
    }),
    "StoryDistill": (HELD, {"distil": {"preservation", "kl"}}),
    "CaKE": (HELD, {"train": {"preservation"}}),
    "LoRA": (HELD, {"train": {"preservation"}}),
    "FT": ({}, {"train": set()}),
    "ICE": ({}, {"train": set()}),
}  # fmt: skip


def hparams_of(name, **changes):
    return METHODS[name].load_hparams()(**{**FAST[name], **changes})


def edit(name, requests, **changes):
    method = METHODS[name]
    hparams = hparams_of(name, **changes)
    report = method.load_report()()
    method.load_function()(make_llama(), make_tokenizer(), requests, hparams, report=report)
    return report


@pytest.fixture
def trackio_folder(tmp_path, monkeypatch):
    """Where trackio keeps its runs; nothing else is configured, and the hub is out of reach (conftest)."""
    trackio = pytest.importorskip("trackio", reason="the extra `logging` is not installed")
    monkeypatch.chdir(tmp_path)
    return trackio, tmp_path


@pytest.mark.parametrize("name", sorted(LOGGED))
def test_trackio(name, trackio_folder, capsys):
    changes, runs = LOGGED[name]
    report = edit(name, [EGYPT, NORWAY], report_to="trackio", **changes)
