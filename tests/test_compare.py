"""Comparisons: one table over several methods' runs, one failing without the others, resuming after any stop."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import CARELESS, FAST, REPOSITORY

from causaledit.comparison.execution import SilentCompare, execute_comparison
from causaledit.comparison.plan import make_compare_plan, parse_files, parse_methods
from causaledit.comparison.tables import markdown, tables
from causaledit.errors import DatasetError, HparamsError, JudgeError, RunError, SaveError
from causaledit.judges.recall import recall_note
from causaledit.judges.registry import get_judge
from causaledit.metrics.paired import compare_runs
from causaledit.metrics.predictions import read_metrics
from causaledit.metrics.summary import evaluate_run
from causaledit.runs.arguments import RunArguments

MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))
METHODS = ("CausalEdit", "LoRA", "ROME", "IKE", "PreEdited")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def cheap(name):
    """A method's fast figures with few steps: a comparison is about what comes out, not about its quality."""
    few = {"bootstrap_max_steps": 2, "steps": 4, "v_num_grad_steps": 4}
    return {**FAST[name], **{key: value for key, value in few.items() if key in FAST[name]}}


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_model_folder):
    """A folder with data and with `hparams/METHOD/tiny.yaml`, as the current one."""
    singles = [case for case in MINI if len(case["requested_rewrite"]) == 1][:2]
    double = next(case for case in MINI if len(case["requested_rewrite"]) == 2)
    (tmp_path / "three.json").write_text(json.dumps(copy.deepcopy([*singles, double])))
    for name in FAST:
        file = tmp_path / "hparams" / name / "tiny.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"alg_name": name, "model_name": str(tiny_model_folder), **cheap(name)}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def break_method(workplace, name, **changes):
    """Give a method hyper-parameters that only fail once the model is there."""
    file = workplace / "hparams" / name / "tiny.yaml"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def arguments(**changes):
    values = {
        "editing_method": "CausalEdit", "datatype": "three.json", "model_type": "tiny", "output_root": "out",
        "run_id": "c", "device": "cpu", "max_new_tokens": 5,
    }  # fmt: skip
    return RunArguments(**{**values, **changes})


def plan_of(methods=METHODS, *, resume=False, **changes):
    return make_compare_plan(methods, arguments(**changes), judge=get_judge("rule").identity, resume=resume)


def run(plan, sink=None):
    rows = execute_comparison(plan, get_judge("rule"), sink)
    return {row.method: row for row in rows}


def read(plan):
    return json.loads((plan.folder / "compare.json").read_text(encoding="utf-8"))


def timeless(data):
    """The rows of a comparison without what differs from one process to the next."""
    return {
        name: {key: value for key, value in row.items() if key not in ("costs", "folder")}
        for name, row in data["methods"].items()
    }


# ---- what a comparison writes ----------------------------------------------------------------------
def test_methods_side_by_side(workplace, caplog):
    caplog.set_level(logging.INFO, "causaledit")
    plan = plan_of()
    rows = run(plan)
    assert plan.folder.parts[-4:] == ("tiny", "compare", "tag-default", "n3_seed70_c")
    assert [row.problem for row in rows.values()] == [None] * 5
    assert caplog.text.count("loading ") == 1  # one model serves all of them

    data = read(plan)
    assert list(data["methods"]) == list(METHODS) and data["reference"] == "CausalEdit" and len(data["cases"]) == 3
    judged = {}
    for name, row in data["methods"].items():
        assert (row["status"], row["finished_cases"]) == ("finished", 3)
        assert row["folder"] == f"out/three/tiny/{name}/tag-default/n3_seed70_c"
        judged[name] = evaluate_run(read_metrics(f"{row['folder']}/metrics.json"), get_judge("rule"))
        assert row["metrics"] == judged[name].to_dict()
        ids = [item["case_id"] for item in read_metrics(f"{row['folder']}/metrics.json")]
        assert ids == data["cases"]
        if name == "CausalEdit":
            assert row["paired"] is None
            continue
        expected = compare_runs(judged[name], judged["CausalEdit"]).to_dict()
        assert {k: row["paired"]["tables"][k] for k in expected["tables"]} == expected["tables"]
        assert row["paired"]["differences"] == expected["differences"]
        metrics, paired = row["metrics"], row["paired"]["tables"]
        assert paired["rationale"]["n"] == metrics["rationale"]["total"] > 0
        assert paired["locality_unchanged"]["n"] == metrics["locality"]["unchanged"]["total"] > 0

    costs = {name: row["costs"] for name, row in data["methods"].items()}
    assert all(costs[name]["cost_tokens_per_edit"] > 0 for name in METHODS[:4])
    assert costs["PreEdited"]["seconds_per_edit"] is None and costs["PreEdited"]["weights_changed"] is None
    assert costs["IKE"]["weights_changed"] == 0  # in the context
    one_matrix = 64 * 32  # a rank-one change of one layer's down projection
    assert 0.9 * one_matrix < costs["ROME"]["weights_changed"] <= one_matrix
    assert costs["CausalEdit"]["weights_changed"] > one_matrix
    share = costs["ROME"]["weights_changed_share"]
    assert 0 < share < costs["CausalEdit"]["weights_changed_share"] < 1
    assert all(row["peak_rss_mb"] > 0 for row in costs.values())


def test_the_tables_hold_every_figure(workplace):
    plan = plan_of(("CausalEdit", "FT", "PreEdited"))
    run(plan)
    data = read(plan)
    figures, paired, costs = tables(data)
    assert [row[0] for row in figures.rows] == [("CausalEdit",), ("FT",), ("PreEdited",)]
    assert [row[0] for row in paired.rows] == [("FT",), ("PreEdited",)]
    h_acc = data["methods"]["FT"]["metrics"]["h_acc"]
    cell = figures.rows[1][figures.columns.index("H-Acc")]
    low, high = h_acc["interval"]
    assert cell == (f"{100 * h_acc['rate']:.1f} %", f"{h_acc['n']} cases", f"{100 * low:.0f} to {100 * high:.0f}")
    table = data["methods"]["FT"]["paired"]["tables"]["hop_wise_answers"]
    cell = paired.rows[0][paired.columns.index("hop answers")]
    assert cell[0] == f"+{table['repaired']} −{table['harmed']}" and cell[1] == f"of {table['n']}"
    assert float(costs.rows[1][costs.columns.index("Seconds per edit")][0]) > 0
    said = recall_note(data["arguments"]["judge"])  # once, and not in every cell
    assert figures.note.count(said) == 1
    assert not any(said in part for row in figures.rows for cell in row for part in cell)
    assert figures.rows[1][figures.columns.index("SRR")][-1].endswith("an answer")
    assert "in turn" not in figures.note  # these methods make a case's edits together
    assert costs.rows[2][costs.columns.index("Seconds per edit")] == ("–",)

    written = (plan.folder / "compare.md").read_text(encoding="utf-8")
    assert written == markdown(data)
    assert "all runs were there" in markdown(data | {"model": None}) and "all runs were there" not in written
    lines = [line for line in written.splitlines() if line.startswith("|")]
    assert len(lines) == 3 * 2 + 3 + 2 + 3
    assert {line.count("|") for line in lines[:5]} == {len(figures.columns) + 1}
    assert data["dataset_sha256"][:12] in written and "What went wrong" not in written


def test_without_causaledit_the_first_method_is_the_reference(workplace):
    plan = plan_of(("LoRA", "PreEdited"), max_cases=1)
    run(plan)
    data = read(plan)
    assert data["reference"] == "LoRA" and data["methods"]["PreEdited"]["paired"]["cases"] == 1
    assert "Against LoRA" in (plan.folder / "compare.md").read_text(encoding="utf-8")


# ---- failures --------------------------------------------------------------------------------------
def test_a_method_that_fails_is_reported_and_the_others_go_on(workplace):
    break_method(workplace, "ROME", layers=[77])
    plan = plan_of(("ROME", "LoRA", "PreEdited"))
    rows = run(plan)
    assert rows["ROME"].status == "failed" or len(rows["ROME"].failed_cases) == 3
    assert "77" in rows["ROME"].problem
    assert [rows[name].status for name in ("LoRA", "PreEdited")] == ["finished"] * 2
    assert rows["LoRA"].metrics["h_acc"]["n"] == 3
    written = (plan.folder / "compare.md").read_text(encoding="utf-8")
    assert "## What went wrong" in written and re.search(r"- ROME: .*77", written)

    before = copy.deepcopy(rows["LoRA"].metrics)
    again = run(plan_of(("ROME", "LoRA", "PreEdited"), resume=True))
    assert again["LoRA"].metrics == before and again["ROME"].problem == rows["ROME"].problem


def test_a_method_that_does_not_restore_leaves_nothing_to_the_next(workplace, install_method, caplog):
    caplog.set_level(logging.INFO, "causaledit")
    install_method("Careless", CARELESS.format(hparams="causaledit.methods.ft.hparams:FTHyperParams", amount=0.5))
    (workplace / "hparams" / "Careless").mkdir()
    settings = (workplace / "hparams" / "FT" / "tiny.yaml").read_text()
    (workplace / "hparams" / "Careless" / "tiny.yaml").write_text(settings)
    alone = run(plan_of(("PreEdited",), run_id="alone"))
    rows = run(plan_of(("Careless", "PreEdited")))
    assert rows["Careless"].status == "failed" and "did not restore" in rows["Careless"].error
    assert rows["PreEdited"].metrics == alone["PreEdited"].metrics  # of the unedited weights
    assert caplog.text.count("loading ") == 3


def test_cases_that_fail_are_counted(workplace):
    cases = json.loads((workplace / "three.json").read_text())
    cases[0]["requested_rewrite"][0]["article"] += " And so it went on." * 900  # beyond the context window
    (workplace / "three.json").write_text(json.dumps(cases))
    rows = run(plan_of(("CausalEdit", "PreEdited")))
    assert list(rows["CausalEdit"].failed_cases) == [str(cases[0]["case_id"])]
    assert "1 of 3 cases failed" in rows["CausalEdit"].problem
    assert rows["PreEdited"].paired["cases"] == 2  # what both have


class Unreachable:
    """A judge whose endpoint is down."""

    name = "rule"
    identity = get_judge("rule").identity

    def judge_answer(self, item):
        from causaledit.errors import JudgingStoppedError

        raise JudgingStoppedError("the endpoint refuses the connection")

    judge_refutation = judge_rationale = judge_answer


def test_a_judge_that_gives_up_does_not_stop_the_runs(workplace):
    plan = plan_of(("LoRA", "PreEdited"), max_cases=1)
    rows = execute_comparison(plan, Unreachable())
    assert [row.finished_cases for row in rows] == [1, 1]
    assert all("refuses the connection" in row.problem and row.metrics is None for row in rows)
    assert all(row.metrics for row in run(plan_of(("LoRA", "PreEdited"), max_cases=1, resume=True)).values())


# ---- resuming --------------------------------------------------------------------------------------
class Counts(SilentCompare):
    """Notes which cases are run, and raises after so many."""

    def __init__(self, stop_after=None):
        self.stop_after, self.cases = stop_after, 0

    def case_done(self, case_id, running):
        self.cases += 1
        if self.cases == self.stop_after:
            raise KeyboardInterrupt


def test_ctrl_c_and_resume(workplace):
    methods = ("LoRA", "IKE", "PreEdited")
    whole = plan_of(methods, run_id="whole")
    run(whole)
    plan = plan_of(methods)
    with pytest.raises(KeyboardInterrupt):
        run(plan, Counts(5))
    rows = read(plan)["methods"]
    assert [rows[name]["status"] for name in methods] == ["finished", "unfinished", "not started"]
    assert rows["LoRA"]["metrics"] and (plan.folder / "compare.md").is_file()
    with pytest.raises(RunError, match="--resume"):
        plan_of(methods)
    again = plan_of(methods, resume=True, run_id=None)  # the newest with these arguments
    assert again.folder == plan.folder and again.resumed
    sink = Counts()
    run(again, sink)
    assert sink.cases == 4  # one of IKE's is kept
    assert timeless(read(again)) == timeless(read(whole))
    sink = Counts()
    run(plan_of(methods, resume=True), sink)
    assert sink.cases == 0


def command(*more):
    return [
        sys.executable, "-m", "causaledit", "compare", "--datatype", "three.json", "--model_type", "tiny",
        "--output_root", "out", "--run_id", "c", "--device", "cpu", "--max_new_tokens", "5", *more,
    ]  # fmt: skip


def test_kill_9_and_resume_on_the_command_line_with_one_method_that_fails(workplace):
    break_method(workplace, "MEMIT", layers=[77])
    methods = ("--methods", "CausalEdit,MEMIT,LoRA,PreEdited", "--html", "page.html", "--resume")
    folder = workplace / "out" / "three" / "tiny"
    process = subprocess.Popen(
        command(*methods), start_new_session=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while not list((folder / "CausalEdit").glob("*/*/cases/000001.json")):  # two of the first method's three
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    first = next((folder / "CausalEdit").glob("*/*/cases/000000.json"))
    kept = first.stat().st_mtime_ns

    done = subprocess.run(command(*methods), env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1  # MEMIT failed
    assert re.search(r"error: MEMIT: .*77", done.stderr) and "Traceback" not in done.stderr
    assert "--run_id c --resume" in done.stderr
    assert first.stat().st_mtime_ns == kept  # not run again
    for words in ("Metrics", "Against CausalEdit", "Costs", "LoRA", "PreEdited", "M-Acc, any", "Weights changed"):
        assert words in done.stdout
    data = json.loads((folder / "compare" / "tag-default" / "n3_seed70_c" / "compare.json").read_text())
    statuses = {name: (row["finished_cases"], bool(row["problem"])) for name, row in data["methods"].items()}
    assert statuses == {"CausalEdit": (3, False), "MEMIT": (0, True), "LoRA": (3, False), "PreEdited": (3, False)}
    assert "LoRA" in (workplace / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_cases": 2}, "--max_cases 200, and now it is 2"),
        ({"shuffle_seed": 71}, "--shuffle_seed 70, and now it is 71"),
        ({"max_new_tokens": 6}, "--max_new_tokens 5, and now it is 6"),
        ({"methods": ("PreEdited", "LoRA"), "run_id": None}, "--methods PreEdited, and now it is PreEdited,LoRA"),
        ({"judge": "llm:other", "run_id": None}, "and now it is llm:other"),
    ],
)
def test_other_arguments_are_no_resume(change, words, workplace):
    plan = plan_of(("PreEdited",), max_cases=200)
    (plan.folder / "meta").mkdir(parents=True)
    (plan.folder / "meta" / "compare_args.json").write_text(json.dumps({**plan.arguments, "run_id": plan.run_id}))
    methods = change.pop("methods", ("PreEdited",))
    judge = change.pop("judge", get_judge("rule").identity)
    with pytest.raises(RunError, match=re.escape(words)):
        make_compare_plan(methods, arguments(**change), judge=judge, resume=True)
    other = dataclasses.replace(arguments(**change), run_id="another")
    assert not make_compare_plan(methods, other, judge=judge, resume=True).resumed


def test_a_finished_comparison_is_judged_anew_and_gains_a_method(workplace):
    """Hours of edits were lost to the next version of the judge: the comparison by its name was refused."""

    class Newer(type(get_judge("rule"))):
        identity = "rule-next"

    run(plan_of(("LoRA",), max_cases=1))
    given = arguments(max_cases=1)
    plan = make_compare_plan(("LoRA", "PreEdited"), given, judge=Newer.identity, resume=True)
    assert plan.resumed
    counts = Counts()
    rows = {row.method: row for row in execute_comparison(plan, Newer(), counts)}
    assert counts.cases == 1  # PreEdited's
    assert {row.metrics["judge"] for row in rows.values()} == {"rule-next"}
    data = json.loads((plan.folder / "compare.json").read_text())
    assert data["arguments"]["judge"] == "rule-next" and list(data["methods"]) == ["LoRA", "PreEdited"]


def test_other_hparams_are_no_resume(workplace):
    run(plan_of(("LoRA",), max_cases=1))
    break_method(workplace, "LoRA", steps=3)
    with pytest.raises(RunError, match=r"LoRA: .*other hyper-parameters \(steps\)"):
        plan_of(("LoRA",), max_cases=1, resume=True)


def test_two_processes_do_not_share_a_comparison(workplace):
    class Meanwhile(SilentCompare):
        tried = False

        def case_done(self, case_id, running):
            with pytest.raises(RunError, match="Another process"):
                run(plan_of(("PreEdited",), max_cases=1, resume=True))
            self.tried = True

    sink = Meanwhile()
    run(plan_of(("PreEdited",), max_cases=1), sink)
    assert sink.tried


# ---- refusals before compute -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("methods", "changes", "error", "words"),
    [
        (("CausalEdit", "ROMEO"), {}, RunError, "--methods: There is no method"),
        (("ROME", "ROME"), {}, RunError, "twice"),
        (("LoRA", "PreEdited"), {"model_type": "tinny"}, HparamsError, "tinny"),
        (("LoRA",), {"datatype": "no.json"}, DatasetError, "no.json"),
        (("LoRA",), {"hop": 4}, DatasetError, "--hop 4"),
    ],
)
def test_bad_arguments_are_refused(methods, changes, error, words, workplace):
    with pytest.raises(error, match=re.escape(words)):
        plan_of(methods, **changes)
    assert not (workplace / "out").exists()


@pytest.mark.parametrize("text", ["", "ROME,", "ROME,,LoRA", " "])
def test_methods_are_names(text):
    with pytest.raises(RunError, match="--methods"):
        parse_methods(text)
    assert parse_methods("ROME, LoRA") == ("ROME", "LoRA")


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        (["--judge", "rules"], JudgeError, "rule"),
        (["--html", "."], SaveError, "is a folder"),
        (["--max_cases", "0"], RunError, "--max_cases"),
    ],
)
def test_the_command_refuses_before_a_model_is_loaded(more, error, words, workplace, caplog):
    import typer

    from causaledit.cli.app import app

    caplog.set_level(logging.INFO, "causaledit")
    with pytest.raises(error, match=words):
        typer.main.get_command(app).main([*command(*more)[3:], "--methods", "PreEdited"], standalone_mode=False)
    assert "loading" not in caplog.text and not (workplace / "out").exists()


# ---- one table, one model --------------------------------------------------------------------------
def test_the_table_says_which_model_it_is_about(workplace):
    plan = plan_of(("LoRA", "PreEdited"), max_cases=1)
    run(plan)
    model = read(plan)["model"]
    assert model["name"].endswith("tiny") and model["dtype"] == "float32" and len(model["revision"]) == 64
    written = (plan.folder / "compare.md").read_text(encoding="utf-8")
    assert f"Model {model['name']}, float32, revision {model['revision'][:12]}" in written
    run(plan_of(("LoRA", "PreEdited"), max_cases=1, resume=True))  # nothing is loaded, and it is still said
    assert read(plan)["model"] == model


def test_two_models_in_one_table_are_refused(workplace, tmp_path):
    break_method(workplace, "LoRA", model_name="./hugging_cache/Llama-3-8B")
    with pytest.raises(RunError, match=r"one model, but ROME's file names .*tiny' and LoRA's .*Llama-3-8B'.*--model"):
        plan_of(("ROME", "LoRA"))
    plan = plan_of(("ROME", "LoRA", "PreEdited"), model=str(next(workplace.parent.glob("**/tiny/config.json"), "x")))
    assert len({run.hparams.model_name for run in plan.runs.values()}) == 1


def test_two_types_in_one_table_are_refused(workplace):
    break_method(workplace, "LoRA", dtype="bfloat16")
    with pytest.raises(RunError, match=r"ROME loads it as float32 and LoRA as bfloat16.*dtype"):
        plan_of(("ROME", "LoRA"))


def test_one_model_under_two_spellings_is_loaded_once(workplace, tiny_model_folder, caplog):
    caplog.set_level(logging.INFO, "causaledit")
    (workplace / "here").symlink_to(tiny_model_folder)
    break_method(workplace, "LoRA", model_name="./here")
    rows = run(plan_of(("FT", "LoRA", "PreEdited"), max_cases=1))
    assert not any(row.problem for row in rows.values())
    assert caplog.text.count("loading ") == 1


def test_model_and_files_of_the_command_line(workplace, tiny_model_folder):
    break_method(workplace, "LoRA", model_name="./hugging_cache/nowhere")
    (workplace / "other.yaml").write_text((workplace / "hparams" / "LoRA" / "tiny.yaml").read_text())
    judge = get_judge("rule").identity
    given = arguments(model=str(tiny_model_folder), max_cases=1)
    plan = make_compare_plan(("LoRA", "PreEdited"), given, judge=judge, hparams=["LoRA=other.yaml"])
    assert not any(row.problem for row in run(plan).values())
    assert plan.runs["LoRA"].run_args["hparams_path"] == "other.yaml"
    assert plan.runs["LoRA"].run_args["model"] == str(tiny_model_folder)
    with pytest.raises(RunError, match=r"--hparams \{'LoRA': 'other.yaml'\}, and now it is \{\}"):
        make_compare_plan(("LoRA", "PreEdited"), given, judge=judge, resume=True)
    for wrong, words in (("LoRA", "METHOD=FILE"), ("LORA=x", "Did you mean 'LoRA'"), ("=x", "METHOD=FILE")):
        with pytest.raises(RunError, match=words):
            make_compare_plan(("LoRA", "PreEdited"), given, judge=judge, hparams=[wrong])


def test_a_file_is_given_for_a_method_without_its_host():
    assert parse_files(["ROME=a.yaml"], ("LoRA", "easyedit:ROME")) == {"easyedit:ROME": "a.yaml"}
    assert parse_files(["ROME=a.yaml"], ("ROME", "easyedit:ROME")) == {"ROME": "a.yaml"}
    with pytest.raises(RunError, match="may be embedded:ROME or easyedit:ROME; write which"):
        parse_files(["ROME=a.yaml"], ("embedded:ROME", "easyedit:ROME"))
    with pytest.raises(RunError, match="names easyedit:ROME twice"):
        parse_files(["ROME=a.yaml", "easyedit:ROME=b.yaml"], ("LoRA", "easyedit:ROME"))


def test_a_host_before_a_name_is_a_row_of_its_own(workplace):
    plan = plan_of(("LoRA", "embedded:LoRA"), max_cases=1)
    rows = run(plan)
    assert rows["embedded:LoRA"].folder == "out/three/tiny/embedded.LoRA/tag-default/n1_seed70_c"
    assert rows["LoRA"].metrics == rows["embedded:LoRA"].metrics
    assert rows["LoRA"].method_of == "embedded"
    with pytest.raises(RunError, match="Did you mean 'embedded'"):
        plan_of(("embeded:LoRA",), run_id="another")
    with pytest.raises(RunError, match="--host must be one of auto, embedded, easyedit"):
        plan_of(("LoRA",), host="easy")
