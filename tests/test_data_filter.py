"""`causaledit data filter`: which cases a model can be tested on."""

from __future__ import annotations

import copy
import json

import pytest
from conftest import REPOSITORY, make_llama, make_tokenizer
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import CausalEditError, RunError
from causaledit.mquake.cases import parse_cases, read_cases
from causaledit.probes import known
from causaledit.support.progress import SilentProgress

MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))[:12]
EGYPT = MINI[0]


def answered(tmp_path, cases, knows, *, name="answers.jsonl", label="m"):
    """A file of answers as an interrupted call leaves it, by somebody who knows what `knows` says."""
    file = tmp_path / name
    rows = [{"key": "", "model": label, "max_new_tokens": known.MAX_NEW_TOKENS}]
    for case in parse_cases(cases):
        prompts = known._prompts(case, known.REQUIREMENTS)
        rows += [{"key": prompt, "response": knows.get(prompt, "I have no idea.")} for prompt in prompts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def result_of(tmp_path, cases, knows, **changes):
    """The filter over known answers: the model must not be asked again."""
    settings = {"known": known.REQUIREMENTS, "label": "m", "progress": SilentProgress(), **changes}
    return known.filter_known(
        parse_cases(cases), Unasked(), make_tokenizer(), answers=answered(tmp_path, cases, knows), **settings
    )


class Unasked:
    """A model that is not to be run."""

    device = "cpu"

    def __getattr__(self, name):
        raise AssertionError(f"the model was asked ({name})")


HOP = EGYPT["new_single_hops"][1]
KNOWS = {HOP["cloze"]: "Alexander the Great, of course.", EGYPT["questions"][2]: "Jawhar al-Siqilli"}


@pytest.mark.parametrize(
    ("knows", "changes", "rule"),
    [
        (KNOWS, {}, None),
        ({**KNOWS, EGYPT["requested_rewrite"][0]["question"]: "It is Alexandria."}, {}, "new fact known"),
        ({EGYPT["questions"][0]: "Gawhar al-Siqilli"}, {}, "unedited hop not known"),
        ({HOP["question"]: "Alexander"}, {}, "old chain not known"),
        ({HOP["question"]: "Alexander"}, {"known": ("hops",)}, None),
        ({}, {"known": ()}, None),
        (KNOWS, {"leave_out": ["P30", "P36"]}, "relation left out"),
        (KNOWS, {"leave_out": ["P30"]}, None),
    ],
)
def test_what_drops_a_case(tmp_path, knows, changes, rule):
    found = result_of(tmp_path, [EGYPT], knows, **changes)
    assert found.kept == ([0] if rule is None else [])
    assert [reason for _, reason in found.dropped] == ([rule] if rule else [])
    assert found.by_rule == {name: int(name == rule) for name in known.RULES}


def renamed(case, old, new):
    """The case with another old and new answer of its edit and its chain, by both wordings of the questions."""
    case = copy.deepcopy(case)
    [rewrite] = case["requested_rewrite"]
    rewrite["target_true"], rewrite["target_new"] = {"str": old}, {"str": new}
    case |= {"answer": old, "answer_alias": [], "new_answer": new, "new_answer_alias": []}
    case["single_hops"][0] |= {"answer": old, "answer_alias": []}
    case["new_single_hops"][0] |= {"answer": new, "answer_alias": []}
    return case


def test_one_answer_is_not_named_by_a_part_of_the_other(tmp_path):
    question = EGYPT["requested_rewrite"][0]["question"]
    inside = renamed(EGYPT, "New Cairo", "Cairo")
    knows = {**KNOWS, question: "It is New Cairo.", EGYPT["questions"][2]: "New Cairo"}
    assert result_of(tmp_path, [inside], knows).kept == [0]
    assert result_of(tmp_path, [inside], {**knows, question: "Cairo"}).dropped[0][1] == "new fact known"
    around = renamed(EGYPT, "Cairo", "New Cairo")
    knows = {**KNOWS, question: "Cairo", EGYPT["questions"][2]: "New Cairo"}
    assert result_of(tmp_path, [around], knows).dropped[0][1] == "old chain not known"


def test_a_case_that_asks_nothing_over_several_facts_has_no_chain_to_know(tmp_path):
    entry = json.loads((REPOSITORY / "tests" / "data" / "forms" / "counterfact.json").read_text())[0]
    (tmp_path / "cases.json").write_text(json.dumps([entry]))
    assert result_of(tmp_path, read_cases(tmp_path / "cases.json"), {}).kept == [0]


def test_the_subjects_own_name_is_no_answer(tmp_path):
    case = copy.deepcopy(EGYPT)
    [edit] = case["requested_rewrite"]
    edit["subject"], edit["target_new"]["str"] = "Alexandria Governorate", "Alexandria"
    says = {edit["question"]: "Alexandria Governorate has Cairo."}
    assert result_of(tmp_path, [case], says, known=()).kept == [0]


def test_the_command_writes_the_kept_cases_and_resumes(tmp_path, tiny_model_folder):
    file, out = tmp_path / "cases.json", tmp_path / "kept.json"
    file.write_text(json.dumps(MINI), encoding="utf-8")
    asked = ["data", "filter", str(file), "--model", str(tiny_model_folder), "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(app, [*asked, "--known", "", "--drop-relations", "P36"], catch_exceptions=False)
    assert result.exit_code == 0
    kept = json.loads(out.read_text(encoding="utf-8"))
    left_out = [c for c in MINI if any(e["relation_id"] == "P36" for e in c["requested_rewrite"])]
    assert kept == [case for case in MINI if case not in left_out]  # a random model knows no new fact
    summary = json.loads((tmp_path / "kept.json.filter.json").read_text(encoding="utf-8"))
    assert summary["dropped"]["relation left out"] == len(left_out) == summary["cases"] - summary["kept"]
    assert f"dropped, relation left out: {len(left_out)}" in result.output

    answers = tmp_path / "kept.json.answers.jsonl"
    lines = answers.read_text(encoding="utf-8").splitlines(keepends=True)
    answers.write_text("".join(lines[:5]) + lines[5][:9], encoding="utf-8")  # killed while it wrote the sixth
    CliRunner().invoke(app, [*asked, "--known", "", "--drop-relations", "P36"], catch_exceptions=False)
    assert answers.read_text(encoding="utf-8").splitlines()[:5] == [line.rstrip("\n") for line in lines[:5]]
    assert sorted(answers.read_text(encoding="utf-8").splitlines()) == sorted(line.rstrip("\n") for line in lines)
    assert json.loads(out.read_text(encoding="utf-8")) == kept


def test_refusals(tmp_path):
    with pytest.raises(RunError, match=r"--known: there is no 'hop'.*hops"):
        known.parse_requirements("hop")
    with pytest.raises(RunError, match=r"answers of 'other', not of 'm'"):
        known.filter_known(
            parse_cases([EGYPT]), make_llama(), make_tokenizer(), known=(), label="m", progress=SilentProgress(),
            answers=answered(tmp_path, [EGYPT], {}, label="other"),
        )  # fmt: skip
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(MINI), encoding="utf-8")
    result = CliRunner().invoke(app, ["data", "filter", str(file), "--model", "m", "--out", str(file)])
    assert isinstance(result.exception, CausalEditError)
    assert "the file itself" in str(result.exception)
