"""Layers below an adapter are run once for each row, and nothing else changes by it."""

from __future__ import annotations

import pytest
import torch
from architectures import ARCHITECTURES
from conftest import EGYPT, MODELS, fast_hparams, make_gpt2, make_llama, make_opt, make_tokenizer
from peft import LoraConfig, get_peft_model

from causaledit.facts.requests import request_from_dict
from causaledit.methods.shared.preservation import build_preservation
from causaledit.models.batches import MIN_SHARED_PREFIX
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.frozen import FrozenLayers, frozen_layers
from causaledit.models.layout import decoder_layers
from causaledit.models.scoring import logits_in_one_pass
from causaledit.support.costs import TokenCount

OPENING = list(range(5, 5 + MIN_SHARED_PREFIX))
CONTEXTS = [[*OPENING, *tail] for tail in ([40], [41, 42, 43], [44, 45], [46])]
COMPLETIONS = [[50, 51], [52], [53, 54, 55, 56], [57, 58]]
DEEP = {
    "llama": lambda: make_llama(num_hidden_layers=4),
    "gpt2": lambda: make_gpt2(n_layer=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "opt": lambda: make_opt(num_hidden_layers=4),
}


def adapted(model, layers=(2, 3)):
    """The model with an adapter that changes what it says."""
    names = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if type(m).__name__ in ("Linear", "Conv1D")}
    targets = sorted(names - {"lm_head"})
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=targets, layers_to_transform=list(layers), lora_dropout=0.0)
    peft_model = get_peft_model(model, config)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return peft_model


def passes(model, number):
    """Counts a layer's passes; a list that grows."""
    plain = model.get_base_model()
    layer, seen = plain.get_submodule(decoder_layers(plain))[number], []
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: (seen.append(args), forward(*args, **kwargs))[1]
    return seen


def step(model, below, rows=range(4)):
    model.zero_grad()
    contexts, completions = [CONTEXTS[i] for i in rows], [COMPLETIONS[i] for i in rows]
    logits = torch.cat(logits_in_one_pass(model, contexts, completions, below=below))
    logits.log_softmax(-1)[:, 7].sum().backward()
    return logits.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("architecture", DEEP)
def test_rows_that_come_again_have_the_same_logits_and_gradients(architecture):
    model = adapted(DEEP[architecture]()).train()
    below = frozen_layers(model)
    assert below is not None
    for rows in (range(2), range(4), range(3, -1, -1), (1, 3, 3)):  # new ones, both kinds, another order, one twice
        expected, gradients = step(model, None, rows)
        found, same = step(model, below, rows)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        for a, b in zip(same, gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_frozen_layers_are_run_once_for_each_row():
    model = adapted(DEEP["llama"]())
    below = frozen_layers(model)
    frozen, trained = passes(model, 1), passes(model, 2)
    for _ in range(3):
        step(model, below)
    assert (len(frozen), len(trained)) == (1, 3)
    step(model, below, (0, 1))
    assert (len(frozen), len(trained)) == (1, 4)


def test_the_common_beginning_may_be_longer_or_shorter_than_before():
    model = adapted(DEEP["llama"]())
    below = frozen_layers(model)
    step(model, below)
    near = [[*OPENING, 41, 42, 60], CONTEXTS[1]]  # more in common
    far = [[*OPENING[:-2], 70, 71, 72], CONTEXTS[1]]  # less
    for contexts in (near, far):
        expected = logits_in_one_pass(model, contexts, [[50], COMPLETIONS[1]])
        found = logits_in_one_pass(model, contexts, [[50], COMPLETIONS[1]], below=below)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", MODELS)
def test_an_adapter_in_the_first_layer_leaves_nothing_below(architecture):
    assert frozen_layers(adapted(MODELS[architecture](), layers=(0, 1))) is None


def test_a_trained_embedding_or_a_full_network_leaves_nothing_below():
    model = adapted(DEEP["llama"]())
    model.get_input_embeddings().weight.requires_grad_(True)
    assert frozen_layers(model) is None
    assert frozen_layers(make_llama()) is None


@pytest.mark.parametrize("make", [make_gpt2, lambda: make_opt(dropout=0.1)], ids=["gpt2", "opt"])
def test_what_draws_in_training_is_not_kept(make):
    assert frozen_layers(adapted(make(), layers=(1,))) is None


def test_no_more_is_kept_than_there_is_room_for():
    model = adapted(DEEP["llama"]())
    below = frozen_layers(model)
    row = len(CONTEXTS[0]) + len(COMPLETIONS[0]) - 1
    small = FrozenLayers(below._layers, most_bytes=row * 32 * 4)
    expected = step(model, None)[0]
    for _ in range(2):
        torch.testing.assert_close(step(model, small)[0], expected, atol=1e-4, rtol=1e-4)
    assert len(small) == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_architecture_is_read_otherwise(architecture):
    model = ARCHITECTURES[architecture]()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".1." in name)
    below = frozen_layers(model)
    with torch.no_grad():
        expected = logits_in_one_pass(model, CONTEXTS, COMPLETIONS)
        for _ in range(2):
            for a, b in zip(logits_in_one_pass(model, CONTEXTS, COMPLETIONS, below=below), expected, strict=True):
                torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_preserved_answers_bring_their_states(architecture):
    """What an answer was written with is what a step would read: nothing below the adapter is run again."""
    plain, tokenizer = DEEP[architecture](), prepare_tokenizer(make_tokenizer())
    first = 2
    changes = {"lora_layers": [first, 4], "preserve_weight": 1.0, "preserve_prompts": 12, "preserve_max_new_tokens": 5}
    hparams, request = fast_hparams(plain, tokenizer, **changes), request_from_dict(EGYPT)
    held, again = (
        build_preservation(plain, tokenizer, [request], hparams, count=TokenCount(), first_layer=hparams.first_layer)
        for _ in range(2)
    )
    model = adapted(plain, range(first, 4))
    below = frozen_layers(model)
    frozen = passes(model, first - 1)
    found = [held.next_loss(model, below=below) for _ in range(4)]
    assert not frozen
    assert len(below) > 8
    expected = [again.next_loss(model) for _ in range(4)]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=1e-4, rtol=1e-3)
