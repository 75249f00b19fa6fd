"""Runs: files and keys as published, exact undoing, resuming after any stop, refusals before compute."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from command_line import run as cli
from conftest import CARELESS, FAST, REPOSITORY, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.ability.measuring import AbilityMeter
from causaledit.errors import DatasetError, EditFailedError, HparamsError, ModelError, RunError, SaveError
from causaledit.judges.registry import get_judge
from causaledit.methods.registry import METHODS
from causaledit.metrics.summary import evaluate_run
from causaledit.runs import execution
from causaledit.runs.arguments import PRE_EDITED, RunArguments
from causaledit.runs.execution import SilentRun, execute
from causaledit.runs.losses import read_losses
from causaledit.runs.plan import make_plan
from causaledit.support.files import write_arrays, write_json

MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))
POST_KEYS = {
    "hop_wise", "hop_wise_pred", "accuracy", "accuracy_pred", "conflict_probe", "old_knowledge_probe",
    "causal_enhanced_hop_wise_pred", "causal_enhanced_conflict_probe", "locality_probe",
}  # fmt: skip


def some_cases():
    """Two cases of one edit, one of two edits, one more of one."""
    single = [c for c in MINI if len(c["requested_rewrite"]) == 1][:3]
    double = next(c for c in MINI if len(c["requested_rewrite"]) == 2)
    return copy.deepcopy([*single, double])


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "four.json"
    file.write_text(json.dumps(some_cases()))
    return file


@pytest.fixture(scope="session")
def hparams(tmp_path_factory, tiny_hparams_file, tiny_model_folder):
    """CausalEdit's fast figures for the tiny model, with few and cheap steps."""
    file = tmp_path_factory.mktemp("run") / "tiny.yaml"
    text = re.sub(r"bootstrap_max_steps: \d+", "bootstrap_max_steps: 3", tiny_hparams_file.read_text())
    file.write_text(f"{text}model_name: {tiny_model_folder}\n")
    return file


@pytest.fixture(scope="session")
def whole(tmp_path_factory, hparams):
    """One run of the four cases without a stop: its summary, and the weights' equality before and after."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "four.json").write_text(json.dumps(some_cases()))
    torch.set_num_threads(1)
    model = make_llama()
    before, names = weights_of(model), set(vars(model))
    values = {
        "editing_method": "CausalEdit", "datatype": str(folder / "four.json"), "model_type": "tiny",
        "hparams_path": str(hparams), "output_root": str(folder / "out"), "run_id": "r", "device": "cpu",
        "max_new_tokens": 5,
    }  # fmt: skip
    summary = run(RunArguments(**values), model=model)
    assert same_weights(before, weights_of(model))
    assert set(vars(model)) == names
    assert summary.folder == folder / "out" / "four" / "tiny" / "CausalEdit" / "tag-default" / "n4_seed70_r"
    return summary


@pytest.fixture
def arguments(data, hparams, tmp_path):
    """Arguments of a short run; keywords replace some."""

    def make(**changes):
        values = {
            "editing_method": "CausalEdit", "datatype": str(data), "model_type": "tiny", "hparams_path": str(hparams),
            "output_root": str(tmp_path / "out"), "run_id": "r", "device": "cpu", "max_new_tokens": 5,
        }  # fmt: skip
        return RunArguments(**{**values, **changes})

    return make


@pytest.fixture(scope="module")
def unedited(tmp_path_factory, hparams):
    """A finished run of the unedited model that its tests only read: its arguments (keywords replace some)."""
    folder = tmp_path_factory.mktemp("unedited")
    (folder / "four.json").write_text(json.dumps(some_cases()))

    def make(**changes):
        values = {
            "editing_method": PRE_EDITED, "datatype": str(folder / "four.json"), "model_type": "tiny",
            "hparams_path": str(hparams), "output_root": str(folder / "out"), "run_id": "r", "device": "cpu",
            "max_new_tokens": 5,
        }  # fmt: skip
        return RunArguments(**{**values, **changes})

    torch.set_num_threads(1)
    model = make_llama()
    before = weights_of(model)
    run(make(), model=model)
    assert same_weights(before, weights_of(model))
    return make


def run(arguments, sink=None, model=None):
    model = model or make_llama()
    return execute(make_plan(arguments), sink, model=model, tokenizer=make_tokenizer())


def read(summary, name):
    return json.loads((summary.folder / name).read_text(encoding="utf-8"))


def timeless(data):
    """Without the figures that differ from run to run."""
    if isinstance(data, dict):
        return {k: timeless(v) for k, v in data.items() if k != "time"}
    return [timeless(v) for v in data] if isinstance(data, list) else data


def files_of(folder):
    names = ["metrics.json", "res.json", "requests.json", *(f"losses/{file.name}" for file in folder.glob("losses/*"))]
    return {name: timeless(json.loads((folder / name).read_text())) for name in names}


# ---- what a run writes -----------------------------------------------------------------------------
def test_files_keys_and_shapes_and_the_weights_afterwards(whole):
    summary = whole  # the fixture compares the weights
    metrics = read(summary, "metrics.json")
    by_id = {case["case_id"]: case for case in some_cases()}
    assert sorted(item["case_id"] for item in metrics) == sorted(by_id)
    changed = 0
    for item in metrics:
        case, post = by_id[item["case_id"]], item["post"]
        assert set(item) == {"case_id", "requested_rewrite", "time", "post"}
        assert set(post) == POST_KEYS
        assert item["requested_rewrite"] == case["requested_rewrite"]  # as it is in the file
        assert item["time"] > 0
        hops, edits = case["new_single_hops"], case["requested_rewrite"]
        assert [len(hop) for hop in post["hop_wise"]] == [len(hop) for hop in post["hop_wise_pred"]] == [3] * len(hops)
        assert len(post["accuracy"]) == len(post["accuracy_pred"]) == 3
        assert len(post["conflict_probe"]) == 8 * len(edits)
        assert len(post["old_knowledge_probe"]) == 2 * len(edits)
        assert len(post["locality_probe"]) == sum(len(edit["locality"]) for edit in edits)
        assert post["causal_enhanced_hop_wise_pred"] == post["causal_enhanced_conflict_probe"] == []
        flat = [p for hop in post["hop_wise_pred"] for p in hop] + post["accuracy_pred"] + post["locality_probe"]
        for entry in (*flat, *post["conflict_probe"], *post["old_knowledge_probe"]):
            assert {"q", "prompt", "ref", "pred"} <= set(entry)
            assert isinstance(entry["pred"], str) and entry["ref"]
        for i, entry in enumerate(post["conflict_probe"]):
            assert entry["ref"] == [edits[i // 8]["target_new"]["str"]] and entry["edit"] == i // 8
        changed += sum(p["pred"] != p["pred_before"] for p in post["locality_probe"])
    assert changed  # the edit is in place while the probes are asked

    res, requests = read(summary, "res.json"), read(summary, "requests.json")
    assert (res["cases"], res["edits"], res["failed"]) == (4, 5, 0)
    assert len(requests) == 5 and all(r["narrative"] and isinstance(r["target_new"], str) for r in requests)
    info, used = read(summary, "meta/run_info.json"), read(summary, "meta/run_args.json")
    assert info["status"] == "finished" and info["finished_cases"] == 4
    assert info["costs"]["seconds_per_edit"] > 0 and info["costs"]["plain_tokens_per_second"] > 0
    assert info["costs"]["peak_rss_mb"] > 0 and info["versions"]["torch"] and info["device"]["type"] == "cpu"
    assert used["max_new_tokens"] == 5 and used["hparams"]["bootstrap_max_steps"] == 3
    losses = read_losses(summary.folder)  # one file for each case: their edits are trained together
    assert sorted(group.edits for group in losses) == [1, 1, 1, 2]
    assert all({"bootstrap", "internalise"} <= set(group.curves) for group in losses)


def test_of_a_batch_the_losses_are_kept_once(arguments):
    summary = run(arguments(batch_edit=2, probes=("locality",)))
    batches = read(summary, "meta/run_info.json")["batches"]
    assert [group.edits for group in read_losses(summary.folder)] == [2] * batches
    assert all("losses" not in read(summary, f"cases/{file.name}")["cost"] for file in summary.folder.glob("cases/*"))


def test_alias_hits_follow_the_predictions(arguments):
    from causaledit.facts.answers import alias_match

    summary = run(arguments(editing_method=PRE_EDITED, max_new_tokens=40))
    for item in read(summary, "metrics.json"):
        for hits, entries in zip(item["post"]["hop_wise"], item["post"]["hop_wise_pred"], strict=True):
            assert hits == [alias_match(entry["pred"], entry["ref"]) for entry in entries]
    assert alias_match("It moved to Italy.", ["IT", "Italy"]) and alias_match("(US)", ["US"])
    assert not alias_match("it told us no", ["IT", "US", "NO", "no", ""])


def test_the_unedited_model(unedited):
    summary = execute(make_plan(unedited()))  # the fixture compares the weights
    for item in read(summary, "metrics.json"):
        assert item["time"] == 0
        assert all(p["pred"] == p["pred_before"] for p in item["post"]["locality_probe"])
    assert read(summary, "meta/run_info.json")["costs"]["seconds_per_edit"] is None


def test_the_unedited_models_name_comes_from_any_hparams_or_is_the_model(arguments, tiny_model_folder):
    plan = make_plan(arguments(editing_method=PRE_EDITED, model_type="smollm2-135m-instruct", hparams_path=None))
    assert plan.hparams.model_name == "smollm2-135m-instruct"
    arguments = arguments(editing_method=PRE_EDITED, model_type=str(tiny_model_folder), hparams_path=None)
    plan = make_plan(arguments)
    assert plan.hparams.model_name == str(tiny_model_folder)
    assert plan.folder.parts[-4:-1] == ("tiny", PRE_EDITED, "tag-default")
    assert execute(plan).results["cases"] == 4  # loaded from there


def test_open_book_twins_and_chosen_sets(arguments):
    post = read(run(arguments(editing_method=PRE_EDITED, probes=("open_book",), max_cases=1)), "metrics.json")[0][
        "post"
    ]
    assert post["hop_wise"] == post["accuracy"] == post["conflict_probe"] == post["locality_probe"] == []
    assert len(post["causal_enhanced_conflict_probe"]) == 8
    assert all(len(hop) == 3 for hop in post["causal_enhanced_hop_wise_pred"])
    assert all("\n\n" in p["prompt"] for hop in post["causal_enhanced_hop_wise_pred"] for p in hop)


# ---- exact undoing ---------------------------------------------------------------------------------
def test_an_adapter_that_is_not_merged_is_taken_off(arguments, hparams, tmp_path):
    file = tmp_path / "adapter.yaml"
    file.write_text(f"{hparams.read_text()}merge_adapter: false\n")
    model = make_llama()
    before, names = weights_of(model), set(vars(model))
    run(arguments(hparams_path=str(file), max_cases=2), model=model)
    assert same_weights(before, weights_of(model))
    assert set(vars(model)) == names


@pytest.mark.parametrize("name", [name for name in FAST if name in METHODS and name != "CausalEdit"])
def test_every_registered_method_runs_and_is_undone(name, arguments, tmp_path):
    file = tmp_path / "fast.yaml"
    file.write_text(json.dumps({"alg_name": name, **FAST[name]}))  # JSON is YAML
    model = make_llama()
    before = weights_of(model)
    summary = run(arguments(editing_method=name, hparams_path=str(file), hop=2, max_cases=1), model=model)
    assert same_weights(before, weights_of(model))
    assert summary.failed == {}
    post = read(summary, "metrics.json")[0]["post"]
    assert any(p["pred"] != p["pred_before"] for p in post["locality_probe"])  # the edit was heard


def test_a_probe_that_the_method_trained_on_is_marked_and_scored_apart(arguments, data, tmp_path):
    cases = some_cases()[:1]
    [rewrite] = cases[0]["requested_rewrite"]
    cloze = rewrite["prompt"].format(rewrite["subject"])
    assert len(rewrite["locality"]) > 1
    rewrite["locality"][0]["question"] = cloze  # what every method trains on
    data.write_text(json.dumps(cases))
    file = tmp_path / "fast.yaml"
    file.write_text(json.dumps({"alg_name": "FT", **FAST["FT"]}))
    content = read(run(arguments(editing_method="FT", hparams_path=str(file))), "metrics.json")
    [item] = content
    entries = [p for value in item["post"].values() for p in value if isinstance(p, dict)]
    assert [entry["prompt"] for entry in entries if "trained" in entry] == [cloze]
    assert all(entry["rivals"][0] == cases[0]["answer"] for entry in item["post"]["accuracy_pred"])
    metrics = evaluate_run(content, get_judge("rule"))
    assert metrics.trained_predictions == 1
    everything, unseen = metrics.locality.unchanged, metrics.unseen.locality.unchanged
    assert everything.total == unseen.total + 1 == len(rewrite["locality"])


class Stops(SilentRun):
    """Raises once so many cases are done."""

    def __init__(self, after, error):
        self.after, self.error, self.done = after, error, 0

    def case_done(self, case_id, running):
        self.done += 1
        if self.done == self.after:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (OSError("no room"), "failed")], ids=["Ctrl-C", "error"]
)
def test_a_stop_while_the_edit_is_in_place_undoes_it_and_keeps_what_was_done(error, status, arguments, whole):
    model = make_llama()
    before = weights_of(model)
    with pytest.raises(type(error)):
        run(arguments(), Stops(2, error), model)
    assert same_weights(before, weights_of(model))
    folder = make_plan(arguments()).folder
    assert json.loads((folder / "meta" / "run_info.json").read_text())["status"] == status
    assert timeless(json.loads((folder / "metrics.json").read_text())) == files_of(whole.folder)["metrics.json"][:2]

    asked = Stops(0, None)
    summary = run(arguments(), asked, model)
    assert asked.done == 2  # only the other two
    assert files_of(summary.folder) == files_of(whole.folder)


@pytest.mark.parametrize("passes", [1, 2])
def test_ability_is_measured_of_every_edit_after_a_stop(passes, arguments, monkeypatch, tmp_path):
    file = tmp_path / "ft.yaml"
    file.write_text(json.dumps({"alg_name": "FT", "model_name": "tiny", **FAST["FT"], "steps": 2}))
    given = arguments(editing_method="FT", hparams_path=str(file), max_cases=2, probes=("hop",), ability="drift")
    measured, after = [], AbilityMeter.after

    def stopped(self, model):
        measured.append(1)
        if len(measured) == passes:
            raise KeyboardInterrupt
        return after(self, model)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(AbilityMeter, "after", stopped)
        run(given)
    summary = run(given)
    assert read(summary, "ability.json")["after"].keys() == {"0", "1"} and len(read(summary, "metrics.json")) == 2


def test_a_method_that_does_not_restore_is_found_out(arguments, install_method):
    """An installed package with a careless method."""
    install_method("Careless", CARELESS.format(hparams=METHODS["CausalEdit"].hparams, amount=0.01))
    with pytest.raises(EditFailedError, match="Careless did not restore"):
        run(arguments(editing_method="Careless"))


def test_probing_that_fails_undoes_the_edit(arguments):
    model = make_llama()
    before = weights_of(model)
    asked = []

    def fails_later(module, args, kwargs):
        asked.append(1)
        if not same_weights(before, weights_of(module)) and not module.training and kwargs["input_ids"].shape[0] > 12:
            raise RuntimeError("device-side assert triggered")

    handle = model.register_forward_pre_hook(fails_later, with_kwargs=True)
    with pytest.raises(RuntimeError, match="device-side"):
        run(arguments(max_cases=1), model=model)
    handle.remove()
    assert asked and same_weights(before, weights_of(model))


# ---- batches ---------------------------------------------------------------------------------------
def test_batches_of_unique_edits(arguments):
    model = make_llama()
    before = weights_of(model)
    summary = run(arguments(batch_edit=2), model=model)
    assert same_weights(before, weights_of(model))
    metrics, info = read(summary, "metrics.json"), read(summary, "meta/run_info.json")
    assert info["batches"] == 2
    assert {item["batch"] for item in metrics} <= {0, 1}
    left = {case["case_id"] for case in some_cases()} - {item["case_id"] for item in metrics}
    assert set(info["left_out_cases"]) == left
    assert summary.folder.name == f"n{len(metrics)}_seed70_r"
    for batch in (0, 1):
        items = [item for item in metrics if item["batch"] == batch]
        assert sum(len(item["requested_rewrite"]) for item in items) == 2
        assert all(item["time"] > 0 for item in items)


# ---- failing cases ---------------------------------------------------------------------------------
def test_a_case_that_cannot_be_edited_is_recorded_and_the_run_goes_on(arguments, data):
    cases = some_cases()
    cases[0]["requested_rewrite"][0]["article"] += " And so it went on." * 900  # beyond the context window
    data.write_text(json.dumps(cases))
    model = make_llama()
    before = weights_of(model)
    summary = run(arguments(), model=model)
    assert same_weights(before, weights_of(model))
    assert list(summary.failed) == [cases[0]["case_id"]]
    failed = next(item for item in read(summary, "metrics.json") if "error" in item)
    assert "context window" in failed["error"] and "post" not in failed
    assert (summary.results["cases"], summary.results["failed"]) == (3, 1)
    assert read(summary, "meta/run_info.json")["failed_cases"] == [cases[0]["case_id"]]
    assert list(run(arguments()).failed) == [cases[0]["case_id"]]  # a later call tries it again


def test_training_that_diverges_fails_its_case(arguments, hparams, tmp_path):
    file = tmp_path / "hot.yaml"
    file.write_text(hparams.read_text().replace("bootstrap_learning_rate: 0.02", "bootstrap_learning_rate: 1.0e+30"))
    assert file.read_text() != hparams.read_text()
    model = make_llama()
    before = weights_of(model)
    summary = run(arguments(hparams_path=str(file), max_cases=1), model=model)
    assert len(summary.failed) == 1 and same_weights(before, weights_of(model))


def test_memory_that_runs_out_in_an_edit_fails_its_case(arguments):
    """Raised where it would be, in a forward of the training; the case after it is edited."""
    model = make_llama()
    before, left = weights_of(model), [1]

    def scarce(module, args, kwargs):
        if torch.is_grad_enabled() and left:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.model.layers[0].register_forward_pre_hook(scarce, with_kwargs=True)
    summary = run(arguments(max_cases=2), model=model)
    assert len(summary.failed) == 1 and summary.results["cases"] == 1
    assert same_weights(before, weights_of(model))


# ---- resuming --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_cases": 2}, "--max_cases 200, and now it is 2"),
        ({"shuffle_seed": 71}, "--shuffle_seed 70, and now it is 71"),
        ({"max_new_tokens": 6}, "--max_new_tokens 5, and now it is 6"),
        ({"probes": ("hop",)}, "--probes hop,multi_hop,conflict,old_knowledge,locality, and now it is hop"),
        ({"hop": 2}, "--hop unset, and now it is 2"),
        ({"batch_edit": 2}, "--batch_edit unset, and now it is 2"),
    ],
)
def test_other_arguments_are_no_resume(change, words, unedited):
    with pytest.raises(RunError, match=re.escape(words)):
        make_plan(unedited(**change))
    make_plan(unedited(run_id="another", **change))


def test_other_hparams_or_data_are_no_resume(arguments, hparams, data, tmp_path):
    run(arguments(max_cases=1))
    file = tmp_path / "tiny.yaml"
    file.write_text(hparams.read_text().replace("bootstrap_max_steps: 3", "bootstrap_max_steps: 4"))
    with pytest.raises(RunError, match="--hparams_path"):
        make_plan(arguments(max_cases=1, hparams_path=str(file)))
    kept = hparams.read_text()
    try:
        hparams.write_text(file.read_text())
        with pytest.raises(RunError, match=r"other hyper-parameters \(bootstrap_max_steps\)"):
            make_plan(arguments(max_cases=1))
    finally:
        hparams.write_text(kept)
    data.write_text(json.dumps(some_cases(), indent=1))
    with pytest.raises(RunError, match="another dataset sha256"):
        make_plan(arguments(max_cases=1))


def test_a_finished_run_is_not_run_again(unedited):
    plan = make_plan(unedited())
    files = files_of(plan.folder)
    written = {file: file.stat().st_mtime_ns for file in plan.folder.glob("cases/*")}
    again = execute(plan, model=None)  # no model is needed
    assert again.results["cases"] == 4 and files_of(plan.folder) == files
    assert len(written) == 4 and all(file.stat().st_mtime_ns == at for file, at in written.items())


def test_a_torn_case_file_is_run_again(arguments):
    summary = run(arguments(editing_method=PRE_EDITED))
    files = files_of(summary.folder)
    for torn in ("", '{"item": {"case_id"', "[]"):
        (summary.folder / "cases" / "000001.json").write_text(torn)
        (summary.folder / "metrics.json").unlink()
        sink = Stops(0, None)
        run(arguments(editing_method=PRE_EDITED), sink)
        assert sink.done == 1 and files_of(summary.folder) == files


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_of_any_new_file(mask, tmp_path):
    before = os.umask(mask)
    try:
        written = [write_json(tmp_path / "a.json", {}), tmp_path / "b.npz"]
        write_arrays(written[1], {"x": np.zeros(2)})
        write_json(written[0], {"again": 1})
    finally:
        os.umask(before)
    assert [stat.S_IMODE(file.stat().st_mode) for file in written] == [0o666 & ~mask] * 2
    assert json.loads(written[0].read_text()) == {"again": 1} and np.load(written[1])["x"].shape == (2,)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_file_that_cannot_be_finished_leaves_the_one_before_and_nothing_else(error, tmp_path, monkeypatch):
    file = write_json(tmp_path / "a.json", {"before": 1})

    def fails(_):
        raise error

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(
        SaveError if isinstance(error, OSError) else type(error), match="No space" if error.args else ""
    ):
        write_json(file, {"after": 1})
    assert json.loads(file.read_text()) == {"before": 1} and [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("torn", ["", "[]", '{"probes": ['])
def test_a_run_of_which_nobody_knows_the_arguments_is_refused(torn, arguments):
    folder = run(arguments(editing_method=PRE_EDITED, max_cases=1)).folder
    (folder / "meta" / "run_args.json").write_text(torn)
    with pytest.raises(RunError, match=r"run_args\.json' cannot be read.*another --run_id"):
        make_plan(arguments(editing_method=PRE_EDITED, max_cases=1))


def test_a_run_that_began_since_the_plan_is_not_mixed_with_it(arguments):
    """As in a comparison, whose later methods wait for hours."""
    short = {"editing_method": PRE_EDITED, "max_cases": 1}
    planned = make_plan(arguments(**short, max_new_tokens=6))
    files = files_of(run(arguments(**short)).folder)
    with pytest.raises(RunError, match="max_new_tokens 5, and now it is 6"):
        execute(planned, model=make_llama(), tokenizer=make_tokenizer())
    assert files_of(planned.folder) == files
    execute(make_plan(arguments(**short)))  # its own arguments are still there


def test_what_another_process_did_since_the_call_began_is_not_done_again(arguments, monkeypatch):
    given = arguments(editing_method=PRE_EDITED, max_cases=2)
    held = execution.locked

    def waits(folder):
        monkeypatch.setattr(execution, "locked", held)
        run(given)
        return held(folder)

    monkeypatch.setattr(execution, "locked", waits)
    sink = Stops(0, None)
    assert run(given, sink).results["cases"] == 2 and sink.done == 0


def test_two_processes_do_not_share_a_run(arguments):
    class Meanwhile(SilentRun):
        def case_done(self, case_id, running):
            with pytest.raises(RunError, match="Another process"):
                execute(make_plan(arguments(editing_method=PRE_EDITED)))
            self.tried = True

    sink = Meanwhile()
    run(arguments(editing_method=PRE_EDITED), sink)
    assert sink.tried


def command(data, hparams, root, *more):
    return [
        sys.executable, "-m", "causaledit", "run", "--editing_method", "CausalEdit", "--datatype", str(data),
        "--model_type", "tiny", "--hparams_path", str(hparams), "--output_root", str(root), "--run_id", "r",
        "--device", "cpu", "--max_new_tokens", "5", *more,
    ]  # fmt: skip


def test_kill_9_at_several_points_and_resume(whole, data, hparams, tmp_path):
    root = tmp_path / "killed"
    folder = root / "four" / "tiny" / "CausalEdit" / "tag-default" / "n4_seed70_r"
    killed = []
    # a moment after the first case (within the second edit or its probes), then right at the third case's file
    for cases, wait in ((1, 0.4), (3, 0.0)):
        process = subprocess.Popen(
            command(data, hparams, root), cwd=REPOSITORY, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 600
        while len(list((folder / "cases").glob("*.json"))) < cases and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGKILL)
        killed.append(process.wait())
        assert json.loads((folder / "meta" / "run_info.json").read_text())["status"] == "running"
        for file in (folder / "cases").glob("*.json"):
            json.loads(file.read_text())  # whole, or not there
    assert killed == [-signal.SIGKILL] * 2
    done = subprocess.run(
        command(data, hparams, root), cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files_of(folder) == files_of(whole.folder)
    assert json.loads((folder / "meta" / "run_info.json").read_text())["status"] == "finished"


# ---- refusals before compute -----------------------------------------------------------------------
def _write(data, change):
    cases = some_cases()
    change(cases)
    data.write_text(json.dumps(cases))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"editing_method": "CausalEdits"}, RunError, "Did you mean 'CausalEdit'"),
        ({"editing_method": "preedited"}, RunError, "PreEdited"),
        ({"datatype": "MQuAKE-CF3k"}, DatasetError, "Did you mean 'MQuAKE-CF-3k'"),
        ({"datatype": "no/such.json"}, DatasetError, "no/such.json"),
        ({"model_type": "smolm2-135m", "hparams_path": None}, HparamsError, "smollm2-135m-instruct"),
        ({"model_type": " "}, RunError, "--model_type"),
        ({"hparams_path": "no/such.yaml"}, HparamsError, "no/such"),
        ({"editing_method": PRE_EDITED, "hparams_path": "no/such.yaml"}, HparamsError, "no/such"),
        ({"device": "cuda:77"}, ModelError, "cuda:77"),
        ({"hop": 4}, DatasetError, "--hop 4"),
        ({"skip_cases": 4}, DatasetError, "--skip_cases 4"),
        ({"batch_edit": 9}, DatasetError, "--batch_edit 9"),
    ],
)
def test_bad_arguments_are_refused(changes, error, words, arguments, tmp_path):
    with pytest.raises(error, match=re.escape(words)):
        make_plan(arguments(**changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes", [{"max_cases": 0}, {"batch_edit": 0}, {"max_new_tokens": 0}, {"run_id": "a/b"}, {"exp_tag": ".."}]
)
def test_values_out_of_range_are_refused(changes, arguments):
    name, value = next(iter(changes.items()))
    with pytest.raises(RunError, match=f"--{name}.*{re.escape(str(value))}"):
        arguments(**changes)


@pytest.mark.parametrize("name", ["run_id", "exp_tag", "model_type", "editing_method"])
def test_names_longer_than_a_files_are_refused(name, arguments):
    with pytest.raises(RunError, match=f"^--{name} has a part longer than 2[05]0 bytes") as caught:
        arguments(**{name: "n" * 300})
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[1].update(requested_rewrite=[]), "requested_rewrite: has no edit"),
        (lambda c: c[1].update(new_single_hops=[]), "new_single_hops: has no hop"),
        (lambda c: c[1].update(case_id=c[0]["case_id"]), "occurs 2 times"),
        (lambda c: c[1].update(new_answer=""), "new_answer: is empty"),
        (lambda c: c[1]["new_single_hops"][0].update(answer_alias=[""]), "answer_alias[0]: is empty"),
    ],
)
def test_bad_cases_are_refused(change, words, arguments, data):
    _write(data, change)
    with pytest.raises(DatasetError, match=re.escape(words)):
        make_plan(arguments())


def test_a_bad_case_that_is_not_chosen_is_no_obstacle(arguments, data):
    cases = some_cases()
    hops = len(cases[0]["new_single_hops"])
    cases.append({**MINI[-1], "case_id": 10**6, "new_answer": "", "new_single_hops": MINI[-1]["new_single_hops"][:1]})
    data.write_text(json.dumps(cases))
    with pytest.raises(DatasetError, match="case 1000000"):
        make_plan(arguments())
    assert make_plan(arguments(hop=hops)).cases


def test_open_book_needs_narratives_and_truncated_json_is_named(arguments, data):
    def no_articles(cases):
        for case in cases:
            for rewrite in case["requested_rewrite"]:
                del rewrite["article"]

    _write(data, no_articles)
    with pytest.raises(RunError, match="open_book needs narratives"):
        make_plan(arguments(probes=("hop", "open_book")))
    data.write_text(data.read_text()[:-100])
    with pytest.raises(DatasetError, match="not valid JSON"):
        make_plan(arguments())


def test_a_method_that_edits_one_fact_at_a_time(arguments, install_method):
    parts = METHODS["CausalEdit"]
    install_method(
        "Single",
        "from causaledit.methods.method import Method\n"
        f"METHOD = Method('Single', {parts.hparams!r}, {parts.edit!r}, batched=False)\n",
    )
    plan = make_plan(arguments(editing_method="Single"))
    assert plan.in_turn and not make_plan(arguments()).in_turn
    with pytest.raises(RunError, match="--batch_edit 2: Single edits one fact at a time"):
        make_plan(arguments(editing_method="Single", batch_edit=2))


def test_other_scripts_are_probed(arguments, data):
    def translate(cases):
        cases[0]["questions"] = ["東京タワーはどこですか？", "¿Dónde está?", "أين هو؟"]
        cases[0]["new_answer"], cases[0]["new_answer_alias"] = "大阪", ["أوساكا", "🇯🇵"]

    _write(data, translate)
    summary = run(arguments(editing_method=PRE_EDITED))
    items = {item["case_id"]: item for item in read(summary, "metrics.json")}
    entry = items[some_cases()[0]["case_id"]]["post"]["accuracy_pred"][0]
    assert entry["q"] == "東京タワーはどこですか？" and entry["ref"] == ["大阪", "أوساكا", "🇯🇵"]


# ---- the commands ----------------------------------------------------------------------------------
def test_the_run_command_ends_with_1_where_a_case_failed(data, hparams, tmp_path):
    cases = some_cases()[:2]
    cases[0]["requested_rewrite"][0]["article"] += " And so it went on." * 900
    data.write_text(json.dumps(cases))
    done = cli(*command(data, hparams, tmp_path / "out")[3:])
    assert done.returncode == 1
    assert "1 of 2 cases failed" in done.stderr and "--run_id r" in done.stderr and "Traceback" not in done.stderr
    assert "1 cases, 1 edits" in done.stdout


def test_bad_input_of_the_run_command_is_one_line_and_2(data, tmp_path):
    done = cli(
        "run",
        "--editing_method",
        "CausalEdit",
        "--datatype",
        data,
        "--model_type",
        "smolm2",
        "--output_root",
        tmp_path / "o",
    )
    assert done.returncode == 2 and "smollm2-135m-instruct" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    done = cli("run", "--editing_method", "CausalEdit", "--datatype", data, "--model_type", "x", "--probes", "hops")
    assert done.returncode == 2 and "Did you mean 'hop'" in done.stderr


def test_the_data_commands(data, tmp_path):
    done = cli("data", "check", data)
    assert done.returncode == 0, done.stderr
    assert "4 cases" in done.stdout and "5 edits" in done.stdout
    cases = some_cases()
    cases[1]["requested_rewrite"] = []
    cases[2]["new_single_hops"][0]["answer"] = ""
    data.write_text(json.dumps(cases))
    done = cli("data", "check", data)
    assert done.returncode == 2 and "2 problem(s) in 2 of 4 cases" in done.stderr
    assert f"case {cases[1]['case_id']}: requested_rewrite: has no edit" in done.stdout
    assert f"case {cases[2]['case_id']}: new_single_hops[0].answer: is empty" in done.stdout
    data.write_text(data.read_text()[:500])
    assert cli("data", "check", data).returncode == 2
    done = cli("data", "fetch", "MQuAKE-TT", CAUSALEDIT_CACHE=str(tmp_path))
    assert done.returncode == 2 and "MQuAKE-T" in done.stderr
    done = cli("data", "fetch", "MQuAKE-T", "--base-url", "http://127.0.0.1:1", CAUSALEDIT_CACHE=str(tmp_path))
    assert done.returncode == 1 and "127.0.0.1" in done.stderr and "Traceback" not in done.stderr
