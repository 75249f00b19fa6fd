"""Adapters that cannot be put on, or could not be merged: refused with a reason, the model as it was."""

from __future__ import annotations

import pytest
import torch
from conftest import EGYPT, FAST, make_gpt2, make_llama, make_qwen3, make_tokenizer, same_weights, weights_of
from contract import surroundings, unusual
from torch import nn

from causaledit.errors import ModelError
from causaledit.methods.lora.hparams import LoRAHyperParams
from causaledit.methods.registry import METHODS
from causaledit.models.adapters import add_adapter, check_adapter
from causaledit.models.weights import restructuring

ADAPTERS = pytest.mark.parametrize("name", ["LoRA", "CausalEdit"])


class Scaled(nn.Module):
    """A layer of a kind that peft does not know."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, hidden):
        return self.inside(hidden) * 1.0


class Interrupting(nn.Linear):
    """Ctrl-C in the middle of putting adapters on: a layer that raises when it is looked at."""

    armed = False

    def __getattribute__(self, name):
        if name == "in_features" and type(self).armed:
            raise KeyboardInterrupt
        return super().__getattribute__(name)


def with_unknown_layer(make=make_llama, place=1):
    model = make()
    mlp = model.model.layers[place].mlp
    mlp.up_proj = Scaled(mlp.up_proj)
    return model


def hooked(model):
    model.model.layers[0].register_forward_hook(lambda *_: None)
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: None)
    return model


FAILURES = {
    "a norm among the targets": (lambda: hooked(make_llama()), ["q_proj", "input_layernorm"]),
    "a container": (make_llama, ["q_proj", "mlp"]),
    "an activation": (make_llama, ["up_proj", "act_fn"]),
    "positions": (make_qwen3, ["k_proj", "rotary_emb"]),
    "an unknown layer in the middle": (with_unknown_layer, ["q_proj", "up_proj"]),
    "a norm of GPT-2": (make_gpt2, ["c_attn", "ln_2"]),
    "a dropout of GPT-2": (make_gpt2, ["c_fc", "attn_dropout"]),
    "a tied head": (make_llama, ["q_proj", "lm_head"]),
    "tied embeddings": (make_llama, ["embed_tokens"]),
    "both tied ends": (make_llama, ["embed_tokens", "lm_head"]),
    "a tied head of GPT-2": (make_gpt2, ["lm_head"]),
}


def modules_of(model):
    return {name: id(module) for name, module in model.named_modules(remove_duplicate=False)}


def hook_handles(model):
    return {name: [*m._forward_hooks.items(), *m._forward_pre_hooks.items()] for name, m in model.named_modules()}


@ADAPTERS
@pytest.mark.parametrize("failure", FAILURES)
def test_a_target_that_is_refused_leaves_the_model_as_it_was(name, failure):
    make, targets = FAILURES[failure]
    model = unusual(make())
    weights, around, modules, hooks = weights_of(model), surroundings(model), modules_of(model), hook_handles(model)
    parameters = {n: id(p) for n, p in model.named_parameters(remove_duplicate=False)}
    method = METHODS[name]

    def computed(*_):
        raise AssertionError("the model was run before the target was refused")

    handle = model.register_forward_pre_hook(computed)
    hparams = method.load_hparams()(**{**FAST[name], "lora_target_modules": targets})
    with pytest.raises(ModelError, match="lora_target_modules"):
        method.load_apply()(model, make_tokenizer(), [EGYPT], hparams)
    handle.remove()
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around
    assert modules_of(model) == modules
    assert hook_handles(model) == hooks
    assert {n: id(p) for n, p in model.named_parameters(remove_duplicate=False)} == parameters
    model(input_ids=torch.tensor([[5, 6, 7]]))  # and it works
    good = method.load_hparams()(**{**FAST[name], "lora_target_modules": ["all-linear"]})
    assert check_adapter(model, good, merged=True) is None
    assert surroundings(model) == around


@pytest.mark.parametrize("place", [0, 1])
def test_ctrl_c_while_adapters_are_put_on(place):
    model = make_llama()
    mlp = model.model.layers[place].mlp
    linear = Interrupting(mlp.gate_proj.in_features, mlp.gate_proj.out_features, bias=False)
    mlp.gate_proj = linear
    weights, around, modules = weights_of(model), surroundings(model), modules_of(model)
    Interrupting.armed = True
    try:
        with pytest.raises(KeyboardInterrupt):
            add_adapter(model, LoRAHyperParams(lora_target_modules=["q_proj", "gate_proj"]))
    finally:
        Interrupting.armed = False
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around
    assert modules_of(model) == modules


def test_hooks_made_before_a_failure_can_still_be_removed():
    model = make_llama()
    handle = model.model.layers[0].register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError), restructuring(model):
        model.model.layers[0].register_forward_hook(lambda *_: None)
        model.model.layers[1] = nn.Identity()
        raise RuntimeError
    assert len(model.model.layers[0]._forward_hooks) == 1
    handle.remove()
    assert not model.model.layers[0]._forward_hooks
    assert not isinstance(model.model.layers[1], nn.Identity)


# ---- merged is what was trained --------------------------------------------------------------------
def logits_of(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(20, 40)[None]).logits


def untied():
    return make_llama(tie_word_embeddings=False)


@ADAPTERS
@pytest.mark.parametrize(
    ("make", "targets"),
    [
        (make_llama, ["all-linear"]),
        (make_gpt2, ["all-linear"]),
        (untied, ["q_proj", "up_proj"]),
        (make_gpt2, ["c_attn", "c_proj", "c_fc"]),
    ],
)
def test_the_merged_model_is_the_adapted_one(name, make, targets):
    found = []
    for merge in (False, True):
        method, model = METHODS[name], make()
        changes = {"lora_target_modules": targets, "merge_adapter": merge}
        hparams = method.load_hparams()(**{**FAST[name], **changes})
        edited, _ = method.load_apply()(model, make_tokenizer(), [EGYPT], hparams)
        found.append(logits_of(edited))
    assert (found[0] - logits_of(make())).abs().max() > 0.05
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


def test_an_untied_head_is_merged_as_it_was_trained():
    found = []
    for merge in (False, True):
        hparams = LoRAHyperParams(**{**FAST["LoRA"], "lora_target_modules": ["lm_head"], "merge_adapter": merge})
        edited, _ = METHODS["LoRA"].load_apply()(untied(), make_tokenizer(), [EGYPT], hparams)
        found.append(logits_of(edited))
    assert (found[0] - logits_of(untied())).abs().max() > 0.05
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


def shared_parameter():
    model = make_llama()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    return model


def shared_module():
    model = make_llama()
    model.model.layers[1].mlp.up_proj = model.model.layers[0].mlp.up_proj
    return model


@pytest.mark.parametrize("make", [shared_parameter, shared_module])
def test_layers_that_share_a_weight_are_not_merged(make):
    hparams = LoRAHyperParams(lora_target_modules=["up_proj"])
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.up_proj, which shares its weight with .*layers\.1.*up_proj"):
        check_adapter(make(), hparams, merged=True)
    check_adapter(make(), LoRAHyperParams(lora_target_modules=["down_proj"]), merged=True)


def test_a_tied_head_as_an_adapter_alone():
    changes = {"lora_target_modules": ["lm_head"], "merge_adapter": False}
    method, hparams = METHODS["LoRA"], LoRAHyperParams(**{**FAST["LoRA"], **changes})
    model, embeddings = make_llama(), make_llama().get_input_embeddings().weight
    edited, _ = method.load_apply()(model, make_tokenizer(), [EGYPT], hparams)
    assert torch.equal(edited.get_base_model().get_input_embeddings().weight, embeddings)
    assert (logits_of(edited) - logits_of(make_llama())).abs().max() > 0.05
