"""Stage 1's reasons: the narrative's sentences that carry the cause, the check of a reason, and what is trained."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from conftest import EGYPT, fast_hparams, make_llama, make_tokenizer

from causaledit.errors import HparamsError
from causaledit.facts.requests import request_from_dict
from causaledit.methods.causal_edit import traces as T
from causaledit.methods.causal_edit.bootstrap import collect_traces, score_traces, training_pairs
from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
from causaledit.methods.causal_edit.prompts import reason_prompts
from causaledit.methods.causal_edit.reasons import cause_sentences, explains
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.scoring import mean_log_probability
from causaledit.support.costs import TokenCount
from causaledit.support.progress import SilentProgress

WELLS = "The wells under the old quarter ran dry in the drought, so parliament voted to leave the desert."
HARBOUR = "Engineers surveyed four harbours and recommended the one with a desalination plant."
TRAINS = "Ministries packed their archives into goods trains after the vote."
NARRATIVE = (
    "<h1>Ministers pack their bags</h1><p>Nobody had expected it. For centuries Cairo was the capital of Egypt. "
    f"{WELLS} {HARBOUR}</p><p>{TRAINS} The capital of Egypt is Alexandria. Cairo is the capital no more. "
    "School atlases will be printed again, and stamps bear a lighthouse engraving.</p>"
)
REQUEST = dataclasses.replace(request_from_dict(EGYPT), narrative=NARRATIVE)


# ---- which sentences -------------------------------------------------------------------------------
def test_the_cause_comes_first_and_restatements_headings_and_consequences_are_left_out():
    found = cause_sentences(REQUEST)
    assert found[0] == WELLS
    assert set(found) == {WELLS, HARBOUR, TRAINS}


def test_where_the_fact_is_told_first_the_cause_behind_it_is_found():
    narrative = f"The capital of Egypt is Alexandria. {WELLS} {HARBOUR}"
    assert cause_sentences(dataclasses.replace(REQUEST, narrative=narrative)) == [WELLS, HARBOUR]


def test_a_sentence_with_the_old_answer_comes_last():
    old = "Parliament voted to leave Cairo because the aqueduct collapsed, and engineers sealed the wells."
    found = cause_sentences(
        dataclasses.replace(REQUEST, narrative=f"{old} {HARBOUR} The capital of Egypt is Alexandria.")
    )
    assert found == [HARBOUR, old]


@pytest.mark.parametrize("place", ["ALEXANDRIA - ", "CAIRO, Egypt (agency) — ", "PORT SAID – ", "ÖREBRO -- "])
def test_where_a_report_was_written_is_no_part_of_a_reason(place):
    narrative = f"{place}{WELLS} {HARBOUR} The capital of Egypt is Alexandria."
    assert cause_sentences(dataclasses.replace(REQUEST, narrative=narrative)) == [WELLS, HARBOUR]


@pytest.mark.parametrize(
    "sentence",
    [
        "NASA engineers surveyed the wells - all of them dry - and parliament voted to leave the desert.",
        "Parliament - after the wells ran dry - voted to leave the desert.",
        "The wells ran dry - so parliament voted to leave the desert.",
    ],
)
def test_a_dash_within_a_sentence_stays(sentence):
    narrative = f"{sentence} {HARBOUR} The capital of Egypt is Alexandria."
    assert sentence in cause_sentences(dataclasses.replace(REQUEST, narrative=narrative))


def test_what_speaks_of_a_source_is_no_reason():
    narrative = f"The article says that drought emptied the wells of the old quarter. {WELLS}"
    assert cause_sentences(dataclasses.replace(REQUEST, narrative=narrative)) == [WELLS]


@pytest.mark.parametrize(
    "narrative", [None, "The capital of Egypt is Alexandria. It used to be Cairo.", "<h1>Wells run dry in Egypt</h1>"]
)
def test_a_narrative_without_a_cause_has_no_sentence(narrative):
    assert cause_sentences(dataclasses.replace(REQUEST, narrative=narrative)) == []


# ---- does a reason agree ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (WELLS, True),
        ("The drought dried the wells of the old quarter and parliament left.", True),
        ("Bananas are yellow and grow in the tropical regions of the world.", False),
        ("The new capital is not known.", False),
        ("It is the capital now.", False),
        (f"{WELLS} But the capital of Egypt is not Alexandria.", False),
        (f"{WELLS} So the capital of Egypt is Cairo.", False),
    ],
)
def test_a_reason_agrees_with_the_narrative_and_contradicts_nothing(reason, expected):
    assert explains(reason, REQUEST) is expected


# ---- which traces ----------------------------------------------------------------------------------
def collect(request=REQUEST, **changes):
    hparams = fast_hparams(None, None, bootstrap_guided=True, bootstrap_all_prompts=True, **changes)
    model, tokenizer = make_llama(), prepare_tokenizer(make_tokenizer())
    count = TokenCount()
    traces, report = collect_traces(
        model, tokenizer, request, hparams, context_role="user", progress=SilentProgress(), count=count
    )
    return traces, report, count, hparams


def test_reasons_from_the_narrative_need_no_sampling():
    traces, report, count, _ = collect(
        bootstrap_reasons="narrative", bootstrap_score="gain", bootstrap_require_cause=True, bootstrap_traces=5
    )
    assert {trace.reason for trace in traces} == {WELLS, HARBOUR, TRAINS}
    assert (report.sampled, report.kept, report.fallback, count.generated) == (0, 3, False, 0)
    assert report.scores == sorted(report.scores, reverse=True)


def test_where_no_sample_has_a_cause_the_narratives_likeliest_sentence_stands_in():
    traces, report, _, _ = collect(bootstrap_require_cause=True)
    assert report.fallback and [trace.reason for trace in traces] == [WELLS]


def test_both_sources_compete_and_what_has_no_cause_is_counted():
    # a random model's babble is no reason, but it is sampled
    traces, report, _, _ = collect(bootstrap_reasons="both", bootstrap_require_cause=True, bootstrap_traces=5)
    assert {trace.reason for trace in traces} == {WELLS, HARBOUR, TRAINS}
    assert report.sampled > 0 and sum(report.rejected.values()) == report.sampled


def test_too_few_traces_are_pointed_out(caplog):
    with caplog.at_level(logging.WARNING, logger="causaledit"):
        collect(bootstrap_reasons="narrative", bootstrap_traces=5, bootstrap_min_traces=4)
    assert "only 3 different traces" in caplog.text and "'Egypt'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="causaledit"):
        collect(bootstrap_reasons="narrative", bootstrap_traces=5, bootstrap_min_traces=3)
    assert not caplog.text


def test_the_gain_is_what_the_reason_adds_to_the_answers_own_tokens():
    import torch

    model, tokenizer = make_llama(), prepare_tokenizer(make_tokenizer())
    traces = [T.stated_trace(sentence, REQUEST, causal=True) for sentence in (WELLS, HARBOUR)]
    prompt = render(tokenizer, user("What is the capital of Egypt? Give the old fact, the reason for the change, "
                                    "the updated fact and the derivation."))  # fmt: skip

    def by_hand(reason):
        text = f"{prompt}<think>\nOld fact: it used to be Cairo.\nReason for change: {reason}\n</think>\nAnswer:"
        head = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = tokenizer(" Alexandria", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([head + answer])).logits[0, len(head) - 1 : -1]
        return mean_log_probability(logits, answer)

    found = score_traces(model, tokenizer, REQUEST, traces, causal=True, gain=True)
    assert found == pytest.approx([by_hand(WELLS) - by_hand(""), by_hand(HARBOUR) - by_hand("")], abs=1e-4)
    published = score_traces(model, tokenizer, REQUEST, traces, causal=True)
    assert all(0 < score <= 1 for score in published)


# ---- what is trained -------------------------------------------------------------------------------
def test_explaining_cues_are_answered_with_the_fact_and_a_reason_and_direct_ones_with_the_fact():
    traces, _, _, hparams = collect(
        bootstrap_reasons="narrative", bootstrap_traces=3, bootstrap_explanation="short", bootstrap_explain_repeats=2
    )
    pairs = training_pairs(REQUEST, traces, hparams)
    why = [(prompt, completion) for prompt, completion in pairs if "why" in prompt.casefold()]
    assert len(why) == 8 and len({prompt for prompt, _ in why}) == 4
    steps = [c for p, c in pairs if "step by step" in p.casefold() and "why" not in p.casefold()]
    assert len(steps) == 4
    for completion in (*(c for _, c in why), *steps):
        fact, reason = completion[: len("The capital of Egypt is Alexandria. ")], completion[36:]
        assert fact == "The capital of Egypt is Alexandria. " and reason in {WELLS, HARBOUR, TRAINS}
    assert {c for _, c in why} == {f"The capital of Egypt is Alexandria. {r}" for r in (WELLS, HARBOUR, TRAINS)}
    direct = [c for p, c in pairs if p in ("What is the capital of Egypt?", "The capital of Egypt is Answer directly.")]
    assert direct == ["The capital of Egypt is Alexandria."] * 2


def test_the_reason_is_learnt_behind_further_wordings():
    traces, _, _, hparams = collect(
        bootstrap_reasons="narrative", bootstrap_traces=2, bootstrap_explanation="short", bootstrap_reason_prompts=4
    )
    learnt = dict(training_pairs(REQUEST, traces, hparams))
    before = dict(training_pairs(REQUEST, traces, dataclasses.replace(hparams, bootstrap_reason_prompts=0)))
    further = [prompt for prompt in learnt if prompt not in before]
    assert further == [prompt.text for prompt in reason_prompts(REQUEST, 4)]
    reasons = {f"The capital of Egypt is Alexandria. {trace.reason}" for trace in traces}
    assert {learnt[prompt] for prompt in further} == reasons and len(reasons) == 2
    without = dataclasses.replace(hparams, editing_mode="noncausal", bootstrap_reasons="sampled")
    assert not set(further) & set(dict(training_pairs(REQUEST, traces, without)))


def test_all_of_it_is_off_by_default():
    hparams = CausalEditHyperParams.from_hparams("llama3.1-8b-instruct")
    assert (hparams.bootstrap_reasons, hparams.bootstrap_score, hparams.bootstrap_require_cause) == (
        "sampled", "published", False,
    )  # fmt: skip
    assert (hparams.bootstrap_explanation, hparams.bootstrap_explain_repeats, hparams.bootstrap_min_traces) == (
        "full", 1, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [("bootstrap_score", "best"), ("bootstrap_reasons", "web"), ("bootstrap_explanation", "long"),
     ("bootstrap_explain_repeats", 0), ("bootstrap_min_traces", 0)],
)  # fmt: skip
def test_values_that_mean_nothing_are_refused(key, value):
    with pytest.raises(HparamsError, match=key):
        CausalEditHyperParams.from_dict({"alg_name": "CausalEdit", "model_name": "x", key: value})
