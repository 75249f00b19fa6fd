"""A rate, an interval or a mean as text: the one place that words them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from causaledit.support.statistics import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.support.statistics import Mean


SOURCE_NAMES = {
    "hop_wise": "hop-wise only",
    "conflict": "conflict only",
    "conflict_described_first": "conflict, subject described first",
    "combined": "combined (published SRR)",
    "combined_described_first": "combined, described first only",
}


def figure_text(figure: Rate | Mean) -> str:
    """`12.5 % (1/8, 95 % 2.2 to 47.1), 3 not judged`; "not judged" or "nothing to count" where there is no rate."""
    missing = figure.not_judged
    if figure.rate is None:
        return f"not judged ({missing})" if missing else "nothing to count"
    total = getattr(figure, "total", None)
    count = f"{figure.hits}/{total}" if total is not None else f"{figure.n} cases"  # type: ignore[union-attr]
    interval = figure.interval
    spread = "" if interval is None else f", 95 % {100 * interval.low:.1f} to {100 * interval.high:.1f}"
    answers = getattr(figure, "predictions_not_judged", 0)
    rest = f", {missing} not judged" if missing else f", {answers} answers not judged" if answers else ""
    return f"{100 * figure.rate:.1f} % ({count}{spread}){rest}"


def percent(share: float) -> str:
    """A share as the tables write it."""
    return f"{100 * share:.1f} %"


def _spread(interval: Sequence[float] | None, form: str = ".0f") -> str:
    return "" if interval is None else f"{100 * interval[0]:{form}} to {100 * interval[1]:{form}}"


@dataclass(frozen=True)
class Cell:
    """A figure as the page shows it."""

    value: str
    detail: str = ""


def cell(figure: Rate | Mean | None) -> Cell:
    """A rate or mean with its count, its interval, and what was not judged."""
    if figure is None:
        return Cell("–")
    single = getattr(figure, "predictions_not_judged", 0)
    missing = f"{figure.not_judged} not judged" if figure.not_judged else f"{single} answers not judged" * bool(single)
    if figure.rate is None:
        return Cell("not judged" if missing else "–", missing)
    count = f"{figure.hits}/{figure.total}" if isinstance(figure, Rate) else _cases(figure.n)
    spread = figure.interval and f"95 %: {100 * figure.interval.low:.0f} to {100 * figure.interval.high:.0f}"
    return Cell(percent(figure.rate), "; ".join(part for part in (count, spread, missing) if part))


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
