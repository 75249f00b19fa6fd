"""Stage 2 of CausalEdit on questions that need the new fact: where they come from, and what is wanted of them."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import EGYPT, NORWAY, fast_hparams, make_gpt2, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HparamsError, RequestError
from causaledit.facts.requests import request_from_dict
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit import questions, stages
from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.methods.registry import METHODS
from causaledit.models.chat import prepare_tokenizer, render
from causaledit.models.generation import generate_texts
from causaledit.support.costs import TokenCount
from causaledit.support.progress import SilentProgress

REQUEST = request_from_dict(EGYPT)
SEA = "Which sea does Egypt's seat of government look out on?"
COAST = "On which coast does Egypt's government sit?"


def hparams(**changes):
    return fast_hparams(None, None, **changes)


def file_of(tmp_path, *entries):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(entries))
    return {"question_source": "file", "question_file": str(file), "min_questions": 1}


def apply(*requests, model=None, **changes):
    report = EditReport()
    edited, originals = apply_causal_edit_to_model(
        model or make_llama(), make_tokenizer(), list(requests), hparams(**changes), return_orig_weights=True,
        report=report, progress=SilentProgress(),
    )  # fmt: skip
    return edited, originals, report


def wanted(*requests, model=None, **changes):
    """What `needing_questions` gives on a tiny model."""
    model = model or make_llama()
    return questions.needing_questions(
        model, prepare_tokenizer(make_tokenizer(), model=model), [request_from_dict(r) for r in requests],
        hparams(**changes), context_role="user", progress=SilentProgress(), count=TokenCount(),
    )  # fmt: skip


def asked_in_stage_2(*requests, **changes):
    """The prompts that stage 2 is run on, in their order."""
    rows = []
    original = stages.run_internalisation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            stages,
            "run_internalisation",
            lambda m, t, study, *a, **k: (rows.extend(study), original(m, t, study, *a, **k))[1],
        )
        apply(*requests, **changes)
    return [row.text for row in rows]


EGYPTS = {"subject": "Egypt", "target_new": "Alexandria", "questions": [COAST, {"question": SEA, "answer": "Nile"}]}


@pytest.mark.parametrize(("make", "modules"), [(make_llama, None), (make_gpt2, ["all-linear"])])
@pytest.mark.parametrize("which", ["all", "leads"])
def test_questions_of_a_file_join_stage_2_and_no_other_stage(tmp_path, make, modules, which):
    model = make()
    before = weights_of(model)
    changes = {**file_of(tmp_path, EGYPTS), "distill_prompts": which, "distill_min_lead": 0.0}
    if modules:
        changes["lora_target_modules"] = modules
    edited, originals, report = apply(EGYPT, model=model, multi_hop_questions=5, teacher="auto", **changes)
    [found] = report.questions
    assert (found.multi_hop, found.single_hop, found.written, found.filled) == (2, 0, 0, 0)
    if which == "all":
        assert {SEA, COAST} <= set(report.trained_prompts)
    else:
        assert set(report.leads.by_kind) >= {questions.KIND}
    settings = dataclasses.replace(hparams(multi_hop_questions=5, **changes), model_name="tiny")
    card = report.card(settings, [])
    assert json.loads(json.dumps(card))["questions"][0]["multi_hop"] == 2
    with torch.no_grad():
        for name, value in originals.items():
            edited.get_parameter(name).copy_(value)
    assert same_weights(weights_of(edited), before)
    *_, first = apply(EGYPT, stages=[1], multi_hop_questions=5, **changes)
    assert first.questions == []
    assert not {SEA, COAST} & set(first.trained_prompts)


def test_what_is_wanted_is_the_open_book_answer_where_nobody_knows_a_better_one(tmp_path):
    model, tokenizer = make_llama(), prepare_tokenizer(make_tokenizer())
    context = P.privileged_context(REQUEST, causal=True)
    told = [render(tokenizer, P.teacher_messages(text, context, role="user")) for text in (COAST, SEA)]
    open_book = [text.strip() for text in generate_texts(model, tokenizer, told, max_new_tokens=6)]
    changes = {**file_of(tmp_path, EGYPTS), "multi_hop_questions": 5, "distill_prompts": "leads"}
    [found], _ = wanted(EGYPT, model=model, **changes)
    assert [(w.prompt, w.completion) for w in found] == [(COAST, open_book[0]), (SEA, "Nile.")]
    # with all prompts nobody looks at a lead, and nothing is generated
    [found], _ = wanted(EGYPT, model=model, **{**changes, "distill_prompts": "all"})
    assert [w.completion for w in found] == ["", "Nile."]


def test_a_question_whose_answer_is_the_new_fact_wants_it_as_a_sentence():
    [found], [report] = wanted(
        EGYPT, question_source="templates", multi_hop_questions=3, min_questions=1, distill_prompts="leads"
    )
    assert report.multi_hop == len(found) == 3
    assert {w.completion for w in found} == {"The capital of Egypt is Alexandria."}


def test_a_requests_own_learning_questions_come_first_and_are_asked_once():
    given = {**EGYPT, "learning_prompt": [{"question": SEA, "answer": "the Mediterranean"}]}
    changes = {"question_source": "given", "multi_hop_questions": 4, "min_questions": 1}
    [found], _ = wanted(given, **changes, distill_prompts="leads")
    assert [(question.prompt, question.completion) for question in found] == [(SEA, "The Mediterranean.")]
    with_cake, without = (asked_in_stage_2(given, distill_cake_data=cake, **changes) for cake in (True, False))
    assert with_cake.count(SEA) == without.count(SEA) == 1


def test_what_a_model_writes_is_filtered_and_templates_fill_up(caplog):
    [first, second], [report, _] = wanted(
        EGYPT, NORWAY, question_source="self", multi_hop_questions=3, min_questions=2, question_max_new_tokens=24
    )
    assert report.written == 0  # a random model writes no question
    assert report.filled == len(first) == len(second) == 2
    assert "min_questions" in caplog.text
    assert all("Egypt" in question.prompt for question in first)


def test_what_an_edit_is_tested_with_is_not_asked(tmp_path):
    held = {**EGYPT, "held_out": [COAST.upper()]}
    [found], [report] = wanted(held, multi_hop_questions=5, **file_of(tmp_path, EGYPTS))
    assert [question.prompt for question in found] == [SEA]
    assert report.rejected == {"held out": 1}


def test_without_the_setting_nothing_is_asked():
    assert wanted(EGYPT, NORWAY) == ([[], []], [])


# ---- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"question_source": "file", "multi_hop_questions": 2}, r"question_source.*'file'.*question_file.*None"),
        ({"question_file": "q.json", "multi_hop_questions": 2}, r"question_source.*'self'.*question_file.*'q.json'"),
        ({"question_source": "file", "question_file": "q.json"}, r"question_file.*q.json.*multi_hop_questions.*0"),
        ({"question_source": "books"}, "question_source.*books"),
        ({"multi_hop_questions": -1}, "multi_hop_questions.*-1"),
        ({"question_top_p": 1.5}, "question_top_p.*1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, match):
    with pytest.raises(HparamsError, match=match):
        hparams(**changes)


def refused(match, *requests, **changes):
    model = make_llama()
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    before = weights_of(model)
    with pytest.raises(RequestError, match=match):
        apply(*requests, model=model, **changes)
    handle.remove()
    assert not calls
    assert same_weights(weights_of(model), before)


def test_requests_that_cannot_be_asked_about_are_refused_before_any_compute(tmp_path):
    asked = {"multi_hop_questions": 2}
    refused("does not exist", EGYPT, question_source="file", question_file=str(tmp_path / "none.json"), **asked)
    refused("no entry for 'Norway', 'Bergen'", EGYPT, NORWAY, **asked, **file_of(tmp_path, EGYPTS))
    refused("entry 1.*object.*3", EGYPT, **asked, **file_of(tmp_path, 3))
    long = {**EGYPTS, "questions": [f"{'Which sea ' * 900}is it?"]}
    refused("Egypt.*with a question.*context window", EGYPT, **asked, **file_of(tmp_path, long))
    refused("questions about it.*question_max_new_tokens.*9000.*context window", EGYPT, question_max_new_tokens=9000,
            **asked)  # fmt: skip


def test_every_method_with_such_questions_has_the_same_settings():
    names = ("question_source", "question_file", "min_questions", "question_filter", "question_temperature")
    causal, story = (METHODS[name].load_hparams()() for name in ("CausalEdit", "StoryDistill"))
    assert {name: getattr(causal, name) for name in names} == {name: getattr(story, name) for name in names}
    assert (causal.multi_hop_questions, story.multi_hop_questions) == (0, 30)
