"""Other subjects that share an edit's old answer: where the edit spreads first.

Who edits the citizenship of one American moves that of others, and who has read only of Germans and Italians will not
see it. How likely the model before the edit gives the old answer for another subject needs no reader of answers:
"the United States" is close to "the United States of America" by itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from causaledit.models.batches import parted_tokens
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.scoring import mean_log_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.relations import RelationBank
    from causaledit.facts.requests import EditRequest

# Names that are looked at: of an edit of SmolLM2 on one thread 167 took 11 to 14 s, 96 take 5 to 8.
MOST = 96
SCORED_TOGETHER = 48


class OldAnswerFirst:
    """Puts names first for which the model gives the edit's old answer.

    Args:
        model: Before the edit.
        tokenizer: Its tokenizer.
        bank: Where the edit's sentence comes from.
        share: Share of every beginning of the list that are such names, the likeliest first.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, bank: RelationBank, share: float
    ) -> None:
        self._model, self._tokenizer, self._bank, self._share = model, tokenizer, bank, share
        self._scores: dict[tuple[str, str], dict[str, float]] = {}  # edit → name → mean log p of its old answer

    def __call__(self, request: EditRequest, names: Sequence[str]) -> list[str]:
        """Each name once, in another order; in the same one where the edit has no old answer or no sentence."""
        names = list(dict.fromkeys(names))  # an athlete is a person too
        beginning = self._bank.sentence_of(request)
        if not (request.ground_truth and request.subject and beginning and self._share):
            return names
        scores = self._scores.setdefault((request.question_form, request.ground_truth), {})
        known = [name for name in names if name in scores]
        unknown = [name for name in names if name not in scores][: max(0, MOST - len(known))]
        rows = [self._row(request, beginning, name) for name in unknown]
        contexts, answers = [context for context, _ in rows], [answer for _, answer in rows]
        found = mean_log_probabilities(self._model, contexts, answers, batch_size=SCORED_TOGETHER)
        scores.update(zip(unknown, found, strict=True))
        likely = iter(sorted(names, key=lambda name: -scores.get(name, -math.inf)))
        others = iter(names)
        ordered: dict[str, None] = {}
        for i in range(len(names)):
            preferred = int((i + 1) * self._share) > int(i * self._share)
            ordered[next(name for name in (likely if preferred else others) if name not in ordered)] = None
        return list(ordered)

    def _row(self, request: EditRequest, beginning: str, name: str) -> tuple[list[int], list[int]]:
        """The edit's question about another subject, its sentence for it, and the old answer, as tokens."""
        asked = render(self._tokenizer, user(request.question_form.replace(request.subject, name)))
        told = answer_gap(self._tokenizer) + beginning.replace("{}", name)
        return parted_tokens(self._tokenizer, asked + told, f" {request.ground_truth}")
