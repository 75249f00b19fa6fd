"""Rehearsal: an edit of a sequence preserves what earlier ones were trained on, and nothing else changes."""

from __future__ import annotations

import random

import pytest
from conftest import EGYPT, FAST, NORWAY, edit, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HparamsError
from causaledit.facts.requests import request_from_dict
from causaledit.facts.same_fact import same_fact
from causaledit.hosts.lookup import get_method
from causaledit.methods.call import edit_in_place
from causaledit.methods.method import EditSequence, StoredMemory
from causaledit.methods.shared.preservation import build_preservation, preserved_questions
from causaledit.methods.shared.rehearsal import ROWS_PER_EDIT, Rehearsal, TrainedRow, evenly, rehearsal_of
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.scoring import completion_logits, mean_log_probability
from causaledit.support.costs import TokenCount
from causaledit.support.progress import SilentProgress

PERU = edit("Peru", "The capital of {} is", "What is the capital of Peru?", "Lima", "Cusco")
FURTHER = {
    "CausalEdit": {"bootstrap_max_steps": 4, "bootstrap_raw_prompts": 1, "distill_steps_base": 1},
    "CaKE": {"max_steps": 4},
    "EtCon": {"proximal_steps": 4, "consolidate_steps": 1},
    "LoRA": {"steps": 4, "prompt_forms": ["plain", "question"], "lora_dropout": 0.0},
    "StoryDistill": {"max_steps": 4},
}
METHODS = list(FURTHER)


def hparams_of(name, model, **changes):
    preserving = {"preserve_weight": 0.5, "preserve_prompts": 4, "preserve_batch_size": 4, "preserve_max_new_tokens": 3}
    values = {**FAST[name], **FURTHER[name], **preserving, "rehearse_edits": 8, **changes}
    return get_method(name).load_hparams()(model_name=(model, make_tokenizer()), **values)


def apply(name, model, sequence, *requests, **changes):
    """Make edits and keep them; what the report says of it."""
    method = get_method(name)
    report = method.load_report()()
    edited = edit_in_place(
        method, model, make_tokenizer(), [dict(r) for r in requests], hparams_of(name, model, **changes),
        progress=SilentProgress(), report=report, sequence=sequence,
    )  # fmt: skip
    assert edited.keep() is model
    return report


def preserving(model, sequence, *requests, **changes):
    return build_preservation(
        model, prepare_tokenizer(make_tokenizer()), [request_from_dict(r) for r in requests],
        hparams_of("LoRA", model, **changes), count=TokenCount(), sequence=sequence,
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_the_first_edit_of_a_sequence_is_the_same_to_the_bit(name):
    weights = []
    for n in (0, 8):
        model = make_llama()
        apply(name, model, EditSequence(), EGYPT, rehearse_edits=n)
        weights.append(weights_of(model))
    assert same_weights(*weights)


@pytest.mark.parametrize("name", METHODS)
def test_the_second_edit_rehearses_the_first_and_no_other(name):
    sequence, model = EditSequence(), make_llama()
    hparams = hparams_of(name, model)
    apply(name, model, sequence, EGYPT)
    rehearsal = rehearsal_of(sequence, hparams)
    assert isinstance(rehearsal, StoredMemory) and len(rehearsal) == 1
    rows = rehearsal.drawn([request_from_dict(NORWAY)], 8, 0)
    tokenizer = make_tokenizer()
    asked, answers = [row.text for row in rows], [tokenizer.decode(row.answer) for row in rows]
    assert 1 < len(rows) <= ROWS_PER_EDIT and all("Egypt" in text for text in asked)
    assert all("Alexandria" in text for text in answers)
    whole = [tokenizer.decode(row.prompt) for row in rows]
    assert any("<|im_start|>" in text for text in whole) or name == "CaKE"
    if name in ("CausalEdit", "LoRA"):  # trained on bare text too
        assert any("<|im_start|>" not in text for text in whole)
    report = apply(name, model, sequence, NORWAY)
    assert set(asked) <= set(report.trained_prompts)
    assert len(rehearsal) == 2


def test_without_a_sequence_or_switched_off_nothing_is_kept():
    model = make_llama()
    assert rehearsal_of(None, hparams_of("LoRA", model)) is None
    sequence = EditSequence()
    apply("LoRA", model, sequence, EGYPT, rehearse_edits=0)
    assert sequence.stored() == {}
    assert preserving(model, EditSequence(), NORWAY).rehearsed is None


def test_the_model_before_the_edit_is_the_teacher_of_the_new_answer():
    sequence, model = EditSequence(), make_llama()
    apply("LoRA", model, sequence, EGYPT, steps=20)
    found = preserving(model, sequence, NORWAY, preserve_top_k=10**6)
    rehearsed = found.rehearsed
    assert rehearsed.next_loss(model).item() == pytest.approx(0, abs=1e-5)  # it says what it has learnt
    before = make_llama()
    assert rehearsed.next_loss(before).item() > 0.01
    assert found.next_loss(before).item() > rehearsed.next_loss(before).item()  # the neighbours are held as well
    assert set(found.questions).isdisjoint(rehearsed.questions)
    assert set(preserved_questions(found)) == {*found.questions, *rehearsed.questions}


def test_neighbours_and_the_trust_region_of_a_later_edit_are_held_to_the_model_before_it():
    sequence, model = EditSequence(), make_llama()
    apply("LoRA", model, sequence, EGYPT, steps=20)
    for held in (preserving(model, sequence, NORWAY), preserving(model, sequence, NORWAY).hold_out(1)):
        assert held._next_loss(model, share=True).item() == pytest.approx(0, abs=1e-5)
        assert held._next_loss(make_llama(), share=True).item() > 1e-4


def log_probability(model, request):
    """Of the new answer behind the bare cloze, per token."""
    tokenizer = make_tokenizer()
    head = tokenizer(request["prompt"])["input_ids"]
    tail = tokenizer(f" {request['target_new']}", add_special_tokens=False)["input_ids"]
    return mean_log_probability(completion_logits(model, [head], [tail])[0], tail)


def test_an_earlier_edit_is_held_better_with_rehearsal():
    lost = {}
    for n in (0, 8):
        sequence, model = EditSequence(), make_llama()
        common = {"rehearse_edits": n, "steps": 30, "learning_rate": 1e-2, "preserve_weight": 0.3}
        before = [log_probability(model, request) for request in (EGYPT, NORWAY)]
        apply("LoRA", model, sequence, EGYPT, **common)
        learnt = log_probability(model, EGYPT)
        apply("LoRA", model, sequence, NORWAY, **common)
        lost[n] = learnt - log_probability(model, EGYPT)
        assert learnt > before[0] + 1 and log_probability(model, NORWAY) > before[1] + 1
    assert lost[8] < 0.6 < 2 < lost[0]


def test_a_batch_is_remembered_edit_by_edit():
    sequence, model = EditSequence(), make_llama()
    apply("LoRA", model, sequence, EGYPT, NORWAY)
    rehearsal = rehearsal_of(sequence, hparams_of("LoRA", model))
    assert len(rehearsal) == 2
    texts = [row.text for row in rehearsal.drawn([request_from_dict(PERU)], 1, 0)]
    assert all("Egypt" in t for t in texts) or all("Norway" in t for t in texts)


# ---- the memory ------------------------------------------------------------------------------------
def request(subject, new="Rome", **changes):
    return request_from_dict({**edit(subject, "The capital of {} is", f"Capital of {subject}?", "Old", new), **changes})


def row(text, n=1):
    return TrainedRow(text, [1, 2, n], [3])


def test_more_edits_than_fit_are_drawn_evenly_with_a_seed():
    rehearsal = Rehearsal()
    for i in range(20):
        rehearsal.remember([request(f"Land {i}")], [[row(f"{i}")]], seed=0)
    drawn = [[int(r.text) for r in rehearsal.drawn([request("Elsewhere")], 4, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] and all(len(d) == 4 for d in drawn)
    assert all(5 * i <= n < 5 * (i + 1) for d in drawn for i, n in enumerate(d))  # one of each quarter
    assert len({tuple(r.text for r in rehearsal.drawn([request("Elsewhere")], 4, seed)) for seed in range(9)}) > 3
    assert len(rehearsal.drawn([request("Elsewhere")], 30, 0)) == 20


def test_an_edit_with_many_rows_keeps_some_of_all_kinds():
    rehearsal = Rehearsal()
    rehearsal.remember([request("Chad")], [[row(f"{i}", i) for i in range(60)] + [row("again", 59)]], seed=0)
    kept = [int(r.text) for r in rehearsal.drawn([request("Elsewhere")], 1, 0)]
    assert len(kept) == ROWS_PER_EDIT and kept == sorted(kept) and kept[-1] >= 55


@pytest.mark.parametrize("other", [
    {"target_new": "Turin"},
    {"target_new": "Turin", "prompt": "Chad has its seat of government in", "question": "Capital of Chad?"},
    {"target_new": "Turin", "prompt": "Who knows the capital of Chad?", "question": None},
])  # fmt: skip
def test_a_later_edit_of_the_same_fact_takes_the_earlier_ones_place(other):
    rehearsal, again = Rehearsal(), request("Chad", **other)
    rehearsal.remember([request("Chad")], [[row("first")]], seed=0)
    rehearsal.remember([request("Mali")], [[row("Mali")]], seed=0)
    assert [r.text for r in rehearsal.drawn([again], 8, 0)] == ["Mali"]  # it must be free to change
    assert len(rehearsal) == 2  # until the edit has succeeded
    rehearsal.remember([again], [[row("second")]], seed=0)
    assert [r.text for r in rehearsal.drawn([request("Elsewhere")], 8, 0)] == ["Mali", "second"]


def test_what_is_kept_can_be_written_and_read():
    rehearsal = Rehearsal()
    rehearsal.remember([request("Chad"), request("Mali")], [[row("a"), row("b", 2)], [row("c")]], seed=0)
    again = Rehearsal()
    again.load(rehearsal.constants(), rehearsal.state())
    assert again.state() == rehearsal.state()
    assert again.drawn([request("Mali")], 8, 0) == rehearsal.drawn([request("Mali")], 8, 0) != []


def test_a_prompt_that_states_the_edited_fact_is_left_out():
    sequence, model = EditSequence(), make_llama()
    apply("LoRA", model, sequence, {**EGYPT, "target_new": "Oslo", "prompt": "Norway's ambassador to Egypt lives in"})
    assert preserving(model, sequence, NORWAY).rehearsed is None or all(
        "Norway" not in q for q in preserving(model, sequence, NORWAY).rehearsed.questions
    )


def test_evenly():
    assert evenly([1, 2, 3], 5, random.Random(0)) == [1, 2, 3]
    assert sorted({evenly([1, 2, 3, 4], 1, random.Random(i))[0] for i in range(40)}) == [1, 2, 3, 4]


def test_the_same_fact_in_other_words():
    assert same_fact(request("Chad"), request("Chad", new="Turin"))
    assert not same_fact(request("Chad"), request("Mali"))
    assert not same_fact(request("Chad"), request_from_dict(edit("Chad", "{} lies in", "Where is Chad?", "a", "b")))


# ---- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", METHODS)
def test_rehearsal_needs_the_preservation_term(name):
    with pytest.raises(HparamsError, match="`rehearse_edits` is 8, and `preserve_weight` is 0"):
        hparams_of(name, None, preserve_weight=0.0)
    with pytest.raises(HparamsError, match="rehearse_edits"):
        hparams_of(name, None, rehearse_edits=-1)


def test_consolidation_alone_has_nothing_to_rehearse():
    with pytest.raises(HparamsError, match=r"`stages: \[2\]` trains on no given answer"):
        hparams_of("EtCon", None, stages=[2])


def test_published_files_leave_it_off():
    for name in METHODS:
        assert get_method(name).load_hparams().from_hparams("smollm2-135m-instruct").rehearse_edits == 0
