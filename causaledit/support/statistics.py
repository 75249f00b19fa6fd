"""Intervals and tests for rates and means. Nothing here divides by zero: what cannot be computed is None."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONFIDENCE = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """A two-sided 95 % interval."""

    low: float
    high: float


def wilson(hits: int, total: int) -> Interval | None:
    """Wilson score interval of a share (Wilson 1927); None over nothing."""
    from statsmodels.stats.proportion import proportion_confint

    if not total:
        return None
    low, high = proportion_confint(hits, total, alpha=1 - CONFIDENCE, method="wilson")
    # exact at the ends, where rounding can leave the share outside its own interval
    return Interval(float(low) if hits else 0.0, float(high) if hits < total else 1.0)


def bootstrap_mean(values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval | None:
    """Percentile bootstrap interval of a mean (Efron 1979); the same seed gives the same interval.

    A single value has none. Where all are 0 or all are 1, resampling shows no spread and would claim
    certainty; the Wilson interval over the same number of yes-or-no cases, which is wider, is given instead.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    if low == high:
        return wilson(len(values) if high else 0, len(values)) if high in (0, 1) else Interval(low, high)
    result = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // len(values)),  # resamples held at a time: a bound on memory
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test on the discordant pairs (McNemar 1947); 1 where there are none."""
    from statsmodels.stats.contingency_tables import mcnemar

    if not only_first + only_second:
        return 1.0
    return float(mcnemar([[0, only_first], [only_second, 0]], exact=True).pvalue)


@dataclass(frozen=True)
class Rate:
    """A share with its count.

    Attributes:
        hits: Number of hits.
        total: Number that were judged.
        not_judged: Number without a verdict; they are in neither count.
    """

    hits: int
    total: int
    not_judged: int = 0

    @classmethod
    def of(cls, outcomes: Iterable[bool | None]) -> Rate:
        """Count outcomes; None is "not judged"."""
        listed = list(outcomes)
        judged = [outcome for outcome in listed if outcome is not None]
        return cls(sum(judged), len(judged), len(listed) - len(judged))

    @property
    def rate(self) -> float | None:
        """The share; None over nothing."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> Interval | None:
        """Wilson 95 % interval."""
        return wilson(self.hits, self.total)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `{rate, hits, total, not_judged, interval}`."""
        return {"rate": self.rate, **asdict(self), "interval": _listed(self.interval)}


@dataclass(frozen=True)
class Mean:
    """A mean over cases.

    Attributes:
        values: One value per case that has a verdict.
        not_judged: How many cases have none.
        predictions_not_judged: How many single predictions have none.
    """

    values: tuple[float, ...]
    not_judged: int = 0
    predictions_not_judged: int = 0

    @property
    def n(self) -> int:
        """Cases counted."""
        return len(self.values)

    @property
    def rate(self) -> float | None:
        """The mean; None over nothing."""
        return sum(self.values) / len(self.values) if self.values else None

    @property
    def interval(self) -> Interval | None:
        """Bootstrap 95 % interval over cases."""
        return bootstrap_mean(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `{rate, n, not_judged, predictions_not_judged, interval}`."""
        return {
            "rate": self.rate,
            "n": self.n,
            "not_judged": self.not_judged,
            "predictions_not_judged": self.predictions_not_judged,
            "interval": _listed(self.interval),
        }


@dataclass(frozen=True)
class PairedTable:
    """Two runs on the same units, each yes or no: the 2×2 table.

    Attributes:
        both: Yes in both runs.
        only_this: Yes here, no in the other run.
        only_other: No here, yes in the other run.
        neither: No in both.
        not_judged: Units that lack a verdict in either run.
        yes_is_good: Whether a yes is what one wants (a right answer) or not (a self-refutation).
    """

    both: int
    only_this: int
    only_other: int
    neither: int
    not_judged: int = 0
    yes_is_good: bool = True

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool | None, bool | None]], *, yes_is_good: bool = True) -> PairedTable:
        """Count pairs (this run, the other run)."""
        counts = Counter("not judged" if None in pair else (bool(pair[0]), bool(pair[1])) for pair in pairs)
        return cls(
            both=counts[True, True],
            only_this=counts[True, False],
            only_other=counts[False, True],
            neither=counts[False, False],
            not_judged=counts["not judged"],
            yes_is_good=yes_is_good,
        )

    @property
    def n(self) -> int:
        """Pairs counted."""
        return self.both + self.only_this + self.only_other + self.neither

    @property
    def repaired(self) -> int:
        """Bad in the other run, good in this one."""
        return self.only_this if self.yes_is_good else self.only_other

    @property
    def harmed(self) -> int:
        """Good in the other run, bad in this one."""
        return self.only_other if self.yes_is_good else self.only_this

    @property
    def p(self) -> float | None:
        """Exact McNemar p; None without a pair."""
        return mcnemar_exact(self.only_this, self.only_other) if self.n else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with `n`, `repaired`, `harmed` and `p`."""
        return {**asdict(self), "n": self.n, "repaired": self.repaired, "harmed": self.harmed, "p": self.p}


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def mean(values: Sequence[float]) -> float | None:
    """The mean; None over nothing."""
    return sum(values) / len(values) if values else None
