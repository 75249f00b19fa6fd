"""Generation and scoring behind a shared prefix give what plain generation and plain forwards give."""

from __future__ import annotations

import types

import pytest
import torch
from conftest import MODELS, make_gpt2, make_llama, make_tokenizer
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
)

from causaledit.models.batches import MIN_SHARED_PREFIX, eos_ids, pad_left, shared_prefix_length
from causaledit.models.generation import generate_texts, greedy_answers, sample_continuations, sample_tokens
from causaledit.models.scoring import completion_logits, logits_in_one_pass, mean_log_probability
from causaledit.support.costs import TokenCount

PROMPT = (
    "Engineers warned for years that the wells under Cairo were failing. When the last of them ran dry, parliament "
    "voted to move, and every ministry left Cairo. The capital of"
)
every_architecture = pytest.mark.parametrize("architecture", MODELS)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def random_rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(10, 300, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def plain_logits(model, context, completion):
    logits = model(input_ids=torch.tensor([context + completion])).logits[0]
    return logits[len(context) - 1 : -1]


# ---- sampling many continuations of one prompt -----------------------------------------------------
@every_architecture
def test_sampling_behind_a_shared_prefix_is_plain_sampling(architecture, tokenizer):
    model = MODELS[architecture]()
    ids = torch.tensor([ids_of(tokenizer, PROMPT)])
    assert ids.shape[1] > MIN_SHARED_PREFIX  # else nothing would be shared here
    config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        top_k=0,
        max_new_tokens=12,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=eos_ids(model, tokenizer),
    )
    torch.manual_seed(3)
    plain = model.generate(ids.repeat(5, 1), attention_mask=torch.ones(5, ids.shape[1]), generation_config=config)
    expected = tokenizer.batch_decode(plain[:, ids.shape[1] :], skip_special_tokens=True)
    torch.manual_seed(3)
    found = sample_continuations(model, tokenizer, PROMPT, 5, max_new_tokens=12, temperature=0.7, top_p=0.9)
    assert found == expected
    assert len(set(found)) > 1


@pytest.mark.parametrize(("prompt", "n"), [("A short one", 3), (PROMPT, 1)], ids=["short prompt", "one continuation"])
def test_sampling_without_anything_to_share(model, tokenizer, prompt, n):
    texts = sample_continuations(model, tokenizer, prompt, n, max_new_tokens=5, temperature=1.0, top_p=1.0)
    assert len(texts) == n
    assert all(isinstance(text, str) for text in texts)


def test_sampled_rows_that_have_ended_are_read_no_more(model, tokenizer):
    # about one step in ten ends a turn
    ends = torch.tensor(eos_ids(model, tokenizer))
    head = torch.nn.Linear(32, model.config.vocab_size, bias=True)
    head.weight = model.lm_head.weight
    head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size).index_fill(0, ends, 4.5))
    model.lm_head = head
    read = []
    model.register_forward_pre_hook(lambda _, args, kwargs: read.append(kwargs["input_ids"].shape[0]), with_kwargs=True)
    torch.manual_seed(0)
    turns = sample_tokens(
        model, tokenizer, ids_of(tokenizer, PROMPT), 16, max_new_tokens=40, temperature=1.0, top_p=1.0
    )
    lengths = [len(turn) for turn in turns]
    assert min(lengths) < 10 < max(lengths)  # else there is nothing to see
    assert all(set(turn[:-1]).isdisjoint(ends.tolist()) for turn in turns)
    # the batch is looked at every eight steps: a row is read at most that much longer than it runs
    assert sum(read) <= sum(-(-length // 8) * 8 for length in lengths) + 1


def test_generated_tokens_are_counted(model, tokenizer):
    count = TokenCount()
    sample_continuations(model, tokenizer, PROMPT, 4, max_new_tokens=6, temperature=1.0, top_p=1.0, count=count)
    assert 4 <= count.generated <= 24
    before = count.generated
    generate_texts(model, tokenizer, [PROMPT, "x"], max_new_tokens=3, count=count)
    assert 2 <= count.generated - before <= 6


def test_generation_ends_at_the_models_window(tokenizer):
    # 2,048 new tokens are the published length of a trace; beyond its window GPT-2 has no positions to give
    model = make_gpt2(n_positions=64)
    model.generation_config.eos_token_id = tokenizer.eos_token_id = None
    room = 64 - len(ids_of(tokenizer, PROMPT))
    assert 0 < room < 50
    texts = sample_continuations(model, tokenizer, PROMPT, 3, max_new_tokens=100, temperature=1.0, top_p=1.0)
    assert len(texts) == 3
    count = TokenCount()
    generate_texts(model, tokenizer, [PROMPT], max_new_tokens=100, count=count)
    assert count.generated >= room


# ---- scoring completions ---------------------------------------------------------------------------
def context_cases():
    shared = random_rows(60)[0]
    other = random_rows(50, seed=1)[0]
    tails = random_rows(9, 4, 17, 1, seed=2)
    return {
        "equal contexts": [shared] * 4,
        "one long prefix, tails of any length": [shared + tail for tail in tails],
        "one context is the others' prefix": [shared, *(shared + tail for tail in tails[1:])],
        "two edits interleaved": [shared + tails[0], other + tails[1], shared + tails[2], other + tails[3]],
        "nothing in common": random_rows(30, 7, 44, 1, seed=3),
        "equal contexts too short to cache": [shared[:MIN_SHARED_PREFIX]] * 4,
        "a single row": [shared],
    }


@every_architecture
@pytest.mark.parametrize("case", context_cases())
def test_completion_logits_are_those_of_a_plain_forward(architecture, case):
    model = MODELS[architecture]()
    contexts = context_cases()[case]
    completions = random_rows(5, 1, 12, 3, seed=4)[: len(contexts)]
    found = completion_logits(model, contexts, completions)
    assert len(found) == len(contexts)
    for row, context, completion in zip(found, contexts, completions, strict=True):
        assert row.shape == (len(completion), model.config.vocab_size)
        torch.testing.assert_close(row, plain_logits(model, context, completion), atol=1e-4, rtol=1e-4)


def test_completion_logits_read_a_shared_prefix_once():
    # the point of the function: tokens through the network, counted at its embedding
    model, seen = make_llama(), []
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: seen.append(args[0].numel()))
    shared = random_rows(200)[0]
    completion_logits(model, [shared] * 8, random_rows(*[5] * 8, seed=1))
    assert sum(seen) < 2 * (200 + 8 * 5)


def test_completion_logits_leave_no_graph(model):
    [row] = completion_logits(model, random_rows(30), random_rows(4, seed=1))
    assert not row.requires_grad


def test_mean_log_probability(model):
    context, completion = random_rows(12, 5)
    logits = plain_logits(model, context, completion)
    expected = sum(float(row.log_softmax(-1)[token]) for row, token in zip(logits, completion, strict=True)) / 5
    assert mean_log_probability(logits, completion) == pytest.approx(expected, abs=1e-5)


# ---- greedy ----------------------------------------------------------------------------------------
@every_architecture
def test_batched_greedy_texts_equal_single_ones(architecture, tokenizer):
    # batches are sorted by length and padded: order and padding must not show
    model = MODELS[architecture]()
    prompts = ["Egypt", PROMPT, "The capital of Norway is", "a b c d e f g"]
    batched = generate_texts(model, tokenizer, prompts, max_new_tokens=8, batch_size=3)
    single = [generate_texts(model, tokenizer, [p], max_new_tokens=8)[0] for p in prompts]
    assert batched == single


@every_architecture
@pytest.mark.parametrize(
    "opening", ["", "Some words that all prompts begin with, as a chat's opening. "], ids=["plain", "shared"]
)
def test_greedy_answers_equal_greedy_texts_and_a_forwards_log_probabilities(architecture, tokenizer, opening):
    model = MODELS[architecture]()
    prompts = [opening + p for p in ("Egypt", PROMPT, "The capital of Norway is", "What is the capital of Egypt?")]
    rows = [ids_of(tokenizer, p) for p in prompts]
    assert (shared_prefix_length(rows) >= MIN_SHARED_PREFIX) is bool(opening)
    answers = greedy_answers(model, tokenizer, rows, max_new_tokens=8, top_k=7, batch_size=3)
    assert [tokenizer.decode(a.tokens, skip_special_tokens=True) for a in answers] == generate_texts(
        model, tokenizer, prompts, max_new_tokens=8
    )
    for answer, row in zip(answers, rows, strict=True):
        expected = plain_logits(model, row, answer.tokens).log_softmax(-1).topk(7, dim=-1)
        torch.testing.assert_close(answer.top, expected.values, atol=1e-4, rtol=1e-4)
        assert torch.equal(answer.ids, expected.indices)
        assert answer.ids[:, 0].tolist() == answer.tokens  # greedy: the first choice is the token


def ends_at_once(tokenizer):
    """A model whose every first choice is the end-of-turn token."""
    model = make_llama(tie_word_embeddings=False)
    model.lm_head = torch.nn.Linear(32, len(tokenizer))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
        model.lm_head.bias[tokenizer.eos_token_id] = 9.0
    return model


def test_an_answer_that_ends_at_once_is_empty(tokenizer):
    [answer] = greedy_answers(ends_at_once(tokenizer), tokenizer, [[40, 41]], max_new_tokens=4, top_k=5)
    assert answer.tokens == []
    assert answer.top.shape[0] == answer.ids.shape[0] == 0


def test_top_k_above_the_vocabulary_is_capped(model, tokenizer):
    [answer] = greedy_answers(model, tokenizer, [[40, 41, 42]], max_new_tokens=2, top_k=10**6)
    assert answer.top.shape[1] == model.config.vocab_size
    torch.testing.assert_close(answer.top.exp().sum(-1), torch.ones(len(answer.tokens)))


def test_every_declared_end_of_turn_ends_a_text(model, tokenizer):
    model.generation_config.eos_token_id = [7, 8]
    assert eos_ids(model, tokenizer) == [7, 8, tokenizer.eos_token_id]
    model.generation_config.eos_token_id = None
    assert eos_ids(model, tokenizer) == [tokenizer.eos_token_id]


# ---- out of memory (a CPU test cannot provoke it, so the model is a stand-in) ----------------------
class ScarceModel:
    """Generates the last prompt token, for at most `room` rows at a time."""

    device = torch.device("cpu")
    config = LlamaConfig()
    generation_config = types.SimpleNamespace(eos_token_id=None)

    def __init__(self, room, message="CUDA out of memory. Tried to allocate 2 GiB"):
        self.room, self.message, self.batches = room, message, []

    def generate(self, input_ids, **_):
        self.batches.append(len(input_ids))
        if len(input_ids) > self.room:
            raise RuntimeError(self.message)
        return torch.cat([input_ids, input_ids[:, -1:]], dim=1)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost():
    tokenizer, model = make_tokenizer(), ScarceModel(room=2)
    prompts = ["one", "the second one", "now the third", "4", "the fifth of them all", "six", "and seven"]
    texts = generate_texts(model, tokenizer, prompts, max_new_tokens=1, batch_size=8)
    assert texts == [tokenizer.decode(ids_of(tokenizer, p)[-1:]) for p in prompts]
    failed = [size for size in model.batches if size > model.room]
    assert model.batches[: len(failed)] == failed  # it stays small once it had to shrink
    assert failed == sorted(set(failed), reverse=True)  # and never tries one size twice
    assert sum(size for size in model.batches if size <= model.room) == len(prompts)


def test_one_row_that_does_not_fit_is_an_error():
    model = ScarceModel(room=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        generate_texts(model, make_tokenizer(), ["a", "b"], max_new_tokens=1)
    assert model.batches == [2, 1]


def test_other_errors_are_not_retried():
    model = ScarceModel(room=0, message="device-side assert triggered")
    with pytest.raises(RuntimeError, match="device-side assert"):
        generate_texts(model, make_tokenizer(), ["a", "b"], max_new_tokens=1)
    assert model.batches == [2]


# ---- small helpers ---------------------------------------------------------------------------------
def test_pad_left():
    ids, mask = pad_left([[1, 2, 3], [4]], 9, "cpu")
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("rows", "length"),
    [([[1, 2, 3], [1, 2, 4], [1, 2]], 2), ([[1, 2]], 2), ([[1], [2]], 0), ([[5, 1], [5, 1]], 2), ([[], [1]], 0)],
)
def test_shared_prefix_length(rows, length):
    assert shared_prefix_length(rows) == length


@pytest.mark.parametrize("share", [True, False])
@every_architecture
def test_one_pass_has_the_logits_and_the_gradient_of_each_row_alone(architecture, share):
    model = MODELS[architecture]()
    opening = list(range(5, 5 + MIN_SHARED_PREFIX))
    contexts = [[*opening, *tail] for tail in ([40], [41, 42, 43], [44, 45])]
    completions = [[50, 51], [52], [53, 54, 55, 56]]

    def loss_of(rows):
        pairs = zip(rows, completions, strict=True)
        return sum(torch.nn.functional.cross_entropy(row, torch.tensor(tokens)) for row, tokens in pairs)

    together = logits_in_one_pass(model, contexts, completions, share=share)
    loss_of(together).backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    alone = [
        model(input_ids=torch.tensor([context + tokens])).logits[0, len(context) - 1 : -1]
        for context, tokens in zip(contexts, completions, strict=True)
    ]
    loss_of(alone).backward()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for a, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(a, parameter.grad, atol=1e-4, rtol=1e-3)


_TINY = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = {**_TINY, "intermediate_size": 48, "num_key_value_heads": 2}
OWN_ATTENTION = {
    "a window": lambda: MistralForCausalLM(MistralConfig(**_GROUPED, sliding_window=8)),
    "windows in some layers": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**_GROUPED, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"])
    ),
    "local layers": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=320,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["local", "global"], 1]],
            window_size=8,
        )
    ),
    "ALiBi": lambda: FalconForCausalLM(FalconConfig(**_TINY, alibi=True, new_decoder_architecture=False)),
    "no positions to give": lambda: BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=4)),
    "positions learnt, eager": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(**_TINY, intermediate_size=48, attn_implementation="eager")
    ),
}


@pytest.mark.parametrize("kind", OWN_ATTENTION)
def test_one_pass_leaves_every_kind_of_attention_as_it_is(kind):
    torch.manual_seed(0)
    model = OWN_ATTENTION[kind]().eval()
    opening = list(range(5, 5 + MIN_SHARED_PREFIX))
    contexts = [[*opening, *tail] for tail in random_rows(3, 9, 6)]
    completions = random_rows(4, 12, 1, seed=1)
    with torch.no_grad():
        together = logits_in_one_pass(model, contexts, completions)
    for row, context, completion in zip(together, contexts, completions, strict=True):
        torch.testing.assert_close(row, plain_logits(model, context, completion), atol=1e-4, rtol=1e-4)


@every_architecture
def test_a_wrapped_model_gives_the_same_in_one_pass(architecture):
    model = MODELS[architecture]()
    contexts, completions = random_rows(9, 4), random_rows(2, 5, seed=1)
    wrapped = logits_in_one_pass(torch.nn.DataParallel(model), contexts, completions, share=False)
    for a, b in zip(wrapped, logits_in_one_pass(model, contexts, completions), strict=True):
        torch.testing.assert_close(a, b)
