"""Greedy is greedy and samples are the model's own, whatever its generation configuration sets."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import EGYPT, FAST, make_llama, make_tokenizer, same_weights, weights_of
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, WatermarkingConfig

from causaledit.hosts.lookup import get_method
from causaledit.methods.shared.locate_edit.contexts import sample_contexts
from causaledit.models.edited import undo_edit
from causaledit.models.generation import generate_texts, greedy_answers, neutral_generation, sample_tokens
from causaledit.probes.asking import Prober, plain_rate

# what published models set, and what anybody may
SETTINGS = {
    "repetition_penalty": 1.8,
    "encoder_repetition_penalty": 1.8,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2,
    "min_p": 0.9,
    "top_h": 0.2,
    "top_k": 2,
    "top_p": 0.3,
    "typical_p": 0.2,
    "epsilon_cutoff": 0.02,
    "eta_cutoff": 0.02,
    "temperature": 0.2,
    "do_sample": True,
    "suppress_tokens": list(range(100, 300)),
    "begin_suppress_tokens": list(range(100, 300)),
    "bad_words_ids": [[token] for token in range(100, 300)],
    "sequence_bias": [[[token], -20.0] for token in range(100, 300)],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 3,
    "exponential_decay_length_penalty": [1, 3.0],
    "min_length": 400,
    "min_new_tokens": 30,
    "max_length": 20,
    "max_time": 0.0001,
    "stop_strings": ["e", "a"],
    "num_beams": 3,
    "length_penalty": 4.0,
    "early_stopping": True,
    "num_return_sequences": 1,
    "guidance_scale": 3.0,
    "penalty_alpha": 0.6,
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "watermarking_config": WatermarkingConfig(bias=20.0),
    "cache_implementation": "static",
    "prompt_lookup_num_tokens": 3,
    "use_cache": False,
    "return_dict_in_generate": True,
    "output_scores": True,
}
PROMPTS = [
    "The capital of Egypt is",
    "What is the capital of Norway? " * 4,
    "What is the capital of Norway? " * 3 + "x",
]


def with_setting(name):
    model = make_llama()
    model.generation_config = GenerationConfig(
        eos_token_id=model.generation_config.eos_token_id, **{name: SETTINGS[name]}
    )
    return model


def outputs(model, tokenizer):
    rows = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in PROMPTS]
    torch.manual_seed(1)
    return (
        generate_texts(model, tokenizer, PROMPTS, max_new_tokens=12),
        generate_texts(model, tokenizer, PROMPTS, max_new_tokens=12, compact=True),
        [answer.tokens for answer in greedy_answers(model, tokenizer, rows, max_new_tokens=12, top_k=3)],
        generate_texts(model, tokenizer, PROMPTS, max_new_tokens=12, temperature=0.9, top_p=0.95),
        sample_tokens(model, tokenizer, rows[1], 4, max_new_tokens=12, temperature=1.1, top_p=0.9),
        Prober(tokenizer, max_new_tokens=12).ask(model, PROMPTS),
        sample_contexts(model, tokenizer, [[9, 5]], seed=3),
    )


@pytest.fixture(scope="module")
def expected():
    found = outputs(make_llama(), make_tokenizer())
    assert found[0] == found[1] and len(set(found[0])) > 1
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_of_the_model_is_heard_and_none_is_changed(expected, name):
    model = with_setting(name)
    own, before = model.generation_config, copy.deepcopy(model.generation_config)
    assert outputs(model, make_tokenizer()) == expected
    assert model.generation_config is own
    assert own == before


def test_the_settings_would_be_heard():
    """Else the test above could not fail: most of them change what plain `generate` gives."""
    ids = torch.tensor([make_tokenizer()(PROMPTS[1], add_special_tokens=False)["input_ids"]])
    plain = make_llama().generate(ids, max_new_tokens=12, do_sample=False)
    heard = [
        name for name in ("repetition_penalty", "no_repeat_ngram_size", "suppress_tokens", "bad_words_ids",
                          "sequence_bias", "forced_eos_token_id", "watermarking_config")
        if not torch.equal(with_setting(name).generate(ids, max_new_tokens=12, do_sample=False), plain)
    ]  # fmt: skip
    assert len(heard) > 4


def test_an_end_that_the_model_declares_still_ends_a_turn():
    tokenizer, model = make_tokenizer(), make_llama()
    tokens = sample_tokens(model, tokenizer, [40, 41, 42], 1, max_new_tokens=8, temperature=1e-3, top_p=1.0)[0]
    model.generation_config.eos_token_id = [tokens[3]]
    again = sample_tokens(model, tokenizer, [40, 41, 42], 1, max_new_tokens=8, temperature=1e-3, top_p=1.0)[0]
    assert again == tokens[: tokens.index(tokens[3]) + 1]


def test_the_configuration_comes_back_after_an_error_and_under_an_adapter():
    model = with_setting("repetition_penalty")
    own = model.generation_config
    with pytest.raises(KeyError), neutral_generation(model):
        assert model.generation_config.repetition_penalty is None
        raise KeyError
    assert model.generation_config is own
    plain = outputs(get_peft_model(make_llama(), LoraConfig(task_type="CAUSAL_LM")), make_tokenizer())
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
    assert outputs(adapted, make_tokenizer()) == plain
    assert adapted.generation_config is model.generation_config is own
    assert own.repetition_penalty == SETTINGS["repetition_penalty"]


def test_the_plain_rate_makes_as_many_tokens_as_it_counts():
    model, calls = with_setting("suppress_tokens"), []
    model.generation_config.eos_token_id = list(range(500))
    model.register_forward_pre_hook(lambda m, a, k: calls.append(k["input_ids"].shape[0]), with_kwargs=True)
    assert plain_rate(model, make_tokenizer(), rows=3, new_tokens=7) > 0
    assert calls.count(3) == 7


@pytest.mark.parametrize("name", ["CausalEdit", "ICE", "ROME"])
def test_an_edit_is_the_same_edit_whatever_the_model_generates_with(name):
    """What a method samples (traces, rollouts, continuations, contexts) decides what it writes, bit for bit."""
    method, results = get_method(name), []
    short = {"bootstrap_max_steps": 2, "preserve_weight": 0.5, "preserve_prompts": 4} if name == "CausalEdit" else {}
    for changed in (False, True):
        model, tokenizer = make_llama(), make_tokenizer()
        if changed:
            for setting in ("repetition_penalty", "no_repeat_ngram_size", "suppress_tokens", "bad_words_ids"):
                setattr(model.generation_config, setting, SETTINGS[setting])
        hparams = method.load_hparams()(model_name=(model, tokenizer), alg_name=name, **{**FAST[name], **short})
        edited, originals = method.load_apply()(model, tokenizer, [EGYPT], hparams, return_orig_weights=True)
        results.append(weights_of(edited))
        undo_edit(model, edited, originals)
    assert same_weights(*results)
