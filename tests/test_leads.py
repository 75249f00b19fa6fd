"""Stage 2 on prompts where a teacher leads, with preserved questions among the rollouts and a trust region."""

from __future__ import annotations

import collections
import dataclasses

import pytest
import torch
from conftest import EGYPT, fast_hparams, make_llama, make_tokenizer
from stages import REQUEST, Listener, held, internalise, with_adapter

from causaledit.errors import HparamsError
from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.methods.causal_edit.bootstrap import (
    WantedAnswer,
    answer_rows,
    raw_pairs,
    training_pairs,
    wanted_answers,
)
from causaledit.methods.causal_edit.hparams import REASON_PROMPTS, CausalEditHyperParams
from causaledit.methods.causal_edit.leads import StudyPrompt, led_prompts, mixed
from causaledit.methods.causal_edit.prompts import REASON_CUES, privileged_context, reason_prompts
from causaledit.methods.causal_edit.traces import stated_trace
from causaledit.methods.shared.compositions import Composition
from causaledit.methods.shared.stopping import FactStop, TrustRegion
from causaledit.methods.shared.supervised import completion_rows, text_rows
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.weights import restore
from causaledit.support.progress import SilentProgress

CONTEXT = privileged_context(REQUEST, causal=True)
TRACE = stated_trace("The wells ran dry, so parliament moved.", REQUEST, causal=True)
HOPS = Composition("Who runs the capital of Egypt?", "Alexandria is run by Ada.", "Alexandria. Ada.", "Ada")
EDITS = [StudyPrompt(f"edit {i}?", CONTEXT, "base") for i in range(3)]
KEPT = [StudyPrompt(f"kept {i}?", "", "base", preserved=True) for i in range(4)]
PRESERVED = {"preserve_weight": 1.0, "preserve_prompts": 12, "preserve_max_new_tokens": 4, "preserve_batch_size": 4}


def hparams(**changes):
    return fast_hparams(None, None, **changes)


# ---- which prompts ---------------------------------------------------------------------------------
def alone(model, head, completion):
    """Mean log-probability of a completion behind a prompt, by one plain forward."""
    tokenizer = prepare_tokenizer(make_tokenizer())
    first = tokenizer(head, add_special_tokens=False)["input_ids"]
    rest = tokenizer(completion, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([first + rest])).logits[0, len(first) - 1 : -1].log_softmax(-1)
    return float(logits.gather(-1, torch.tensor(rest)[:, None]).mean())


def test_a_lead_is_the_teachers_log_probability_less_the_students():
    peft_model = with_adapter(make_llama(), hparams(teacher="base")).eval()
    tokenizer = prepare_tokenizer(make_tokenizer())
    answers = [WantedAnswer(f"{i}: what is it?", "direct", "The capital of Egypt is Alexandria.") for i in range(6)]
    expected = {}
    for answer in answers:
        student = alone(peft_model, render(tokenizer, user(answer.prompt)), answer.completion)
        with peft_model.disable_adapter():
            open_book = render(tokenizer, user(f"{CONTEXT}\n\n{answer.prompt}"))
            expected[answer.prompt] = alone(peft_model, open_book, answer.completion) - student
    bar = sorted(expected.values())[2] - 1e-6
    kept, leads = led_prompts(
        peft_model, tokenizer, [(REQUEST, answer) for answer in answers],
        causal=True, context_role="user", teachers=["base"], min_lead=bar,
    )  # fmt: skip
    assert [prompt.text for prompt in kept] == [text for text, lead in expected.items() if lead >= bar]
    assert (leads.asked, leads.kept, leads.by_kind) == (6, len(kept), {"direct": len(kept)})
    assert leads.mean == pytest.approx(sum(x for x in expected.values() if x >= bar) / len(kept), abs=1e-4)


def test_no_teacher_is_asked_where_the_student_is_too_sure_to_be_led():
    peft_model = with_adapter(make_llama(), hparams(teacher="base"))
    tokenizer = prepare_tokenizer(make_tokenizer())
    wanted = [(REQUEST, answer) for answer in wanted_answers(REQUEST, [TRACE], hparams(), [])]
    read = []
    peft_model.get_input_embeddings().register_forward_hook(lambda _, given, __: read.append(given[0].numel()))

    def tokens_read(teachers, min_lead):
        read.clear()
        kept, leads = led_prompts(
            peft_model, tokenizer, wanted, causal=True, context_role="user", teachers=teachers, min_lead=min_lead
        )
        assert (leads.kept, leads.asked) == (len(kept), len({answer.prompt for _, answer in wanted}))
        return sum(read)

    assert tokens_read(["base"], 1000.0) == tokens_read([], 1000.0) < tokens_read(["base"], 0.0)


def test_nothing_is_kept_where_no_teacher_leads_and_the_edit_says_so(caplog):
    report = EditReport()
    settings = hparams(distill_prompts="leads", distill_min_lead=1000.0)
    apply_causal_edit_to_model(
        make_llama(), make_tokenizer(), [EGYPT], settings, report=report, progress=SilentProgress()
    )
    assert "stage 2 is left out" in caplog.text
    assert report.leads.kept == 0
    assert not report.losses.get("internalise")
    assert report.card(dataclasses.replace(settings, model_name="tiny"), [])["leads"]["asked"] == report.leads.asked > 0


def test_the_teacher_of_two_hops_is_told_the_other_hop():
    [*_, hops] = wanted_answers(REQUEST, [TRACE], hparams(), [HOPS])
    peft_model = with_adapter(make_llama(), hparams(teacher="base"))
    kept, _ = led_prompts(
        peft_model, prepare_tokenizer(make_tokenizer()), [(REQUEST, hops)],
        causal=True, context_role="user", teachers=["base"], min_lead=-1000.0,
    )  # fmt: skip
    assert kept == [StudyPrompt(HOPS.prompt, f"{CONTEXT} {HOPS.knowledge}", "base")]


def test_prompts_for_the_reason_are_as_many_as_are_asked_for_and_are_no_prompts_of_the_paper():
    assert len(reason_prompts(REQUEST, 4)) == 4
    assert len(reason_prompts(REQUEST, REASON_PROMPTS)) == REASON_PROMPTS == len(REASON_CUES)
    answers = wanted_answers(REQUEST, [TRACE], hparams(), [], reasons_asked=2)
    own = {answer.prompt for answer in wanted_answers(REQUEST, [TRACE], hparams(), [])}
    assert [answer.prompt in own for answer in answers[-2:]] == [False, False]
    assert all(TRACE.reason in answer.completion.lower() or "wells" in answer.completion for answer in answers[-2:])


# ---- what a step holds -----------------------------------------------------------------------------
def test_every_step_has_its_share_of_preserved_questions():
    order = mixed(EDITS, KEPT, per_step=4, steps=5, held=2, seed=1)
    assert [sum(prompt.preserved for prompt in order[i : i + 4]) for i in range(0, 20, 4)] == [2] * 5
    times = collections.Counter(prompt.text for prompt in order if not prompt.preserved)
    assert sorted(times.values()) == [3, 3, 4]
    assert order == mixed(EDITS, KEPT, per_step=4, steps=5, held=2, seed=1)


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (1.0, 3), (0.5, 2)])
def test_an_edits_own_prompt_is_in_every_step(share, held):
    settings = CausalEditHyperParams(
        model_name="x", preserve_weight=1.0, distill_preserve_share=share, distill_batch_size=8,
        distill_gradient_accumulation_steps=1, distill_num_generations=2,
    )  # fmt: skip
    assert settings.distill_preserved_per_step() == held
    assert sum(p.preserved for p in mixed(EDITS, KEPT, per_step=4, steps=1, held=held, seed=0)) == held


@pytest.mark.parametrize(("share", "steps"), [(0.0, 1), (0.5, 2)])
def test_stage_2_passes_no_more_often_over_its_prompts_than_it_should(share, steps):
    """Three prompts, four to a step: without a limit five steps; with one, no more than a pass needs."""
    sizes = {"distill_steps_base": 5, "distill_batch_size": 8, "distill_num_generations": 2, **PRESERVED}
    found = []
    for epochs in (None, 1, 9):
        settings = hparams(teacher="base", distill_epochs=epochs, distill_preserve_share=share, **sizes)
        losses = internalise(
            settings, with_adapter(make_llama(), settings), study=EDITS, role="user",
            preservation=held(make_llama(), settings),
        )  # fmt: skip
        found.append(len(losses.own))
    assert found == [5, steps, 5]


def test_rollouts_of_preserved_questions_have_the_unedited_model_as_teacher():
    model = make_llama()
    settings = hparams(teacher="base", **PRESERVED, distill_preserve_share=0.5, distill_steps_base=1,
                       distill_batch_size=4)  # fmt: skip
    listener = Listener()
    internalise(
        settings, with_adapter(model, settings), study=EDITS, role="user",
        preservation=held(make_llama(), settings), callback=listener,
    )  # fmt: skip
    [(inputs, logits, _)] = listener.scored
    assert inputs["preserved"].tolist() == [False, False, True, True]
    for row in (2, 3):  # its teacher reads what the student reads
        length = inputs["completion_ids"].shape[1]
        teacher = inputs["teacher_input_ids"][row, :-length][inputs["teacher_attention_mask"][row, :-length].bool()]
        student = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
        assert teacher.tolist() == student.tolist()
    assert not torch.allclose(logits.student_logits[2], logits.teacher_logits[2])


def test_the_preservation_of_rollouts_is_logged_apart_and_trains():
    def run(**changes):
        settings = hparams(teacher="base", **PRESERVED, distill_preserve_share=0.5, distill_steps_base=1,
                           distill_batch_size=4, **changes)  # fmt: skip
        peft_model = with_adapter(make_llama(), settings)
        losses = internalise(settings, peft_model, study=EDITS, role="user", preservation=held(make_llama(), settings))
        return losses, [p.detach().clone() for n, p in peft_model.named_parameters() if "lora_" in n]

    with_term, weights = run()
    without, other = run(distill_preserve_weight=0.0)
    assert with_term.own == pytest.approx(without.own)
    assert len(with_term.preservation) == 1
    assert with_term.preservation[0] > without.preservation[0]
    assert any(not torch.equal(a, b) for a, b in zip(weights, other, strict=True))


def test_the_trust_region_takes_a_step_back():
    settings = hparams(teacher="base", **PRESERVED, distill_steps_base=2, distill_learning_rate=0.5)
    peft_model = with_adapter(make_llama(), settings)
    before = [p.detach().clone() for n, p in peft_model.named_parameters() if "lora_" in n]
    preservation = held(make_llama(), settings)
    everything = len(preservation)
    aside = preservation.hold_out(3)
    assert len(aside) + len(preservation) == everything
    assert not set(aside.questions) & set(preservation.questions)
    trust = TrustRegion(peft_model, aside, 1e-6)
    internalise(settings, peft_model, study=EDITS, role="user", preservation=preservation, callback=trust)
    assert trust.taken_back == 2
    after = [p.detach() for n, p in peft_model.named_parameters() if "lora_" in n]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    generous = TrustRegion(peft_model, aside, 1e6)
    internalise(settings, peft_model, study=EDITS, role="user", preservation=preservation, callback=generous)
    assert generous.taken_back == 0


def test_the_trust_region_reads_its_questions_once_below_the_adapter():
    settings = hparams(teacher="base", lora_layers=[1, 2], **PRESERVED)
    peft_model = with_adapter(make_llama(), settings)
    aside = held(make_llama(), settings).hold_out(3)
    trust = TrustRegion(peft_model, aside, 1e-6)
    read = []
    lowest = peft_model.get_base_model().model.layers[0]
    lowest.mlp.register_forward_hook(lambda *_: read.append(1))
    trust.on_step_begin(None, None, None)
    assert read
    with torch.no_grad():
        for name, weight in peft_model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    moved = float(aside.next_loss(peft_model).detach())
    read.clear()
    trust.on_step_end(None, _State(1), None)
    assert not read
    assert moved > 1e-6
    assert trust.taken_back == 1


# ---- stage 1 ---------------------------------------------------------------------------------------
def test_rows_of_stage_1_count_what_they_are_asked_to():
    plain = training_pairs(REQUEST, [TRACE, TRACE], hparams(), [HOPS])
    assert HOPS.prompt not in dict(plain)
    changed = hparams(
        bootstrap_direct_repeats=2, bootstrap_compositions=1, bootstrap_trace_rows=1, compositions_onward=1
    )
    more = training_pairs(REQUEST, [TRACE, TRACE], changed, [HOPS])
    assert (HOPS.prompt, HOPS.completion) in more
    assert sum(TRACE.text == completion for _, completion in plain) == 2
    assert sum(TRACE.text == completion for _, completion in more) == 1
    direct = "The capital of Egypt is Alexandria."
    assert sum(c == direct for _, c in more) == 2 * sum(c == direct for _, c in plain)


@pytest.mark.parametrize("ends", [True, False])
def test_whether_more_follows_the_bare_fact_is_taught_or_not(ends):
    settings = hparams(bootstrap_direct_ends=ends, bootstrap_compositions=1, compositions_onward=1)
    tokenizer = make_tokenizer()
    pairs = training_pairs(REQUEST, [TRACE], settings, [HOPS])
    rows = answer_rows(tokenizer, pairs, [REQUEST], settings)
    for (_, completion), row in zip(pairs, rows, strict=True):
        bare = completion == "The capital of Egypt is Alexandria."
        assert (row["input_ids"][-1] == tokenizer.eos_token_id) == (ends or not bare)
        assert len(row["input_ids"]) == len(row["completion_mask"])


def test_raw_prompts_are_trained_as_text():
    assert raw_pairs(REQUEST, hparams()) == []
    pairs = raw_pairs(REQUEST, hparams(bootstrap_raw_prompts=1))
    assert ("The capital of Egypt is", "Alexandria") in pairs
    assert ("Question: The capital of Egypt is Answer:", "Alexandria") in pairs
    tokenizer = make_tokenizer()
    [row, _] = text_rows(tokenizer, pairs, ends=False)
    assert tokenizer.decode(row["input_ids"]) == "The capital of Egypt is Alexandria"
    target = [t for t, counts in zip(row["input_ids"], row["completion_mask"], strict=True) if counts]
    assert tokenizer.decode(target) == " Alexandria"


def test_a_question_in_place_of_a_cloze_is_answered_and_not_completed():
    asked = dataclasses.replace(REQUEST, prompt="What is the capital of {}?")
    completions = {completion for _, completion in training_pairs(asked, [TRACE], hparams())}
    assert "Alexandria." in completions
    assert not any("Egypt? Alexandria" in completion for completion in completions)


class _Control:
    should_training_stop = False


class _State:
    def __init__(self, step):
        self.global_step = step


def test_every_second_prompt_of_two_hops_may_be_asked_step_by_step():
    hops = [dataclasses.replace(HOPS, prompt=f"Who runs city {i}?") for i in range(5)]
    settings = {"compositions_onward": 5, "bootstrap_compositions": 4}
    plain, cued = (
        training_pairs(REQUEST, [TRACE], hparams(bootstrap_composed_cues=cues, **settings), hops)
        for cues in (False, True)
    )
    asked = [(text, answer) for text, answer in cued if "Who runs city" in text]
    assert [text for text, _ in asked] == [
        "Who runs city 0?",
        "Who runs city 1? Think step by step.",
        "Who runs city 2?",
        "As of today: Who runs city 3? Reason step by step, then give the answer.",
    ]
    assert {answer for _, answer in asked} == {HOPS.completion}
    assert [answer for _, answer in plain] == [answer for _, answer in cued]
    assert [pair for pair in cued if pair not in asked] == [pair for pair in plain if "Who runs city" not in pair[0]]


@pytest.mark.parametrize(("wanted", "step", "stops"), [(-1e9, 4, True), (-1e9, 3, False), (0.0, 4, False)])
def test_stage_1_stops_once_the_fact_is_said(wanted, step, stops):
    tokenizer = prepare_tokenizer(make_tokenizer())
    stop = FactStop(make_llama(), completion_rows(tokenizer, [("Egypt?", "Alexandria.")]), wanted)
    control = _Control()
    stop.on_step_end(None, _State(step), control)
    assert control.should_training_stop == stops


def test_a_whole_edit_with_all_of_it_is_undone_to_the_bit():
    model = make_llama()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    report = EditReport()
    changes = {
        "distill_prompts": "leads", "distill_min_lead": 0.0, "distill_preserve_share": 0.5, "distill_trust_kl": 10.0,
        "preserve_composed": 0.2, "preserve_completed": 0.3, "preserve_hard": True, "prompt_reasons": 2,
        "compositions_onward": 2, "compositions_leading": 1, "bootstrap_compositions": 1, "bootstrap_raw_prompts": 1,
        "bootstrap_stop_log_probability": -1e9, "bootstrap_reasons": "both", **PRESERVED,
    }  # fmt: skip
    edited, originals = apply_causal_edit_to_model(
        model, make_tokenizer(), [EGYPT], hparams(**changes), return_orig_weights=True, report=report,
        progress=SilentProgress(),
    )  # fmt: skip
    assert len(report.losses["bootstrap"]) == 4
    assert report.taken_back is not None
    assert any(not torch.equal(p, before[n]) for n, p in edited.named_parameters())
    restore(edited, originals)
    assert all(torch.equal(p, before[n]) for n, p in edited.named_parameters())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"distill_preserve_share": 0.5}, "distill_preserve_share"),
        ({"distill_trust_kl": 0.1}, "distill_trust_kl"),
        ({"distill_prompts": "some"}, "distill_prompts"),
        ({"preserve_stages": [3]}, "preserve_stages"),
        ({"distill_min_lead": -1}, "distill_min_lead"),
        # what another setting would leave without effect
        ({"distill_preserve_share": 0.5, "preserve_weight": 1.0, "preserve_stages": [1]}, "distill_preserve_share"),
        ({"distill_preserve_share": 0.1, "preserve_weight": 1.0}, "distill_preserve_share.*no whole one"),
        (
            {"distill_trust_kl": 0.1, "preserve_weight": 1.0, "preserve_prompts": 3},
            "distill_trust_kl.*preserve_prompts",
        ),
        ({"distill_cake_data": True, "distill_prompts": "leads"}, "distill_cake_data"),
        ({"lora_init": "contrast", "stages": [2], "teacher": "base", "student_use_sft": False}, "lora_init"),
        ({"lora_init": "contrast", "student_use_sft": False}, "lora_init"),
        ({"bootstrap_compositions": 2}, "bootstrap_compositions"),
        ({"bootstrap_composed_cues": True}, "bootstrap_composed_cues.*bootstrap_compositions"),
        ({"bootstrap_trace_rows": 2}, "bootstrap_trace_rows"),
        ({"bootstrap_explain_repeats": 2}, "bootstrap_explain_repeats"),
        ({"bootstrap_reason_prompts": 2}, "bootstrap_reason_prompts"),
        ({"bootstrap_direct_repeats": 2}, "bootstrap_direct_repeats"),
        ({"bootstrap_direct_ends": False}, "bootstrap_direct_ends"),
        ({"prompt_reasons": 7}, "`prompt_reasons` is 7.*at most 6"),
        ({"bootstrap_all_prompts": True, "bootstrap_reason_prompts": 7}, "`bootstrap_reason_prompts` is 7.*at most 6"),
    ],
)
def test_settings_that_contradict_each_other_are_named(changes, name):
    with pytest.raises(HparamsError, match=name):
        CausalEditHyperParams(model_name="x", **changes)
