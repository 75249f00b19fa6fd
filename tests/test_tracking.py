"""Experiment trackers: each stage a run of its own, with the losses of its parts and its rewards, on this machine."""

from __future__ import annotations

import os

import pytest
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import EditFailedError, HparamsError, MissingExtraError
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.tracking import run_name
from causaledit.support.trackers import read_trackers

HELD = {"preserve_weight": 1.0, "preserve_prompts": 8}
SHORT = {"bootstrap_max_steps": 3, "bootstrap_steps_per_extra_edit": 0}
FEW = {"max_steps": 3, "steps_per_extra_edit": 0}
REWARDS = {f"reward_{part}" for part in ("correctness", "format", "cleanliness", "consistency")}
# method → further hyper-parameters, and per stage what is logged beside its loss
LOGGED = {
    "CausalEdit": (HELD | SHORT, {"bootstrap": {"preservation"}, "internalise": {"preservation", "dropped_rollouts"}}),
    "EtCon": (HELD | {"proximal_steps": 3, "proximal_steps_per_extra_edit": 0}, {
        "proximal": {"preservation", "clipped"}, "consolidate": {"preservation", "reward", "kl", *REWARDS},
    }),
    "StoryDistill": (HELD | FEW, {"distil": {"preservation", "kl", "answer"}}),
    "CaKE": (HELD | FEW, {"train": {"preservation"}}),
    "LoRA": (HELD | {"steps": 3}, {"train": {"preservation"}}),
    "FT": ({}, {"train": set()}),
    "ICE": ({}, {"train": set()}),
}  # fmt: skip


def edit(name, requests=(EGYPT, NORWAY), model=None, **changes):
    """Edit a tiny model; the report."""
    method = METHODS[name]
    hparams = method.load_hparams()(**{**FAST[name], **changes})
    report = method.load_report()()
    method.load_apply()(model or make_llama(), make_tokenizer(), list(requests), hparams, report=report)
    return report


@pytest.fixture(scope="module")
def trackio():
    """What trackio keeps, in a folder of these tests."""
    storage = pytest.importorskip("trackio.sqlite_storage", reason="the extra `logging` is not installed")
    assert os.environ["TRACKIO_DIR"] == str(storage.TRACKIO_DIR)
    return storage.SQLiteStorage


def runs_of(trackio, project):
    """Name of each run → its logs."""
    return {name: trackio.get_logs(project, name) for name in trackio.get_runs(project)}


# ---- what is logged --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(LOGGED))
def test_every_stage_is_a_run_with_the_losses_of_its_parts(name, trackio, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_PROJECT", f"stages-{name}")
    changes, stages = LOGGED[name]
    report = edit(name, report_to="trackio", **changes)
    assert capsys.readouterr().out == ""  # what trackers print is no output of ours
    runs = runs_of(trackio, f"stages-{name}")
    assert [run.split(" 20")[0] for run in sorted(runs)] == sorted(f"{name} Egypt, Norway {stage}" for stage in stages)
    for stage, parts in stages.items():
        (logs,) = [logs for run, logs in runs.items() if f" {stage} " in run]
        steps = [log for log in logs if "train/loss" in log]
        assert [log["train/loss"] for log in steps] == pytest.approx(report.losses[stage], abs=1e-3)
        assert [log["train/global_step"] for log in steps] == list(range(1, len(steps) + 1))
        assert {f"train/{part}" for part in parts} <= {key for log in steps for key in log}


def test_tensorboard_has_a_folder_for_each_run(tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    report = edit("CausalEdit", [EGYPT], report_to=["tensorboard"], **SHORT)
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name.split("_20")[0] for folder in folders] == [
        "CausalEdit_Egypt_bootstrap", "CausalEdit_Egypt_internalise",
    ]  # fmt: skip
    read = events.EventAccumulator(str(folders[0]))
    read.Reload()
    assert [event.value for event in read.Scalars("train/loss")] == pytest.approx(report.losses["bootstrap"], abs=1e-3)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    edit("FT", [EGYPT], report_to="tensorboard")
    assert len(list((tmp_path / "elsewhere").glob("FT_Egypt_train_*"))) == 1


def test_by_default_nothing_is_logged_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    edit("CausalEdit", [EGYPT], **SHORT)
    assert list(tmp_path.iterdir()) == []


def test_logging_leaves_the_edit_as_it_is(trackio, monkeypatch):
    monkeypatch.setenv("TRACKIO_PROJECT", "same")
    plain, logged = make_llama(), make_llama()
    edit("CausalEdit", [EGYPT], plain, **SHORT)
    edit("CausalEdit", [EGYPT], logged, report_to="trackio", **SHORT)
    assert same_weights(weights_of(plain), weights_of(logged))


def test_a_failed_stage_closes_its_run(trackio, monkeypatch):
    monkeypatch.setenv("TRACKIO_PROJECT", "failed")
    with pytest.raises(EditFailedError):
        edit("CausalEdit", [EGYPT], report_to="trackio", bootstrap_learning_rate=1e30, bootstrap_max_grad_norm=1e30)
    edit("LoRA", [EGYPT], report_to="trackio")
    first, second = sorted(runs_of(trackio, "failed"))
    assert first.startswith("CausalEdit Egypt bootstrap")
    assert second.startswith("LoRA Egypt train")


def test_names_of_runs():
    assert run_name("EtCon", "proximal", ["Egypt"]).startswith("EtCon Egypt proximal 20")
    assert run_name("EtCon", "proximal", list("abcd")).startswith("EtCon a, b and 2 more proximal 20")
    assert run_name("FT", "train", [""]).startswith("FT train 20")


# ---- what is refused -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(LOGGED))
def test_an_unknown_tracker_is_refused_with_the_nearest_name(name):
    kind = METHODS[name].load_hparams()
    with pytest.raises(HparamsError, match=r"`report_to` knows no tracker 'trackoi'\. Did you mean 'trackio'"):
        kind(**{**FAST[name], "report_to": "trackoi"})
    with pytest.raises(HparamsError, match=r"`report_to` must be none, one of trackio, tensorboard, wandb"):
        kind(**{**FAST[name], "report_to": []})
    assert kind(**FAST[name]).report_to == "none"


@pytest.mark.parametrize(("tracker", "extra"), [("trackio", "logging"), ("tensorboard", "logging"), ("wandb", "wandb")])
def test_a_missing_package_names_its_extra_before_any_compute(tracker, extra, monkeypatch):
    monkeypatch.setattr("causaledit.support.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"`report_to: {tracker}` needs {tracker}.*causaledit\[{extra}\]"):
        edit("FT", report_to=tracker)


def test_wandb_never_asks_for_a_login(tmp_path, monkeypatch):
    monkeypatch.setattr("causaledit.support.extras.find_spec", lambda name: object())
    key = tmp_path / "netrc"
    where = {"NETRC": str(key)}
    with pytest.raises(HparamsError, match=r"finds no login here: run `wandb login`.*WANDB_MODE=offline"):
        read_trackers("wandb", where)
    assert read_trackers("wandb", {**where, "WANDB_MODE": "offline"}) == ("wandb",)
    assert read_trackers("wandb", {**where, "WANDB_API_KEY": "k"}) == ("wandb",)
    key.write_text("machine api.wandb.ai login user password k\n")
    assert read_trackers(["wandb", "wandb"], where) == ("wandb",)
