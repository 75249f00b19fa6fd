"""Methods on models that carry a state from token to token: they run, restore, and let no padding into the state."""

from __future__ import annotations

import dataclasses

import pytest
from architectures import ARCHITECTURES
from conftest import EGYPT, FAST, NORWAY, make_tokenizer, same_weights, weights_of

from causaledit.hosts.lookup import get_method
from causaledit.models.edited import undo_edit

TARGETS = {
    "Qwen3.5": ["all-linear"],
    "Mamba": ["in_proj", "x_proj"],  # peft adapts no `out_proj` of Mamba's
    "RecurrentGemma": ["all-linear"],
    "LFM2": ["all-linear"],
}
FEW = {
    "CausalEdit": {
        "bootstrap_max_steps": 2, "preserve_weight": 0.5, "preserve_prompts": 4, "teacher": "auto",
        "bootstrap_traces": 4, "distill_batch_size": 8,
    },
    "LoRA": {"steps": 2},
    "ICE": {"steps": 2},
    "ROME": {"v_num_grad_steps": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "name"),
    [*((a, "CausalEdit") for a in TARGETS), ("Mamba", "LoRA"), ("Qwen3.5", "ICE"), ("Qwen3.5", "ROME")],
)
def test_an_edit_runs_and_no_padding_enters_the_state(architecture, name):
    model, tokenizer, method = ARCHITECTURES[architecture](), make_tokenizer(), get_method(name)
    before, padded = weights_of(model), []

    def look(module, args, kwargs):
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() == 2:
            padded.append(bool((mask[:, 0] == 0).any()))

    model.register_forward_pre_hook(look, with_kwargs=True)
    options = {**FAST[name], **FEW[name]}
    if "lora_target_modules" in {spec.name for spec in dataclasses.fields(method.load_hparams())}:
        options["lora_target_modules"] = TARGETS[architecture]
    hparams = method.load_hparams()(model_name=(model, tokenizer), alg_name=name, **options)
    requests = [EGYPT] if name == "ROME" else [EGYPT, NORWAY]
    edited, originals = method.load_apply()(model, tokenizer, requests, hparams, return_orig_weights=True)
    assert originals and not same_weights(before, weights_of(model))
    assert padded
    if name != "ROME":  # its sampled contexts are padded, and only serve as texts
        assert not any(padded)
    undo_edit(model, edited, originals)
    assert same_weights(before, weights_of(model))
