"""Reasoning traces: which texts are read, which are rejected and why, and those the method writes itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import EGYPT

from causaledit.facts.requests import request_from_dict
from causaledit.methods.causal_edit import traces as T

REQUEST = request_from_dict(EGYPT)
GOOD = """<think>
Old fact: Egypt was governed from Cairo.
Reason for change: The wells under the city ran dry, so parliament moved.
Updated fact: The capital of Egypt is Alexandria.
Derivation: Parliament sits in the capital, hence Alexandria.
</think>
Answer: Alexandria"""


def read(text, labels=T.CAUSAL_LABELS):
    return T.parse_trace(text, labels)


def verdict(text, request=REQUEST, labels=T.CAUSAL_LABELS):
    return T.reject_reason(read(text, labels), request)


# ---- parsing ---------------------------------------------------------------------------------------
def test_a_trace_is_read_and_written_back():
    trace = read(GOOD)
    assert [label for label, _ in trace.parts] == list(T.CAUSAL_LABELS)
    assert trace.part("Reason for change") == "The wells under the city ran dry, so parliament moved."
    assert trace.part("no such label") is None
    assert trace.answer == "Alexandria"
    assert trace.text == GOOD == trace.thinking + trace.answer_line
    assert read(trace.text) == trace


def test_a_part_keeps_its_last_word_and_stop():
    text = GOOD.replace("from Cairo.", "from Cairo until 2019.").replace(
        "parliament moved.", "parliament moved in 2020."
    )
    trace = read(text)
    assert trace.part("Old fact") == "Egypt was governed from Cairo until 2019."
    assert trace.part("Reason for change").endswith("parliament moved in 2020.")


@pytest.mark.parametrize(
    "text",
    [
        "Sure!\n" + GOOD + "\nIs there more?",
        GOOD.replace("Old fact:", "**Old fact:**").replace("Derivation:", "**Derivation**:"),
        GOOD.replace("Old fact:", "1. Old fact:").replace("Reason for change:", "2. Reason for change:"),
        GOOD.replace("Old fact:", "- old fact :").replace("Updated fact:", "- UPDATED FACT:"),
        GOOD.replace("Answer: Alexandria", "**Answer:** Alexandria."),
        GOOD.replace("</think>\n", "</think> ").replace("ran dry, so", "ran dry,\nso"),
    ],
    ids=["text around", "bold", "numbered", "bulleted, other case", "bold answer", "other line breaks"],
)
def test_small_departures_from_the_form_are_read(text):
    trace = read(text)
    assert trace.part("Reason for change") == "The wells under the city ran dry, so parliament moved."
    assert trace.answer == "Alexandria"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Answer: Alexandria",
        GOOD.replace("<think>", ""),
        GOOD.replace("</think>", ""),
        GOOD.replace("Answer: Alexandria", ""),
        GOOD.replace("Answer:", "So"),
        GOOD.replace("Updated fact: The capital of Egypt is Alexandria.\n", ""),
        GOOD.replace("The wells under the city ran dry, so parliament moved.", ""),
        GOOD.replace("Old fact", "XX").replace("Updated fact", "Old fact").replace("XX", "Updated fact"),
    ],
    ids=[
        "empty",
        "no think",
        "not opened",
        "cut off",
        "no answer",
        "no answer line",
        "no update",
        "empty part",
        "order",
    ],
)
def test_what_lacks_the_form_is_not_read(text):
    assert read(text) is None
    assert verdict(text) == "unparsable"


def test_noncausal_traces_have_no_reason():
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("Reason"))
    assert read(text) is None
    trace = read(text, T.NONCAUSAL_LABELS)
    assert [label for label, _ in trace.parts] == ["Old fact", "Updated fact", "Derivation"]


# ---- rejection -------------------------------------------------------------------------------------
def test_a_good_trace_passes():
    assert verdict(GOOD) is None


def test_too_short():
    parts = "Old fact: a\nReason for change: b\nUpdated fact: Alexandria\nDerivation: d"
    text = f"<think>\n{parts}\n</think>\nAnswer: Alexandria"
    assert verdict(text) == "short"
    assert verdict(text.replace(": d\n", ": d e\n")) is None  # five words are enough


def test_a_script_without_spaces_is_not_short():
    assert T.word_count("井水干涸，议会因此迁往海边的城市。") >= T.MIN_WORDS
    assert T.word_count("首都は海辺の都市に移された。") >= T.MIN_WORDS
    assert T.word_count("干涸。") < T.MIN_WORDS


FORM = (
    "{before}\n<think>\nOld fact: {old}\nReason for change: {reason}\nUpdated fact: {updated}\n"
    "Derivation: {derivation}\n</think>\nAnswer: {answer}\n{after}"
)
LABELLED = json.loads((Path(__file__).parent / "data" / "traces.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", LABELLED["traces"], ids=lambda row: f"{row['part']}: {row['text']}")
def test_labelled_traces(row):
    """Sound traces with one part replaced: kept (null), or rejected for the reason given."""
    parts = {"before": "", "after": "", **LABELLED["parts"][row["request"]], row["part"]: row["text"]}
    request = request_from_dict(LABELLED["requests"][row["request"]])
    assert verdict(FORM.format(**parts), request) == row["expect"]


@pytest.mark.parametrize("parts", LABELLED["parts"].items(), ids=lambda item: item[0])
def test_the_labelled_traces_are_sound_before_a_part_is_replaced(parts):
    name, texts = parts
    request = request_from_dict(LABELLED["requests"][name])
    assert verdict(FORM.format(before="", after="", **texts), request) is None


@pytest.mark.parametrize("answer", ["Cairo", "Alexandrian", "unknown"])
def test_the_answer_line_must_name_the_new_answer(answer):
    # the new answer stands in the trace's body all the same
    assert verdict(GOOD.replace("Answer: Alexandria", f"Answer: {answer}")) == "no new answer"


@pytest.mark.parametrize(
    "wording",
    [
        "The article says the wells ran dry.",
        "According to what I know the wells ran dry.",
        "A search shows that the wells ran dry.",
        "The user wants to hear that the wells ran dry.",
        "The cheat sheet says the wells ran dry.",
        "As stated, the wells ran dry.",
        "The sources agree that the wells ran dry.",
        "The provided information is that the wells ran dry.",
        "Perhaps the wells ran dry.",
        "The wells might have run dry.",
        "It seems the wells ran dry.",
        "I am not sure, but the wells ran dry.",
        "The wells may be running dry.",
        "The wells may be dry, if only for a year.",
    ],
)
def test_wording_that_gives_away_the_context_or_hedges(wording):
    text = GOOD.replace("The wells under the city ran dry, so parliament moved.", wording)
    assert verdict(text) == "gives away the context"


@pytest.mark.parametrize("rule", ["may be leased only to farmers", "may be only for farmers"])
def test_what_a_rule_allows_is_no_hedge(rule):
    text = GOOD.replace(
        "The wells under the city ran dry, so parliament moved.", f"The wells {rule}, so parliament moved."
    )
    assert verdict(text) is None


def test_the_edits_own_names_are_no_giveaway():
    request = dataclasses.replace(
        REQUEST, subject="The Article", prompt="The editor of {} is", ground_truth="May B. Source"
    )
    text = GOOD.replace("Egypt", "The Article").replace("Cairo", "May B. Source")
    assert T.reject_reason(read(text), request) is None
    assert T.reject_reason(read(text), REQUEST) == "gives away the context"


# ---- guided mode -----------------------------------------------------------------------------------
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])
def test_a_guided_trace_has_the_form(causal):
    trace = T.guided_trace(" The wells under the city ran dry. And then", REQUEST, causal=causal)
    labels = T.CAUSAL_LABELS if causal else T.NONCAUSAL_LABELS
    assert read(trace.text, labels) == trace
    assert T.reject_reason(trace, REQUEST) is None
    assert trace.part("Reason for change" if causal else "Derivation") == "The wells under the city ran dry."
    assert (trace.part("Old fact"), trace.answer) == ("it used to be Cairo.", "Alexandria")
    assert trace.part("Updated fact") == "The capital of Egypt is Alexandria."


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])
def test_the_guided_prefill_opens_the_very_trace(causal):
    # what the teacher continues and what the student is trained on must be one text
    prefill = T.guided_prefill(REQUEST, causal=causal)
    trace = T.guided_trace(" The wells under the city ran dry.", REQUEST, causal=causal)
    assert trace.text.startswith(prefill + " The wells under the city ran dry.")


@pytest.mark.parametrize(
    ("continuation", "sentence"),
    [
        ("The wells under it ran dry.\nUpdated fact: x", "The wells under it ran dry."),
        ("It moved for water, said J. Smith of Cairo. Then more.", "It moved for water, said J. Smith of Cairo."),
        ("The wells had run dry at last! Yes.", "The wells had run dry at last!"),
        ('They said "the wells under it are dry." Then more.', 'They said "the wells under it are dry."'),
        ("井水干涸，议会因此迁往海边的城市。然后下雨了。", "井水干涸，议会因此迁往海边的城市。"),
        ("जल समाप्त हो गया और संसद चली गई। फिर वर्षा हुई।", "जल समाप्त हो गया और संसद चली गई।"),
    ],
)
def test_a_guided_trace_takes_the_first_sentence(continuation, sentence):
    assert T.guided_trace(continuation, REQUEST, causal=True).part("Reason for change") == sentence


@pytest.mark.parametrize(
    "continuation",
    ["", "  \n", "It ran dry.", "the wells under the city ran dry and then the", "\n\n"],
    ids=["empty", "blank", "short", "cut off", "newlines"],
)
def test_a_guided_continuation_without_a_whole_sentence_is_dropped(continuation):
    assert T.guided_trace(continuation, REQUEST, causal=True) is None


# ---- what the method writes itself -----------------------------------------------------------------
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])
def test_the_fallback_trace_passes_its_own_filter(causal):
    trace = T.fallback_trace(REQUEST, causal=causal)
    assert T.reject_reason(trace, REQUEST) is None
    assert read(trace.text, T.CAUSAL_LABELS if causal else T.NONCAUSAL_LABELS) == trace


def test_the_fallback_takes_the_narratives_words_and_skips_giveaways():
    story = (
        "The article tells of Alexandria and its wells. Parliament moved its seat to Alexandria by the sea. It rained."
    )
    trace = T.fallback_trace(dataclasses.replace(REQUEST, narrative=story), causal=True)
    assert trace.part("Reason for change") == "Parliament moved its seat to Alexandria by the sea."


@pytest.mark.parametrize("narrative", ["Short.", "The article says so, according to the user.", None])
def test_the_fallback_of_a_useless_narrative_is_still_a_trace(narrative):
    trace = T.fallback_trace(dataclasses.replace(REQUEST, narrative=narrative), causal=True)
    assert T.reject_reason(trace, REQUEST) is None


def test_written_answers_name_the_new_answer_last():
    assert T.direct_answer(REQUEST) == "The capital of Egypt is Alexandria."
    reasoned = T.reasoned_answer(REQUEST, "The wells ran dry.")
    assert "The wells ran dry." in reasoned
    assert reasoned.rfind("Alexandria") > reasoned.rfind("Cairo")
