"""Own facts as CSV or JSON lines: what works, and what every kind of bad file says."""

from __future__ import annotations

import json

import pytest

from causaledit.errors import ScaffoldError
from causaledit.narratives.own_facts import read_facts

HEADER = "subject,old,new,prompt,question\n"
ROW = 'Egypt,Cairo,Alexandria,The capital of {} is,"What is the capital of Egypt?"\n'


def write(tmp_path, content, name="facts.csv"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_a_fact_becomes_a_case(tmp_path):
    file = read_facts(write(tmp_path, HEADER + ROW))
    assert not file.problems
    [case] = file.cases
    [edit] = case.edits
    assert (edit.subject.name, edit.old.name, edit.new.name) == ("Egypt", "Cairo", "Alexandria")
    assert case.data["new_single_hops"] == [
        {"question": "What is the capital of Egypt?", "cloze": "The capital of Egypt is", "answer": "Alexandria",
         "answer_alias": []}
    ]  # fmt: skip
    assert case.data["orig"]["new_triples_labeled"] == [["Egypt", None, "Alexandria"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_with_a_mark_and_separators(tmp_path, encoding, separator):
    lines = ["subject,old,new,relation_id", "Österreich,Wien,Graz,P36"]
    content = "\r\n".join(line.replace(",", separator) for line in lines).encode(encoding)
    [case] = read_facts(write(tmp_path, content)).cases
    assert case.data["requested_rewrite"][0]["prompt"] == "The capital of {} is"
    assert case.edits[0].cloze == "The capital of Österreich is"


def test_json_lines_with_ids_and_other_names(tmp_path):
    row = {"subject": "Egypt", "target_true": "Cairo", "target_new": "Alexandria", "cloze": "The capital of Egypt is",
           "relation": "P36", "subject_id": "Q79", "old_id": "Q85", "new_id": "Q87", "case_id": 12}  # fmt: skip
    file = read_facts(write(tmp_path, json.dumps(row) + "\n\n[]\n{oops\n", "f.jsonl"))
    [case] = file.cases
    assert case.case_id == 12
    assert case.data["orig"]["edit_triples"] == [["Q79", "P36", "Q87"]]
    assert case.edits[0].subject.id == "Q79"
    assert [p.item for p in file.problems] == ["line 3", "line 4"]


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_a_text_of_json_lines_may_hold_what_separates_lines_elsewhere(tmp_path, separator):
    row = {"subject": "Egypt", "old": "Cairo", "new": "Giza", "prompt": "The capital of {} is"}
    lines = json.dumps({**row, "question": f"Which{separator}city?"}, ensure_ascii=False)
    file = read_facts(write(tmp_path, f"{lines}\r\n{json.dumps({**row, 'subject': 'Mali'})}", "f.jsonl"))
    assert [edit.subject.name for case in file.cases for edit in case.edits] == ["Egypt", "Mali"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"new": {"str": "Giza", "id": "Q85"}}, "`new` must be a text or a number"),
        ({"old": ["Cairo", "Al-Qahira"]}, "`old` must be a text or a number"),
        ({"new": True}, "`new` must be a text or a number"),
        ({"new": None}, "new is empty"),
        ({"target_true": "a", "ground_truth": "b", "old": None}, None),  # the column of our own name counts
    ],
)
def test_an_answer_is_a_text_or_a_number(tmp_path, changed, words):
    row = {"subject": "Egypt", "old": 0, "new": 1, "prompt": "The number of kings of {} is", "case_id": "9" * 5000}
    file = read_facts(write(tmp_path, json.dumps(row) + "\n" + json.dumps({**row, **changed}), "f.jsonl"))
    [case] = file.cases
    assert (case.edits[0].old.name, case.edits[0].new.name, case.case_id) == ("0", "1", "9" * 5000)
    [problem] = file.problems
    assert (words or "old is empty") in problem.reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("subject,old,prompt\nEgypt,Cairo,The capital of {} is\n", "lacks the column new"),
        ("subject,old,new\nEgypt,Cairo,Alexandria\n", "prompt (or relation_id)"),
        ("subjct,old,new,prompt\nEgypt,a,b,c {}\n", "Did you mean 'subjct'"),
        ("", "lacks"),
        (HEADER, "no fact"),
        ("subject,old,new,prompt\nKöln,a,b,The mayor of {} is\n".encode("cp1252"), "line 2"),
        ("subject,old,new,prompt\nKöln,a,b,c\n".encode("utf-16-le"), "UTF-16"),
        (HEADER + 'Egypt,"Cairo,Alexandria\n', "not valid CSV"),
        ("subject,old,target_new,new_answer,prompt\nEgypt,a,b,c,{} is\n", "'target_new' and 'new_answer'"),
        ("subject,old,new,new,prompt\nEgypt,a,b,c,{} is\n", "both stand for `new`"),
    ],
    ids=["new", "prompt", "typo", "empty", "header-only", "cp1252", "utf-16-le", "quote", "two-names", "twice"],
)
def test_unusable_files(tmp_path, content, words):
    with pytest.raises(ScaffoldError) as error:
        read_facts(write(tmp_path, content))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("Egypt,Cairo,cairo,The capital of {} is,", "nothing to edit"),
        ("Egypt,Cairo,,The capital of {} is,", "new is empty"),
        ("Egypt,Cairo,Alexandria,The capital of Spain is,", "Egypt"),
        ("Egypt,Cairo,Alexandria,The capital, of {} is,", "columns"),
        ("Egypt,Cairo,Alexandria,,", "prompt"),
    ],
)
def test_a_bad_row_is_one_problem(tmp_path, row, words):
    file = read_facts(write(tmp_path, f"{HEADER}{row}\n{ROW}"))
    assert len(file.cases) == 1
    [problem] = file.problems
    assert problem.item == "line 2"
    assert words in problem.reason


def test_no_file_and_another_kind(tmp_path):
    with pytest.raises(ScaffoldError, match="does not exist"):
        read_facts(tmp_path / "none.csv")
    with pytest.raises(ScaffoldError, match="neither"):
        read_facts(write(tmp_path, "x", "facts.xlsx"))


def test_a_duplicate_id_and_a_limit(tmp_path):
    rows = "case_id,subject,old,new,prompt\n1,Egypt,a,b,{} is\n1,Oslo,a,b,{} is\n2,Rome,a,b,{} is\n"
    file = read_facts(write(tmp_path, rows))
    assert [c.case_id for c in file.cases] == [1, 2]
    assert "2 times" in file.problems[0].reason
    assert len(read_facts(write(tmp_path, rows), limit=1).cases) == 1
