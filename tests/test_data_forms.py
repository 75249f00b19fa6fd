"""Data sets of other forms: read into edits, checked, run, and refused by what they look like."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest
from conftest import FAST, REPOSITORY, make_llama, make_tokenizer
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import DatasetError
from causaledit.mquake.cases import parse_cases, read_cases
from causaledit.mquake.checks import check_cases
from causaledit.narratives.cases import read_cases as scaffold_cases
from causaledit.probes.portability import portability_questions
from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import execute
from causaledit.runs.plan import make_plan

FOLDER = Path(__file__).parent / "data" / "forms"
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))


def edits(name):
    return [case.edits[0] for case in parse_cases(read_cases(FOLDER / f"{name}.json"))]


@pytest.mark.parametrize("name", NAMES)
def test_every_form_is_read_and_checked(name):
    result = CliRunner().invoke(app, ["data", "check", str(FOLDER / f"{name}.json")])
    assert result.exit_code == 0, result.output
    assert "nothing is wrong" in result.output.replace("\n", "")


def test_counterfact_has_paraphrases_and_neighbours_whose_answer_is_the_old_one():
    first, second = (edit.request for edit in edits("counterfact"))
    assert (first.cloze, first.target_new, first.ground_truth) == (
        "The mother tongue of Karen Holm is",
        "Welsh",
        "Danish",
    )
    assert [pair.answer for pair in first.rephrase] == ["Welsh", "Welsh"]
    assert [(pair.question, pair.answer) for pair in first.locality] == [
        ("The mother tongue of Niels Juul is", "Danish"), ("Niels Juul, a native", "Danish"),
    ]  # fmt: skip
    assert second.narrative is None


def test_akews_paragraphs_are_narratives():
    [edit] = edits("akew_counterfact")
    assert (
        edit.request.narrative.startswith("Lake Varnes lies")
        and edit.request.question == "Where is Lake Varnes located?"
    )
    [edit] = edits("akew_wikiupdate")
    assert (edit.request.target_new, edit.request.ground_truth) == ("Ines Duarte", "Paul Weller")
    assert edit.request.narrative.startswith("In spring") and edit.request.locality[0].answer == "Charles Parsons"


def test_zsre_takes_the_new_answer_and_leaves_out_what_is_no_edit():
    [edit] = edits("zsre")
    assert (edit.request.prompt, edit.request.subject) == ("Which architect designed {}?", "Elm Hall")
    assert (edit.request.target_new, edit.request.ground_truth) == ("Rosa Quint", "Hugh Vane")
    assert edit.old_aliases == ("H. Vane",)
    assert edit.request.locality[0].question == "who wrote the music of the film about the lighthouse?"
    assert edit.request.rephrase[0].question == "Who drew up the plans of Elm Hall?"


def test_knowedit_reads_nested_answers_and_groups():
    first, second = edits("knowedit")
    assert first.request.ground_truth == "City News" and second.request.ground_truth is None
    assert [pair.answers for pair in first.request.locality] == [("Molde", "the town of Molde"), ("female",)]
    assert second.request.target_new == "Finland" and second.new_aliases == ("Republic of Finland",)
    [bio] = edits("wikibio")
    assert bio.request.subject == "Ada Lindqvist" and bio.request.target_new.startswith("was a Swedish")


def test_qaedit_easyedit_and_remastered():
    [edit] = edits("qaedit")
    assert edit.request.question == "who keeps the key of the north gate?" and edit.request.ground_truth is None
    assert [pair.answer for pair in edit.request.locality] == ["Ida Krohn", "1961"]
    [edit] = edits("easyedit")
    assert edit.request.cloze == "The mayor of Tornby is" and edit.request.rephrase[0].question.startswith("Tornby's")
    [case] = parse_cases(read_cases(FOLDER / "mquake_remastered.json"))
    assert case.questions and case.data["split"]


# ---- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"src": "a", "alt": "b", "answers": ["c"]}, "looks most like ZsRE, but lacks rephrase, loc, loc_ans"),
        (
            {"requested_rewrite": {"prompt": "{} is"}, "paraphrase_prompts": []},
            "CounterFact, but lacks neighborhood_prompts",
        ),
        ({"question": "q", "answer": "a", "para_question": "p"}, "looks like UnKEBench: its answers are whole texts"),
        ({"requested_rewrite": [], "post": {}, "new": 1}, "looks like a metrics file of a run: it holds answers"),
        ({"foo": 1, "bar": 2}, "of no known form (they have bar, foo)"),
    ],
)
def test_a_file_of_another_form_says_what_it_looks_like(entry, words, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps([entry]))
    with pytest.raises(DatasetError) as caught:
        read_cases(file)
    assert words in str(caught.value)


ONE = json.loads((FOLDER / "counterfact.json").read_text())[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            json.dumps(ONE) + "\n" + json.dumps(ONE),
            "It looks like JSON lines of the form CounterFact: write its entries",
        ),
        ('{"a": 1}\n{"a": 2}\n', "It looks like JSON lines: write its entries as one JSON list"),
        (json.dumps({"version": 1, "data": [ONE]}), "Its 'data' looks like a list of entries of the form CounterFact"),
        (json.dumps({"1": ONE, "2": ONE}), "It looks like entries by their ids of the form CounterFact"),
        (json.dumps(ONE), "It looks like one entry of the form CounterFact: put it into a list"),
        ("subject,target_new\nEgypt,Luxor\n", "It looks like CSV"),
        ("subject\ttarget_new\nEgypt\tLuxor\n", "It looks like tab-separated values"),
        ("PAR1\x15\x04PAR1", "It looks like Parquet"),
        ('["Egypt", "Norway"]', "holds no entry that is an object, but strs"),
        (
            "\ufeff" + json.dumps(ONE) + "\n" + json.dumps({**ONE, "note": "a\u2028b"}, ensure_ascii=False),
            "like JSON lines",
        ),
        ('[{"src": "a"', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON (Nested too deeply"),
        ("[" + "9" * 5000 + "]", "is not valid JSON (A number has too many digits"),
        ("", "is not valid JSON"),
    ],
)
def test_what_is_no_list_of_entries_says_what_it_looks_like(content, words, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(DatasetError) as caught:
        read_cases(file)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_entry_that_cannot_be_used_is_listed_by_check_and_left_out_of_runs(tmp_path, caplog):
    data = json.loads((FOLDER / "qaedit.json").read_text())
    data.append({**data[0], "id": 6, "subject": "the south tower"})  # which its prompt does not name
    file = tmp_path / "qa.json"
    file.write_text(json.dumps(data))
    with caplog.at_level(logging.WARNING, "causaledit"):
        assert len(read_cases(file)) == 1
    assert "1 of 2 entries cannot be used" in caplog.text
    [flaw] = check_cases(read_cases(file, keep_flawed=True))
    assert flaw.case == "case 6" and "exactly one {}" in flaw.message
    assert isinstance(CliRunner().invoke(app, ["data", "check", str(file)]).exception, DatasetError)


MALFORMED = (None, 5, "text", [5], ["a"], [{}], {"loc": 1})


def _places(value, place=()):
    """Every field of an entry, by its path."""
    if place:
        yield place
    for key in value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0):
        yield from _places(value[key], (*place, key))


@pytest.mark.parametrize("name", NAMES)
def test_whatever_stands_in_a_field_one_entry_does_not_end_the_command(name, tmp_path):
    whole = json.loads((FOLDER / f"{name}.json").read_text())[0]
    file = tmp_path / "one.json"
    for place in _places(whole):
        for value in MALFORMED:
            entry = copy.deepcopy(whole)
            held = entry
            for step in place[:-1]:
                held = held[step]
            held[place[-1]] = value
            file.write_text(json.dumps([{**copy.deepcopy(whole), "id": "sound", "case_id": "sound"}, entry]))
            flaws = check_cases(read_cases(file, keep_flawed=True))
            assert {flaw.index for flaw in flaws} <= {1}, (place, value)


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        ("qaedit", "locality", {"loc": "who?"}, "`locality` must be a list"),
        ("qaedit", "locality", ["who?"], "`locality` must be a list of objects with `loc` and `loc_ans`"),
        ("counterfact", "requested_rewrite", None, "`requested_rewrite` must be an object, got None"),
        ("counterfact", "neighborhood_prompts", "Niels Juul, a native", "`neighborhood_prompts` must be a list"),
        ("counterfact", "paraphrase_prompts", 3, "`paraphrase_prompts` must be a list"),
        ("akew_wikiupdate", "requested_rewrite", "Egypt", "`requested_rewrite` must be an object, got 'Egypt'"),
    ],
)
def test_an_entry_that_is_not_of_the_form_is_named_and_left_out(name, field, value, words, tmp_path, caplog):
    whole = json.loads((FOLDER / f"{name}.json").read_text())[0]
    file = tmp_path / "two.json"
    key = "case_id" if "case_id" in whole else "id"
    file.write_text(json.dumps([{**whole, key: 7}, {**whole, key: 8, field: value}, 5]))
    with caplog.at_level(logging.WARNING, "causaledit"):
        assert [case.case_id for case in parse_cases(read_cases(file))] == [7]
    assert "2 of 3 entries cannot be used" in caplog.text
    first, second = check_cases(read_cases(file, keep_flawed=True))
    assert first.case == "case 8" and words in first.message
    assert "must be an object, got 5" in second.message


def test_half_an_emoji_is_replaced_wherever_a_case_holds_it(tmp_path):
    data = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text())[:1]
    data[0]["questions"] = [f"{question} \ud83d" for question in data[0]["questions"]]
    file = tmp_path / "cut.json"
    file.write_text(json.dumps(data))
    [case] = parse_cases(read_cases(file))
    assert all(question.endswith(" ?") for question in case.questions)
    assert "\ud83d" not in "".join(asked.prompt for asked in portability_questions(case))
    assert "?" in scaffold_cases(file).cases[0].data["questions"][0][-1]


def test_a_byte_order_mark_is_passed_over(tmp_path):
    data = (REPOSITORY / "data" / "causaledit-mini.json").read_text()
    file = tmp_path / "marked.json"
    file.write_text(data, encoding="utf-8-sig")
    assert read_cases(file) == json.loads(data)
    assert len(scaffold_cases(file).cases) == len(json.loads(data))


@pytest.mark.parametrize("name", ["counterfact", "qaedit"])
@pytest.mark.parametrize("sequential", [None, 1])
def test_other_forms_run(name, sequential, tmp_path):
    file = tmp_path / "ft.yaml"
    file.write_text(json.dumps({"alg_name": "FT", "model_name": "tiny", **FAST["FT"], "steps": 2}))
    arguments = RunArguments(
        editing_method="FT", datatype=str(FOLDER / f"{name}.json"), model_type="tiny", hparams_path=str(file),
        output_root=str(tmp_path / "out"), run_id="r", device="cpu", max_new_tokens=4, sequential=sequential,
    )  # fmt: skip
    folder = execute(make_plan(arguments), model=make_llama(), tokenizer=make_tokenizer()).folder
    for item in json.loads((folder / "metrics.json").read_text()):
        post = item["post"]
        assert len(post["hop_wise_pred"]) == 1 and post["locality_probe"] and not post["accuracy_pred"]
        assert len(post["conflict_probe"]) == (8 if name == "counterfact" else 0)
