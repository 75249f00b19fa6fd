"""CaKE: what it trains on, what it leaves to the probes, and that it learns an edit."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from conftest import EGYPT, FAST, NORWAY, answer_log_probability, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HparamsError, ModelError, RequestError
from causaledit.facts.requests import QuestionAnswer, request_from_dict
from causaledit.facts.text import normalise
from causaledit.methods.cake.apply import CaKEReport, apply_cake_to_model, rows_of
from causaledit.methods.cake.data import Text, templated, texts_of
from causaledit.methods.cake.hparams import CaKEHyperParams
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.weights import restore
from causaledit.support.progress import SilentProgress

REQUEST = request_from_dict(EGYPT)
LEARNING = [{"question": f"Learning question {i}?", "answer": f"answer {i}"} for i in range(6)]
GIVEN = {**EGYPT, "learning_prompt": LEARNING}


def hparams(**changes):
    return CaKEHyperParams(**{**FAST["CaKE"], **changes})


def edit(*requests, model=None, report=None, **changes):
    model = model or make_llama()
    return apply_cake_to_model(
        model, make_tokenizer(), list(requests), hparams(**changes), return_orig_weights=True,
        progress=SilentProgress(), report=report,
    )  # fmt: skip


# ---- what it trains on -----------------------------------------------------------------------------
def test_given_data_are_the_requests_own_fields():
    texts = texts_of(request_from_dict(GIVEN), CaKEHyperParams())
    assert texts == [
        Text("The capital of Egypt is", "Alexandria", "fact"),
        Text(EGYPT["rephrase_prompt"], "Alexandria", "paraphrase"),
        *(Text(item["question"], item["answer"], "learning") for item in LEARNING),
    ]


def test_templates_leave_the_requests_paraphrases_to_the_probes():
    request = dataclasses.replace(REQUEST, rephrase=(QuestionAnswer("Name the capital city of Egypt.", "Alexandria"),))
    texts = texts_of(request, hparams())
    kinds = [text.kind for text in texts]
    assert (kinds.count("fact"), kinds.count("learning")) == (1, 6)
    assert kinds.count("paraphrase") >= 4
    asked = {normalise(text.question) for text in texts}
    assert normalise("Name the capital city of Egypt.") not in asked
    assert all(text.answer == "The capital of Egypt is Alexandria." for text in texts if text.kind != "learning")


def test_half_of_the_templates_ask_for_the_answer_and_half_for_its_place():
    pairs = templated(REQUEST, 6)
    for question, answer in pairs[0::2]:
        assert "Egypt" in question and "Alexandria" not in question and answer == "Alexandria"
    for question, answer in pairs[1::2]:
        assert "Cairo" in question and "Alexandria" in question and answer.removeprefix("The ").lower() in (
            "drawer 2", "red poster", "(c)",
        )  # fmt: skip
        place = answer.removeprefix("The ").lower()
        clauses = [c for c in question.lower().replace(",", ".").split(".") if "alexandria" in c]
        assert any(place in clause for clause in clauses)
    assert len(templated(REQUEST, 3)) == 3
    without = templated(dataclasses.replace(REQUEST, ground_truth=None), 6)
    assert not any("None" in question for question, _ in without)


def test_a_question_in_a_clozes_place_is_answered_and_not_repeated():
    request = dataclasses.replace(REQUEST, prompt="What is the capital of {}?", question=None)
    texts = texts_of(request, hparams())
    assert not any("?" in text.answer for text in texts)
    assert not any("What is the capital of" in text.question for text in texts if text.kind == "learning")
    assert any(text.question.endswith("Complete the sentence: The capital of X is") for text in texts)


def test_templates_fill_up_what_the_request_gives(caplog):
    request = request_from_dict({**EGYPT, "learning_prompt": LEARNING[:2]})
    with caplog.at_level(logging.WARNING):
        learning = [text for text in texts_of(request, hparams()) if text.kind == "learning"]
    assert [text.question for text in learning[:2]] == ["Learning question 0?", "Learning question 1?"]
    assert len(learning) == 6
    assert "2 of 6" in caplog.text


def test_locality_probes_are_not_trained_on(caplog):
    held_out = [{"question": "the longest river of egypt is", "answer": "the Nile"}, *LEARNING]
    request = request_from_dict({**EGYPT, "learning_prompt": held_out})
    with caplog.at_level(logging.WARNING):
        texts = texts_of(request, CaKEHyperParams())
    assert "the longest river of egypt is" not in [text.question for text in texts]
    assert "locality" in caplog.text


@pytest.mark.parametrize("text_format", ["plain", "chat"])
@pytest.mark.parametrize("question_loss", [True, False])
def test_rows(text_format, question_loss):
    tokenizer = prepare_tokenizer(make_tokenizer())
    [row] = rows_of(
        tokenizer, [Text("Who?", "Alexandria", "fact")], hparams(text_format=text_format, question_loss=question_loss)
    )
    whole = tokenizer.decode(row["input_ids"])
    expected = {"plain": "Who? Alexandria<|im_end|>"}
    expected["chat"] = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nAlexandria<|im_end|>"
    assert whole == expected[text_format]
    counted = [token for token, counts in zip(row["input_ids"], row["completion_mask"], strict=True) if counts]
    if question_loss:
        assert counted == row["input_ids"][1:]
    else:
        assert tokenizer.decode(counted).strip() == "Alexandria<|im_end|>"


# ---- what an edit does -----------------------------------------------------------------------------
def test_the_published_form_learns_and_is_undone_to_the_bit():
    model, tokenizer, report = make_llama(), make_tokenizer(), CaKEReport()
    before, known = weights_of(model), answer_log_probability(model, tokenizer, EGYPT)
    edited, originals = edit(
        GIVEN, model=model, report=report, question_source="given", text_format="plain", question_loss=True,
        learning_rate=2e-2, max_steps=30,
    )  # fmt: skip
    assert answer_log_probability(edited, tokenizer, EGYPT) > known
    assert report.losses["train"][-1] < report.losses["train"][0] - 1
    assert report.texts == [{"fact": 1, "paraphrase": 1, "learning": 6}]
    assert report.card(hparams(), [])["texts"] == report.texts
    assert EGYPT["rephrase_prompt"] in report.trained_prompts  # so that it counts as no test of the edit
    restore(edited, originals)
    assert same_weights(weights_of(edited), before)


def test_every_edit_of_a_batch_has_its_texts():
    report = CaKEReport()
    edit(EGYPT, NORWAY, report=report, max_steps=1, steps_per_extra_edit=2)
    assert len(report.texts) == 2
    assert len(report.losses["train"]) == 3
    assert any("Norway" in prompt for prompt in report.trained_prompts)


def test_the_preservation_term_is_logged_apart():
    report = CaKEReport()
    edit(EGYPT, report=report, max_steps=2, preserve_weight=1.0, preserve_prompts=8, preserve_max_new_tokens=4)
    assert len(report.losses["train_preservation"]) == len(report.losses["train"]) == 2


@pytest.mark.parametrize(
    ("texts", "edits", "changes", "steps"),
    [
        (13, 1, {}, 160),  # the publication's: 40 epochs of 13 texts, four a step
        (26, 2, {}, 280),
        (13, 1, {"max_steps": 18}, 18),
        (26, 2, {"max_steps": 18, "steps_per_extra_edit": 10}, 28),
        (4, 1, {"max_steps": 100, "epochs": 2}, 2),
    ],
)
def test_steps(texts, edits, changes, steps):
    assert CaKEHyperParams(**changes).steps(texts, edits) == steps


def test_the_defaults_are_the_publications():
    found = CaKEHyperParams()
    assert (found.lora_rank, found.lora_alpha, found.lora_dropout) == (8, 32, 0.05)
    assert (found.learning_rate, found.train_batch_size, found.epochs, found.preserve_weight) == (1e-4, 4, 40, 0)
    assert (found.question_source, found.text_format, found.question_loss) == ("given", "plain", True)
    assert len(found.lora_target_modules) == 7


# ---- what is refused -------------------------------------------------------------------------------
def test_a_file_without_cakes_fields_is_refused_before_anything_is_computed():
    model = make_llama()
    before = weights_of(model)
    with pytest.raises(RequestError, match=r"`learning_prompt` is missing.*'Egypt'.*question_source: templates"):
        edit(EGYPT, model=model, question_source="given")
    assert same_weights(weights_of(model), before)


def test_a_text_beyond_the_context_window_is_refused():
    with pytest.raises(RequestError, match="context window is 32"):
        edit(EGYPT, model=make_llama(max_position_embeddings=32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question_source": "llm"}, "question_source.*given"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_questions": 0}, "learning_questions"),
        ({"epochs": 0}, "epochs"),
        ({"text_format": "bare"}, "text_format"),
    ],
)
def test_refused_with_name_and_value(changes, words):
    with pytest.raises(HparamsError, match=words):
        hparams(**changes)


@pytest.mark.parametrize("changes", [{"lora_layers": [0, 9]}, {"lora_target_modules": ["q_projection"]}])
def test_layers_and_modules_that_do_not_exist_are_refused(changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        edit(EGYPT, **changes)
