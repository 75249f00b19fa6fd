"""LoRA's own part: which layers get an adapter, and AdaLoRA's budget of rank."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from conftest import EGYPT, FAST, MODELS, NORWAY, make_llama, make_tokenizer, same_weights, weights_of
from contract import surroundings

from causaledit.errors import EditFailedError, HparamsError, ModelError
from causaledit.facts.requests import request_from_dict
from causaledit.methods.causal_edit.bootstrap import wanted_answers
from causaledit.methods.lora.apply import apply_lora_to_model
from causaledit.methods.lora.hparams import LoRAHyperParams
from causaledit.methods.method import MethodReport
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.finetune.rows import target_rows, texts_of
from causaledit.models.weights import restore
from causaledit.support.progress import SilentProgress


def adapt(model, *requests, report=None, **changes):
    tokenizer = make_tokenizer()
    hparams = LoRAHyperParams(model_name=(model, tokenizer), **{**FAST["LoRA"], "lora_type": "adalora", **changes})
    return apply_lora_to_model(
        model, tokenizer, list(requests), hparams, return_orig_weights=True, progress=SilentProgress(), report=report
    )


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("lora_type", ["lora", "adalora"])
def test_the_edit_is_learnt_and_undone_to_the_bit(architecture, lora_type):
    model, report = MODELS[architecture](), MethodReport()
    before = weights_of(model)
    edited, originals = adapt(model, EGYPT, NORWAY, report=report, lora_type=lora_type, learning_rate=2e-2, steps=30)
    assert report.losses["train"][-1] < report.losses["train"][0] - 1.5
    assert not same_weights(weights_of(edited), before)
    restore(edited, originals)
    assert same_weights(weights_of(edited), before)


def rank_of(edited):
    """Singular values left, per adapted module."""
    return [int((values != 0).sum()) for name, values in edited.named_parameters() if ".lora_E." in name]


def test_adalora_ends_at_its_budget_of_rank():
    edited, _ = adapt(make_llama(), EGYPT, lora_rank=4, steps=20, merge_adapter=False)
    ranks = rank_of(edited)
    assert sum(ranks) == 4 * len(ranks)
    begun, _ = adapt(make_llama(), EGYPT, lora_rank=4, steps=10, merge_adapter=False, stop_loss=100.0)
    assert begun.peft_config["default"].init_r == 6


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_adalora_of_few_steps(steps):
    model = make_llama()
    before = weights_of(model)
    edited, originals = adapt(model, EGYPT, lora_rank=1, steps=steps)
    restore(edited, originals)
    assert same_weights(weights_of(edited), before)


def test_adaloras_penalty_is_not_in_the_loss():
    report, plain = MethodReport(), MethodReport()
    adapt(make_llama(), EGYPT, report=report, lora_dropout=0.0)
    adapt(make_llama(), EGYPT, report=plain, lora_type="lora", lora_dropout=0.0)
    assert report.losses["train"][0] == pytest.approx(plain.losses["train"][0], rel=1e-5)  # both start at zero


def test_merged_and_kept_adapters_say_the_same():
    kept, _ = adapt(make_llama(), EGYPT, merge_adapter=False)
    merged, _ = adapt(make_llama(), EGYPT)
    ids = torch.tensor([make_tokenizer()(EGYPT["question"])["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(kept(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-3, rtol=1e-3)


def test_a_failed_adalora_leaves_the_model_as_it_was():
    model = make_llama()
    before, modules = weights_of(model), [type(module) for module in model.modules()]
    with pytest.raises(EditFailedError):
        adapt(model, EGYPT, learning_rate=1e30)
    assert same_weights(weights_of(model), before)
    assert [type(module) for module in model.modules()] == modules


# ---- layers ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("lora_type", ["lora", "adalora"])
@pytest.mark.parametrize(("layers", "expected"), [([], {0, 1}), (None, {0, 1}), ([1], {1}), ([0], {0})])
def test_layers_are_those_that_get_an_adapter(layers, expected, lora_type):
    _, originals = adapt(
        make_llama(), EGYPT, layers=copy.copy(layers), lora_target_modules=["q_proj"], lora_type=lora_type, steps=2
    )
    assert {int(name.split(".")[2]) for name in originals} == expected


def test_unusable_layers_are_refused_before_anything_is_put_on():
    model = make_llama()
    with pytest.raises(ModelError, match=r"`layers` names layer 2.*0 to 1"):
        adapt(model, EGYPT, layers=[1, 2], lora_target_modules=["q_proj"])
    with pytest.raises(ModelError, match="name the projections"):
        adapt(model, EGYPT, layers=[1])
    with pytest.raises(HparamsError, match="`steps` is 1"):
        LoRAHyperParams(lora_type="adalora", steps=1)
    with pytest.raises(HparamsError, match="keep one"):
        LoRAHyperParams(layers=[1], lora_layers=[0, 1])
    for layers in ([-1], 0, "", [1, 1], [True]):
        with pytest.raises(HparamsError, match=r"layer numbers.*got"):
            LoRAHyperParams(layers=layers)
    assert LoRAHyperParams(layers=[]).layers is None
    assert [type(module) for module in model.modules()] == [type(module) for module in make_llama().modules()]


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_model_with_checkpointing_on_learns_and_keeps_its_hooks_alone(reentrant):
    report, model = MethodReport(), make_llama()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    around = surroundings(model)
    adapt(model, EGYPT, report=report, steps=3)
    assert surroundings(model) == around
    assert report.losses["train"][-1] < report.losses["train"][0]


def test_the_preservation_term_holds_what_is_not_edited():
    kept = {"preserve_weight": 5.0, "preserve_prompts": 12, "preserve_max_new_tokens": 4, "lora_type": "lora"}
    report = MethodReport()
    model = make_llama()
    before = weights_of(model)
    with_term, originals = adapt(model, EGYPT, report=report, prompt_forms=["cloze", "question", "paraphrases"], **kept)
    changed = weights_of(with_term)
    restore(with_term, originals)
    assert same_weights(weights_of(with_term), before)
    without, _ = adapt(make_llama(), EGYPT, prompt_forms=["cloze", "question", "paraphrases"], lora_type="lora")
    assert not same_weights(changed, weights_of(without))
    assert report.tally.seconds["preserve"] > 0
    asked = report.trained_prompts
    assert "What is the capital of Egypt?" in asked
    assert any("Egypt" in text and "capital" in text for text in asked[2:])  # a paraphrase
    assert any("Egypt" not in text for text in asked)  # a neighbour


def test_the_baseline_of_the_same_strings_has_the_same_strings():
    """`LoRA@preserve` is CausalEdit without narrative, reasons, two hops and stage 2, and otherwise the same."""
    ours = METHODS["CausalEdit"].load_hparams().from_hparams("smollm2-135m-instruct")
    baseline = METHODS["LoRA"].load_hparams().from_hparams("smollm2-135m-instruct_preserve")
    request, tokenizer = request_from_dict(EGYPT), make_tokenizer()
    direct = {(a.prompt, a.completion) for a in wanted_answers(request, [], ours, []) if a.kind == "direct"}
    asked = texts_of(request, baseline.prompt_forms)
    rows = target_rows(tokenizer, request, baseline.prompt_forms, **baseline.answers)
    learnt = {(text, tokenizer.decode(row.target)) for text, row in zip(asked, rows, strict=True)}
    assert learnt <= direct
    assert {text for text, _ in direct - learnt} == {f"{text} Answer directly." for text in asked[:2]}
    assert baseline.answer_ends is ours.bootstrap_direct_ends is False
    kept = [f.name for f in dataclasses.fields(baseline) if f.name.startswith("preserve_")]
    assert len(kept) > 8
    adapter = ["lora_rank", "lora_layers", "lora_dropout"]
    assert {n: getattr(baseline, n) for n in kept + adapter} == {n: getattr(ours, n) for n in kept + adapter}
    assert set(baseline.lora_target_modules) == set(ours.lora_target_modules)
