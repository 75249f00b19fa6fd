"""The rule judge: offline, deterministic, no model. Its definitions are in docs/judging.md.

The reading itself is `causaledit.reading`; here it becomes verdicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.judges.base import AnswerVerdict, RationaleVerdict, RefutationVerdict
from causaledit.reading.commitment import read
from causaledit.reading.names import NEW
from causaledit.reading.rationale import compare

if TYPE_CHECKING:
    from causaledit.judges.base import JudgedResponse
    from causaledit.reading.commitment import Reading


class RuleJudge:
    """Judges by rules; a change of a rule that changes a verdict changes `identity`."""

    name = "rule"
    identity = "rule-v11"

    def judge_answer(self, item: JudgedResponse) -> AnswerVerdict:
        """PASS where the response ends committed to the right answer.

        Args:
            item: With the right answer as `target_new`.
        """
        reading = _read(item)
        return AnswerVerdict("PASS" if reading.ends_on == NEW else "FAIL", evidence=reading.final)

    def judge_refutation(self, item: JudgedResponse) -> RefutationVerdict:
        """Assertion, explicit negation and final answer.

        A negation counts where the response itself asserts the new answer: turning down what only others
        claim is a rational rejection, and no label of self-refutation applies to it.

        Args:
            item: With the edit's new answer as `target_new`.
        """
        reading = _read(item)
        asserted = bool(reading.asserted)
        denied = asserted and bool(reading.denied)
        return RefutationVerdict(
            assertion_of_target_new=asserted,
            explicit_negation_of_target_new=denied,
            final_answer_is_target_new=reading.ends_on == NEW,
            assertion_evidence=reading.asserted,
            negation_evidence=reading.denied if denied else "",
            final_evidence=reading.final,
        )

    def judge_rationale(self, item: JudgedResponse) -> RationaleVerdict:
        """Whether the explanation gives the narrative's cause.

        Args:
            item: With its narrative; without one the verdict is an error.
        """
        if not (item.narrative or "").strip():
            return RationaleVerdict(None, error="there is no narrative to compare with")
        found = compare(
            item.response, item.narrative or "", _read(item), new=_new(item), old=_old(item), question=item.question
        )
        return RationaleVerdict(found.grade, evidence=found.evidence, reason=found.reason)


def _new(item: JudgedResponse) -> tuple[str, ...]:
    return (item.target_new, *item.aliases)


def _old(item: JudgedResponse) -> tuple[str, ...]:
    return tuple(name for name in (item.target_old, *item.old_aliases) if name)


def _read(item: JudgedResponse) -> Reading:
    return read(item.response, new=_new(item), old=_old(item), question=item.question, prompt=item.prompt)
