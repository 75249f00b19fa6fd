"""The interface of a judge: what it is given, and the verdicts it gives.

A judge answers three tasks. A verdict that could not be reached carries `error` and no value: "not judged"
is never counted as wrong.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

Task = Literal["answer", "refutation", "rationale"]
Grade = Literal["PASS", "FAIL"]
RationaleGrade = Literal["PASS", "FAIL", "UNSURE"]


@dataclass(frozen=True)
class JudgedResponse:
    """One response with what is needed to judge it.

    Attributes:
        question: The question behind the prompt, without cues.
        prompt: The full user message the model saw.
        response: The model's text.
        target_new: For `answer` the right answer; for `refutation` and `rationale` the edit's new answer.
        aliases: Further names of it.
        target_old: The answer it competes with, where one is known: the one before the edit or, for an `answer` that
            the edit must not change, the edit's new answer.
        old_aliases: Further names of that.
        narrative: The edit's narrative (for `rationale`).
    """

    question: str
    prompt: str
    response: str
    target_new: str
    aliases: tuple[str, ...] = ()
    target_old: str | None = None
    old_aliases: tuple[str, ...] = ()
    narrative: str | None = None

    def key(self, task: Task, judge: str) -> str:
        """Content address of a verdict: the same response judged the same way has the same key.

        Args:
            task: What is asked.
            judge: The judge's `identity`.
        """
        content = json.dumps([judge, task, asdict(self)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class AnswerVerdict:
    """Whether the response's answer is the right one. `grade` is None where it could not be judged."""

    grade: Grade | None
    evidence: str = ""
    error: str | None = None


@dataclass(frozen=True)
class RefutationVerdict:
    """The three booleans behind self-refutation, each with the words of the response it rests on.

    Attributes:
        assertion_of_target_new: The response asserts the new answer somewhere.
        explicit_negation_of_target_new: Having asserted it, the response explicitly denies it or takes it back.
            Turning down what it never asserted contradicts nobody but the question, and is False.
        final_answer_is_target_new: What it ends on is the new answer.
        assertion_evidence: Quoted from the response; empty where there is nothing to quote.
        negation_evidence: As above.
        final_evidence: As above.
        error: Why there is no verdict; the booleans are then None.
    """

    assertion_of_target_new: bool | None
    explicit_negation_of_target_new: bool | None
    final_answer_is_target_new: bool | None
    assertion_evidence: str = ""
    negation_evidence: str = ""
    final_evidence: str = ""
    error: str | None = None

    @property
    def self_refutation(self) -> bool | None:
        """Asserts the new answer, explicitly negates it, and does not come back to it."""
        if self.error is not None or self.assertion_of_target_new is None:
            return None
        return bool(
            self.assertion_of_target_new
            and self.explicit_negation_of_target_new
            and not self.final_answer_is_target_new
        )


@dataclass(frozen=True)
class RationaleVerdict:
    """Whether the explanation agrees with the narrative's cause. `grade` is None where it could not be judged."""

    grade: RationaleGrade | None
    evidence: str = ""
    reason: str = ""
    error: str | None = None


class Judge(Protocol):
    """A judge. `identity` names it with everything that changes its verdicts (model, prompt version)."""

    name: str
    identity: str

    def judge_answer(self, item: JudgedResponse) -> AnswerVerdict:
        """PASS or FAIL for an answer."""

    def judge_refutation(self, item: JudgedResponse) -> RefutationVerdict:
        """The three booleans, with evidence."""

    def judge_rationale(self, item: JudgedResponse) -> RationaleVerdict:
        """PASS, FAIL or UNSURE for an explanation."""


def verdict_to_dict(verdict: Any) -> dict[str, Any]:
    """Plain data; for refutation with the derived `self_refutation`."""
    data = asdict(verdict)
    if isinstance(verdict, RefutationVerdict):
        data["self_refutation"] = verdict.self_refutation
    return data
