"""How good are a file's narratives? Rule checks, and the effect of each on a model that reads it.

A narrative without an effect on the model is useless: with it in the context, the log-odds of the new answer over the
old one must be higher than without it.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.facts.text import word_count
from causaledit.narratives.check import rule_failures
from causaledit.support.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.narratives.cases import ScaffoldCase, ScaffoldEdit

AUDIT_VERSION = 1
EDITS_PER_BATCH = 4


@dataclass
class NarrativeAudit:
    """The measurements of one narrative. Log-odds are natural logarithms of p(new answer) / p(old answer).

    Attributes:
        words: Its length; 0 where there is no narrative.
        failures: The rules that it breaks.
        log_odds_without, log_odds_with: Closed-book and with the narrative before the question; None
            without a model.
    """

    case_id: Any
    edit: int
    subject: str
    words: int
    failures: list[str] = field(default_factory=list)
    log_odds_without: float | None = None
    log_odds_with: float | None = None

    @property
    def shift(self) -> float | None:
        """By how much the narrative raises the log-odds."""
        if self.log_odds_with is None or self.log_odds_without is None:
            return None
        return self.log_odds_with - self.log_odds_without

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "shift": self.shift}


def audit_rules(cases: Sequence[ScaffoldCase]) -> list[NarrativeAudit]:
    """Check every edit's narrative against the rules; a missing one is a failure."""
    audits = []
    for case in cases:
        for index, edit in enumerate(case.edits, start=1):
            text = edit.narrative or ""
            failures = rule_failures(edit, text) if text else ["there is no narrative"]
            audits.append(NarrativeAudit(case.case_id, index, edit.subject.name, word_count(text), failures))
    return audits


def audit_with_model(
    cases: Sequence[ScaffoldCase],
    audits: Sequence[NarrativeAudit],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Fill in the log-odds of every narrative, in batches whose shared contexts are read once.

    The prompt is chat-rendered: the question as the user's turn (the narrative before it, or not), the
    edit's cloze opening the assistant's turn; the answer that follows is scored.

    Args:
        audits: As from `audit_rules` on the same cases.
        tokenizer: As from `prepare_tokenizer`.
    """
    edits = [edit for case in cases for edit in case.edits]
    rows = [(edit, audit) for edit, audit in zip(edits, audits, strict=True) if edit.narrative]
    # of similar length, so that a batch holds little padding
    rows.sort(key=lambda row: len(row[0].narrative or ""))
    for start in range(0, len(rows), EDITS_PER_BATCH):
        batch = rows[start : start + EDITS_PER_BATCH]
        odds = log_odds(model, tokenizer, [(e, text) for e, _ in batch for text in (None, e.narrative)])
        for i, (_, audit) in enumerate(batch):
            audit.log_odds_without, audit.log_odds_with = odds[2 * i], odds[2 * i + 1]
        if on_done is not None:
            on_done(len(batch))


def log_odds(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[tuple[ScaffoldEdit, str | None]]
) -> list[float]:
    """log p(new answer) − log p(old answer), each summed over the answer's tokens, for (edit, narrative or None)."""
    import torch

    from causaledit.models.batches import parted_tokens
    from causaledit.models.chat import render, user
    from causaledit.models.scoring import completion_logits

    contexts, completions = [], []
    for edit, narrative in items:
        question = edit.question or f'Which words complete "{edit.cloze} ..."?'
        turn = f"{narrative}\n\n{question}" if narrative else question
        head = render(tokenizer, user(turn), prefill=edit.cloze)
        for answer in (edit.new.name, edit.old.name):
            context, completion = parted_tokens(tokenizer, head, f" {answer}")
            contexts.append(context)
            completions.append(completion)
    scores = []
    for logits, tokens in zip(completion_logits(model, contexts, completions), completions, strict=True):
        targets = torch.tensor(tokens, device=logits.device)
        scores.append(float(logits.log_softmax(-1).gather(-1, targets[:, None]).sum()))
    return [new - old for new, old in zip(scores[::2], scores[1::2], strict=True)]


def summarise(audits: Sequence[NarrativeAudit]) -> dict[str, Any]:
    """Counts with 95 % Wilson intervals: narratives, rules passed, log-odds raised, new answer ahead."""
    written = [a for a in audits if a.words]
    moved = [a for a in written if a.shift is not None]
    shifts = [a.shift for a in moved if a.shift is not None]
    return {
        "version": AUDIT_VERSION,
        "edits": len(audits),
        "narratives": len(written),
        "rules_passed": _rate(sum(not a.failures for a in audits), len(audits)),
        "raised": _rate(sum(shift > 0 for shift in shifts), len(shifts)),
        "new_ahead_without": _rate(sum((a.log_odds_without or 0) > 0 for a in moved), len(moved)),
        "new_ahead_with": _rate(sum((a.log_odds_with or 0) > 0 for a in moved), len(moved)),
        "median_shift": statistics.median(shifts) if shifts else None,
        "median_words": statistics.median(a.words for a in written) if written else None,
    }


def _rate(hits: int, total: int) -> dict[str, Any]:
    interval = wilson(hits, total)
    low, high = interval or (None, None)
    return {"hits": hits, "total": total, "rate": hits / total if total else None, "low": low, "high": high}
