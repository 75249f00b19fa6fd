"""Perplexity on a text, and how far an edited model's predictions drifted from the unedited one's.

Drift needs no labels and is defined for a single edit: the mean over the text's tokens of KL(before ‖ after) of the
next-token distributions, in nats, and the share of tokens at which both models find the same one most probable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.ability.scores import Drift
from causaledit.errors import AbilityError
from causaledit.models.batches import context_window, unwrapped
from causaledit.models.randomness import in_eval_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 512  # tokens that are read at a time


class TextDrift:
    """The unedited model's predictions on a text, to set others beside.

    They are kept in host memory: tokens × vocabulary numbers of four bytes (900 × 49,152: 177 MB).

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        text: The text.
    """

    def __init__(self, model: Any, tokenizer: Any, text: str) -> None:
        self.ids: list[int] = tokenizer(text)["input_ids"]
        self._before: list[torch.Tensor] = []
        loss = 0.0
        for log_probs, targets in _predictions(model, self.ids):
            loss -= float(log_probs.gather(-1, targets[:, None]).sum())
            self._before.append(log_probs.cpu())
        self.tokens = sum(len(part) for part in self._before)
        self.before = Drift(self.tokens, float(torch.tensor(loss / self.tokens, dtype=torch.double).exp()))

    def after(self, model: Any) -> Drift:
        """The same text read by another state of the model.

        Raises:
            AbilityError: It is a model of another vocabulary.
        """
        size, known = _vocabulary(model), self._before[0].shape[-1]
        if size != known:
            raise AbilityError(
                f"drift compares what two models expect next, token by token, but one has {known} tokens and the other "
                f"{size}: give the model that was edited as the base, or leave drift out."
            )
        loss = kl = 0.0
        same = 0
        for before, (log_probs, targets) in zip(self._before, _predictions(model, self.ids), strict=True):
            loss -= float(log_probs.gather(-1, targets[:, None]).sum())
            then = before.to(log_probs.device)
            kl += float((then.exp() * (then - log_probs)).sum(dtype=torch.double))
            same += int((then.argmax(-1) == log_probs.argmax(-1)).sum())
        perplexity = float(torch.tensor(loss / self.tokens, dtype=torch.double).exp())
        return Drift(self.tokens, perplexity, max(kl / self.tokens, 0.0), same / self.tokens)


def _vocabulary(model: Any) -> int:
    return int(unwrapped(model).get_output_embeddings().weight.shape[0])


@torch.no_grad()
def _predictions(model: Any, ids: list[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Log-probabilities `(tokens, vocabulary)` and the tokens that followed, window by window."""
    size = min(context_window(model) or LONGEST, LONGEST)
    with in_eval_mode(model):
        for start in range(0, len(ids) - 1, size - 1):
            window = torch.tensor([ids[start : start + size]], device=model.device)
            if window.shape[1] < 2:
                continue
            logits = model(input_ids=window, attention_mask=torch.ones_like(window)).logits[0, :-1]
            yield logits.float().log_softmax(-1), window[0, 1:].to(logits.device)
