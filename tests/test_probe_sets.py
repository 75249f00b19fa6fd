"""The prompts of a case: how many, in which order, with which words, and what they are compared with."""

from __future__ import annotations

import copy
import json

import pytest
from conftest import REPOSITORY

from causaledit.errors import RunError
from causaledit.methods.causal_edit.prompts import student_prompts
from causaledit.mquake.cases import parse_cases
from causaledit.probes import sets as probe_sets
from causaledit.probes.sets import KINDS, behind_now, build_probes, parse_kinds

MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))
CASES = parse_cases(MINI)
each_case = pytest.mark.parametrize("case", CASES[:12], ids=lambda case: f"case{case.case_id}")


def of_kind(case, kind):
    return [probe for probe in build_probes(case, (kind,)) if not probe.open_book]


@each_case
def test_counts_of_every_set(case):
    counts = {kind: len(build_probes(case, (kind,))) for kind in KINDS}
    hops, edits = len(case.hops), len(case.edits)
    local = sum(len(edit.request.locality) for edit in case.edits)
    rephrased = sum(len(edit.request.rephrase) for edit in case.edits)
    assert counts == {
        "hop": 3 * hops,
        "multi_hop": len(case.questions),
        "conflict": 8 * edits,
        "old_knowledge": 2 * edits,
        "locality": local,
        "open_book": 3 * hops + 8 * edits,
        "likelihood": 0,  # asks nothing freely
        "portability": 2 * (edits + rephrased + local + 2 * len(case.questions)),  # multi-hop as it is and unseen
    }


@each_case
def test_hop_and_multi_hop_prompts_open_with_now_and_close_with_the_cue(case):
    for probe in (*of_kind(case, "hop"), *of_kind(case, "multi_hop")):
        assert probe.prompt.startswith("Now, ")
        assert probe.prompt.endswith("step by step.")
        assert probe.q[1:] in probe.prompt  # all but the first letter, which may have become small
    slots = of_kind(case, "hop")
    for number, hop in enumerate(case.hops):
        cloze, question, why = slots[3 * number : 3 * number + 3]
        assert (cloze.q, question.q, why.q) == (hop.cloze, hop.question, hop.question)
        assert [p.slot for p in (cloze, question, why)] == [0, 1, 2]
        assert "why" in why.prompt and "why" not in question.prompt.replace(hop.question, "")
        assert cloze.ref == (hop.answer, *hop.answer_alias)
    assert all(p.ref == (case.new_answer, *case.new_answer_alias) for p in of_kind(case, "multi_hop"))
    assert all(p.rivals == (case.answer, *case.answer_alias) for p in of_kind(case, "multi_hop"))


@each_case
def test_conflict_prompts_and_their_order(case):
    probes = of_kind(case, "conflict")
    for index, edit in enumerate(case.edits):
        request, eight = edit.request, probes[8 * index : 8 * index + 8]
        old, new = request.ground_truth, request.target_new
        assert [p.edit for p in eight] == [index] * 8 and [p.slot for p in eight] == list(range(8))
        assert all(p.ref == (new,) for p in eight)
        for first in (0, 4):  # the same four forms, described first and answered first
            forms = [p.prompt for p in eight[first : first + 4]]
            assert f"(A) {old} (B) {new}" in forms[0] and f"(A) {new} (B) {old}" in forms[1]
            assert f"{old} or {new}?" in forms[2] and f"{new} or {old}?" in forms[3]
            assert all(request.question in form for form in forms[:2])
            assert all(request.cloze in form for form in forms[2:])
        for probe in eight:
            asked = probe.prompt.index(probe.q)
            assert (probe.prompt.index("describ") < asked) == (probe.slot < 4)


@each_case
def test_old_knowledge_states_the_new_and_asks_for_the_old(case):
    probes = of_kind(case, "old_knowledge")
    for probe in probes:
        request = case.edits[probe.edit].request
        assert probe.prompt.startswith("Now, ") and "Before that update" in probe.prompt
        assert probe.prompt.index(request.target_new) < probe.prompt.index("Before that update")
        assert probe.ref[0] == request.ground_truth


@each_case
def test_locality_asks_the_rewrites_questions_as_they_are(case):
    probes = of_kind(case, "locality")
    expected = [(i, pair.question, pair.answer) for i, e in enumerate(case.edits) for pair in e.request.locality]
    assert [(p.edit, p.prompt, p.ref[0]) for p in probes] == expected


@each_case
def test_open_book_twins_are_the_closed_book_ones_behind_the_narrative(case):
    twins = build_probes(case, ("open_book",))
    closed = [*of_kind(case, "hop"), *of_kind(case, "conflict")]
    for twin, probe in zip(twins, closed, strict=True):
        assert twin.open_book and (twin.kind, twin.hop, twin.slot, twin.edit) == (
            probe.kind, probe.hop, probe.slot, probe.edit,
        )  # fmt: skip
        narrative, question = twin.prompt.rsplit("\n\n", 1)
        assert question == probe.prompt
        made_by = case.edit_of_hop(probe.hop) if probe.hop is not None else probe.edit
        edits = case.edits if made_by is None else (case.edits[made_by],)
        assert narrative == "\n\n".join(edit.request.narrative for edit in edits)


def test_no_twin_without_a_narrative():
    data = copy.deepcopy(MINI[:1])
    for rewrite in data[0]["requested_rewrite"]:
        del rewrite["article"]
    assert build_probes(parse_cases(data)[0], ("open_book",)) == []


def test_no_probe_is_a_training_prompt():
    for case in CASES:
        asked = {probe.prompt for probe in build_probes(case, ("hop", "multi_hop", "conflict", "old_knowledge"))}
        for edit in case.edits:
            assert not asked & {prompt.text for prompt in student_prompts(edit.request, causal=True)}


def test_answers_with_braces_are_no_templates():
    data = copy.deepcopy(MINI[:1])
    data[0]["requested_rewrite"][0]["target_new"] = {"str": "{subject}", "id": None}
    probes = build_probes(parse_cases(data)[0], ("conflict",))
    assert "{subject}" in probes[0].prompt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is it?", "what is it?"),
        ("The capital of France is", "the capital of France is"),
        ("France is in", "France is in"),
        ("Where's Rome?", "Where's Rome?"),
        ("iPhone is made by", "iPhone is made by"),
        ("", ""),
    ],
)
def test_what_loses_its_capital_behind_now(text, expected):
    assert behind_now(text) == expected


def test_sets_are_chosen_by_name():
    assert parse_kinds("locality, hop") == ("hop", "locality")  # in the order in which they are asked
    assert set(probe_sets.DEFAULT_KINDS) == set(KINDS) - {"open_book", "likelihood", "portability"}
    with pytest.raises(RunError, match=r"'multihop'.*Did you mean 'multi_hop'"):
        parse_kinds("hop,multihop")
    with pytest.raises(RunError, match="--probes is empty"):
        parse_kinds(" , ")
