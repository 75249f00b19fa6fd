"""Where an adapter begins to listen: the inputs in which an edit's own rows differ from what it must not change.

Not in the paper. A layer's update ΔW = (α/r)·B·A reads its input through the rows of A, which peft draws at random:
hardly anything of the first gradient lies in them, and what does is shared with every other text (docs/log.md). With
`lora_init: contrast` they are the r directions a with the largest

    ‖G·a‖² / aᵀ(C + ρ·c·I)a

where G is the gradient of the loss on the edit's rows with respect to W, C the second moment of the layer's inputs on
other text, c the mean of C's diagonal and ρ `lora_init_ridge`. Other text is preserved questions, and the edit's own
rows up to the new answer with other subjects in its subject's place: what asks, and how, is then no reason to answer.
It is the key C⁻¹k of ROME (arXiv 2202.05262, eq. 2) for an adapter of rank r; LoRA-GA (arXiv 2407.05000) takes G alone.
"""

from __future__ import annotations

import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import nn

from causaledit.facts.relations import RelationBank
from causaledit.methods.shared.neighbours import neighbour_names
from causaledit.methods.shared.processes import agreed
from causaledit.methods.shared.supervised import micro_batches
from causaledit.models.hooks import hidden, watched
from causaledit.models.randomness import in_eval_mode
from causaledit.models.scoring import completion_cross_entropy, logits_in_one_pass, takes_packed_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.hyperparams import AdapterHyperParams
    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.support.costs import TokenCount

    Row = tuple[Sequence[int], Sequence[int]]

logger = logging.getLogger(__name__)

# Of each edit's rows, and of either kind of other text, so many are read.
ROWS_READ = 16
OTHERS_READ = 28
# A gradient is kept as its product with so many random columns, C as so many positions' inputs.
COLUMNS = 128
POSITIONS = 2048
# Rows and tokens that go through the model together.
ROWS_TOGETHER = 8
TOKENS_TOGETHER = 1024


def begin_in_contrast(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    requests: Sequence[EditRequest],
    hparams: AdapterHyperParams,
    *,
    preservation: PreservationSet | None,
    count: TokenCount,
) -> None:
    """Point a fresh adapter's A matrices at what sets the edit's rows apart; nothing without `lora_init: contrast`.

    Args:
        model: With an adapter whose B is still zero; its A matrices keep the length of their rows.
        rows: What the adapter will be trained on first: tokens of a context and of its completion, edit after edit.
        requests: The edits that they stand for.
        preservation: Whose questions are other text.
    """
    if hparams.lora_init != "contrast" or not rows:
        return
    layers = adapted_layers(model)
    generator = random.Random(hparams.seed)
    others = _drawn(others_rows(tokenizer, rows, requests, generator), OTHERS_READ, generator)
    others += _drawn(preservation.token_rows if preservation is not None else [], OTHERS_READ, generator)
    if not others:
        logger.warning("`lora_init: contrast` finds no other text: the adapter starts at random")
        return
    with in_eval_mode(model):
        chosen = _spread(list(rows), ROWS_READ * len(requests))
        gradients = first_gradients(model, layers, chosen, hparams.seed)
        count.trained += sum(len(context) + len(completion) for context, completion in chosen)
        inputs = other_inputs(model, layers, others)
    # an expert that no row goes through keeps what it has
    reached = [name for name in layers if name in gradients and name in inputs]
    pointed = {n: _pointed(layers[n], gradients.pop(n), inputs[n], hparams.lora_init_ridge) for n in reached}
    for name, rows_of_a in agreed(pointed, next(model.parameters()).device).items():
        _rows_of(layers[name]).data.copy_(rows_of_a)


def adapted_layers(model: PeftModel) -> dict[str, nn.Module]:
    """The layers with an adapter that reads an input, by name: not what peft adapts as a bare parameter."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
        and isinstance(module, nn.Module)  # which peft does not say
        and not isinstance(module, ParamWrapper)
        and "default" in module.lora_A
    }


def others_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    requests: Sequence[EditRequest],
    generator: random.Random,
) -> list[list[int]]:
    """The rows that name an edit's subject, up to the new answer, about other subjects of its kind.

    Returns:
        Rows of tokens, at most as many as there are rows.
    """
    bank = RelationBank.bundled()
    found: list[list[int]] = []
    names = [neighbour_names(request, bank, generator, requests) for request in requests]
    for number, (context, completion) in enumerate(rows):
        head = str(tokenizer.decode(list(context)))
        tail = str(tokenizer.decode([*context, *completion]))[len(head) :]
        for request, others in zip(requests, names, strict=True):
            if not (request.subject and others) or request.subject not in head + tail:
                continue
            # an answer that does not name the new one has come by it all the same
            before = tail.split(request.target_new)[0].rstrip() if request.target_new in tail else ""
            text = (head + before).replace(request.subject, others[number % len(others)])
            found.append(tokenizer(text, add_special_tokens=False)["input_ids"])
            break
    return found


def _spread(rows: list[Any], n: int) -> list[Any]:
    """At most `n` rows from all over the list."""
    return rows if len(rows) <= n else [rows[i * len(rows) // n] for i in range(n)]


def _drawn(rows: list[list[int]], n: int, generator: random.Random) -> list[list[int]]:
    return generator.sample(rows, min(n, len(rows)))


def _groups(rows: Sequence[Row], most: int = ROWS_TOGETHER) -> Iterator[list[Row]]:
    """Rows that go through the model together."""
    lengths = [len(context) + len(completion) for context, completion in rows]
    for part in micro_batches(lengths, TOKENS_TOGETHER):
        for start in range(0, len(part), most):
            yield [rows[i] for i in part[start : start + most]]


def first_gradients(
    model: PeftModel, layers: Mapping[str, nn.Module], rows: Sequence[Row], seed: int
) -> dict[str, torch.Tensor]:
    """The gradient of a completion token's mean cross-entropy with respect to each layer's weight, as a sketch.

    Returns:
        By layer, Gᵀ·R, shape `(inputs, COLUMNS)`, R random with variance 1/`COLUMNS`: (GᵀR)(GᵀR)ᵀ is GᵀG in the mean.
    """
    found: dict[str, torch.Tensor] = {}
    columns: dict[str, torch.Tensor] = {}
    drawn = torch.Generator().manual_seed(seed)

    def look_at(name: str) -> Any:
        def look(received: torch.Tensor, output: Any) -> None:
            states = hidden(output)
            if not states.requires_grad:  # a checkpointed layer's first pass
                return
            if name not in columns:
                shape = (states.shape[-1], COLUMNS)
                columns[name] = torch.randn(shape, generator=drawn).to(states.device) / COLUMNS**0.5
                found[name] = torch.zeros(received.shape[-1], COLUMNS, device=states.device)
            inputs = received.detach().flatten(0, -2).float()

            def add(gradient: torch.Tensor) -> None:
                found[name] += inputs.T @ (gradient.flatten(0, -2).float() @ columns[name])

            states.register_hook(add)

        return look

    tokens = sum(len(completion) for _, completion in rows)
    with contextlib.ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(watched(layer, look_at(name)))
        for group in _groups(rows):
            contexts, completions = zip(*group, strict=True)
            logits = logits_in_one_pass(model, contexts, completions)
            losses = [completion_cross_entropy(*of_row) for of_row in zip(logits, completions, strict=True)]
            (torch.stack(losses).sum() / tokens).backward()
    for parameter in model.parameters():
        if parameter.requires_grad:  # the fresh adapter's, which no step has used
            parameter.grad = None
    return found


@torch.no_grad()
def other_inputs(
    model: PeftModel, layers: Mapping[str, nn.Module], rows: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """What the layers are given at about `POSITIONS` positions of some rows.

    Returns:
        By layer, shape `(positions, inputs)`. Layers that are given the same input share one tensor.
    """
    stride = -(-sum(map(len, rows)) // POSITIONS)
    kept: dict[str, list[torch.Tensor]] = {}
    owner: dict[str, str] = {}
    last: tuple[Any, str] = (None, "")

    def look_at(name: str) -> Any:
        def look(received: torch.Tensor, output: Any) -> None:
            nonlocal last
            owner.setdefault(name, last[1] if received is last[0] else name)
            if owner[name] == name:
                kept.setdefault(name, []).append(received.flatten(0, -2)[::stride].clone())
            last = (received, owner[name])

        return look

    with contextlib.ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(watched(layer, look_at(name)))
        parted = [(row[:-1], row[-1:]) for row in rows if len(row) > 1]
        # rows that cannot be packed would be padded, and padding is no text
        for group in _groups(parted, ROWS_TOGETHER if takes_packed_rows(model) else 1):
            logits_in_one_pass(model, *zip(*group, strict=True))
    together = {name: torch.cat(kept.pop(name)) for name in list(kept)}
    return {name: together[of] for name, of in owner.items()}


def _rows_of(layer: nn.Module) -> torch.Tensor:
    """A's weight, `(rank, inputs)`."""
    return cast("torch.Tensor", layer.lora_A["default"].weight)  # type: ignore[index, union-attr]


@torch.no_grad()
def _pointed(layer: nn.Module, gradient: torch.Tensor, inputs: torch.Tensor, ridge: float) -> torch.Tensor:
    """A layer's A with the directions of the module's formula, each row as long as its rows are on average."""
    rows = _rows_of(layer).detach().cpu().clone()
    place = gradient.device if gradient.device.type == "cuda" else torch.device("cpu")
    sketch, inputs = gradient.to(place).double(), inputs.to(place).double()
    n, width = inputs.shape
    floor = ridge * inputs.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
    if n >= width:
        moment = inputs.T @ inputs / n
        moment.diagonal().add_(floor)
        solved = torch.cholesky_solve(sketch, torch.linalg.cholesky(moment))
    else:  # the same by Woodbury's identity, at the size of the positions
        kernel = inputs @ inputs.T
        kernel.diagonal().add_(n * floor)
        held = inputs.T @ torch.cholesky_solve(inputs @ sketch, torch.linalg.cholesky(kernel))
        solved = (sketch - held) / floor
    strengths, mixes = torch.linalg.eigh(sketch.T @ solved)
    kept = min(len(rows), int((strengths > 1e-9 * strengths[-1]).sum()))  # of fewer texts than ranks, the rest stays
    directions = (solved @ mixes[:, -kept:].flip(-1)).T if kept else solved.T[:0]
    length = rows.norm(dim=1).mean()
    unit = directions / directions.norm(dim=1, keepdim=True)
    rows[:kept] = (unit * length.to(unit)).to(rows)
    return rows
