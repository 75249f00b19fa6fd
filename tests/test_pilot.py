"""The pilot study: forced openings, the files of a run, resuming, and the comparison of the two books."""

from __future__ import annotations

import copy
import json

import pytest
from command_line import run
from conftest import REPOSITORY, make_llama, make_tokenizer, same_weights, weights_of
from published import MarkJudge, case

from causaledit.errors import ModelError, RunError
from causaledit.metrics.paired import compare_books
from causaledit.metrics.predictions import cases_of
from causaledit.metrics.summary import evaluate_run
from causaledit.mquake.cases import parse_cases
from causaledit.probes.sets import build_probes
from causaledit.runs.execution import SilentRun, execute
from causaledit.runs.pilot import make_pilot_plan

MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))


def some_cases():
    """One case whose second hop no edit made, one with two edits."""
    single = next(c for c in MINI if len(c["requested_rewrite"]) == 1 and len(c["new_single_hops"]) > 1)
    double = next(c for c in MINI if len(c["requested_rewrite"]) == 2)
    return copy.deepcopy([single, double])


def without_narratives(cases):
    for rewrite in (rewrite for c in cases for rewrite in c["requested_rewrite"]):
        for key in ("article", "narrative"):
            rewrite.pop(key, None)
    return cases


@pytest.fixture
def plan(tmp_path, tiny_model_folder):
    def make(cases=None, **changes):
        file = tmp_path / "cases.json"
        file.write_text(json.dumps(cases or some_cases()), encoding="utf-8")
        values = {
            "datatype": str(file), "model_type": str(tiny_model_folder), "output_root": str(tmp_path / "out"),
            "run_id": "p", "device": "cpu", "max_new_tokens": 4,
        }  # fmt: skip
        return make_pilot_plan(**{**values, **changes})

    return make


def metrics_of(plan):
    return json.loads((plan.folder / "metrics.json").read_text(encoding="utf-8"))


def test_the_openings_state_the_new_answer_of_the_hops_that_an_edit_made():
    for parsed in parse_cases(MINI):
        probes = build_probes(parsed, ("forced",))
        plain = build_probes(parsed, ("hop", "conflict", "open_book"))
        asked = [p for p in plain if p.hop is None or parsed.edit_of_hop(p.hop) is not None]
        assert {(p.prompt, p.open_book) for p in probes} == {(p.prompt, p.open_book) for p in asked}
        edited = [hop for hop in range(len(parsed.hops)) if parsed.edit_of_hop(hop) is not None]
        assert len(probes) == 2 * (3 * len(edited) + 8 * len(parsed.edits))
        for probe in probes:
            index = probe.edit if probe.hop is None else parsed.edit_of_hop(probe.hop)
            request = parsed.edits[index].request
            stated = f"{request.cloze} {request.target_new}. "
            assert probe.prefix.lower().startswith(stated.lower())
            assert request.target_new not in probe.prefix[len(stated) :]  # stated once, then to be explained
            assert probe.prefix[0].isupper() or not probe.prefix[0].isalpha()
            assert (request.narrative in probe.prompt) == probe.open_book


def test_a_run_writes_whole_turns_under_the_published_keys_and_leaves_the_weights(plan):
    planned, model = plan(), make_llama()
    before = weights_of(model)
    execute(planned, model=model, tokenizer=make_tokenizer())
    assert same_weights(before, weights_of(model))
    assert planned.folder.parts[-3:] == ("PreEdited", "tag-pilot", "n2_seed70_p")
    for item in metrics_of(planned):
        source = next(c for c in some_cases() if c["case_id"] == item["case_id"])
        parsed = parse_cases([source])[0]
        post, edits = item["post"], len(source["requested_rewrite"])
        lengths = [3 if parsed.edit_of_hop(hop) is not None else 0 for hop in range(len(parsed.hops))]
        for prefix in ("", "causal_enhanced_"):
            assert [len(hop) for hop in post[f"{prefix}hop_wise_pred"]] == lengths
            assert len(post[f"{prefix}conflict_probe"]) == 8 * edits
        assert post["hop_wise"] == post["accuracy_pred"] == post["old_knowledge_probe"] == []
        entries = [*post["conflict_probe"], *post["causal_enhanced_conflict_probe"]]
        entries += [p for key in ("hop_wise_pred", "causal_enhanced_hop_wise_pred") for hop in post[key] for p in hop]
        assert any(len(entry["pred"]) > len(entry["forced_prefix"]) for entry in entries)
        for entry in entries:
            assert entry["pred"].startswith(entry["forced_prefix"])
        read = cases_of([item])[0]
        for part in read.items:  # the judge is given the turn once, not the opening twice
            if part.response and part.task == "refutation":
                assert part.response.response in {entry["pred"] for entry in entries}
        assert {len(edit.hops) for edit in read.edits} == {1}


def test_a_forced_turn_is_what_the_model_says_behind_the_opening(plan):
    """The continuation is that of one plain `generate` behind prompt and opening."""
    from causaledit.models.chat import render, user

    planned, model, tokenizer = plan(max_cases=1), make_llama(), make_tokenizer()
    execute(planned, model=model, tokenizer=tokenizer)
    entry = metrics_of(planned)[0]["post"]["conflict_probe"][2]
    text = render(tokenizer, user(entry["prompt"])) + entry["forced_prefix"]
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    length = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    said = tokenizer.decode(output[0, length:], skip_special_tokens=True)
    assert entry["pred"].replace(" ", "") == f"{entry['forced_prefix']}{said}".strip().replace(" ", "")


def test_an_interrupted_study_goes_on_and_ends_alike(plan, tmp_path):
    class StopAfterOne(SilentRun):
        def case_done(self, case_id, running):
            raise KeyboardInterrupt

    whole = plan(run_id="whole")
    execute(whole, model=make_llama(), tokenizer=make_tokenizer())
    stopped = plan(run_id="stopped")
    with pytest.raises(KeyboardInterrupt):
        execute(stopped, StopAfterOne(), model=make_llama(), tokenizer=make_tokenizer())
    assert len(metrics_of(stopped)) == 1
    again = plan(run_id="stopped")
    assert again.resumed
    execute(again, model=make_llama(), tokenizer=make_tokenizer())
    assert metrics_of(again) == metrics_of(whole)


def test_the_books_are_compared_by_edit():
    said = {"refutes": "[+-] NEW, no, OLD.", "holds": "[+=] NEW.", "silent": "[] OLD."}

    def both(number, closed, opened):
        data, twin = case(number, hop_wise=said[closed], conflict=said["holds"]), case(number, hop_wise=said[opened])
        data["post"]["causal_enhanced_hop_wise_pred"] = twin["post"]["hop_wise_pred"]
        data["post"]["causal_enhanced_conflict_probe"] = twin["post"]["conflict_probe"]
        return data

    books = [("refutes", "holds")] * 6 + [("refutes", "refutes"), ("holds", "refutes"), ("holds", "silent")]
    figures = evaluate_run([both(n, *pair) for n, pair in enumerate(books)], MarkJudge())
    found = compare_books(figures)["combined"]
    assert (found.closed_book.hits, found.closed_book.total) == (7, 9)
    assert (found.open_book.hits, found.open_book.total) == (2, 8)
    assert (found.paired.repaired, found.paired.harmed, found.paired.n) == (6, 1, 8)
    assert found.paired.p == pytest.approx(0.125)
    assert compare_books(evaluate_run([case(1)], MarkJudge())) == {}


def test_the_command_judges_and_resumes(plan, tmp_path):
    file = tmp_path / "cases.json"
    plan()  # writes the file
    arguments = ["pilot", "--datatype", file, "--model_type", plan().arguments.model_type, "--max_new_tokens", 4,
                 "--output_root", tmp_path / "out", "--run_id", "p", "--device", "cpu"]  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    folder = plan().folder
    result = json.loads((folder / "analysis" / "pilot.json").read_text(encoding="utf-8"))
    assert (result["cases"], result["edits"]) == (2, 3)
    assert result["sources"]["hop_wise"]["closed_book"]["total"] == 3  # the opening asserts the new answer
    text = (folder / "analysis" / "pilot.txt").read_text(encoding="utf-8")
    assert text in done.stdout and "with the narrative" in text
    before = (folder / "metrics.json").read_bytes()
    assert run(*arguments).returncode == 0
    assert (folder / "metrics.json").read_bytes() == before


def test_what_is_refused_before_a_model_is_loaded(plan, tmp_path):
    with pytest.raises(RunError, match="narratives"):
        plan(without_narratives(some_cases()))
    with pytest.raises(ModelError, match="no-such-device"):
        plan(device="no-such-device")
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(some_cases()), encoding="utf-8")
    for command in (["pilot", "--model_type", "m"], ["evaluate", "--model", "m"]):
        for judge in ("llm", "hf", "rules"):
            told = run(*command, "--datatype", file, "--judge", judge, "--output_root", tmp_path / "o")
            assert told.returncode == 2 and "judge" in told.stderr
            assert "--judge-model" in told.stderr or judge == "rules"
            assert not (tmp_path / "o").exists()
    assert run("run", "--editing_method", "PreEdited", "--datatype", file, "--model_type", "m", "--probes",
               "forced").returncode == 2  # fmt: skip
