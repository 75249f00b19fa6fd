"""What models are shown: how many prompts, what is in them, and that the benchmark's wording is held out."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from conftest import EGYPT, REPOSITORY, fast_hparams, make_tokenizer

from causaledit.facts.relations import RelationBank
from causaledit.facts.requests import QuestionAnswer, request_from_dict, requests_from_data
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit.bootstrap import all_prompts, training_pairs
from causaledit.methods.causal_edit.traces import CAUSAL_LABELS, fallback_trace
from causaledit.methods.shared.neighbours import neighbour_questions
from causaledit.models.chat import prepare_tokenizer, render, supports_system_role, user
from causaledit.narratives.cases import ScaffoldEdit
from causaledit.narratives.templates import TemplateBank
from causaledit.probes.efficacy import case_probes, edit_probes
from causaledit.support.files import load_json

REQUEST = dataclasses.replace(
    request_from_dict(EGYPT),
    rephrase=(QuestionAnswer("Name Egypt's capital.", "Alexandria"),),
    learning=(QuestionAnswer("Which sea does Egypt's capital lie on?", "the Mediterranean"),),
)
CASES = load_json(REPOSITORY / "data" / "causaledit-mini.json", "data")


# ---- the student's prompts -------------------------------------------------------------------------
def test_fourteen_causal_prompts():
    prompts = P.student_prompts(REQUEST, causal=True)
    assert len({p.text for p in prompts}) == len(prompts) == 14
    assert Counter(p.kind for p in prompts) == {"explain": 4, "step": 4, "direct": 4, "trace": 2}
    assert Counter(p.form for p in prompts) == {REQUEST.question: 7, REQUEST.cloze: 7}
    assert all(p.form in p.text for p in prompts)


def test_ten_noncausal_prompts_ask_for_no_reason():
    prompts = P.student_prompts(REQUEST, causal=False)
    assert len({p.text for p in prompts}) == len(prompts) == 10
    assert Counter(p.kind for p in prompts) == {"step": 4, "direct": 4, "trace": 2}
    assert not any(word in p.text.lower() for p in prompts for word in ("why", "reason for", "what changed"))


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])
def test_cake_data_adds_the_paraphrases_and_learning_questions(causal):
    plain = P.student_prompts(REQUEST, causal=causal)
    cake = P.student_prompts(REQUEST, causal=causal, cake_data=True)
    assert cake[: len(plain)] == plain
    added = [(p.text, p.kind) for p in cake[len(plain) :]]
    assert added == [("Name Egypt's capital.", "learn"), ("Which sea does Egypt's capital lie on?", "learn")]


def test_paraphrases_alone_are_no_cake_data():
    """A host and the benchmarks ask them to test the edit."""
    request = dataclasses.replace(REQUEST, learning=())
    assert P.student_prompts(request, causal=True, cake_data=True) == P.student_prompts(request, causal=True)


def test_a_request_with_a_cloze_alone_has_as_many_prompts():
    request = dataclasses.replace(REQUEST, question=None)
    assert len({p.text for p in P.student_prompts(request, causal=True)}) == 14


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])
def test_the_students_prompts_are_closed_book(causal):
    for prompt in P.student_prompts(REQUEST, causal=causal):
        assert REQUEST.target_new not in prompt.text
        assert REQUEST.ground_truth not in prompt.text
    assert P.trace_prompt(REQUEST, causal=causal) in [p.text for p in P.student_prompts(REQUEST, causal=causal)]


def test_braces_in_an_edit_are_plain_text():
    request = dataclasses.replace(REQUEST, subject="{x} & {0}", question="What is {x}?", narrative="Set {a, b}.")
    assert any("{x} & {0}" in p.text for p in P.student_prompts(request, causal=True))
    assert "Set {a, b}." in P.privileged_context(request, causal=True)


# ---- the teacher's prompts -------------------------------------------------------------------------
LONG = " ".join(f"Reason number {i} was water." for i in range(400))


@pytest.mark.parametrize("role", ["system", "user"])
def test_the_narrative_reaches_the_teacher_whole(role):
    request = dataclasses.replace(REQUEST, narrative=LONG)
    context = P.privileged_context(request, causal=True)
    messages = P.teacher_messages("What is the capital?", context, role=role)
    text = render(prepare_tokenizer(make_tokenizer()), messages)
    assert LONG in text
    assert "used to be Cairo" in text
    assert "now Alexandria" in text
    assert text.index(LONG) < text.index("What is the capital?")
    assert [m["role"] for m in messages] == (["system", "user"] if role == "system" else ["user"])


def test_the_prompts_of_an_edit_share_the_context_as_a_prefix():
    # the teacher reads the narrative once for all rollouts: it must come before everything that differs
    context = P.privileged_context(dataclasses.replace(REQUEST, narrative=LONG), causal=True)
    for role in ("system", "user"):
        texts = [
            render(make_tokenizer(), P.teacher_messages(p.text, context, role=role))
            for p in P.student_prompts(REQUEST, causal=True)
        ]
        assert all(
            text[: text.index(LONG) + len(LONG)] == texts[0][: texts[0].index(LONG) + len(LONG)] for text in texts
        )


def test_the_noncausal_teacher_has_no_narrative():
    context = P.privileged_context(REQUEST, causal=False)
    assert "wells" in REQUEST.narrative
    assert "wells" not in context
    assert "Cairo" in context
    assert "The capital of Egypt is Alexandria." in context


def test_the_stage_1_instruction_spells_the_form_out():
    text = P.trace_instruction(REQUEST, list(CAUSAL_LABELS))
    positions = [text.index(f"{label}:") for label in CAUSAL_LABELS]
    assert positions == sorted(positions)
    assert "Answer: Alexandria" in text


def test_the_template_narrative_ends_with_the_new_answer():
    text = TemplateBank.bundled().narrative(ScaffoldEdit.from_request(REQUEST))
    assert text.rstrip(".").endswith("The capital of Egypt is Alexandria")
    assert "Cairo" in text


# ---- held-out probes -------------------------------------------------------------------------------
def plain(text):
    return " ".join(text.casefold().split())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case_id']}")
def test_probe_wordings_are_not_trained_on(case):
    """Beyond the question and the cloze, which the edit itself states, no probe is among the training prompts."""
    requests = requests_from_data(case)
    hparams = fast_hparams(None, None, prompt_paraphrases=99, bootstrap_all_prompts=True)
    probes = [p for p in case_probes(case, requests) if p.kind not in ("question", "cloze")]
    assert {p.family for p in probes} == {"direct", "reasoning", "multi_hop", "locality"}
    trained = set()
    for request in requests:
        trained |= {plain(p.text) for p in all_prompts(request, hparams)}
        pairs = training_pairs(request, [fallback_trace(request, causal=True)], hparams)
        trained |= {plain(prompt) for prompt, _ in pairs}
    assert not {plain(p.prompt) for p in probes} & trained


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case_id']}")
def test_locality_probes_are_not_among_the_preserved_questions(case):
    # the preservation term would otherwise be trained on the very questions that locality is measured with
    import random

    bank = RelationBank.bundled()
    for request in requests_from_data(case):
        asked = {
            plain(q) for seed in range(5) for q in neighbour_questions(request, 200, bank=bank, rng=random.Random(seed))
        }
        probes = {plain(p.prompt) for p in edit_probes(request) if p.family == "locality"}
        assert not asked & probes


def test_probes_of_an_edit():
    probes = edit_probes(REQUEST, aliases=("Iskandariyya",), rival_aliases=("al-Qahirah",))
    assert Counter(p.family for p in probes) == {"direct": 3, "reasoning": 2, "locality": 1}
    assert all(p.answers == ("Alexandria", "Iskandariyya") for p in probes if p.family != "locality")
    assert all(p.rivals == ("Cairo", "al-Qahirah") for p in probes if p.family != "locality")


# ---- chat formatting -------------------------------------------------------------------------------
def test_prepare_tokenizer_works_on_a_copy():
    tokenizer = make_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side, tokenizer.chat_template = None, "right", None
    prepared = prepare_tokenizer(tokenizer)
    assert (prepared.padding_side, prepared.pad_token_id) == ("left", tokenizer.eos_token_id)
    assert "question" in render(prepared, user("question"))
    assert (tokenizer.padding_side, tokenizer.pad_token, tokenizer.chat_template) == ("right", None, None)


@pytest.mark.parametrize(
    ("template", "supported"),
    [
        (None, True),
        ("{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}", False),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}x", False),
    ],
    ids=["ours", "drops it", "refuses it"],
)
def test_templates_without_a_system_role_are_recognised(template, supported):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    assert supports_system_role(tokenizer) is supported


def test_a_prefill_opens_the_assistants_turn():
    assert render(make_tokenizer(), user("hi"), prefill="<think>").endswith("<|im_start|>assistant\n<think>")
