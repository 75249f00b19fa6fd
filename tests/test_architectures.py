"""Batched equals one by one on every architecture, whatever it carries from token to token."""

from __future__ import annotations

import functools

import pytest
import torch
from architectures import ARCHITECTURES, VOCABULARY, WINDOW
from conftest import make_tokenizer
from transformers import GenerationConfig

from causaledit.models.batches import keys_and_values, left_padded
from causaledit.models.generation import generate_texts, greedy_answers, sample_tokens
from causaledit.models.scoring import completion_logits, logits_in_one_pass

pytestmark = pytest.mark.parametrize("architecture", ARCHITECTURES)

EXACT = {"atol": 2e-3, "rtol": 1e-3}  # where the logits of these models spread over 0.4 to 2
STATES = {
    "Mamba", "Mamba 2", "FalconMamba", "Qwen3-Next", "Qwen3.5", "LFM2", "Jamba", "Zamba 2", "Bamba",
    "Falcon-H1", "Granite 4", "RecurrentGemma",
}  # fmt: skip


def random_rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(10, 480, (n,), generator=generator).tolist() for n in lengths]


OPENING = random_rows(45)[0]
assert len(OPENING) > 2 * WINDOW
PROMPTS = [OPENING + rest for rest in random_rows(3, 60, 1, 17, 3, seed=1)]
TAILS = random_rows(4, 1, 9, 2, 4, seed=2)


@torch.no_grad()
def alone(model, row, new_tokens):
    """Greedy tokens and their logits, one row read again for each token: no cache, no padding, no batch."""
    tokens, logits = list(row), []
    for _ in range(new_tokens):
        logits.append(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].float())
        tokens.append(int(logits[-1].argmax()))
    return tokens[len(row) :], torch.stack(logits)


def without_end(architecture):
    """The model and a tokenizer; no token ends a turn, so that every row has as many tokens."""
    model, tokenizer = ARCHITECTURES[architecture](), make_tokenizer()
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    return model, tokenizer


@pytest.fixture
def endless(architecture):
    return without_end(architecture)


@functools.cache
def texts_alone(architecture):
    """Prompts, and what the model says to each alone: made once for every way to generate a batch of them."""
    model, tokenizer = without_end(architecture)
    prompts = tokenizer.batch_decode(PROMPTS)
    rows = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    return prompts, [tokenizer.decode(alone(model, row, 10)[0], skip_special_tokens=True) for row in rows]


def test_greedy_answers_are_those_of_each_prompt_alone(endless):
    model, tokenizer = endless
    answers = greedy_answers(model, tokenizer, PROMPTS, max_new_tokens=6, top_k=VOCABULARY)
    for answer, prompt in zip(answers, PROMPTS, strict=True):
        tokens, logits = alone(model, prompt, 6)
        assert answer.tokens == tokens
        found = torch.zeros(6, VOCABULARY).scatter(1, answer.ids, answer.top)
        torch.testing.assert_close(found, logits.log_softmax(-1), **EXACT)


@pytest.mark.parametrize("compact", [True, False])
def test_texts_are_those_of_each_prompt_alone(architecture, endless, compact):
    prompts, expected = texts_alone(architecture)
    assert generate_texts(*endless, prompts, max_new_tokens=10, compact=compact) == expected


def test_samples_are_those_of_a_plain_batch(endless):
    model, tokenizer = endless
    options = {"max_new_tokens": 10, "temperature": 0.8, "top_p": 0.9}
    torch.manual_seed(5)
    found = sample_tokens(model, tokenizer, PROMPTS[0], 4, **options)
    ids = torch.tensor([PROMPTS[0]] * 4)
    config = GenerationConfig(**options, do_sample=True, top_k=0, pad_token_id=4)
    torch.manual_seed(5)
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    assert found == plain[:, ids.shape[1] :].tolist()
    assert len({tuple(row) for row in found}) > 1


@pytest.mark.parametrize("score", [completion_logits, logits_in_one_pass])
@pytest.mark.parametrize("contexts", [PROMPTS, random_rows(50, 3, 20, 1, 33, seed=3)], ids=["one opening", "none"])
def test_completions_have_the_logits_of_each_row_alone(architecture, score, contexts):
    model = ARCHITECTURES[architecture]()
    with torch.no_grad():
        found = score(model, contexts, TAILS)
        for logits, context, tail in zip(found, contexts, TAILS, strict=True):
            plain = model(input_ids=torch.tensor([context + tail]), use_cache=False).logits[0]
            torch.testing.assert_close(logits, plain[len(context) - 1 : -1], **EXACT)


def test_gradients_are_those_of_each_row_alone(architecture):
    model = ARCHITECTURES[architecture]()

    def gradient(rows):
        model.zero_grad()
        sum(logits.log_softmax(-1)[:, 7].sum() for logits in rows).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together = gradient(logits_in_one_pass(model, PROMPTS, TAILS))
    plain = gradient(
        model(input_ids=torch.tensor([p + t]), use_cache=False).logits[0, len(p) - 1 : -1]
        for p, t in zip(PROMPTS, TAILS, strict=True)
    )
    assert float((together - plain).norm() / plain.norm()) < 1e-3


def test_models_with_states_are_known(architecture):
    assert (keys_and_values(ARCHITECTURES[architecture]()) is None) is (architecture in STATES)


def test_left_padding_is_unseen_where_there_is_no_state(architecture):
    if architecture in STATES:
        pytest.skip("such a model gets no left padding")
    model = ARCHITECTURES[architecture]()
    with torch.no_grad():
        padded = model(**left_padded(model, PROMPTS, 0, "cpu"), use_cache=False).logits
        for row, prompt in zip(padded, PROMPTS, strict=True):
            plain = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0]
            torch.testing.assert_close(row[-len(prompt) :], plain, **EXACT)
