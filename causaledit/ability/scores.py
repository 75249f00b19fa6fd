"""What was measured of a model, and two models paired: plain figures, without torch.

`analyze` and `report` read these long after the models are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.ability.bundled import VERSION
from causaledit.support.statistics import Mean, PairedTable, Rate, bootstrap_mean, mean

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Drift:
    """What one model's predictions on the text are like.

    Attributes:
        tokens: How many were predicted.
        perplexity: exp of their mean negative log-likelihood.
        kl: Mean KL(before ‖ after) per token, in nats; None for the model before.
        same_top: Share of tokens at which the most probable one is the same; None for the model before.
    """

    tokens: int
    perplexity: float
    kl: float | None = None
    same_top: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"tokens": self.tokens, "perplexity": self.perplexity, "kl": self.kl, "same_top": self.same_top}


@dataclass(frozen=True)
class Ability:
    """What one model can do.

    Attributes:
        scores: Task → item → score, 1 being right.
        drift: Perplexity and drift, where they were measured.
        seconds: What measuring took.
    """

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    drift: Drift | None = None
    seconds: float = 0.0

    def rate(self, task: str) -> Rate | Mean:
        """A task's score; a share where its items are right or wrong, else a mean."""
        return _rate(list(self.scores[task].values()))

    @property
    def overall(self) -> Rate | Mean:
        """Over the items of all tasks."""
        return _rate([score for items in self.scores.values() for score in items.values()])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with every item's score."""
        return {
            "version": VERSION,
            "tasks": {name: {**self.rate(name).to_dict(), "items": dict(self.scores[name])} for name in self.scores},
            "overall": self.overall.to_dict(),
            "drift": self.drift and self.drift.to_dict(),
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ability:
        """From what `to_dict` gave."""
        drift = data.get("drift")
        scores = {name: dict(task["items"]) for name, task in data.get("tasks", {}).items()}
        return cls(scores, Drift(**drift) if drift else None, float(data.get("seconds", 0.0)))


def compare_abilities(before: Ability, after: Ability) -> dict[str, Any]:
    """Task → how its items fared, as plain data; `all` is over all of them.

    Items that are right or wrong give the paired table with the exact McNemar p (repaired: wrong before, right after);
    others, and both, the mean difference with its bootstrap interval.
    """
    pairs = {
        name: [(items[i], before.scores[name][i]) for i in items if i in before.scores[name]]
        for name, items in after.scores.items()
        if name in before.scores
    }
    if pairs:
        pairs["all"] = [pair for found in list(pairs.values()) for pair in found]
    return {name: _paired(found) for name, found in pairs.items()}


def _paired(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    differences = [a - b for a, b in pairs]
    interval = bootstrap_mean(differences) if len(set(differences)) > 1 else None
    yes_or_no = all(value in (0.0, 1.0) for pair in pairs for value in pair)
    table = PairedTable.of((bool(a), bool(b)) for a, b in pairs).to_dict() if yes_or_no else None
    return {"difference": mean(differences), "n": len(pairs), "interval": interval and list(interval), "paired": table}


def _rate(scores: list[float]) -> Rate | Mean:
    if all(score in (0.0, 1.0) for score in scores):
        return Rate.of(score == 1.0 for score in scores)
    return Mean(tuple(scores))
