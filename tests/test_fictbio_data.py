"""Checks that data/fictbio-mini.json is sound: what each update has, and that its chain and its questions hold."""

from __future__ import annotations

import re

import pytest
from conftest import REPOSITORY

from causaledit.facts.answers import mentions
from causaledit.facts.text import normalise, word_count
from causaledit.mquake.cases import parse_cases
from causaledit.mquake.checks import check_cases
from causaledit.support.files import load_json

DATA = load_json(REPOSITORY / "data" / "fictbio-mini.json", "data")
UPDATES = [case for case in DATA if case["kind"] != "multi-fact"]
MULTI_FACT = [case for case in DATA if case["kind"] == "multi-fact"]
every_update = pytest.mark.parametrize("case", UPDATES, ids=lambda case: case["requested_rewrite"][0]["subject"])
every_multi_fact = pytest.mark.parametrize("case", MULTI_FACT, ids=lambda case: str(case["case_id"]))


def test_counts():
    assert check_cases(DATA) == []
    assert [case.case_id for case in parse_cases(DATA)] == list(range(1, len(DATA) + 1))
    assert len(UPDATES) >= 24
    assert len(MULTI_FACT) >= 12
    kinds = {case["kind"] for case in UPDATES}
    assert kinds == {"official", "chief executive", "headquarters"}
    assert len({case["requested_rewrite"][0]["subject"] for case in UPDATES}) == len(UPDATES)
    readme = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"\| updates \| (\d+): (\d+) officials, (\d+) chief executives, (\d+) headquarters", readme)
    counts = [sum(case["kind"] == kind for case in UPDATES) for kind in ("official", "chief executive", "headquarters")]
    assert [int(n) for n in found.groups()] == [len(UPDATES), *counts]
    assert f"| multi-fact questions | {len(MULTI_FACT)}" in readme


@every_update
def test_an_update(case):
    [edit] = case["requested_rewrite"]
    new, old = edit["target_new"]["str"], edit["target_true"]["str"]
    assert edit["article"].endswith("\n\n" + edit["biography"])
    story = edit["article"].removesuffix(edit["biography"])
    assert mentions(story, [new])
    assert not mentions(story.replace(edit["subject"], " "), [old])  # a story does not name the predecessor
    assert 70 <= word_count(edit["article"]) <= 160
    assert re.match(r"[\w’' -]+, \d+ [A-Z][a-z]+ 20[23]\d - ", story)
    questions = [edit["question"], *(pair["question"] for pair in edit["rephrase_prompt"])]
    assert len({normalise(q) for q in questions}) == 4
    assert all(pair["answer"] == new for pair in edit["rephrase_prompt"])
    for question in questions:
        assert question.endswith("?")
        assert edit["subject"] in question
        assert not mentions(question, [new, old])


@every_update
def test_locality_and_multi_hop_questions(case):
    [edit] = case["requested_rewrite"]
    edited = {normalise(c["requested_rewrite"][0]["question"]) for c in UPDATES}
    assert len(edit["locality"]) == len(case["portability"]) == len(case["questions"]) == 3
    for pair in edit["locality"]:
        assert normalise(pair["question"]) not in edited
        assert pair["question"].endswith("?")
    assert case["portability"][0]["question"] == case["questions"][0]
    assert case["portability"][0]["answer"] == case["new_answer"]
    assert len({pair["question"] for pair in case["portability"]}) == 3
    for pair in case["portability"]:
        assert not mentions(pair["question"].replace(edit["subject"], " "), [pair["answer"], *pair["answer_alias"]])
        assert not mentions(pair["question"], [edit["target_new"]["str"]])


@every_update
def test_the_chain(case):
    [edit] = case["requested_rewrite"]
    assert len(case["single_hops"]) == len(case["new_single_hops"]) == 2
    for side, answer in (("single_hops", case["answer"]), ("new_single_hops", case["new_answer"])):
        first, last = case[side]
        assert first["question"] == edit["question"]
        assert first["answer"] in last["question"]
        assert last["answer"] == answer
    assert case["new_single_hops"][0]["answer"] == edit["target_new"]["str"]
    assert case["single_hops"][0]["answer"] == edit["target_true"]["str"]
    assert normalise(case["answer"]) != normalise(case["new_answer"])
    told = case["kind"] == "headquarters" or mentions(edit["biography"], [case["new_answer"]])
    assert told  # a birthplace is in the biography; where a city lies is knowledge of the world


@every_multi_fact
def test_a_multi_fact_question(case):
    known = [c["requested_rewrite"][0] for c in UPDATES]
    assert 2 <= len(case["requested_rewrite"]) <= 3
    assert all(edit in known for edit in case["requested_rewrite"])
    assert len(case["new_answer_parts"]) == len(case["requested_rewrite"])
    for part, edit in zip(case["new_answer_parts"], case["requested_rewrite"], strict=True):
        assert mentions(case["new_answer"], [part["answer"]])
        assert mentions(case["questions"][0], [edit["subject"]])
        assert not mentions(case["questions"][0].replace(edit["subject"], " "), [part["answer"], *part["answer_alias"]])
