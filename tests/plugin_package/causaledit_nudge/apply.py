"""The edit: minimise −log p(new answer | cloze) over one weight by plain gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.edited import Edited, WeightsEdit

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call


def edit(model: Any, tokenizer: Any, edits: list[EditRequest], hparams: Any, call: Call) -> Edited:
    """Nudge one weight towards the new answers."""
    originals = call.rewriting(model, [hparams.weight])
    weight = model.get_parameter(hparams.weight)
    for _ in range(hparams.steps):
        weight.requires_grad_(True)
        loss = torch.stack([_loss(model, tokenizer, request) for request in edits]).mean()
        [gradient] = torch.autograd.grad(loss, [weight])
        with torch.no_grad():
            weight -= hparams.learning_rate * gradient
        call.report.losses.setdefault("nudge", []).append(float(loss))
    return WeightsEdit(model, originals)


def _loss(model: Any, tokenizer: Any, request: EditRequest) -> torch.Tensor:
    head = tokenizer(request.cloze)["input_ids"]
    row = torch.tensor([tokenizer(f"{request.cloze} {request.target_new}")["input_ids"]], device=model.device)
    logits = model(input_ids=row, use_cache=False).logits[0, len(head) - 1 : -1].float()
    return torch.nn.functional.cross_entropy(logits, row[0, len(head) :])
