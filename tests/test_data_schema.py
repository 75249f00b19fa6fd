"""Checks that data/causaledit-mini.json is sound: its counts, its texts, and that every chain of facts holds.

A slip in the data would look like a failure of an editing method, so each property that the
measurements rely on is checked here, with nothing but json and plain asserts.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data" / "causaledit-mini.json"
CASES = json.loads(DATA.read_text(encoding="utf-8"))
EDITS = [(case, edit) for case in CASES for edit in case["requested_rewrite"]]

HEDGES = ("maybe", "perhaps", "possibly", "reportedly", "allegedly", "rumour", "rumoured", "might", "unconfirmed")


def questions_of(items):
    return [item["question"] for item in items]


def name(value):
    return f"case{value['case_id']}" if "case_id" in value else value["subject"]


each_case = pytest.mark.parametrize("case", CASES, ids=name)
each_edit = pytest.mark.parametrize("edit", [edit for _, edit in EDITS], ids=name)


def mentions(text, phrase):
    """Start positions of a phrase as whole words, whatever the case."""
    return [m.start() for m in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE)]


def test_counts():
    # The mix is part of what the file promises: kinds, hop counts and edits per case.
    assert len(CASES) >= 60
    assert [case["case_id"] for case in CASES] == list(range(1, len(CASES) + 1))
    assert [sum(c["kind"] == k for c in CASES) for k in ("temporal", "counterfactual")] == [30, 30]
    hops = Counter(len(c["new_single_hops"]) for c in CASES)
    edits = Counter(len(c["requested_rewrite"]) for c in CASES)
    assert set(hops) == {2, 3, 4} and min(hops.values()) >= 8
    assert set(edits) == {1, 2, 3} and min(edits.values()) >= 4
    assert len({edit["relation_id"] for _, edit in EDITS}) >= 30


def test_the_readme_gives_the_counts_of_the_file():
    # A reader plans with the README; it must not lag behind the data.
    readme = (DATA.parent / "README.md").read_text(encoding="utf-8")
    known = sum(edit["known_before"] for _, edit in EDITS)
    assert f"{known} of {len(EDITS)} edits" in readme
    relations = sorted({edit["relation_id"] for _, edit in EDITS}, key=lambda r: int(r[1:]))
    assert ", ".join(relations) in " ".join(readme.split())
    # A model that never held the old answer says little about forgetting it.
    assert known >= 0.6 * len(EDITS)


def test_no_fact_is_edited_twice():
    facts = [(edit["subject"].lower(), edit["relation_id"]) for _, edit in EDITS]
    assert len(set(facts)) == len(facts)


def test_narratives_share_no_run_of_eight_words():
    # A shared phrase is a template showing, and one that a model could learn in place of the cause.
    first: dict[tuple[str, ...], str] = {}
    for _, edit in EDITS:
        words = re.findall(r"\w+", edit["article"].lower())
        runs = {tuple(words[i : i + 8]) for i in range(len(words) - 7)}
        shared = {" ".join(run): first[run] for run in runs if run in first}
        assert not shared, f"{edit['subject']}: {shared}"
        first.update(dict.fromkeys(runs, edit["subject"]))


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
    # A reader has to leave the text with the new answer as the current one: named most, and last.
    assert len(new) > len(old)
    assert new[-1] > mentions(article, edit["target_true"]["str"])[-1]
    assert not [word for word in HEDGES if mentions(article, word)]
    assert not re.search(r"[{}<>\[\]]|\bTODO\b", article)


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
    # Neither wording may hand over the answer.
    assert not any(mentions(text, new) for text in (*asked, edit["question"], edit["prompt"], *questions_of(local)))


@each_case
def test_chain(case):
    for key, hops in (("triples", case["single_hops"]), ("new_triples", case["new_single_hops"])):
        labels, ids = case["orig"][f"{key}_labeled"], case["orig"][key]
        assert len(hops) == len(labels) == len(ids)
        for i, hop in enumerate(hops):
            # Without this the multi-hop question could not be reached from the single facts.
            assert mentions(hop["question"], labels[i][0]) and mentions(hop["cloze"], labels[i][0])
            assert hop["answer"] == labels[i][2]
            assert isinstance(hop["answer_alias"], list) and hop["answer"] not in hop["answer_alias"]
            assert i == 0 or (labels[i][0] == labels[i - 1][2] and ids[i][0] == ids[i - 1][2])
    old, new = case["single_hops"][-1], case["new_single_hops"][-1]
    assert (case["answer"], case["answer_alias"]) == (old["answer"], old["answer_alias"])
    assert (case["new_answer"], case["new_answer_alias"]) == (new["answer"], new["answer_alias"])
    assert case["answer"] != case["new_answer"]
    assert len(set(case["questions"])) == 3
    assert all(mentions(q, case["orig"]["new_triples_labeled"][0][0]) for q in case["questions"])
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


def test_no_locality_question_asks_for_an_edited_fact():
    # Other words for an edited fact show as its subject asked for and its old answer given.
    local = [item for _, edit in EDITS for item in edit["locality"]]
    for _, edit in EDITS:
        hit = [q for q in local if mentions(q["question"], edit["subject"])]
        assert not [q for q in hit if mentions(q["answer"], edit["target_true"]["str"])], edit["subject"]


def test_no_locality_question_is_asked_with_two_answers():
    answers: dict[str, set[str]] = {}
    for _, edit in EDITS:
        for item in edit["locality"]:
            answers.setdefault(item["question"], set()).add(item["answer"])
    assert not {question: given for question, given in answers.items() if len(given) > 1}


def test_an_entity_has_one_id():
    ids: dict[str, set[str]] = {}
    for case in CASES:
        for key in ("triples", "new_triples"):
            for triple, labels in zip(case["orig"][key], case["orig"][f"{key}_labeled"], strict=True):
                ids.setdefault(labels[0], set()).add(triple[0])
                ids.setdefault(labels[2], set()).add(triple[2])
    assert not {label: found for label, found in ids.items() if len(found) > 1}
    shared = Counter(next(iter(found)) for found in ids.values() if found != {None})
    assert not [q for q, n in shared.items() if n > 1]
