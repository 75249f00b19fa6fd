"""The preservation term: KL to the model before the edit on questions the edit must not change.

Not in the paper. In small models efficacy comes at a high cost in locality (docs/log.md); conservative samples
near the edit are the literature's remedy. The neighbours are questions built from the
edit's own wording with other subjects of the same kind, general questions, and questions about the
edit's subject whose pre-edit answer does not name the old fact. In a sequence what earlier edits were trained on may
join them (`rehearsal`).
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import HparamsError
from causaledit.facts.answers import normalise
from causaledit.facts.relations import RelationBank
from causaledit.methods.shared.neighbours import never_held, questions_near, states_edited_fact
from causaledit.methods.shared.old_answers import OldAnswerFirst
from causaledit.methods.shared.rehearsal import rehearsal_of
from causaledit.methods.shared.trainers import PRESERVATION, StageMixin
from causaledit.models.chat import render, user
from causaledit.models.frozen import last_below
from causaledit.models.generation import greedy_answers
from causaledit.models.own_text import own_texts
from causaledit.models.scoring import completion_logits, logits_in_one_pass
from causaledit.support.json_text import read_json_text
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.method import EditSequence
    from causaledit.methods.shared.hparams import PreservationHyperParams
    from causaledit.models.frozen import FrozenLayers
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

# How a question about another subject asks for the reason, where a method has no wordings of its own.
REASON_CUES = ("{form} Give the reason.", "{form} Explain how that came about.", "{form} Think step by step.")
# Rows that are scored in one pass, of rehearsal and of texts.
SCORED_TOGETHER = 32
# Length of a preserved text behind its opening, and how many enter a step.
TEXT_TOKENS = 48
TEXTS_PER_STEP = 2


@dataclass(frozen=True)
class _Reference:
    """One preserved question, as text and as tokens, the base model's answer, and that answer's distribution.

    `states` are those of its tokens behind the layers that the adapter leaves alone, where they were looked at.
    """

    question: str
    prompt: list[int]
    answer: list[int]
    top: torch.Tensor
    ids: torch.Tensor
    states: torch.Tensor | None = None


class PreservationSet:
    """Questions with the answers of the model before the edit, and the KL that holds the student to them.

    Attributes:
        texts: A set of its own of texts that the model wrote, whose loss joins this one's.
        rehearsed: One of what earlier edits of the sequence were trained on, likewise.
    """

    def __init__(
        self,
        references: list[_Reference],
        *,
        weight: float,
        batch_size: int,
        seed: int,
        hard: bool = False,
        texts: PreservationSet | None = None,
        rehearsed: PreservationSet | None = None,
        count: TokenCount | None = None,
        last_below: nn.Module | None = None,
    ) -> None:
        self._count = count  # of tokens that a step trains on
        self.texts, self.rehearsed = texts, rehearsed
        self._references = references
        self._last_below = last_below  # the layer behind which the references' states are
        self._weight = weight
        self._batch_size = min(batch_size, len(references))
        self._rng = random.Random(seed)
        self._queue: list[_Reference] = []
        self._hard = hard
        self._last: dict[tuple[int, ...], float] = {}  # prompt → the student's last distance from the base model there

    def hold_out(self, n: int) -> PreservationSet | None:
        """Take up to `n` questions, at most a quarter, out of this set: what the student is never held to.

        Returns:
            None where fewer than four questions were kept.
        """
        n = min(n, len(self._references) // 4)
        if not n:
            return None
        drawn = set(self._rng.sample(range(len(self._references)), n))
        out = [r for i, r in enumerate(self._references) if i in drawn]
        self._references = [r for i, r in enumerate(self._references) if i not in drawn]
        self._batch_size = min(self._batch_size, len(self._references))
        self._queue = []
        return PreservationSet(out, weight=1.0, batch_size=max(1, len(out)), seed=0, last_below=self._last_below)

    def __len__(self) -> int:
        return len(self._references)

    @property
    def questions(self) -> list[str]:
        """The preserved questions."""
        return [reference.question for reference in self._references]

    @property
    def token_rows(self) -> list[list[int]]:
        """The preserved questions with their answers, as tokens."""
        return [[*reference.prompt, *reference.answer] for reference in self._references]

    def next_loss(self, model: Any, *, share: bool = True, below: FrozenLayers | None = None) -> torch.Tensor:
        """`weight` × mean KL(base‖model) over the next few questions' answer tokens, and those of the sets beside.

        Args:
            model: The student.
            share, below: As for `logits_in_one_pass`.
        """
        loss = self._next_loss(model, share=share, below=below)
        for beside in (self.texts, self.rehearsed):
            if beside is not None:
                loss = loss + beside.next_loss(model, share=share, below=below)
        return loss

    def _next_loss(self, model: Any, *, share: bool, below: FrozenLayers | None = None) -> torch.Tensor:
        hard = self._hardest(self._batch_size // 2) if self._hard else []
        fresh = self._batch_size - len(hard)
        while len(self._queue) < fresh:
            again = list(self._references)
            self._rng.shuffle(again)
            self._queue += again
        batch, self._queue = [*hard, *self._queue[:fresh]], self._queue[fresh:]
        prompts, answers = [r.prompt for r in batch], [r.answer for r in batch]
        if below is not None and below.end_with(self._last_below):
            for r in batch:
                if r.states is not None:
                    below.keep([*r.prompt, *r.answer[:-1]], r.states)
        rows = torch.cat(logits_in_one_pass(model, prompts, answers, share=share, below=below))
        if self._count is not None and torch.is_grad_enabled():
            self._count.trained += sum(map(len, (*prompts, *answers)))
        kl = bucketed_kl(torch.cat([r.top for r in batch]), torch.cat([r.ids for r in batch]), rows)
        if self._hard:
            parts = kl.detach().split([len(r.answer) for r in batch])
            self._last.update({tuple(r.prompt): float(part.mean()) for r, part in zip(batch, parts, strict=True)})
        return self._weight * kl.mean()

    def _hardest(self, n: int) -> list[_Reference]:
        seen = [r for r in self._references if tuple(r.prompt) in self._last]
        return sorted(seen, key=lambda r: -self._last[tuple(r.prompt)])[:n]


def bucketed_kl(reference_top: torch.Tensor, reference_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(reference‖model) where the reference keeps its top-k tokens and one bucket for all others.

    A lower bound of the full KL (the data-processing inequality), at k + 1 numbers per position.

    Args:
        reference_top: `(N, k)` log-probabilities of the reference.
        reference_ids: `(N, k)` their token ids.
        logits: `(N, V)` of the model.

    Returns:
        `(N,)`.
    """
    log_probs = logits.float().log_softmax(-1).gather(-1, reference_ids)
    p = reference_top.exp()
    rest_p = (1 - p.sum(-1)).clamp(min=1e-6)
    rest_q = (1 - log_probs.exp().sum(-1)).clamp(min=1e-6)
    return (p * (reference_top - log_probs)).sum(-1) + rest_p * (rest_p.log() - rest_q.log())


def preserved_questions(preservation: PreservationSet | None) -> list[str]:
    """The questions of a preservation term, texts and rehearsed ones included, or none without one."""
    if preservation is None:
        return []
    beside = [*preserved_questions(preservation.texts), *preserved_questions(preservation.rehearsed)]
    return list(dict.fromkeys([*preservation.questions, *beside]))


def build_preservation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[EditRequest],
    hparams: PreservationHyperParams,
    *,
    count: TokenCount,
    sequence: EditSequence | None = None,
    reason_cues: Sequence[str] = REASON_CUES,
    first_layer: int = 0,
) -> PreservationSet | None:
    """Ask the model before the edit the neighbours' questions and keep its answers with their distributions.

    Args:
        model: In a sequence it holds the edits before this one.
        sequence: Whose earlier edits are preserved too, with `rehearse_edits`.
        reason_cues: For `preserve_explained`, how the reason is asked for; `{form}` is the question.
        first_layer: Where the adapter will begin: what the layers below it make of the answers is kept.

    Returns:
        None where `preserve_weight` is 0.
    """
    if not hparams.preserve_weight:
        return None
    rehearsed = _rehearsed(model, tokenizer, requests, hparams, sequence, count)
    rng = random.Random(hparams.seed)
    bank = RelationBank.bundled()
    if hparams.preserve_file:
        left_out = never_held(requests, bank)
        listed = dict.fromkeys(read_questions(hparams.preserve_file))
        begun = [("", question) for question in listed if normalise(question) not in left_out]
    else:
        order = OldAnswerFirst(model, tokenizer, bank, hparams.preserve_old_answer)
        begun = questions_near(requests, hparams, reason_cues, bank=bank, rng=rng, order=order)
    questions = [question for _, question in begun]
    prompts = [
        tokenizer(render(tokenizer, user(question), prefill=beginning), add_special_tokens=False)["input_ids"]
        for beginning, question in begun
    ]
    layer = last_below(model, first_layer)
    answers = greedy_answers(
        model,
        tokenizer,
        prompts,
        max_new_tokens=hparams.preserve_max_new_tokens,
        top_k=hparams.preserve_top_k,
        count=count,
        look_at=layer,
    )
    references = [
        _Reference(question, prompt, answer.tokens, answer.top, answer.ids, answer.states)
        for question, prompt, answer in zip(questions, prompts, answers, strict=True)
        if answer.tokens and not states_edited_fact(question, str(tokenizer.decode(answer.tokens)), requests)
    ]
    logger.info("preservation: %d questions of %d kept", len(references), len(questions))
    texts = _texts(model, tokenizer, requests, hparams, count)
    if not references:
        if texts is None:
            return rehearsed
        texts.rehearsed = rehearsed
        return texts
    return _set_of(references, hparams, count, texts=texts, rehearsed=rehearsed, last_below=layer)


def _set_of(
    references: list[_Reference],
    hparams: PreservationHyperParams,
    count: TokenCount,
    **options: Any,
) -> PreservationSet:
    return PreservationSet(
        references,
        weight=hparams.preserve_weight,
        batch_size=hparams.preserve_batch_size,
        seed=hparams.seed,
        hard=hparams.preserve_hard,
        count=count,
        **options,
    )


def _rehearsed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[EditRequest],
    hparams: PreservationHyperParams,
    sequence: EditSequence | None,
    count: TokenCount,
) -> PreservationSet | None:
    """What earlier edits were trained on, with the model's distributions over the answers that they gave it.

    A prompt about a subject that is edited now is left out where it or its answer names one of that edit's answers.
    """
    rehearsal = rehearsal_of(sequence, hparams)
    if rehearsal is None:
        return None
    rows = [
        row
        for row in rehearsal.drawn(requests, hparams.rehearse_edits, hparams.seed)
        if not states_edited_fact(row.text, f"{row.text} {tokenizer.decode(row.answer)}", requests)
    ]
    references = _scored(model, [(row.text, row.prompt, row.answer) for row in rows], hparams)
    logger.info("rehearsal: %d rows; the sequence has %d earlier edits", len(references), len(rehearsal))
    return _set_of(references, hparams, count) if references else None


def _texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[EditRequest],
    hparams: PreservationHyperParams,
    count: TokenCount,
) -> PreservationSet | None:
    """Texts that the model before the edit writes, and what it expects at each of their tokens but the first."""
    if not hparams.preserve_texts:
        return None
    texts = own_texts(
        model, tokenizer, hparams.preserve_texts, max_new_tokens=TEXT_TOKENS, seed=hparams.seed, count=count
    )
    rows = [(text, tokenizer(text)["input_ids"]) for text in texts if not states_edited_fact(text, text, requests)]
    references = _scored(model, [(text, ids[:1], ids[1:]) for text, ids in rows if len(ids) > 1], hparams)
    if not references:
        return None
    return PreservationSet(
        references, weight=hparams.preserve_text_weight, batch_size=TEXTS_PER_STEP, seed=hparams.seed, count=count
    )


def _scored(
    model: PreTrainedModel, rows: list[tuple[str, list[int], list[int]]], hparams: PreservationHyperParams
) -> list[_Reference]:
    """Rows of (text, prompt, answer) with the model's distributions over the answers."""
    references = []
    for start in range(0, len(rows), SCORED_TOGETHER):
        part = rows[start : start + SCORED_TOGETHER]
        logits = completion_logits(model, [prompt for _, prompt, _ in part], [answer for _, _, answer in part])
        for (text, prompt, answer), scores in zip(part, logits, strict=True):
            width = min(hparams.preserve_top_k, scores.shape[-1])
            top = scores.log_softmax(-1).topk(width, dim=-1)
            references.append(_Reference(text, prompt, answer, top.values, top.indices))
    return references


def read_questions(path: str) -> list[str]:
    """Read the questions of `preserve_file`, or raise an `HparamsError` that names it."""
    try:
        data = read_json_text(expanded(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise HparamsError(f"`preserve_file` ({path!r}) cannot be read: {error}") from None
    if not isinstance(data, list) or not data or not all(isinstance(q, str) and q.strip() for q in data):
        raise HparamsError(f"`preserve_file` ({path!r}) must hold a JSON list of questions.")
    return data


class PreservingMixin(StageMixin):
    """Adds `preserve_weight` × the preservation loss to a trainer, once for every batch that it is given.

    The term has a backward pass of its own, so that the two graphs are never in memory together, and is logged apart:
    what the trainer logs as its loss, and stops on, is the stage's own.
    """

    preservation: PreservationSet | None = None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """The trainer's own step, then the preservation term's; their gradients add up.

        Returns:
            The trainer's own loss.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        if self.preservation is not None:
            with self.compute_loss_context_manager():  # type: ignore[attr-defined]
                term = self.preservation.next_loss(model, share=self.shares_prefix, below=self.below)
            self.accelerator.backward(term / self.current_gradient_accumulation_steps)  # type: ignore[attr-defined]
            self._metrics["train"][PRESERVATION].append(term.item())  # type: ignore[attr-defined]
        return loss
