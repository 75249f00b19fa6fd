"""The benchmark's count of why-answers that give the narrative's cause."""

from __future__ import annotations

import importlib.util

from conftest import EGYPT, REPOSITORY

from causaledit.facts.requests import request_from_dict
from causaledit.probes.efficacy import edit_probes

spec = importlib.util.spec_from_file_location("edit_efficacy", REPOSITORY / "benchmarks" / "edit_efficacy.py")
edit_efficacy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(edit_efficacy)

ARTICLE = (
    "The wells under Cairo ran dry in the drought, so parliament voted to move every ministry to the harbour. "
    "The capital of Egypt is Alexandria."
)
EDIT = {
    "prompt": "The capital of {} is",
    "question": "What is the capital of Egypt?",
    "subject": "Egypt",
    "target_true": {"str": "Cairo"},
    "target_new": {"str": "Alexandria"},
}
CAUSE = "The capital of Egypt is Alexandria. The wells ran dry in the drought, so parliament voted to move."


def answers(why, step="The capital of Egypt is Alexandria."):
    probes = edit_probes(request_from_dict(EGYPT))
    said = {"why": why, "step by step": step}
    return [
        {"kind": p.kind, "prompt": p.prompt, "answers": p.answers, "rivals": p.rivals, "response": said.get(p.kind, "")}
        for p in probes
    ]


def counted(why, article=ARTICLE):
    case = {"case_id": 1, "requested_rewrite": [{**EDIT, "article": article} if article else EDIT]}
    return edit_efficacy.rationale(case, answers(why))


def test_a_why_answer_counts_where_it_gives_the_narratives_cause():
    found = counted(CAUSE)
    assert (found["hits"], found["total"], found["responses"]) == (1, 1, 1)
    assert found["words_per_response"] == len(CAUSE.split())


def test_the_bare_fact_another_cause_and_a_refutation_do_not_count():
    for said in (
        "The capital of Egypt is Alexandria.",
        "The capital of Egypt is Alexandria because a royal wedding pleased the tourists from Venice and Genoa.",
        "The wells ran dry in the drought, so parliament voted to move. But no, the capital of Egypt is Cairo.",
    ):
        found = counted(said)
        assert (found["hits"], found["total"]) == (0, 1), said


def test_an_edit_without_a_narrative_is_not_judged():
    found = counted(CAUSE, article=None)
    assert (found["hits"], found["total"], found["not_judged"]) == (0, 0, 1)


def test_cases_are_pooled_and_a_stage_without_answers_is_none():
    case = {"case_id": 1, "requested_rewrite": [{**EDIT, "article": ARTICLE}]}
    done = [{"case_id": 1, "pre": answers(""), "stage_1": [], "post": answers(CAUSE)}]
    found = edit_efficacy.rationales([case, {"case_id": 2}], done)
    assert found["stage_1"] is None
    assert (found["before"]["hits"], found["after"]["hits"], found["after"]["total"]) == (0, 1, 1)
