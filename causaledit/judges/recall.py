"""What a judge was measured to find: the figures that stand beside every rate it gives.

A judge that misses self-refutations flatters. The figures are those of responses that the rules were not written with
(`holdout-4` of `tests/data/judge_cases_2.json`); a test measures them again, and this prints them:

    python benchmarks/judge_agreement.py --data tests/data/judge_cases_2.json --select split=holdout-4 --judge rule
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeasuredRecall:
    """How a judge did on labelled self-refutations.

    Attributes:
        found: Self-refutations that it finds.
        labelled: Self-refutations by the labels.
        reported: Responses that it calls self-refuting.
        unseen: The labelled set, by name.
    """

    found: int
    labelled: int
    reported: int
    unseen: str


# identity of a judge → what was measured for exactly this judge
MEASURED = {"rule-v11": MeasuredRecall(found=22, labelled=25, reported=25, unseen="holdout-4")}


def recall_note(judge: str) -> str:
    """What to say beside an SRR; empty for a judge that has not been measured.

    Args:
        judge: Its identity.
    """
    figures = MEASURED.get(judge)
    if figures is None:
        return ""
    share = 100 * figures.found / figures.labelled
    return (
        f"{judge.split('-')[0]} judge: finds {share:.0f} % of self-refutations, {figures.found}/{figures.labelled} "
        f"unseen; {figures.found} of the {figures.reported} it reports are such"
    )
