"""Gradient descent on an edit's target tokens: what FT, LoRA and ICE share.

Rows of (prompt tokens, target tokens), the selection of weights by layer and module, and an optimiser that
keeps every weight within ε of where it started.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from causaledit.errors import EditFailedError, ModelError, RequestError
from causaledit.methods.locate_edit.layout import PROJECTIONS
from causaledit.models.chat import render, user
from causaledit.models.generation import left_padded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.tally import TokenCount
    from causaledit.progress import ProgressSink
    from causaledit.requests import EditRequest


# ---- rows ------------------------------------------------------------------------------------------
class TargetRow(NamedTuple):
    """Token ids of a prompt and of the answer that is to follow."""

    prompt: list[int]
    target: list[int]


def target_rows(
    tokenizer: PreTrainedTokenizerBase, edit: EditRequest, forms: Sequence[str], *, context: str = ""
) -> list[TargetRow]:
    """The prompts an edit is trained on, each with the new answer.

    Args:
        tokenizer: With a chat template.
        forms: `plain` (the cloze as bare text), `cloze` and `question` (as a user's message; the answer then
            ends the turn).
        context: A text put before the prompt.
    """
    rows = []
    for form in forms:
        if form == "plain":
            head = f"{context}\n{edit.cloze}" if context else edit.cloze
            rows.append(_split(tokenizer, head, f"{head} {edit.target_new}", special=True))
            continue
        asked = edit.cloze if form == "cloze" else edit.question_form
        head = render(tokenizer, user(f"{context}\n\n{asked}" if context else asked))
        row = _split(tokenizer, head, head + edit.target_new, special=False)
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        rows.append(TargetRow(row.prompt, row.target + end))
    return rows


def _split(tokenizer: Any, head: str, full: str, *, special: bool) -> TargetRow:
    """Tokens of the whole text, cut where those of its beginning end (or where the two part)."""
    first = tokenizer(head, add_special_tokens=special)["input_ids"]
    row = tokenizer(full, add_special_tokens=special)["input_ids"]
    cut = 0
    for a, b in zip(first, row, strict=False):
        if a != b:
            break
        cut += 1
    cut = min(cut, len(row) - 1)
    return TargetRow(row[:cut], row[cut:])


def check_window(model: PreTrainedModel, rows: Sequence[TargetRow], further: int = 0) -> None:
    """Refuse rows that do not fit into the model's context window.

    Raises:
        RequestError: A row is too long; nothing is ever cut.
    """
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    need = max(len(row.prompt) + len(row.target) for row in rows) + further
    if window and need > window:
        raise RequestError(
            f"A prompt with its answer has {need} tokens, and the model's context window is {window}: shorten it."
        )


def row_logits(model: PreTrainedModel, rows: Sequence[TargetRow]) -> list[torch.Tensor]:
    """For each row the `(len(target), vocabulary)` logits that predict its target, with gradients."""
    inputs = left_padded(model, [row.prompt + row.target for row in rows], 0, model.device)
    longest = max(len(row.target) for row in rows) + 1
    logits = model(**inputs, logits_to_keep=longest, use_cache=False).logits
    return [logits[i, -len(row.target) - 1 : -1].float() for i, row in enumerate(rows)]


def target_loss(logits: torch.Tensor, target: Sequence[int]) -> torch.Tensor:
    """Mean negative log-probability of a target: KL(δ_target ‖ p), the fine-tuning loss.

    Args:
        logits: `(n, vocabulary)`.
        target: n token ids.
    """
    ids = torch.tensor(list(target), device=logits.device)
    return torch.nn.functional.cross_entropy(logits, ids)


# ---- which weights ---------------------------------------------------------------------------------
def decoder_layers(model: PreTrainedModel) -> str:
    """Name of the model's list of decoder layers (`model.layers`, `transformer.h`, …), found by its length.

    Raises:
        ModelError: The model has no such list.
    """
    depth = model.config.get_text_config().num_hidden_layers
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth
    ]
    if not names:
        raise ModelError(f"{type(model).__name__} has no list of {depth} decoder layers: this method cannot edit it.")
    return min(names, key=len)


def select_weights(model: PreTrainedModel, layers: Sequence[int] | None, modules: Sequence[str]) -> list[str]:
    """Names of the weights of some modules in some layers.

    Args:
        layers: Layer numbers; None means all.
        modules: Names within a layer (`mlp.down_proj`), whole paths with `{}` for the layer, or `auto`: the
            output projection of the MLP.

    Raises:
        ModelError: A layer or module does not exist.
    """
    parent, depth = decoder_layers(model), model.config.get_text_config().num_hidden_layers
    numbers = list(range(depth)) if layers is None else list(layers)
    if wrong := [n for n in numbers if not 0 <= n < depth]:
        raise ModelError(f"`layers` names layer {wrong[0]}, but the model has layers 0 to {depth - 1}.")
    known = {name for name, _ in model.named_parameters()}
    found = []
    for number in numbers:
        base = f"{parent}.{number}"
        for module in modules:
            if module == "auto":
                path = next((f"{base}.{name}" for name in PROJECTIONS if f"{base}.{name}.weight" in known), None)
                if path is None:
                    raise ModelError(
                        f"No output projection of an MLP is known in {type(model).__name__}: name it in `modules`."
                    )
            else:
                path = module.format(number) if "{}" in module else f"{base}.{module}"
            name = f"{path.removesuffix('.weight')}.weight"
            if name not in known:
                raise ModelError(f"`modules` names {module!r}, but {type(model).__name__} has no weight {name!r}.")
            found.append(name)
    return list(dict.fromkeys(found))


# ---- descending ------------------------------------------------------------------------------------
class ConstrainedAdam:
    """AdamW on float32 copies of some weights, each kept within ±ε of its start (the L∞ constraint of FT).

    The copies keep small steps alive in half-precision models.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        norm_constraint: float | None,
    ) -> None:
        self.parameters = list(parameters)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.masters = [p.detach().float().clone() for p in self.parameters]
        self.norm_constraint = norm_constraint
        self.starts = [m.clone() for m in self.masters] if norm_constraint is not None else []
        self.adam = torch.optim.AdamW(self.masters, lr=learning_rate, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients on the parameters, which are then cleared."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        self.adam.step()
        epsilon = self.norm_constraint
        for master, start in zip(self.masters, self.starts, strict=False):
            master.clamp_(start - epsilon, start + epsilon)
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)


def descend(
    optimizer: ConstrainedAdam,
    losses: Callable[[int], Sequence[Callable[[], torch.Tensor]]],
    *,
    stage: str,
    steps: int,
    stop_loss: float,
    progress: ProgressSink,
    count: TokenCount,
) -> list[float]:
    """Take up to `steps` optimiser steps.

    Args:
        losses: For a step's number, its micro-batches: each call gives that part of the step's loss (parts
            add up), so that one graph at a time is in memory.
        stop_loss: Stop once a step's loss is below this.

    Returns:
        The loss of each step.

    Raises:
        EditFailedError: A loss is not finite.
    """
    history: list[float] = []
    progress.start(stage, steps)
    for step in range(steps):
        before, total = count.generated + count.trained, 0.0
        for part in losses(step):
            loss = part()
            total += float(loss.detach())
            if not math.isfinite(total):
                raise EditFailedError(
                    f"The loss became {total} at step {step + 1}: lower the learning rate. The model is restored."
                )
            loss.backward()
        history.append(total)
        if total < stop_loss:  # what it is at is good enough: no further update
            for parameter in optimizer.parameters:
                parameter.grad = None
            break
        optimizer.step()
        progress.advance(loss=total, tokens=count.generated + count.trained - before)
    progress.finish()
    return history


def target_batches(
    model: PreTrainedModel, rows: Sequence[TargetRow], size: int, count: TokenCount
) -> list[Callable[[], torch.Tensor]]:
    """The mean target loss over rows as micro-batches of `size` rows, for `descend`."""

    def part(batch: Sequence[TargetRow]) -> torch.Tensor:
        logits = row_logits(model, batch)
        count.trained += sum(len(row.target) for row in batch)
        return torch.stack([target_loss(x, r.target) for x, r in zip(logits, batch, strict=True)]).sum() / len(rows)

    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [lambda batch=batch: part(batch) for batch in batches]
