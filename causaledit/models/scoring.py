"""Logits and log-probabilities of given completions."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.batches import (
    MIN_SHARED_PREFIX,
    keys_and_values,
    pad_right,
    read_once,
    shared_prefix_length,
    takes,
    unwrapped,
)
from causaledit.models.hooks import narrowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft import PeftModel
    from transformers import PreTrainedModel

    from causaledit.models.frozen import FrozenLayers


# More tokens than this are not packed into one row: its attention grows with their square.
MAX_PACKED = 2048


def _groups_by_prefix(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group rows so that each group shares at least a third of its shortest row, adjacent in sorted order."""
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda j: tuple(rows[j])):
        if groups:
            candidate = [*groups[-1], i]
            shared = shared_prefix_length([rows[j] for j in candidate])
            if shared >= MIN_SHARED_PREFIX and 3 * shared >= min(len(rows[j]) for j in candidate):
                groups[-1] = candidate
                continue
        groups.append([i])
    return groups


@torch.no_grad()
def completion_logits(
    model: PreTrainedModel | PeftModel, contexts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Logits at every completion token, each context's shared part read once.

    Equal to a plain forward over context + completion (up to rounding).

    Args:
        contexts: Token ids before each completion, no padding.
        completions: Token ids to score, no padding, at least one each.

    Returns:
        For each row a `(len(completion), vocabulary)` tensor on the model's device: row t is the
        distribution that predicts completion token t.
    """
    out = dict(_logits_by_prefix(model, contexts, completions))
    return [out[i] for i in range(len(contexts))]


@torch.no_grad()
def mean_log_probabilities(
    model: PreTrainedModel | PeftModel,
    contexts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    batch_size: int | None = None,
) -> list[float]:
    """The mean log-probability of each completion's tokens behind its context.

    The logits are let go of with each shared part: of many edits they are gigabytes.

    Args:
        contexts, completions: As for `completion_logits`.
        batch_size: At most how many rows may share a part; None: all.
    """
    found: list[float] = []
    for start in range(0, len(contexts), batch_size or max(1, len(contexts))):
        end = start + (batch_size or len(contexts))
        part = _logits_by_prefix(model, contexts[start:end], completions[start:end])
        means = {i: mean_log_probability(row, completions[start + i]) for i, row in part}
        found += [means[i] for i in range(len(means))]
    return found


def _logits_by_prefix(
    model: PreTrainedModel | PeftModel, contexts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> Iterator[tuple[int, torch.Tensor]]:
    """Each row's number and logits, shared part by shared part."""
    for group in _groups_by_prefix(contexts):
        logits = logits_in_one_pass(model, [contexts[i] for i in group], [completions[i] for i in group])
        yield from zip(group, logits, strict=True)


def logits_in_one_pass(
    model: PreTrainedModel | PeftModel,
    contexts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    share: bool = True,
    below: FrozenLayers | None = None,
) -> list[torch.Tensor]:
    """As `completion_logits`, with gradients, and for rows that go through the model together.

    What all contexts begin with (a chat template's opening, which is half of a short question) is read once, so that
    its gradient is that of all rows. Short rows stand behind it as one row that needs no padding; where they are many
    tokens, or the model's attention does not go by a mask alone, its keys and values are repeated instead; and where
    the model carries more than keys and values, every row is read whole.

    Args:
        contexts, completions: As for `completion_logits`.
        share: False reads every row whole, in one forward pass: for a model that is wrapped for several processes.
        below: The layers below the trained ones, through which a packed row that came before is not read again.
    """
    # nothing is asked of what stands behind the last token
    full = [[*context, *completion[:-1]] for context, completion in zip(contexts, completions, strict=True)]
    lengths = [len(completion) for completion in completions]
    # at least one context token stays in the second pass: it predicts the first completion token
    shared = min(shared_prefix_length(contexts), min(len(context) for context in contexts) - 1)
    long = len(full) > 1 and shared >= MIN_SHARED_PREFIX
    cache = None
    if share and (long or below is not None):
        if shared + sum(len(row) - shared for row in full) <= MAX_PACKED and takes_packed_rows(model):
            return _packed_logits(model, full[0][:shared], [row[shared:] for row in full], lengths, below)
        cache = read_once(model, full[0][:shared], len(full)) if long else None
    behind = 0 if cache is None else shared
    rest = [row[behind:] for row in full]
    ids, mask = pad_right(rest, next(model.parameters()).device, behind=behind)
    # rows end at different places: the output layer, a large part of a small model, sees the wanted positions alone
    wanted = [
        torch.arange(len(row) - n, len(row)) + i * ids.shape[1]
        for i, (row, n) in enumerate(zip(rest, lengths, strict=True))
    ]
    places = torch.cat(wanted)
    continued = {"use_cache": False} if cache is None else {"past_key_values": cache, "use_cache": True}
    with narrowed(_output_layer(model), lambda states: states.flatten(0, 1)[places.to(states.device)][None]):
        logits = model(input_ids=ids, attention_mask=mask, **continued).logits[0]
    return list(logits.float().split(lengths))


def _output_layer(model: Any) -> Any:
    return unwrapped(model).get_output_embeddings()


def takes_packed_rows(model: Any) -> bool:
    """Whether every layer attends as a mask we give says, at positions we give, and nothing else joins tokens."""
    plain = unwrapped(model)
    config = plain.config.get_text_config()
    cache = keys_and_values(plain)  # a state would run on from one row into the next
    return (
        cache is not None
        and not any(hasattr(layer, "sliding_window") for layer in cache.layers)
        and plain.is_backend_compatible()  # its attention takes masks as they come
        and config._attn_implementation in ("sdpa", "eager")
        and not getattr(config, "alibi", False)
        and takes(plain, "position_ids")
    )


def _packed_logits(
    model: Any,
    prefix: Sequence[int],
    rest: Sequence[Sequence[int]],
    lengths: Sequence[int],
    below: FrozenLayers | None,
) -> list[torch.Tensor]:
    """Logits at each row's last `lengths` tokens: the common beginning and the rows' rests as one row, no padding."""
    inputs, begins = _packed(model, prefix, rest)
    known = contextlib.nullcontext() if below is None else below.skipped(_states_below(model, prefix, rest, below))
    ends = [begin + len(tokens) for begin, tokens in zip(begins, rest, strict=True)]
    places = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, lengths, strict=True)])
    with known, narrowed(_output_layer(model), lambda states: states[:, places.to(states.device)]):
        logits = model(**inputs).logits[0]
    return list(logits.float().split(list(lengths)))


def _packed(model: Any, prefix: Sequence[int], rest: Sequence[Sequence[int]]) -> tuple[dict[str, Any], list[int]]:
    """Inputs of a forward pass over a common beginning and the rests of rows as one row, and where each rest begins."""
    begins = list(itertools.accumulate(map(len, rest), initial=len(prefix)))
    total = begins.pop()
    owner = torch.tensor([0] * len(prefix) + [row for row, tokens in enumerate(rest, start=1) for _ in tokens])
    seen = (owner[:, None] == owner) | (owner == 0)  # its own tokens and the common beginning …
    seen &= torch.ones(total, total, dtype=torch.bool).tril()  # … as far as they come before it
    dtype, device = next(model.parameters()).dtype, model.device
    mask = torch.zeros(total, total, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    positions = [*range(len(prefix)), *(len(prefix) + i for tokens in rest for i in range(len(tokens)))]
    inputs = {
        "input_ids": torch.tensor([[*prefix, *itertools.chain.from_iterable(rest)]], device=device),
        "attention_mask": mask[None, None].to(device),
        "position_ids": torch.tensor([positions], device=device),
        "use_cache": False,
    }
    return inputs, begins


def _states_below(
    model: Any, prefix: Sequence[int], rest: Sequence[Sequence[int]], below: FrozenLayers
) -> torch.Tensor:
    """`(1, tokens, hidden)`: the packed rows behind the frozen layers, which read only those that are new."""
    rows = [(*prefix, *tokens) for tokens in rest]
    found = {row: states for row in rows if (states := below.get(row)) is not None}
    if new := [row for row in dict.fromkeys(rows) if row not in found]:
        inputs, begins = _packed(model, prefix, [row[len(prefix) :] for row in new])
        states = below.read(model, **inputs)[0]
        for row, begin in zip(new, begins, strict=True):
            # a copy: a view would keep the whole batch
            found[row] = torch.cat([states[: len(prefix)], states[begin : begin + len(row) - len(prefix)]])
            below.keep(row, found[row])
    return torch.cat([found[rows[0]][: len(prefix)], *(found[row][len(prefix) :] for row in rows)])[None]


def token_log_probabilities(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """`(n,)` log-probabilities of n tokens under `(n, vocabulary)` logits."""
    ids = torch.tensor(list(tokens), device=logits.device)
    return logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]


def completion_cross_entropy(logits: torch.Tensor, completion: Sequence[int]) -> torch.Tensor:
    """−log p(completion), summed over its tokens.

    Args:
        logits: `(len(completion), vocabulary)`.
    """
    wanted = torch.tensor(list(completion), device=logits.device)
    return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")


def mean_log_probability(logits: torch.Tensor, completion: Sequence[int]) -> float:
    """Mean log-probability of a completion under `(len, vocabulary)` logits."""
    return float(token_log_probabilities(logits, completion).mean())
