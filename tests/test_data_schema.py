"""Checks that data/causaledit-mini.json is sound: its counts, its texts, and that every chain of facts holds.

A slip in the data would look like a failure of an editing method, so each property that the
measurements rely on is checked here, with nothing but json and plain asserts.
"""

import json
import re
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data" / "causaledit-mini.json"
CASES = json.loads(DATA.read_text(encoding="utf-8"))
EDITS = [(case, edit) for case in CASES for edit in case["requested_rewrite"]]


def name(value):
    return f"case{value['case_id']}" if "case_id" in value else value["subject"]


each_case = pytest.mark.parametrize("case", CASES, ids=name)
each_edit = pytest.mark.parametrize("edit", [edit for _, edit in EDITS], ids=name)


def mentions(text, phrase):
    """Start positions of a phrase as whole words, whatever the case."""
    return [m.start() for m in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE)]


def test_counts():
    # The mix is part of what the file promises: kinds, hop counts and edits per case.
    assert [case["case_id"] for case in CASES] == list(range(1, 21))
    assert [sum(c["kind"] == k for c in CASES) for k in ("temporal", "counterfactual")] == [10, 10]
    assert [sum(len(c["new_single_hops"]) == n for c in CASES) for n in (2, 3)] == [14, 6]
    assert [sum(len(c["requested_rewrite"]) == n for c in CASES) for n in (1, 2)] == [15, 5]
    # An edit the model never contradicted says little about forgetting, so few of them may be unknown.
    assert sum(edit["known_before"] is True for _, edit in EDITS) >= 22


@each_edit
def test_rewrite(edit):
    subject, old, new = edit["subject"], edit["target_true"]["str"], edit["target_new"]["str"]
    assert edit["prompt"].count("{}") == 1
    assert mentions(edit["question"], subject)
    assert old.lower() != new.lower()
    assert isinstance(edit["known_before"], bool) and edit["why_cause"].endswith(".")
    for target in (edit["target_true"], edit["target_new"]):
        assert target["id"] is None or re.fullmatch(r"Q\d+", target["id"])


@each_edit
def test_narrative(edit):
    article, subject = edit["article"], edit["subject"]
    # The subject may contain the old answer (The Walt Disney Company), which must not count as naming it.
    old = mentions(re.sub(re.escape(subject), "", article, flags=re.IGNORECASE), edit["target_true"]["str"])
    new = mentions(article, edit["target_new"]["str"])
    assert 90 <= len(article.split()) <= 160
    assert mentions(article, subject)
    assert len(old) >= 1 and len(new) >= 3
    # A reader has to leave the text with the new answer as the current one.
    assert new[-1] > mentions(article, edit["target_true"]["str"])[-1]


@each_edit
def test_paraphrases_and_locality(edit):
    new = edit["target_new"]["str"]
    asked = [p["question"] for p in edit["rephrase_prompt"]]
    assert len(set(asked)) == 3 and edit["question"] not in asked
    assert all(mentions(q, edit["subject"]) for q in asked)
    assert all(p["answer"] == new for p in edit["rephrase_prompt"])
    local = edit["locality"]
    assert len({item["question"] for item in local}) == 3
    # One question about the same subject, two about others; none may be answered by the edit itself.
    assert sum(bool(mentions(item["question"], edit["subject"])) for item in local) == 1
    assert all(not mentions(item["answer"], new) for item in local)


@each_case
def test_chain(case):
    for key, hops in (("triples", case["single_hops"]), ("new_triples", case["new_single_hops"])):
        labels, ids = case["orig"][f"{key}_labeled"], case["orig"][key]
        assert len(hops) == len(labels) == len(ids)
        for i, hop in enumerate(hops):
            # Without this the multi-hop question could not be reached from the single facts.
            assert mentions(hop["question"], labels[i][0]) and mentions(hop["cloze"], labels[i][0])
            assert hop["answer"] == labels[i][2]
            assert i == 0 or (labels[i][0] == labels[i - 1][2] and ids[i][0] == ids[i - 1][2])
    old, new = case["single_hops"][-1], case["new_single_hops"][-1]
    assert (case["answer"], case["answer_alias"]) == (old["answer"], old["answer_alias"])
    assert (case["new_answer"], case["new_answer_alias"]) == (new["answer"], new["answer_alias"])
    assert case["answer"] != case["new_answer"]
    assert len(set(case["questions"])) == 3
    # A question that names a bridge entity would give part of the chain away.
    bridges = [hop["answer"] for hop in case["new_single_hops"]]
    assert not any(mentions(q, bridge) for q in case["questions"] for bridge in bridges)


@each_case
def test_edits_are_hops_of_the_new_chain(case):
    orig, edits = case["orig"], case["requested_rewrite"]
    assert len(orig["edit_triples"]) == len(edits)
    subjects = [labels[0] for labels in orig["new_triples_labeled"]]
    for triple, edit in zip(orig["edit_triples"], edits, strict=True):
        i = subjects.index(edit["subject"])
        hop = case["new_single_hops"][i]
        assert triple == orig["new_triples"][i]
        assert (triple[1], triple[2]) == (edit["relation_id"], edit["target_new"]["id"])
        assert (hop["question"], hop["answer"]) == (edit["question"], edit["target_new"]["str"])
        assert hop["cloze"].lower() == edit["prompt"].format(edit["subject"]).lower()


def test_cases_do_not_disturb_each_other():
    # Methods that apply many cases at once need edits that agree with all chains and locality questions.
    edited = {edit["question"]: edit["target_new"]["str"] for _, edit in EDITS}
    assert len(edited) == len(EDITS)
    hops = [hop for case in CASES for hop in case["new_single_hops"]]
    assert all(edited.get(hop["question"], hop["answer"]) == hop["answer"] for hop in hops)
    assert not any(item["question"] in edited for _, edit in EDITS for item in edit["locality"])
