"""ES, PS, NS, their harmonic mean, and the entropy of n-grams: the metrics of CounterFact (ROME, arXiv 2202.05262)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Any

from causaledit.metrics.published import as_list, hop_lists, present, response_of
from causaledit.metrics.wording import worded_rate
from causaledit.support.statistics import Mean, Rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KINDS = {"efficacy": "ES", "paraphrase": "PS", "neighbourhood": "NS"}
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}  # of bigrams and trigrams, as published
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class LikelihoodMetrics:
    """The metrics of one run.

    Attributes:
        rates: ES, PS and NS, over single prompts.
        score: S, the harmonic mean of the three; None where one is missing.
        entropy: Weighted n-gram entropy of the answers to hop-wise probes, mean over answers, in bits.
    """

    rates: Mapping[str, Rate]
    score: float | None
    entropy: Mean

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rates = {name: rate.to_dict() for name, rate in self.rates.items()}
        return {**rates, "S": self.score, "ngram_entropy": self.entropy.to_dict()}

    def lines(self) -> list[str]:
        """As lines of text."""
        found = [f"{name:<36}{worded_rate(rate)}" for name, rate in self.rates.items()]
        score = "–" if self.score is None else f"{100 * self.score:.1f}"
        found.append(f"{'S, their harmonic mean':<36}{score}")
        if self.entropy.rate is not None:
            found.append(f"{'n-gram entropy of the answers':<36}{self.entropy.rate:.2f} bits")
        return found


def likelihood_metrics(metrics: Sequence[Mapping[str, Any]]) -> LikelihoodMetrics | None:
    """The metrics of a run with `likelihood` probes; None without any. Of a sequence, those at its last checkpoint.

    Args:
        metrics: The content of a metrics file.
    """
    last = max((_checkpoint(item) for item in metrics), default=0)
    posts = [post for item in metrics if isinstance(post := item.get("post"), Mapping) and _checkpoint(item) == last]
    entries = [
        entry
        for post in posts
        for entry in as_list(post.get("likelihood_probe"))
        if isinstance(entry, Mapping) and isinstance(entry.get("success"), bool)
    ]
    if not entries:
        return None
    rates = {
        name: Rate.of(entry["success"] for entry in entries if entry.get("contrast") == kind)
        for kind, name in KINDS.items()
    }
    shares = [rate.rate for rate in rates.values() if rate.rate is not None]
    entropies = [ngram_entropy(text) for post in posts for text in _answers(post)]
    return LikelihoodMetrics(
        rates, harmonic_mean(shares) if len(shares) == len(KINDS) else None, Mean(tuple(entropies))
    )


def ngram_entropy(text: str) -> float:
    """Weighted entropy of a text's bigrams and trigrams, in bits: low where a model repeats itself.

    Words and signs are counted as they stand; a text of fewer than three has no trigrams, and their entropy is 0.
    """
    words = _WORD.findall(text)
    total = 0.0
    for size, weight in _WEIGHTS.items():
        counts = Counter(zip(*(words[i:] for i in range(size)), strict=False))
        number = sum(counts.values())
        total += weight * -sum(n / number * math.log2(n / number) for n in counts.values())
    return total / len(_WEIGHTS)


def _checkpoint(item: Mapping[str, Any]) -> int:
    place = item.get("sequence")
    checkpoint = place.get("checkpoint") if isinstance(place, Mapping) else None
    return checkpoint if isinstance(checkpoint, int) else 0


def _answers(post: Mapping[str, Any]) -> Iterator[str]:
    for hop in hop_lists(post.get("hop_wise_pred")):
        for _, prediction in present(hop):
            if text := response_of(prediction, "pred"):
                yield text
