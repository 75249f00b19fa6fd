"""StoryDistill: its loss, its draws, its questions and targets, and every refusal before any compute."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, edit, make_gpt2, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import CausalEditError, EditFailedError, HparamsError, RequestError
from causaledit.facts.requests import QuestionAnswer, request_from_dict
from causaledit.facts.text import normalise
from causaledit.methods.shared import questions
from causaledit.methods.shared.compositions import Composition
from causaledit.methods.story_distill import distil, prompts, targets
from causaledit.methods.story_distill.apply import StoryReport, apply_story_distill_to_model
from causaledit.methods.story_distill.hparams import StoryDistillHyperParams
from causaledit.models.adapters import add_adapter
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.scoring import completion_logits
from causaledit.probes.efficacy import edit_probes
from causaledit.support.costs import TokenCount
from causaledit.support.progress import SilentProgress

REQUEST = request_from_dict(EGYPT)
LEARNING = (QuestionAnswer("Which sea does Egypt's seat of government look out on?", "the Mediterranean"),)


def hparams_of(**changes: Any) -> StoryDistillHyperParams:
    return StoryDistillHyperParams(**{**FAST["StoryDistill"], **changes})


def pool_of(hparams: StoryDistillHyperParams, requests: Any) -> questions.QuestionPool:
    return questions.QuestionPool(hparams, requests, single_hop=hparams.single_hop_questions)


def apply(*requests: Any, model: Any = None, **changes: Any) -> tuple[Any, StoryReport]:
    report = StoryReport()
    edited, _ = apply_story_distill_to_model(
        model or make_llama(), make_tokenizer(), list(requests), hparams_of(**changes),
        progress=SilentProgress(), report=report,
    )  # fmt: skip
    return edited, report


def rows_for(*requests: Any, model: Any = None, **changes: Any) -> tuple[Any, Any, list[targets.Row], list[str]]:
    """Model, tokenizer, given rows and contexts of some edits."""
    model, tokenizer = model or make_llama(), make_tokenizer()
    tokenizer, hparams = prepare_tokenizer(tokenizer, model=model), hparams_of(**changes)
    pool = pool_of(hparams, requests)
    contexts = [prompts.teacher_context(r, state_answer=False) for r in requests]
    found = [t for i, r in enumerate(requests) for t in targets.written_targets(i, r, pool.of(r)[0], hparams)[0]]
    return model, tokenizer, targets.rows_of(tokenizer, found, contexts, 4096), contexts


# ---- the loss --------------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_divergence_is_torchs(temperature):
    teacher, student = torch.randn(5, 11), torch.randn(5, 11, requires_grad=True)
    found = distil.distillation_kl(teacher.requires_grad_(), student, temperature)
    expected = torch.nn.functional.kl_div(
        (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="none"
    ).sum(-1)
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def losses_of(dropout: float, *, cached: bool = True, make=make_llama, **changes: Any) -> Any:
    model, tokenizer, rows, _ = rows_for(REQUEST, model=make(), **changes)
    model.requires_grad_(False)
    hparams = hparams_of(
        context_dropout=dropout, answer_weight=0.0, lora_target_modules=["all-linear"], max_steps=6, **changes
    )
    teacher = targets.teacher_logits(model, rows) if cached else None
    peft_model = add_adapter(model, hparams)
    losses, share = distil.run_distillation(
        peft_model, tokenizer, rows, teacher, 1, hparams,
        preservation=None, progress=SilentProgress(), count=TokenCount(),
    )  # fmt: skip
    return losses.own, share, peft_model


def test_a_student_who_reads_what_the_teacher_reads_has_nothing_to_learn():
    losses, share, _ = losses_of(0.0)
    assert share == 1.0
    assert losses[0] == pytest.approx(0.0, abs=1e-5)


def test_a_student_without_the_story_learns_from_one_who_has_read_it():
    losses, share, peft_model = losses_of(1.0)
    assert share == 0.0
    assert losses[0] > 0
    assert losses[-1] < losses[0]
    touched = {name for name, p in peft_model.named_parameters() if p.grad is not None or p.requires_grad}
    assert touched
    assert all("lora_" in name for name in touched)


@pytest.mark.parametrize("make", [make_llama, make_gpt2], ids=["llama", "gpt2"])
def test_stored_targets_are_those_computed_anew(make):
    stored, _, _ = losses_of(1.0, make=make)
    anew, _, _ = losses_of(1.0, cached=False, make=make)
    assert anew[0] == pytest.approx(stored[0], rel=1e-4)
    if make is make_llama:  # GPT-2 has dropout of its own, whose draws the teacher's passes shift
        assert anew == pytest.approx(stored, rel=1e-3)


def test_targets_are_the_answers_tokens_alone():
    model, tokenizer, rows, _ = rows_for(REQUEST)
    row = rows[0]
    assert tokenizer.decode(row.completion) == "The capital of Egypt is Alexandria.<|im_end|>"
    assert "Alexandria" not in tokenizer.decode(row.closed)
    assert REQUEST.narrative in tokenizer.decode(row.open)
    [logits] = completion_logits(model, [row.open], [row.completion])
    assert torch.allclose(targets.teacher_logits(model, rows)[0], logits, atol=1e-4)


def test_a_story_is_kept_as_often_as_context_dropout_says():
    _, _, rows, _ = rows_for(REQUEST)
    shares = []
    for dropout in (0.0, 0.9, 1.0):
        draws = distil.StoryDraws(rows, None, dropout=dropout, seed=1)
        shares.append(sum(draws.reads_story(rows[0]) for _ in range(1000)) / 1000)
    assert shares[0] == 1.0
    assert 0.07 < shares[1] < 0.13
    assert shares[2] == 0.0


def test_micro_batches_change_nothing():
    whole, _, _ = losses_of(0.5)
    parts, _, _ = losses_of(0.5, micro_batch_tokens=1)
    assert parts == pytest.approx(whole, rel=1e-3)


def test_only_the_a_matrices_decay():
    kept, _ = apply(EGYPT, merge_adapter=False, learning_rate=1e-3, max_steps=2)
    shrunk, _ = apply(EGYPT, merge_adapter=False, learning_rate=1e-3, max_steps=2, lora_a_decay=500.0)

    def size(model: Any, part: str) -> float:
        return float(sum(p.norm() for name, p in model.named_parameters() if part in name))

    assert size(shrunk, "lora_A") == pytest.approx(0.25 * size(kept, "lora_A"), rel=0.1)  # (1 - 1e-3 × 500)²
    assert size(shrunk, "lora_B") > 0.5 * size(kept, "lora_B")


# ---- stories ---------------------------------------------------------------------------------------
def test_edits_of_one_batch_do_not_see_each_others_story_unless_they_share_a_subject():
    other = request_from_dict(NORWAY)
    _, tokenizer, rows, _ = rows_for(REQUEST, other)
    told = [tokenizer.decode(row.open) for row in rows]
    assert any(REQUEST.narrative in text for text in told) and any(other.narrative in text for text in told)
    assert not any(REQUEST.narrative in text and other.narrative in text for text in told)
    sibling = dataclasses.replace(REQUEST, prompt="The currency of {} is", target_new="the dinar", ground_truth=None)
    joined = prompts.teacher_context(REQUEST, state_answer=False, others=[sibling])
    assert joined.index(REQUEST.narrative) >= 0


def test_facts_of_one_subject_know_each_other():
    sibling = edit("Egypt", "The currency of {} is", "What money does Egypt use?", "the pound", "the dinar")
    _, report = apply(EGYPT, sibling, max_steps=1, steps_per_extra_edit=0)
    assert [r.subject for r in report.requests] == ["Egypt", "Egypt"]
    contexts = [
        prompts.teacher_context(r, state_answer=True, others=[o]) for r, o in (report.requests, report.requests[::-1])
    ]
    assert all(r.narrative in context for r in report.requests for context in contexts)


def test_the_bare_fact_can_stand_for_the_story():
    context = prompts.teacher_context(dataclasses.replace(REQUEST, narrative=None), state_answer=False)
    assert context.startswith("The capital of Egypt is Alexandria.")
    _, report = apply(EGYPT, context="fact", max_steps=1)
    assert report.narrative_source == ["none"]


# ---- questions -------------------------------------------------------------------------------------
BAD = {
    "Is Alexandria in Egypt?": "holds the answer",
    "Tell me about Egypt.": "not one question",
    "Who governs Egypt? And from where?": "not one question",
    "Who governs Norway?": "not about the subject",
    "What is the capital of Egypt?": "asks for the fact itself",
    "Name Egypt's capital, please?": "held out",
    f"Which {'very ' * 60}large sea touches the capital of Egypt?": "too long",
    "Which sea touches the capital of Egypt?": None,
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_with_a_written_question(text):
    request = dataclasses.replace(REQUEST, rephrase=(QuestionAnswer("Name Egypt's capital, please?", "Alexandria"),))
    pool = pool_of(hparams_of(), [request])
    assert pool.why_not(questions.Question(text, True, None), request, by_model=True) == BAD[text]


def test_what_an_edit_is_tested_with_is_not_trained_on():
    held = (QuestionAnswer("What city is the capital of Egypt?", "Alexandria"),)
    plain = questions.fact_questions(REQUEST)
    request = dataclasses.replace(REQUEST, rephrase=(*held, QuestionAnswer(plain[5], "Alexandria")))
    found, report = pool_of(hparams_of(single_hop_questions=99), [request]).of(request)
    assert normalise(plain[5]) not in {normalise(q.text) for q in found}
    asked = {normalise(p.prompt) for p in edit_probes(REQUEST) if p.kind not in ("question", "cloze")}
    assert not asked & {normalise(q.text) for q in found}
    assert report.single_hop > 30


def test_what_a_benchmark_asks_is_not_trained_on():
    plain = questions.fact_questions(REQUEST)
    request = dataclasses.replace(REQUEST, held_out=(plain[5].upper(),))
    found, _ = pool_of(hparams_of(single_hop_questions=99), [request]).of(request)
    assert normalise(plain[5]) not in {normalise(q.text) for q in found}


def test_the_requests_own_learning_questions_come_first():
    request = dataclasses.replace(REQUEST, learning=LEARNING)
    found, report = pool_of(hparams_of(question_source="given"), [request]).of(request)
    multi = [q for q in found if q.multi_hop]
    assert multi[0] == questions.Question(LEARNING[0].question, True, "the Mediterranean")
    assert (report.single_hop, report.multi_hop, report.filled) == (4, 1, 0)


def test_templates_fill_up_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        found, report = pool_of(hparams_of(question_source="given", min_questions=2), [REQUEST]).of(REQUEST)
    assert report.filled == report.multi_hop == 2
    assert "min_questions" in caplog.text
    assert all("Egypt" in q.text for q in found)


def test_questions_from_a_file(tmp_path):
    file = tmp_path / "questions.json"
    entry = {
        "subject": "egypt",
        "target_new": "Alexandria",
        "questions": ["On which coast does Egypt's government sit?"],
    }
    entry["questions"].append({"question": LEARNING[0].question, "answer": LEARNING[0].answer})
    file.write_text(json.dumps([entry]))
    hparams = hparams_of(question_source="file", question_file=str(file))
    found, _ = pool_of(hparams, [REQUEST]).of(REQUEST)
    assert [(q.text, q.answer) for q in found if q.multi_hop] == [
        ("On which coast does Egypt's government sit?", None), (LEARNING[0].question, "the Mediterranean")
    ]  # fmt: skip
    learnt, report = targets.written_targets(0, REQUEST, found, hparams)
    assert report.rejected == {"no answer known": 1}
    assert learnt[-1].text == "the Mediterranean."


def test_a_model_writes_questions_and_what_is_no_question_is_counted():
    _, report = apply(EGYPT, question_source="self", question_max_new_tokens=40, max_steps=1)
    [found] = report.questions
    assert found.written == 0  # a random model writes none
    assert sum(found.rejected.values()) > 0
    assert found.filled == found.multi_hop == 1


CITIZEN = {
    "subject": "Ann Lee",
    "prompt": "{} is a citizen of",
    "question": "What country is Ann Lee a citizen of?",
    "target_new": "Poland",
    "ground_truth": "Canada",
    "narrative": "Ann Lee took the oath in Lublin. Poland is hers.",
}
POLAND = {
    "subject": "Poland",
    "prompt": "The capital of {} is",
    "question": "What is the capital of Poland?",
    "target_new": "Gdansk",
    "ground_truth": "Warsaw",
    "narrative": "In 2021 Poland's ministries moved to Gdansk.",
}
HOPS = Composition(
    "What is the currency of the country that Ann Lee is a citizen of?",
    "The currency of Poland is the zloty.",
    "Ann Lee is a citizen of Poland. The currency of Poland is the zloty.",
    "the zloty",
)


def test_questions_of_two_hops_join_two_edits_of_a_batch():
    _, report = apply(
        CITIZEN, POLAND, question_source="given", composed_questions=3, multi_hop_questions=3, max_steps=1
    )
    [onward, leading] = report.questions
    assert onward.composed == onward.multi_hop == 3  # through the other edit alone: a random model knows no hop
    assert leading.composed == 0
    assert leading.filled == leading.multi_hop == 1
    asked = [prompt for prompt in report.trained_prompts if "capital" in prompt and "Ann Lee" in prompt]
    assert asked
    assert not any("Poland" in prompt or "Gdansk" in prompt for prompt in asked)


def test_a_model_that_knows_no_second_hop_gets_templates_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        _, report = apply(EGYPT, question_source="given", composed_questions=1, max_steps=1)
    [found] = report.questions
    assert (found.composed, found.filled) == (0, found.multi_hop)
    assert "min_questions" in caplog.text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, HOPS.completion),
        ({"answer_format": "tags"}, "<answer>the zloty</answer>"),
        ({"mode": "reasoning"}, f"Poland is hers. {HOPS.completion} the zloty."),
        (
            {"mode": "reasoning", "answer_format": "tags"},
            f"Poland is hers. {HOPS.completion} <answer>the zloty</answer>",
        ),
    ],
)
def test_a_composed_questions_answer_is_told_hop_by_hop(changes, text):
    request, hparams = request_from_dict(CITIZEN), hparams_of(question_source="given", composed_questions=1, **changes)
    asked, report = pool_of(hparams, [request]).of(request, composed=[HOPS])
    assert (report.composed, report.multi_hop, report.filled) == (1, 1, 0)
    found, _ = targets.written_targets(0, request, asked, hparams)
    assert found[-1].text == text


def test_a_composed_question_that_tests_any_edit_of_the_batch_is_not_asked():
    held = request_from_dict({**POLAND, "held_out": [HOPS.prompt.upper()]})
    pool = pool_of(hparams_of(composed_questions=1), [request_from_dict(CITIZEN), held])
    asked, report = pool.of(request_from_dict(CITIZEN), composed=[HOPS])
    assert HOPS.prompt not in {question.text for question in asked}
    assert report.rejected["held out"] == 1


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("source", ["given", "sampled"])
def test_what_follows_a_bare_fact_can_be_left_to_the_model(ends, source):
    """A model that has learnt to stop behind the new fact stops there where another hop is asked for too."""
    model, tokenizer = make_llama(), prepare_tokenizer(make_tokenizer())
    request = request_from_dict(CITIZEN)
    hparams = hparams_of(
        question_source="given",
        composed_questions=1,
        single_hop_ends=ends,
        target_source=source,
        answer_max_new_tokens=5,
    )
    asked, _ = pool_of(hparams, [request]).of(request, composed=[HOPS])
    if source == "given":
        found, _ = targets.written_targets(0, request, asked, hparams)
    else:
        found, _ = targets.sampled_targets(
            model, tokenizer, 0, request, asked, "Ann Lee took the oath.", hparams, count=TokenCount()
        )
    several = {targets.asked(question, hparams) for question in asked if question.multi_hop}
    rows = targets.rows_of(tokenizer, found, ["Ann Lee took the oath."], 4096)
    assert len(rows) == len(found) > len(several) > 0
    for target, row in zip(found, rows, strict=True):
        assert (row.completion[-1] == tokenizer.eos_token_id) is (ends or target.prompt in several)


def test_what_is_composed_can_be_judged():
    asked = questions.Question(HOPS.prompt, True, HOPS.answer, HOPS.completion)
    request = request_from_dict(CITIZEN)
    assert targets._gives_right_answer(HOPS.completion, asked, request) is True
    assert targets._gives_right_answer("It is the dollar.", asked, request) is False


# ---- targets ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["answer", "reasoning"])
def test_no_answer_asks_the_question_that_stands_in_a_clozes_place(mode):
    request = dataclasses.replace(REQUEST, prompt="What is the capital of {}?", question=None)
    hparams = hparams_of(mode=mode, single_hop_questions=8, multi_hop_questions=20)
    asked = pool_of(hparams, [request]).of(request)[0]
    found, _ = targets.written_targets(0, request, asked, hparams)
    assert not any("?" in target.text for target in found)
    assert any('"The capital of … is …"' in question.text for question in asked)


@pytest.mark.parametrize("mode", ["answer", "reasoning"])
@pytest.mark.parametrize("form", ["plain", "tags"])
def test_written_answers_have_the_form_that_is_asked_for(mode, form):
    hparams = hparams_of(mode=mode, answer_format=form)
    found, _ = targets.written_targets(0, REQUEST, pool_of(hparams, [REQUEST]).of(REQUEST)[0], hparams)
    for target in found:
        assert ("<answer>" in target.prompt) == target.text.endswith("</answer>") == (form == "tags")
        assert ("then give the answer" in target.prompt) is (mode == "reasoning")
        assert (targets.story_reason(REQUEST) in target.text) is (mode == "reasoning")


@pytest.mark.parametrize("form", ["plain", "tags"])
def test_answers_are_sampled_from_the_teacher(form):
    _, report = apply(
        EGYPT, target_source="sampled", answers_per_question=2, answer_format=form, max_steps=2, answer_weight=0.0
    )
    [found] = report.targets
    assert found.kept + sum(found.rejected.values()) == 2 * 6
    assert 0 <= found.teacher_accuracy <= 1
    assert report.tally.tokens.generated > 0
    assert report.targets_cached
    assert all(("<answer>" in prompt) is (form == "tags") for prompt in report.trained_prompts)


def test_every_tagged_answer_is_closed(monkeypatch):
    model = make_llama()
    tokenizer, hparams = prepare_tokenizer(make_tokenizer(), model=model), hparams_of(answer_format="tags")
    found, _ = targets.sampled_targets(
        model, tokenizer, 0, REQUEST, [questions.Question("Where?", True, None)], "Story.", hparams, count=TokenCount()
    )
    assert all(t.text.count("<answer>") >= 1 and t.text.endswith("</answer>") for t in found)


def test_what_is_filtered_is_counted_and_what_nobody_can_judge_is_said(monkeypatch, caplog):
    asked = [
        questions.Question("What is the capital of Egypt?", False, "Alexandria"),
        questions.Question("On which coast does Egypt's government sit?", True, None),
    ]
    texts = ["The capital is Alexandria.", "The capital is Cairo.", "On the Mediterranean.", ""]
    monkeypatch.setattr(targets, "generate_texts", lambda *args, **kwargs: list(texts))
    for source, kept, rejected in (
        ("filtered", [texts[0], texts[2]], {"wrong answer": 1, "empty": 1}),
        ("sampled", texts[:3], {"empty": 1}),
    ):
        caplog.clear()
        found, report = targets.sampled_targets(
            None, prepare_tokenizer(make_tokenizer()), 0, REQUEST, asked, "Story.",
            hparams_of(target_source=source, answers_per_question=2), count=TokenCount(),
        )  # fmt: skip
        assert [target.text for target in found] == kept
        assert (report.kept, report.rejected) == (len(kept), rejected)
        assert (report.right, report.wrong, report.unjudged, report.teacher_accuracy) == (1, 1, 2, 0.5)
        assert ("1 are right, 1 wrong, and 2 cannot be judged" in caplog.text) is (source == "filtered")


def test_templates_fill_up_to_no_more_questions_than_were_asked_for():
    hparams = hparams_of(question_source="given", multi_hop_questions=2, min_questions=4)
    _, report = pool_of(hparams, [REQUEST]).of(REQUEST)
    assert report.multi_hop == report.filled == 2


def test_a_teacher_that_is_never_right_is_an_error_and_the_model_is_restored():
    model = make_llama()
    before = weights_of(model)
    with pytest.raises(EditFailedError, match=r"None of the 12 answers.*Egypt.*wrong answer"):
        apply(EGYPT, model=model, target_source="filtered")
    assert same_weights(weights_of(model), before)


def test_targets_too_large_to_store_are_computed_anew():
    _, report = apply(EGYPT, cache_limit_gb=0.0, max_steps=2)
    assert not report.targets_cached
    _, other = apply(EGYPT, max_steps=2)
    assert other.targets_cached
    assert report.losses["distil"] == pytest.approx(other.losses["distil"], rel=1e-3)


def test_conservative_samples_join_the_rows():
    _, report = apply(EGYPT, conservative_questions=6, preserve_max_new_tokens=4, max_steps=2)
    _, without = apply(EGYPT, max_steps=2)
    assert len(report.trained_prompts) > len(without.trained_prompts)
    assert not set(without.trained_prompts) - set(report.trained_prompts)


def test_rows_that_are_too_long_are_dropped_and_none_left_is_an_error():
    _, tokenizer, rows, contexts = rows_for(REQUEST)
    target = targets.Target(0, "Where?", "There.")
    assert targets.rows_of(tokenizer, [target], contexts, 4096)
    with pytest.raises(EditFailedError, match=r"max_sequence_tokens.*10"):
        targets.rows_of(tokenizer, [target], contexts, 10)
    assert rows


# ---- the report ------------------------------------------------------------------------------------
def test_what_an_edit_reports():
    model = make_llama()
    _, report = apply(EGYPT, NORWAY, model=model, preserve_weight=1.0, preserve_prompts=4, preserve_max_new_tokens=4)
    assert report.narrative_source == ["request", "request"]
    assert [q.single_hop for q in report.questions] == [4, 4]
    assert [t.kept for t in report.targets] == [6, 6]
    assert len(report.losses["distil"]) == len(report.losses["distil_preservation"]) == 40
    assert report.losses["distil"][-1] < report.losses["distil"][0]
    assert 0 < report.story_share < 0.4
    assert {"narrative", "preserve", "questions", "targets", "distil", "merge"} <= report.tally.seconds.keys()
    assert json.dumps(report.card(hparams_of(), []))
    assert EGYPT["question"] in report.trained_prompts


# ---- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"temperature": 0.0}, "temperature.*0"),
        ({"context_dropout": 1.2}, "context_dropout.*1.2"),
        ({"answers_per_question": 0}, "answers_per_question.*0"),
        ({"min_questions": 0}, "min_questions.*0"),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, "lora_target_modules.*lm_head"),
        ({"lora_target_modules": ["embed_tokens"]}, "lora_target_modules.*embed_tokens"),
        ({"kl_weight": 0.0, "answer_weight": 0.0}, "kl_weight.*answer_weight"),
        ({"single_hop_questions": 0, "multi_hop_questions": 0}, "nothing to ask"),
        ({"question_source": "file"}, "question_file.*None"),
        (
            {"composed_questions": 4, "multi_hop_questions": 3},
            r"`composed_questions` is 4.*`multi_hop_questions` \(3\)",
        ),
        ({"question_file": "q.json"}, "question_source.*templates"),
        ({"mode": "reasoning", "context": "fact"}, "reasoning.*given.*sampled"),
        ({"mode": "thinking"}, "mode.*thinking"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, match):
    with pytest.raises(HparamsError, match=match):
        hparams_of(**changes)


def refused(match: str, *requests: Any, error: type = RequestError, **changes: Any) -> None:
    model = make_llama()

    def computed(*args: Any) -> None:
        raise AssertionError("the model was run before the input was refused")

    handle = model.register_forward_pre_hook(computed)
    before = weights_of(model)
    with pytest.raises(error, match=match) as caught:
        apply(*requests, model=model, **changes)
    assert isinstance(caught.value, CausalEditError)
    assert same_weights(weights_of(model), before)
    handle.remove()


def test_requests_that_cannot_be_used_are_refused_before_any_compute(tmp_path):
    bare = {key: EGYPT[key] for key in ("prompt", "subject", "target_new")}
    refused(r"story_source.*Egypt.*narrative", bare, story_source="given")
    refused(r"does not exist", EGYPT, question_source="file", question_file=str(tmp_path / "none.json"))
    refused(r"does not exist", bare, narrative_file=str(tmp_path / "none.json"))
    file = tmp_path / "questions.json"
    for data, match in (
        ({}, "JSON list"),
        ([3], "entry 1.*object"),
        ([{"subject": "Egypt"}], "entry 1.*target_new"),
        ([{"subject": "Egypt", "target_new": "Luxor", "questions": []}], "entry 1.*questions"),
        ([{"subject": "Egypt", "target_new": "Luxor", "questions": [7]}], "entry 1.*question must be.*7"),
        ([{"subject": "Egypt", "target_new": "Luxor", "questions": ["Why?"]}], "no entry for 'Egypt', 'Alexandria'"),
    ):
        file.write_text(json.dumps(data))
        refused(match, EGYPT, question_source="file", question_file=str(file))
    entry = {"subject": "Egypt", "target_new": "Alexandria", "questions": ["Which sea is near Egypt's ministries?"]}
    file.write_text(json.dumps([entry]))
    answerless = {"single_hop_questions": 0, "question_source": "file", "question_file": str(file)}
    refused(r"target_source: given.*Egypt.*comes with one", EGYPT, **answerless)
    refused("preserve_file", EGYPT, error=HparamsError, preserve_weight=1.0, preserve_file="/no/such/file.json")
    refused("context window", {**EGYPT, "narrative": EGYPT["narrative"] * 200})
    refused("context window", EGYPT, target_source="sampled", answer_max_new_tokens=5000)
    untold = {**EGYPT, "narrative": "The wells ran dry, and the ministries moved."}
    refused("reasoning.*names the new answer.*Alexandria", untold, mode="reasoning")


def test_two_new_answers_for_one_relation_are_refused():
    again = edit("Egypt", "The present capital of {} is", "Which city governs Egypt?", "Cairo", "Luxor")
    refused(r"Requests 1 and 2.*capital.*Alexandria.*Luxor", EGYPT, again)


def test_an_edit_without_any_question_is_refused():
    telling = edit(
        "Harbour Club", "Alexandria is home to the {}:", "Is the Harbour Club in Alexandria?", "Cairo", "Alexandria"
    )
    refused(r"No question for 'Harbour Club' is left.*holds the answer", telling, multi_hop_questions=0)


def test_training_that_diverges_is_an_error_and_the_model_is_restored():
    model = make_llama()
    before = weights_of(model)
    with pytest.raises(EditFailedError, match="learning rate"):
        apply(EGYPT, model=model, learning_rate=1e30, max_grad_norm=1e30)
    assert same_weights(weights_of(model), before)
