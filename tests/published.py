"""Metrics files in the published form, made for tests, and a judge whose verdicts the test writes into the text.

Responses carry marks: `PASS` / `FAIL` / `UNSURE` for a grade, `+` asserts the new answer, `-` denies it, `=` ends on
it, `?` cannot be judged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from causaledit.judges.base import AnswerVerdict, JudgedResponse, RationaleVerdict, RefutationVerdict

if TYPE_CHECKING:
    from pathlib import Path

COUNTRIES = (
    ("Norway", "Oslo", "Bergen"),
    ("Egypt", "Cairo", "Alexandria"),
    ("Peru", "Lima", "Cusco"),
    ("Kenya", "Nairobi", "Mombasa"),
)
RIGHT = "[PASS +=] The capital is {new}."
REFUTING = "[FAIL +-] The capital is {new}. No, that is wrong: the capital is not {new}, it is {old}."
OLD = "[FAIL] The capital is {old}."
UNJUDGED = "[?] …"


def prediction(question: str, prompt: str, references: list[str], response: str | None) -> dict[str, Any]:
    return {"q": question, "prompt": prompt, "ref": references, "pred": response}


def case(
    case_id: int = 1,
    edits: int = 1,
    *,
    hop_wise: str | list[list[str | None]] = RIGHT,
    multi_hop: str | list[str | None] = RIGHT,
    conflict: str | list[str | None] = RIGHT,
    as_text: bool = False,
    narrative: bool = True,
) -> dict[str, Any]:
    """A case whose hops are its edits.

    Args:
        hop_wise: One response for all, or a list per hop; `multi_hop` and `conflict` likewise (flat).
        as_text: `target_new` as a text, not as an object.
        narrative: Whether the rewrites have an `article`.
    """
    rewrites, hops, flat, old_probes = [], [], [], []
    for index in range(edits):
        country, old, new = COUNTRIES[index]
        question, cloze = f"What is the capital of {country}?", f"The capital of {country} is"
        rewrite: dict[str, Any] = {
            "prompt": "The capital of {} is",
            "subject": country,
            "relation_id": "P36",
            "target_new": new if as_text else {"str": new, "id": f"Q{index}"},
            "target_true": {"str": old, "id": f"Q{index}0"},
            "question": question,
        }
        if narrative:
            rewrite["article"] = f"<p>A flood ruined {old}.</p> <b>So parliament moved to {new}.</b>"
        rewrites.append(rewrite)
        texts = [hop_wise] * 3 if isinstance(hop_wise, str) else hop_wise[index]
        references = [new, f"{new} City"]
        prompts = (
            f"Now, {cloze} … Let's think step by step.",
            f"Now, {question} Let's think step by step.",
            f"Now, {question} Why? Let's think step by step.",
        )
        hops.append(
            [prediction(question, p, references, _fill(t, old, new)) for p, t in zip(prompts, texts, strict=True)]
        )
        texts = [conflict] * 8 if isinstance(conflict, str) else conflict[8 * index : 8 * index + 8]
        for number, text in enumerate(texts):
            order = "First describe it, then answer." if number < 4 else "First answer, then describe it."
            prompt = f"{question} (A) {old} (B) {new} {order}"
            flat.append({"prompt": prompt, "ref": references, "pred": _fill(text, old, new)})
        old_probes += [prediction(question, f"Now it is {new}; before, it was", [old], f"[PASS] {old}")] * 2
    _, old, new = COUNTRIES[edits - 1]
    texts = [multi_hop] * 3 if isinstance(multi_hop, str) else multi_hop
    questions = [f"Where does the government sit ({n})?" for n in range(3)]
    return {
        "case_id": case_id,
        "requested_rewrite": rewrites,
        "time": 1.5,
        "post": {
            "hop_wise": [[True] * 3 for _ in hops],
            "hop_wise_pred": hops,
            "accuracy": [True] * 3,
            "accuracy_pred": [
                prediction(q, f"Now, {q}", [new], _fill(t, old, new)) for q, t in zip(questions, texts, strict=True)
            ],
            "conflict_probe": flat,
            "old_knowledge_probe": old_probes,
        },
    }


def _fill(text: str | None, old: str, new: str) -> str | None:
    return None if text is None else text.replace("{old}", old).replace("{new}", new)


def locality(question: str, answer: str, before: str, after: str, edit: int = 0) -> dict[str, Any]:
    return {**prediction(question, question, [answer], after), "pred_before": before, "edit": edit}


def write(folder: Path, cases: list[dict[str, Any]], name: str = "metrics.json") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(cases), encoding="utf-8")
    return file


class MarkJudge:
    """Reads the marks. It counts how often it was asked."""

    name = "marks"
    identity = "marks-v1"

    def __init__(self) -> None:
        self.asked = 0

    def _marks(self, item: JudgedResponse) -> str | None:
        self.asked += 1
        marks = item.response.partition("[")[2].partition("]")[0]
        return None if "?" in marks else marks

    def judge_answer(self, item: JudgedResponse) -> AnswerVerdict:
        marks = self._marks(item)
        return AnswerVerdict(None, error="marked") if marks is None else AnswerVerdict(_grade(marks))

    def judge_refutation(self, item: JudgedResponse) -> RefutationVerdict:
        marks = self._marks(item)
        if marks is None:
            return RefutationVerdict(None, None, None, error="marked")
        return RefutationVerdict("+" in marks, "-" in marks, "=" in marks)

    def judge_rationale(self, item: JudgedResponse) -> RationaleVerdict:
        marks = self._marks(item)
        return RationaleVerdict(None, error="marked") if marks is None else RationaleVerdict(_grade(marks))


def _grade(marks: str) -> Any:
    return next((grade for grade in ("PASS", "UNSURE") if grade in marks), "FAIL")
