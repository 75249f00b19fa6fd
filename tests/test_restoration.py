"""Exact restoration: nothing that training or merging touched is left behind, to the bit."""

from __future__ import annotations

import pytest
import torch
from conftest import MODELS, make_gpt2, make_llama, same_weights, weights_of
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from causaledit.models.adapters import merged_for_inference, snapshot_adapted
from causaledit.models.weights import fingerprint, preserved_state, restore, revision_of
from causaledit.support.costs import peak_rss_mb, reset_peak_rss

every_architecture = pytest.mark.parametrize("architecture", MODELS)


def adapted(model, **options):
    """The model behind an adapter that changes it."""
    peft_model = get_peft_model(model, LoraConfig(target_modules="all-linear", r=4, task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return peft_model.eval()


def logits_of(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(20, 40)[None]).logits


# ---- snapshot and restore --------------------------------------------------------------------------
def test_restore_copies_the_bits_back():
    model = make_llama()
    before = weights_of(model)
    names = ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    originals = {name: model.get_parameter(name).detach().clone() for name in names}
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).mul_(1.1)
    assert not same_weights(weights_of(model), before)
    pointers = {name: model.get_parameter(name).data_ptr() for name in names}
    restore(model, originals)
    assert same_weights(weights_of(model), before)
    assert {name: model.get_parameter(name).data_ptr() for name in names} == pointers  # in place: nothing is replaced


def test_restore_of_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError):
        restore(make_llama(), {"model.no_such.weight": torch.zeros(1)})


@every_architecture
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_snapshot_merge_restore(architecture, dtype):
    model = MODELS[architecture]().to(dtype)
    before = weights_of(model)
    peft_model = adapted(model)
    originals = snapshot_adapted(peft_model)
    merged = peft_model.merge_and_unload()
    after = weights_of(merged)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= originals.keys()  # every weight the merge wrote is in the snapshot, by its plain name
    restore(merged, originals)
    assert same_weights(weights_of(merged), before)


def test_a_snapshot_is_no_view():
    peft_model = adapted(make_llama())
    originals = snapshot_adapted(peft_model)
    kept = {name: value.clone() for name, value in originals.items()}
    peft_model.merge_adapter()
    assert same_weights(originals, kept)


# ---- merging for a while ---------------------------------------------------------------------------
@every_architecture
def test_merged_for_inference_is_exact_and_says_the_same(architecture):
    peft_model = adapted(MODELS[architecture]())
    before, expected = weights_of(peft_model), logits_of(peft_model)
    with peft_model.disable_adapter():
        base = logits_of(peft_model)
    assert not torch.allclose(base, expected, atol=1e-3)  # the adapter matters
    with merged_for_inference(peft_model):
        inside = logits_of(peft_model)
        assert not same_weights(weights_of(peft_model), before)  # it is merged
    torch.testing.assert_close(inside, expected, atol=1e-4, rtol=1e-4)
    assert same_weights(weights_of(peft_model), before)
    assert torch.equal(logits_of(peft_model), expected)


def test_a_hundred_merges_leave_no_trace():
    peft_model = adapted(make_llama().to(torch.bfloat16))  # where rounding would show at once
    before = weights_of(peft_model)
    for _ in range(100):
        with merged_for_inference(peft_model):
            pass
    assert same_weights(weights_of(peft_model), before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_merged_for_inference_restores_after_a_fault(error):
    peft_model = adapted(make_llama())
    before = weights_of(peft_model)
    with pytest.raises(error), merged_for_inference(peft_model):
        raise error
    assert same_weights(weights_of(peft_model), before)
    assert not any(getattr(m, "merged", False) for m in peft_model.modules())


def test_only_the_active_adapter_is_merged():
    peft_model = adapted(make_llama())
    peft_model.add_adapter("teacher", LoraConfig(target_modules="all-linear", r=4, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B.teacher" in name:
                parameter.fill_(1.0)
    peft_model.set_adapter("default")
    expected = logits_of(peft_model)
    with merged_for_inference(peft_model):
        torch.testing.assert_close(logits_of(peft_model), expected, atol=1e-4, rtol=1e-4)


# ---- everything but weights ------------------------------------------------------------------------
def disturb(model):
    """What trainers and peft do to a model."""
    model.eval() if model.training else model.train()
    model.requires_grad_(False)
    model.get_input_embeddings().weight.grad = torch.zeros_like(model.get_input_embeddings().weight)
    model.config.use_cache = not model.config.use_cache
    model.config.pad_token_id = 123
    model.config.some_new_key = 1
    model.generation_config.pad_token_id = 123
    model.generation_config.temperature = 0.123
    model.peft_config = {"default": None}
    model.forward = lambda *args, **kwargs: None
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def described(model):
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "grads": {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()},
        "dropout": {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)},
        "attributes": sorted(vars(model)),
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "remark": getattr(model, "remark", None),
    }


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt], ids=["no fault", "error", "Ctrl-C"])
@pytest.mark.parametrize("make", [make_llama, make_gpt2], ids=["llama", "gpt2"])
def test_preserved_state(make, error):
    model = make().train()
    model.get_input_embeddings().eval()
    next(model.parameters()).requires_grad_(False)
    model.remark = ["mine"]
    before, output = described(model), None
    model.eval()
    output = logits_of(model)
    model.train()
    model.get_input_embeddings().eval()
    try:
        with preserved_state(model):
            disturb(model)
            model.remark = "changed"
            assert described(model) != before
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as caught:
        assert type(caught) is error
    assert described(model) == before
    assert "forward" not in vars(model)  # the class's own method again
    assert torch.equal(logits_of(model.eval()), output)


def test_preserved_state_keeps_weights_that_training_wrote():
    # it is about everything but weights: those are the snapshot's business
    model = make_llama()
    with preserved_state(model), torch.no_grad():
        model.model.norm.weight.fill_(2.0)
    assert model.model.norm.weight.unique().tolist() == [2.0]


def test_preserved_state_covers_the_parts_of_a_composite_models_configuration():
    """trl and transformers write token ids into the text model's configuration."""
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config={**small, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 32, "pad_token_id": 0},
        vision_config={**small, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4,
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config)
    before = model.config.to_dict()
    with preserved_state(model):
        model.config.pad_token_id = 3
        model.config.get_text_config().pad_token_id = 4
        model.config.get_text_config().use_cache = False
        model.config.vision_config.left_behind = True
        model.model.language_model.config.bos_token_id = 5
    assert model.config.to_dict() == before
    assert model.config.get_text_config().pad_token_id == 0
    assert not hasattr(model.config.vision_config, "left_behind")


def test_preserved_state_nests():
    model = make_llama()
    before = described(model)
    with preserved_state(model):
        model.train()
        middle = described(model)
        with preserved_state(model):
            disturb(model)
        assert described(model) == middle
    assert described(model) == before


# ---- telling weights apart -------------------------------------------------------------------------
def _with_a_large_embedding():
    model = make_llama()
    model.resize_token_embeddings(400_000, mean_resizing=False)
    return model


@pytest.mark.parametrize("identity", [fingerprint, revision_of])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_told_apart_without_a_copy_of_an_embedding(identity, dtype):
    """Widened to eight bytes a number, Llama-3.1-8B's embedding alone would take 4 GB beside a loaded model."""
    model = _with_a_large_embedding().to(dtype)
    weight = model.get_input_embeddings().weight
    identity(model)  # what a first pass loads and keeps
    if not reset_peak_rss():
        pytest.skip("this system does not count the peak of a part of a process")
    resident = peak_rss_mb()
    before = identity(model)
    assert peak_rss_mb() - resident < weight.numel() * 4 / 2**20
    last = weight.detach()[-1, -1]
    own = last.clone()
    last.fill_(7)
    assert identity(model) != before
    last.copy_(own)
    assert identity(model) == before


def test_a_fingerprint_is_the_sum_of_all_bits():
    """Its parts are added up exactly: what is kept under it is found again."""
    model = _with_a_large_embedding()
    sums = [int(value.detach().view(torch.int32).sum(dtype=torch.int64)) for value in model.parameters()]
    assert fingerprint(model)[: len(sums)] == tuple(sums)
