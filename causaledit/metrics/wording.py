"""Numbers as text: the one place that words a rate, an interval, a difference, a p value and "not judged"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.judges.recall import recall_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.metrics.paired import Difference
    from causaledit.metrics.scores import Source
    from causaledit.metrics.summary import SelfRefutation
    from causaledit.support.statistics import Mean, Rate

NOTHING = "–"

SOURCE_NAMES: dict[Source, str] = {
    "hop_wise": "hop-wise only",
    "conflict": "conflict only",
    "conflict_described_first": "conflict, subject described first",
    "combined": "combined (published SRR)",
    "combined_described_first": "combined, described first only",
}


@dataclass(frozen=True)
class Worded:
    """A number with what qualifies it; as a text, `12.5 % (1/8; 95 %: 2 to 47; 3 not judged)`.

    Attributes:
        value: The number.
        count: What it is over.
        interval: Its 95 % interval.
        missing: What could not be judged.
        notes: What else to bear in mind.
    """

    value: str = NOTHING
    count: str = ""
    interval: str = ""
    missing: str = ""
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Value and qualifications one by one, for a table cell whose note says what they are."""
        return tuple(part for part in (self.value, self.count, self.interval, self.missing, *self.notes) if part)

    @property
    def detail(self) -> str:
        """The qualifications in one line."""
        interval = f"95 %: {self.interval}" if self.interval else ""
        return "; ".join(part for part in (self.count, interval, self.missing, *self.notes) if part)

    def __str__(self) -> str:
        return f"{self.value} ({self.detail})" if self.detail else self.value


def worded_rate(measured: Rate | Mean | Mapping[str, Any] | None, notes: Sequence[str] = ()) -> Worded:
    """A rate or a mean of shares, as measured or as plain data (`to_dict`).

    Args:
        measured: None where the run has no such metric.
        notes: What else to bear in mind.
    """
    if measured is None:
        return Worded()
    data = measured if isinstance(measured, Mapping) else measured.to_dict()
    if data["rate"] is None:
        return Worded("not judged", str(data["not_judged"])) if data["not_judged"] else Worded()
    count = f"{data['hits']}/{data['total']}" if "total" in data else counted(data["n"], "case")
    missing = not_judged(data["not_judged"])
    if not missing and data.get("predictions_not_judged"):
        missing = f"{counted(data['predictions_not_judged'], 'answer')} not judged"
    return Worded(percent(data["rate"]), count, _percents(data["interval"]), missing, tuple(notes))


def worded_difference(measured: Difference | Mapping[str, Any] | None) -> Worded:
    """A mean difference of per-case shares, in percentage points."""
    if measured is None:
        return Worded()
    data = measured if isinstance(measured, Mapping) else measured.to_dict()
    if data["mean"] is None:
        return Worded()
    interval = "" if data["interval"] is None else " to ".join(_signed(end) for end in data["interval"])
    return Worded(f"{_signed(data['mean'])} points", counted(data["n"], "case"), interval)


def srr_notes(
    measured: SelfRefutation | Mapping[str, Any] | None,
    judge: str = "",
) -> tuple[str, ...]:
    """What stands beside every self-refutation rate: an answer's length and the judge's recall.

    A model that answers in one line has little to refute, and a judge that misses refutations flatters.

    Args:
        measured: The source's self-refutation, as measured or as plain data.
        judge: The judge's identity; without it, its recall is said elsewhere, once for a whole table.
    """
    if measured is None:
        return ()
    data = measured if isinstance(measured, Mapping) else measured.to_dict()
    notes = []
    if data.get("answer_words") is not None:
        notes.append(answer_length(data["answer_words"]))
    if recall := recall_note(judge):
        notes.append(recall)
    if data["not_probed"]:
        notes.append(f"{counted(data['not_probed'], 'edit')} not probed")
    return tuple(notes)


def answer_length(words: float) -> str:
    """How long answers are on average."""
    return f"{counted(round(words), 'word')} an answer"


def p_value(p: float | None) -> str:
    """An exact p for a column of its own."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def not_judged(number: int) -> str:
    """How many lack a verdict; empty where none does."""
    return f"{number} not judged" if number else ""


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.1f} %"


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _percents(interval: Sequence[float] | None) -> str:
    return "" if interval is None else " to ".join(f"{100 * end:.0f}" for end in interval)


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
