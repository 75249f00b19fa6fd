"""Asking prompts: batches, budgets, memory that runs out inside the model, and equality with plain generation."""

from __future__ import annotations

import pytest
import torch
from conftest import MODELS, make_llama, make_tokenizer

from causaledit.errors import ModelError
from causaledit.models.batches import BatchLimit, is_out_of_memory
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts
from causaledit.probes.asking import Prober, plain_rate
from causaledit.support.costs import TokenCount

PROMPTS = [
    "The capital of Egypt is",
    "What is the capital of Norway?",
    "Now, what is the capital of Norway? Think step by step, and say why the ministries left Oslo.",
    "Egypt",
    "The capital of Egypt is",
    "Engineers warned for years that the wells under Cairo were failing. When the last of them ran dry, parliament "
    "voted to move. What is the capital of Egypt now?",
    "who?",
]
every_architecture = pytest.mark.parametrize("architecture", MODELS)


class Room:
    """Raises, inside the forward of a real model, what torch raises where a batch has more tokens than fit."""

    def __init__(self, model, tokens, error=None):
        self.tokens, self.shapes = tokens, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        model.model.layers[1].register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, args, kwargs):
        rows, width = (args[0] if args else kwargs["hidden_states"]).shape[:2]
        self.shapes.append((rows, width))
        if rows * width > self.tokens:
            raise self.error


def one_by_one(model, max_new_tokens):
    tokenizer = prepare_tokenizer(make_tokenizer())
    return [
        generate_texts(model, tokenizer, [render(tokenizer, user(p))], max_new_tokens=max_new_tokens)[0].strip()
        for p in PROMPTS
    ]


# ---- equality --------------------------------------------------------------------------------------
@every_architecture
def test_answers_are_those_of_plain_generation_prompt_by_prompt(architecture):
    model = MODELS[architecture]()
    expected = one_by_one(model, 20)
    assert Prober(make_tokenizer(), max_new_tokens=20).ask(model, PROMPTS) == expected
    assert Prober(make_tokenizer(), max_new_tokens=20).ask(model, PROMPTS, compact=False) == expected
    assert len(set(expected)) > 3


@every_architecture
def test_rows_that_end_early_are_dropped_and_change_nothing(architecture):
    """Any token these models often say serves as end of turn: rows then end at different places."""
    model, tokenizer = MODELS[architecture](), prepare_tokenizer(make_tokenizer())
    long = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in one_by_one(model, 30)]
    common = [token for token in {t for row in long for t in row} if 0 < sum(token in row for row in long) < len(long)]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *sorted(common)[:6]]
    expected = one_by_one(model, 30)
    widths = []
    model.register_forward_pre_hook(lambda m, a, k: widths.append(k["input_ids"].shape), with_kwargs=True)
    count = TokenCount()
    texts = generate_texts(
        model, tokenizer, [render(tokenizer, user(p)) for p in PROMPTS], max_new_tokens=30, compact=True, count=count
    )
    assert [text.strip() for text in texts] == expected
    rows = [rows for rows, width in widths if width == 1]
    assert rows[0] == len(PROMPTS) and rows[-1] < len(PROMPTS)
    assert count.generated < 30 * len(PROMPTS)


def test_the_common_beginning_is_read_once():
    model, tokenizer = make_llama(), prepare_tokenizer(make_tokenizer())
    context = "Parliament voted to move, and every ministry left Cairo within a month. " * 3
    seen = []
    model.register_forward_pre_hook(lambda m, a, k: seen.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    prompts = [context + p for p in PROMPTS]
    answers = Prober(make_tokenizer(), max_new_tokens=4).ask(model, prompts)
    shared = len(tokenizer(context)["input_ids"])
    assert seen[0][0] == 1 and seen[0][1] >= shared - 2
    assert seen[1][1] < shared
    plain = Prober(make_tokenizer(), max_new_tokens=4).ask(model, prompts, compact=False)
    assert answers == plain


def test_a_prompt_that_occurs_twice_is_asked_once():
    model, prober, rows = make_llama(), Prober(make_tokenizer(), max_new_tokens=3), []
    model.register_forward_pre_hook(lambda m, a, k: rows.append(k["input_ids"].shape[0]), with_kwargs=True)
    answers = prober.ask(model, PROMPTS)
    assert answers[0] == answers[4]
    assert max(rows) == len(PROMPTS) - 1
    assert prober.ask(model, []) == []


# ---- batches ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("compact", [True, False])
def test_no_batch_exceeds_the_budget(compact):
    model, seen = make_llama(), []
    model.register_forward_pre_hook(lambda m, a, k: seen.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    budget = 160
    prober = Prober(make_tokenizer(), max_new_tokens=6, token_budget=budget)
    assert prober.ask(model, PROMPTS, compact=compact) == one_by_one(make_llama(), 6)
    for rows, width in seen:
        assert rows == 1 or rows * (width + 6) <= budget
    assert max(rows for rows, _ in seen) > 1


def test_batches_are_cut_by_length():
    limit = BatchLimit(rows=3, tokens=100)
    assert limit.take([10, 10, 10, 10], 10) == 3
    assert limit.take([10, 35, 35], 10) == 2
    assert limit.take([500], 10) == 1
    assert BatchLimit(rows=8).take([500] * 9, 10) == 8


# ---- out of memory ---------------------------------------------------------------------------------
@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to …"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_batch_that_does_not_fit_is_halved_and_answers_stay(error, compact):
    expected = one_by_one(make_llama(), 5)
    model = make_llama()
    room = Room(model, tokens=170, error=error)
    prober = Prober(make_tokenizer(), max_new_tokens=5)
    assert prober.ask(model, PROMPTS, compact=compact) == expected
    failed = [shape for shape in room.shapes if shape[0] * shape[1] > room.tokens]
    assert failed and len(failed) <= 4
    assert prober.limit.rows < len(PROMPTS)
    room.shapes.clear()
    assert prober.ask(model, PROMPTS, compact=compact) == expected  # it stays small: nothing fails again
    assert not [shape for shape in room.shapes if shape[0] * shape[1] > room.tokens]


def test_one_prompt_that_does_not_fit_is_an_error():
    model = make_llama()
    Room(model, tokens=1)
    with pytest.raises(torch.OutOfMemoryError):
        Prober(make_tokenizer(), max_new_tokens=5).ask(model, PROMPTS)


def test_another_fault_is_not_retried():
    model = make_llama()
    room = Room(model, tokens=0, error=RuntimeError("device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side"):
        Prober(make_tokenizer(), max_new_tokens=5).ask(model, PROMPTS)
    assert len(room.shapes) == 1
    assert not is_out_of_memory(ValueError("out of memory"))


# ---- the window, the rate --------------------------------------------------------------------------
def test_a_prompt_beyond_the_window_is_refused_before_anything_is_asked():
    model = make_llama(max_position_embeddings=96)
    prober = Prober(make_tokenizer(), max_new_tokens=64)
    with pytest.raises(ModelError, match=r"--max_new_tokens 64.*window is 96: give at most \d+"):
        prober.check_window(model, PROMPTS)
    Prober(make_tokenizer(), max_new_tokens=4).check_window(make_llama(), PROMPTS)


def test_the_plain_rate_counts_every_token():
    model, calls = make_llama(), []
    model.register_forward_pre_hook(lambda m, a, k: calls.append(k["input_ids"].shape[0]), with_kwargs=True)
    model.generation_config.eos_token_id = list(range(300))  # nearly anything would end a row
    assert plain_rate(model, make_tokenizer(), rows=3, new_tokens=7) > 0
    assert calls.count(3) == 7
