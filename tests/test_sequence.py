"""Sequences of edits: kept, asked again at checkpoints, resumed after any stop, put back bit for bit."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import signal
import sys

import pytest
from conftest import FAST, make_llama, make_tokenizer, same_weights, weights_of
from test_runs import some_cases

from causaledit.errors import EditFailedError, RunError
from causaledit.judges.registry import get_judge
from causaledit.metrics.predictions import cases_of
from causaledit.metrics.summary import evaluate_run
from causaledit.runs import sequence_execution
from causaledit.runs.arguments import RunArguments, parse_checkpoints
from causaledit.runs.execution import execute
from causaledit.runs.losses import read_losses
from causaledit.runs.plan import make_plan
from causaledit.runs.sequence_execution import SequenceExecution

CHEAP = {
    "FT": FAST["FT"] | {"steps": 3},
    "LoRA": FAST["LoRA"],
    "AlphaEdit": FAST["AlphaEdit"] | {"v_num_grad_steps": 3},
    "ROME": FAST["ROME"] | {"v_num_grad_steps": 3},
    "MEMIT": FAST["MEMIT"] | {"v_num_grad_steps": 3},
    "ICE": FAST["ICE"],
    "IKE": FAST["IKE"],
    "CausalEdit": FAST["CausalEdit"] | {"bootstrap_max_steps": 2, "distill_steps_base": 1},
}


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "four.json"
    file.write_text(json.dumps(some_cases()))
    return file


@pytest.fixture
def arguments(data, tmp_path, own_files):
    def make(method="FT", **changes):
        file = tmp_path / f"{method}.yaml"
        file.write_text(json.dumps({"alg_name": method, "model_name": "tiny", **CHEAP.get(method, {})}))
        values = {
            "editing_method": method, "datatype": str(data), "model_type": "tiny", "hparams_path": str(file),
            "output_root": str(tmp_path / "out"), "run_id": "r", "device": "cpu", "max_new_tokens": 4,
            "probes": ("hop", "multi_hop", "locality"), "sequential": 1,
        }  # fmt: skip
        return RunArguments(**{**values, **changes})

    return make


def run(arguments, model=None):
    return execute(make_plan(arguments), model=model or make_llama(), tokenizer=make_tokenizer())


def read(folder, name="metrics.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def answers(folder):
    """A run's files without the figures that differ from run to run."""
    return [{k: v for k, v in item.items() if k != "time"} for item in read(folder)]


def final_state(folder):
    from safetensors.torch import load_file

    [state] = (folder / "sequence").glob("state-*")
    return state.name, load_file(state / "weights.safetensors")


# ---- what is asked ---------------------------------------------------------------------------------
def test_every_edit_so_far_is_asked_at_each_checkpoint_and_the_model_is_put_back(arguments):
    model = make_llama()
    before = weights_of(model)
    summary = run(arguments(checkpoints=(1, 2, 5)), model)
    assert same_weights(before, weights_of(model))
    content = read(summary.folder)
    places = [(i["sequence"]["checkpoint"], i["sequence"]["edit"]) for i in content]
    assert places == [(1, 1), *((2, n) for n in (1, 2)), *((5, n) for n in (1, 2, 3, 4, 5))]
    assert all(len(item["requested_rewrite"]) == 1 and len(item["post"]["hop_wise"][0]) == 3 for item in content)
    # the two-edit case's questions wait for its second edit
    asked = {item["case_id"]: len(item["post"]["accuracy"]) for item in content if item["sequence"]["checkpoint"] == 5}
    double = next(case["case_id"] for case in some_cases() if len(case["requested_rewrite"]) == 2)
    assert asked[f"{double}/1"] == 0 and asked[f"{double}/2"] == 3
    numbers = {item["sequence"]["edit"] for item in content if str(item["case_id"]).startswith(f"{double}/")}
    early = [item for item in content if item["sequence"]["checkpoint"] < max(numbers)]
    assert any(item["sequence"]["edit"] == min(numbers) for item in early)
    assert all(not item["post"]["accuracy"] for item in early if item["sequence"]["edit"] in numbers)
    assert read(summary.folder, "res.json")["checkpoints"].keys() == {"1", "2", "5"}
    info = read(summary.folder, "meta/run_info.json")
    assert info["status"] == "finished" and info["finished_cases"] == 5 and info["sequence"]["steps"] == 5
    assert info["costs"]["seconds_per_edit"] > 0
    assert [(step.edits, len(step.curves["train"])) for step in read_losses(summary.folder)] == [(1, 3)] * 5
    # the first edit's answers are those of other models
    first = [item["post"] for item in content if item["sequence"]["edit"] == 1]
    assert len({json.dumps(post["locality_probe"]) for post in first}) > 1
    # locality is against the unedited model
    assert len({p["pred_before"] for post in first for p in post["locality_probe"]}) == len(first[0]["locality_probe"])


@pytest.mark.parametrize("name", list(CHEAP))
def test_every_method_keeps_its_edits_and_is_undone(name, arguments):
    model = make_llama()
    before, names = weights_of(model), set(vars(model))
    summary = run(arguments(name, sequential=2, checkpoints=(2, 4)), model)
    assert same_weights(before, weights_of(model)) and set(vars(model)) == names
    assert summary.failed == {}
    first = [i["post"]["locality_probe"] for i in read(summary.folder) if i["sequence"]["edit"] == 1]
    assert any(p["pred"] != p["pred_before"] for post in first for p in post)
    if name != "IKE":
        step, weights = final_state(summary.folder)
        assert step == "state-000002"
        originals = {float(value.float().sum()) for value in before.values()}
        assert all(float(value.float().sum()) not in originals for value in weights.values())


def test_the_unedited_model_answers_the_same_at_every_checkpoint(arguments, tiny_model_folder):
    given = arguments("PreEdited", hparams_path=None, model_type=str(tiny_model_folder), checkpoints=(1, 2))
    content = read(run(given).folder)
    first = [item["post"] for item in content if item["sequence"]["edit"] == 1]
    assert len(first) == 2 and first[0]["hop_wise_pred"] == first[1]["hop_wise_pred"]


def test_the_protocol_of_gao_et_al_makes_five_steps(arguments, data):
    sequence = make_plan(arguments(sequential=None, protocol="gao")).sequence
    assert sequence.checkpoints == (1, 2, 3, 4, 5)
    cases = [copy.deepcopy(some_cases()[0]) for _ in range(12)]
    for number, case in enumerate(cases):
        case["case_id"] = number
        case["requested_rewrite"][0]["subject"] = f"Land {number}"
    data.write_text(json.dumps(cases))
    sequence = make_plan(arguments(sequential=None, protocol="gao")).sequence
    assert sequence.checkpoints == (3, 6, 9, 12) or sequence.edits[-1].step == 5
    data.write_text(json.dumps(cases[:4]))
    with pytest.raises(RunError, match="gao makes 5 steps, and the chosen cases have 4"):
        make_plan(arguments(sequential=None, protocol="gao"))


def contradicting():
    """The first case again, with another answer, at the end."""
    cases = some_cases()[:2]
    again = copy.deepcopy(cases[0])
    again["case_id"] = "again"
    again["requested_rewrite"][0]["target_new"] = {"str": "Reykjavik", "id": "Q1764"}
    return [*cases, again]


def test_of_contradicting_edits_the_later_one_wins_and_is_said_so(arguments, data, caplog):
    data.write_text(json.dumps(contradicting()))
    with caplog.at_level(logging.WARNING, "causaledit"):
        plan = make_plan(arguments())
    assert "contradict each other" in caplog.text and "the later one wins" in caplog.text
    [[old, new]] = [(e.number, e.superseded) for e in plan.sequence.edits if e.superseded]
    content = read(run(arguments()).folder)
    asked = [(i["sequence"]["checkpoint"], i["sequence"]["edit"]) for i in content]
    assert (old, old) in asked and (new, new) in asked and (new, old) not in asked
    with caplog.at_level(logging.WARNING, "causaledit"):
        whole = make_plan(arguments(sequential=3, run_id="s")).sequence  # in one step only the later one is made
    assert len(whole.edits) == 2 and len(whole.dropped) == 1


def test_an_edit_that_failed_supersedes_nothing(arguments, data):
    third = contradicting()[2]
    third["case_id"], third["requested_rewrite"][0]["target_new"] = "once more", {"str": "Tromso", "id": "Q26087"}
    data.write_text(json.dumps([*contradicting(), third]))
    plan = make_plan(arguments()).sequence
    chain = [e for e in plan.edits if e.superseded or any(o.superseded == e.number for o in plan.edits)]
    first, second, last = (e.number for e in chain)
    total = len(plan.edits)

    def held(*failed):
        return {e.number for e in plan.asked(total, {plan.edits[n - 1].step for n in failed})} & {first, second, last}

    assert held() == {last}
    assert held(last) == {second, last}  # the last is listed as failed, the one before it is still in the model
    assert held(second, last) == {first, second, last}
    assert held(second) == {last}


# ---- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoints": (1, 50)}, "the chosen cases have 5 unique edits"),
        ({"sequential": 2, "checkpoints": (3,)}, "3 lies within a step of --sequential 2: give the end of one, 2"),
        ({"sequential": None, "checkpoints": (1,)}, "give --sequential N too"),
        ({"sequential": 0}, "--sequential must be at least 1"),
        ({"batch_edit": 2}, "--batch_edit undoes every batch"),
        ({"protocol": "gao"}, "leave out --sequential"),
        ({"protocol": "gaoo", "sequential": None}, "Did you mean 'gao'"),
    ],
)
def test_what_cannot_be_a_sequence_is_refused(changes, words, arguments):
    with pytest.raises(RunError, match=re.escape(words)):
        make_plan(arguments(**changes))


@pytest.mark.parametrize("text", ["1,", "0,3", "a", "3,2", "2,2", "-1"])
def test_checkpoints_that_are_no_growing_numbers(text):
    with pytest.raises(RunError, match="--checkpoints must"):
        parse_checkpoints(text)
    assert parse_checkpoints(" 1, 5 ,20") == (1, 5, 20)


def test_a_sequence_and_a_run_case_by_case_do_not_resume_each_other(arguments):
    run(arguments(checkpoints=(1,)))
    with pytest.raises(RunError, match="--sequential 1, and now it is unset"):
        make_plan(arguments(sequential=None))
    with pytest.raises(RunError, match="--checkpoints 1, and now it is unset"):
        make_plan(arguments())
    run(arguments(sequential=None, run_id="s", max_cases=1))
    with pytest.raises(RunError, match="--sequential unset, and now it is 1"):
        make_plan(arguments(run_id="s", max_cases=1))


# ---- resuming --------------------------------------------------------------------------------------
def in_a_child(function):
    """Run a function in a fork, and give how the child ended."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("name", ["AlphaEdit", "LoRA", "IKE"])
def test_killed_at_any_write_it_goes_on_to_the_same_files_and_weights(name, arguments):
    """Every file of a run is put in place by a rename: the process is killed at each third of them, again and again."""
    given = {"checkpoints": (1, 3)}
    whole = run(arguments(name, run_id="whole", **given)).folder
    killed = 0
    for last in range(4, 60, 3):  # each process gets a little further than the one before

        def dies(last=last):
            renames = []

            def count(event, _):
                if event == "os.rename":
                    renames.append(event)
                    if len(renames) == last:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            run(arguments(name, **given))

        if not os.WIFSIGNALED(in_a_child(dies)):
            break
        killed += 1
    assert killed > 2
    folder = make_plan(arguments(name, **given)).folder
    assert answers(folder) == answers(whole)
    if name != "IKE":
        (step, weights), (other_step, other_weights) = final_state(folder), final_state(whole)
        assert step == other_step and same_weights(weights, other_weights)


def test_what_is_rehearsed_survives_a_kill(arguments, monkeypatch):
    preserving = {"preserve_weight": 0.5, "preserve_prompts": 4, "preserve_max_new_tokens": 3, "lora_dropout": 0.0}
    monkeypatch.setitem(CHEAP, "LoRA", {**FAST["LoRA"], "steps": 8, **preserving})
    plain = final_state(run(arguments("LoRA", run_id="plain", checkpoints=(4,))).folder)
    monkeypatch.setitem(CHEAP, "LoRA", {**CHEAP["LoRA"], "rehearse_edits": 8})
    whole = run(arguments("LoRA", run_id="whole", checkpoints=(4,))).folder

    def dies():
        def look(event, values):
            if event == "os.rename" and str(values[1]).endswith("state-000002"):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(look)
        run(arguments("LoRA", checkpoints=(4,)))

    assert os.WIFSIGNALED(in_a_child(dies))
    folder = run(arguments("LoRA", checkpoints=(4,))).folder
    assert answers(folder) == answers(whole)
    (_, weights), (_, expected) = final_state(folder), final_state(whole)
    assert same_weights(weights, expected) and not same_weights(weights, plain[1])


def test_killed_while_it_edits_or_asks(arguments):
    whole = run(arguments(run_id="whole")).folder
    killed = []
    for passes in (30, 45, 60):  # the first 25 measure the machine

        def dies(passes=passes):
            model, seen = make_llama(), []

            def count(*_):
                seen.append(1)
                if len(seen) == passes:
                    os.kill(os.getpid(), signal.SIGKILL)

            model.register_forward_pre_hook(count)
            run(arguments(), model)

        killed.append(os.WIFSIGNALED(in_a_child(dies)))
    assert killed[0]
    model = make_llama()
    before = weights_of(model)
    assert answers(run(arguments(), model).folder) == answers(whole)
    assert same_weights(before, weights_of(model))


def test_a_finished_sequence_is_not_run_again_and_other_weights_are_refused(arguments):
    folder = run(arguments()).folder
    execute(make_plan(arguments()), model=None)  # no model is needed
    for file in (folder / "sequence" / "checkpoints").glob("*.json"):
        file.unlink()
    with pytest.raises(RunError, match="made in other weights"):
        run(arguments(), make_llama(seed=1))


def test_an_edit_that_fails_is_noted_and_the_sequence_goes_on(arguments, data):
    cases = some_cases()[:3]
    cases[1]["requested_rewrite"][0]["article"] += " And so it went on." * 900  # beyond the context window
    data.write_text(json.dumps(cases))
    model = make_llama()
    before = weights_of(model)
    summary = run(arguments("CausalEdit", checkpoints=(3,)), model)
    assert same_weights(before, weights_of(model))
    assert len(summary.failed) == 1 and len(read(summary.folder)) == 3
    found = evaluate_run(read(summary.folder), get_judge("rule")).retention.checkpoints[0]
    assert found.failed == 1 and found.held.total == 2


@pytest.mark.parametrize("name", ["FT", "IKE"])
def test_an_edit_that_failed_stays_out_once_it_was_asked_about(name, arguments, monkeypatch):
    """Memory that ran out may be there when the run goes on; what is at the checkpoints was asked without the edit."""
    made, edit_all, ask = [], sequence_execution.edit_all, SequenceExecution._ask_after

    def fails_second(*args, **kwargs):
        made.append(1)
        if len(made) == 2:
            raise EditFailedError("ran out of memory")
        return edit_all(*args, **kwargs)

    def stops(self, step, kept):
        ask(self, step, kept)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sequence_execution, "edit_all", fails_second)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(SequenceExecution, "_ask_after", stops)
        run(arguments(name, max_cases=3))
    summary = run(arguments(name, max_cases=3))
    entries = [item for item in read(summary.folder) if item["sequence"]["edit"] == 2]
    assert len(entries) > 1 and all("ran out of memory" in item["error"] for item in entries)
    assert len(summary.failed) == 1


def test_weights_that_grow_out_of_bounds_are_said_with_the_edit(arguments, caplog, tmp_path):
    given = arguments(checkpoints=(2,))
    file = tmp_path / "hot.yaml"
    file.write_text(json.dumps({**json.loads((tmp_path / "FT.yaml").read_text()), "learning_rate": 3.0,
                                "norm_constraint": None}))  # fmt: skip
    given = arguments(checkpoints=(2,), hparams_path=str(file))
    with caplog.at_level(logging.WARNING, "causaledit"):
        run(given)
    said = [r.getMessage() for r in caplog.records if "times what it was" in r.getMessage()]
    assert len(said) == 1 and "after step 1 (" in said[0]


# ---- its metrics -----------------------------------------------------------------------------------
def entry(checkpoint, edit, right, same, step=None):
    """An entry of a metrics file: three hop-wise answers of which so many are right, and one locality answer."""
    texts = ["It is Bergen."] * right + ["It is Oslo."] * (3 - right)
    hops = [{"q": "q", "prompt": "p", "ref": ["Bergen"], "pred": text} for text in texts]
    local = {"q": "l", "prompt": "l", "ref": ["the Nile"], "pred": "the Nile" if same else "the Rhine", "edit": 0,
             "pred_before": "the Nile"}  # fmt: skip
    rewrite = {"prompt": "The capital of {} is", "subject": f"Land {edit}", "target_new": {"str": "Bergen"},
               "target_true": {"str": "Oslo"}, "question": "q"}  # fmt: skip
    return {
        "case_id": edit, "requested_rewrite": [rewrite], "time": 0.0,
        "sequence": {"checkpoint": checkpoint, "edit": edit, "step": step or edit},
        "post": {"hop_wise_pred": [hops], "locality_probe": [local]},
    }  # fmt: skip


def test_retention_counts_edits_by_step_and_checkpoint():
    content = [
        entry(1, 1, 3, True), entry(2, 1, 1, True), entry(2, 2, 2, True),
        entry(4, 1, 0, False), entry(4, 2, 3, True), entry(4, 3, 3, False, step=3), entry(4, 4, 1, True, step=3),
    ]  # fmt: skip
    metrics = evaluate_run(content, get_judge("rule"))
    assert metrics.cases == 4  # the other metrics are those of the last checkpoint
    first, second, last = metrics.retention.checkpoints
    assert (first.current.hits, first.current.total, first.earlier.total) == (1, 1, 0)
    assert (second.current.hits, second.earlier.hits, second.earlier.total) == (1, 0, 1)
    assert (last.current.hits, last.current.total) == (1, 2) and (last.earlier.hits, last.earlier.total) == (1, 2)
    assert (last.unchanged.hits, last.unchanged.total) == (2, 4)
    assert {key: rate.hits for key, rate in metrics.retention.by_step.items()} == {
        (1, 1): 1, (1, 2): 0, (2, 2): 1, (1, 4): 0, (2, 4): 1, (3, 4): 1,
    }  # fmt: skip
    assert metrics.to_dict()["retention"]["checkpoints"][2]["earlier"]["interval"]


def test_a_file_without_a_sequence_has_no_retention():
    content = [{k: v for k, v in entry(1, 1, 3, True).items() if k != "sequence"}]
    metrics = evaluate_run(content, get_judge("rule"))
    assert metrics.retention is None and "retention" not in metrics.to_dict()
    assert cases_of(content)[0].sequence is None


# ---- compared and reported ---------------------------------------------------------------------------
def test_a_comparison_and_a_page_show_the_sequence(arguments, tmp_path, tiny_model_folder):
    from causaledit.comparison.execution import execute_comparison
    from causaledit.comparison.plan import make_compare_plan
    from causaledit.report.html import write_report

    files = []
    for name in ("FT", "ROME"):
        file = tmp_path / f"{name}-c.yaml"
        file.write_text(json.dumps({"alg_name": name, "model_name": str(tiny_model_folder), **CHEAP[name]}))
        files.append(f"{name}={file}")
    given = arguments(checkpoints=(1, 3), hparams_path=None, run_id="c")
    judge = get_judge("rule")
    plan = make_compare_plan(["FT", "ROME"], given, judge=judge.identity, hparams=files)
    rows = execute_comparison(plan, judge)
    assert [row.problem for row in rows] == [None, None]
    table = (plan.folder / "compare.md").read_text()
    assert "Along the sequence" in table and table.count("| FT | 1 |") == table.count("| ROME | 3 |") == 1
    again = make_compare_plan(["FT", "ROME"], given, judge=judge.identity, hparams=files, resume=True)
    assert again.resumed and execute_comparison(again, judge)[0].status == "finished"
    page = write_report([row.folder for row in rows], tmp_path / "page.html", judge=judge).read_text()
    assert "Along the sequence" in page and page.count("share of each step") == 2 and ", after 3 edits" in page


def test_the_commands_run_and_analyze_a_sequence(arguments, data, tmp_path, tiny_model_folder):
    from typer.testing import CliRunner

    from causaledit.cli.app import app

    file = tmp_path / "ft.yaml"
    file.write_text(json.dumps({"alg_name": "FT", "model_name": str(tiny_model_folder), **CHEAP["FT"]}))
    call = [
        "run", "--editing_method", "FT", "--datatype", str(data), "--model_type", "tiny", "--hparams_path", str(file),
        "--device", "cpu", "--max_new_tokens", "4", "--probes", "hop,locality", "--sequential", "2", "--checkpoints",
        "2,4", "--output_root", str(tmp_path / "o"), "--run_id", "r",
    ]  # fmt: skip
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    [metrics] = (tmp_path / "o").rglob("metrics.json")
    result = CliRunner().invoke(app, ["analyze", "--input", str(metrics)])
    assert result.exit_code == 0 and "after 4 edits: this step's" in result.output.replace("\n", " ")
    written = json.loads((metrics.parent / "analysis" / "pred_analysis.json").read_text())
    assert [c["edits"] for c in written["metrics"]["retention"]["checkpoints"]] == [2, 4]
