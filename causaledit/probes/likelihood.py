"""Which of two answers a model finds more probable: the probes behind ES, PS and NS (ROME, arXiv 2202.05262).

Nothing is generated. A prompt is read as plain text, as the metric was published, and each answer behind it is scored
by its mean log-probability per token, so that a long answer is not improbable for its length.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from causaledit.models.batches import parted_tokens
from causaledit.models.chat import with_context
from causaledit.models.network import network_of
from causaledit.models.scoring import mean_log_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest

Contrast = Literal["efficacy", "paraphrase", "neighbourhood"]
ROWS = 16  # prompts that go through the model together


@dataclass(frozen=True)
class Likelihood:
    """Two answers behind one prompt.

    Attributes:
        contrast: The edit's own prompt, a paraphrase, or a neighbour, which the edit must not change.
        prompt: The text before the answers.
        new, old: The answers.
        log_new, log_old: Their mean log-probabilities per token.
    """

    contrast: Contrast
    prompt: str
    new: str
    old: str
    log_new: float
    log_old: float

    @property
    def success(self) -> bool:
        """The new answer is the more probable one; for a neighbour, the old one."""
        return self.log_old > self.log_new if self.contrast == "neighbourhood" else self.log_new > self.log_old

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "success": self.success}


def contrasts(request: EditRequest) -> list[tuple[Contrast, str, str, str]]:
    """What is compared for an edit: kind, prompt, new and old answer; nothing where no old answer is known.

    A neighbour's right answer takes the old one's place: in CounterFact it is the same.
    """
    new, old = request.target_new, request.ground_truth
    if not old:
        return []
    found: list[tuple[Contrast, str, str, str]] = [("efficacy", request.cloze, new, old)]
    found += [("paraphrase", pair.question, new, old) for pair in request.rephrase]
    found += [("neighbourhood", pair.question, new, pair.answer) for pair in request.locality if pair.answer]
    return found


def ask_likelihoods(
    model: Any, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest]
) -> list[dict[str, Any]]:
    """Score the answers of edits; entries of `likelihood_probe`.

    Args:
        model: The model, edited or not; facts in its context take effect.
        tokenizer: Its tokenizer.
        requests: The edits.
    """
    asked = [(index, *contrast) for index, request in enumerate(requests) for contrast in contrasts(request)]
    rows = [(with_context(model, prompt), answer) for _, _, prompt, *pair in asked for answer in pair]
    network, scores = network_of(model), list[float]()
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        parted = [parted_tokens(tokenizer, prompt, f" {answer}", special=True) for prompt, answer in part]
        contexts, answers = [head for head, _ in parted], [tail for _, tail in parted]
        scores += mean_log_probabilities(network, contexts, answers)
    pairs = zip(scores[::2], scores[1::2], strict=True)
    return [
        {"edit": index, **Likelihood(contrast, prompt, new, old, *pair).to_dict()}
        for (index, contrast, prompt, new, old), pair in zip(asked, pairs, strict=True)
    ]
