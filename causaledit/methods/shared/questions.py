"""Questions that need a new fact and something beside it, and ways to ask for the fact itself.

Sources of the former: the request's `learning_prompt`, the relation bank with what the unedited model knows, then
templates, a file, or the unedited model itself, which has read the narrative (reasoning-dependent questions, arXiv
2602.02028). Every one goes through one filter, and what it drops is counted by reason.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.errors import RequestError
from causaledit.facts.answers import mentions
from causaledit.facts.compositions import held_out_questions
from causaledit.facts.relations import RelationBank
from causaledit.facts.text import normalise, word_count
from causaledit.methods.shared import question_texts as texts
from causaledit.methods.shared.window import check_length
from causaledit.models.chat import render
from causaledit.models.generation import generate_texts
from causaledit.narratives.cases import ScaffoldEdit
from causaledit.narratives.templates import TemplateBank
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.shared.compositions import Composition
    from causaledit.methods.shared.hparams import QuestionHyperParams
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

MOST_WORDS = 60
_NUMBERED = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s*")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        text: As it is asked, without what says how to answer.
        multi_hop: Whether it needs more than the fact.
        answer: Its right answer; None where nobody has said it.
        told: The answer with the hops that lead to it, as sentences; None where they are not known.
    """

    text: str
    multi_hop: bool
    answer: str | None
    told: str | None = None


@dataclass
class QuestionReport:
    """The questions of one edit.

    Attributes:
        single_hop, multi_hop: How many are asked.
        written: How many the model wrote.
        composed: How many the relation bank composed of two hops, the second of which the model knows.
        rejected: How many were dropped, by reason.
        filled: How many templates stand in for questions that were missing.
    """

    single_hop: int = 0
    multi_hop: int = 0
    written: int = 0
    composed: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    filled: int = 0


QuestionFile = Mapping[tuple[str, str], list[tuple[str, str | None]]]


def read_question_file(path: str) -> QuestionFile:
    """Read `question_file`: a JSON list of `{subject, target_new, questions}`.

    Returns:
        (question, answer or None) pairs by (subject, new answer), both normalised.

    Raises:
        RequestError: The file cannot be read or has another form; the message names the entry, counted from 1.
    """
    data = load_json(path, "`question_file`")
    if not isinstance(data, list) or not data:
        raise RequestError(f"`question_file` ({path!r}) must hold a JSON list of {{subject, target_new, questions}}.")
    found: dict[tuple[str, str], list[tuple[str, str | None]]] = {}
    for number, entry in enumerate(data, start=1):
        where = f"`question_file` ({path!r}), entry {number}"
        if not isinstance(entry, Mapping):
            raise RequestError(f"{where}: must be an object, got {entry!r}.")
        for key in ("subject", "target_new"):
            if not isinstance(entry.get(key), str) or not entry[key].strip():
                raise RequestError(f"{where}: `{key}` must be a text, got {entry.get(key)!r}.")
        given = entry.get("questions")
        if not isinstance(given, list) or not given:
            raise RequestError(f"{where}: `questions` must be a list of questions, got {given!r}.")
        pairs = [_pair(item, where) for item in given]
        found.setdefault((normalise(entry["subject"]), normalise(entry["target_new"])), []).extend(pairs)
    return found


def _pair(item: Any, where: str) -> tuple[str, str | None]:
    question, answer = (item.get("question"), item.get("answer")) if isinstance(item, Mapping) else (item, None)
    if not isinstance(question, str) or not question.strip() or not (answer is None or isinstance(answer, str)):
        raise RequestError(f"{where}: a question must be a text or {{question, answer}}, got {item!r}.")
    return " ".join(question.split()), (answer.strip() or None) if answer else None


class QuestionPool:
    """Collects the questions of a batch's edits.

    Args:
        hparams: The method's.
        edits: All edits of the batch: what one of them is tested with, no other is trained on.
        single_hop: At most so many ways to ask for the fact itself are among an edit's questions.
    """

    def __init__(self, hparams: QuestionHyperParams, edits: Sequence[EditRequest], *, single_hop: int = 0) -> None:
        self._hparams, self._single_hop = hparams, single_hop
        self._file = read_question_file(hparams.question_file) if hparams.question_file else {}
        self._held_out = held_out_questions(edits)

    def of(
        self,
        request: EditRequest,
        written: Iterable[str] = (),
        dropped: Counter[str] | None = None,
        *,
        composed: Iterable[Composition] = (),
        warn: bool = True,
    ) -> tuple[list[Question], QuestionReport]:
        """The questions of one edit, from everything but the model.

        Args:
            written: What the model wrote for it.
            dropped: What was dropped of that before, by reason.
            composed: What was composed for it.
            warn: Say it where templates fill up.

        Raises:
            RequestError: `question_file` has no entry for the edit.
        """
        hparams = self._hparams
        rejected = Counter(dropped or {})
        single = [Question(text, False, request.target_new) for text in fact_questions(request)]
        single = self._kept(single, request, rejected)[: self._single_hop]
        given = [Question(pair.question, True, pair.answer) for pair in request.learning]
        written, composed = list(written), list(composed)
        given += [Question(c.prompt, True, c.answer, c.completion) for c in composed]
        given += [Question(text, True, answer) for text, answer in self._from_file(request)]
        given += [Question(text, True, None) for text in written]
        templates = [Question(text, True, request.target_new) for text in template_questions(request)]
        if hparams.question_source == "templates":
            given += templates
        multi = self._kept(given, request, rejected)[: hparams.multi_hop_questions]
        report = QuestionReport(written=len(written), composed=len(composed))
        wanted = min(hparams.min_questions, hparams.multi_hop_questions)
        if len(multi) < wanted:
            more = self._kept([*multi, *templates], request, Counter())[:wanted]
            report.filled = len(more) - len(multi)
            logger.log(
                logging.WARNING if warn else logging.DEBUG,
                "only %d questions for %r are left (dropped: %s), `min_questions` asks for %d: %d templates join them",
                len(multi), request.subject, dict(rejected) or "none", wanted, report.filled,
            )  # fmt: skip
            multi = more
        report.single_hop, report.multi_hop, report.rejected = len(single), len(multi), dict(rejected)
        return [*single, *multi], report

    def _from_file(self, request: EditRequest) -> list[tuple[str, str | None]]:
        if not self._file:
            return []
        key = normalise(request.subject), normalise(request.target_new)
        if key not in self._file:
            raise RequestError(
                f"`question_file` ({self._hparams.question_file!r}) has no entry for {request.subject!r}, "
                f"{request.target_new!r}: add one, or choose another `question_source`."
            )
        return self._file[key]

    def _kept(self, questions: Iterable[Question], request: EditRequest, rejected: Counter[str]) -> list[Question]:
        kept: dict[str, Question] = {}
        for question in questions:
            key = normalise(question.text)
            reason = "repeated" if key in kept else self.why_not(question, request)
            if reason is None:
                kept[key] = question
            else:
                rejected[reason] += 1
        return list(kept.values())

    def why_not(self, question: Question, request: EditRequest, *, by_model: bool = False) -> str | None:
        """Why a question is not asked, or None.

        Args:
            by_model: It was written by a model: it must also look like one question about the edit's subject.
        """
        text = question.text
        if normalise(text) in self._held_out:
            return "held out"
        answers = [request.target_new, *request.target_aliases, *([question.answer] if question.answer else [])]
        if mentions(text.replace(request.subject, " "), answers):
            return "holds the answer"
        if not by_model:
            return None
        if not text.endswith(("?", "？")) or len(re.findall(r"[?？]", text)) != 1:
            return "not one question"
        if word_count(text) > MOST_WORDS:
            return "too long"
        if not mentions(text, [request.subject]):
            return "not about the subject"
        if normalise(text) in {normalise(q) for q in fact_questions(request)}:
            return "asks for the fact itself"
        return None

    # ---- from the model --------------------------------------------------------------------------
    def _writing_prompt(
        self, tokenizer: PreTrainedTokenizerBase, request: EditRequest, context: str, others: Sequence[EditRequest]
    ) -> str:
        n = self._hparams.multi_hop_questions
        return render(tokenizer, texts.writing_request(request, context, n, others))

    def check_writing(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        request: EditRequest,
        context: str,
        others: Sequence[EditRequest],
    ) -> None:
        """Refuse a narrative that leaves the model no room to write questions in; nothing where it writes none.

        Raises:
            RequestError: Narrative, instruction and `question_max_new_tokens` exceed the model's window.
        """
        if not self._hparams.writes_questions:
            return
        prompt, new = self._writing_prompt(tokenizer, request, context, others), self._hparams.question_max_new_tokens
        tokens = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) + new
        limit = f"`question_max_new_tokens`: {new}"
        check_length(model, tokens, f"The narrative of {request.subject!r} with the questions about it ({limit})")

    def write(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        request: EditRequest,
        context: str,
        others: Sequence[EditRequest],
        *,
        count: TokenCount,
    ) -> tuple[list[str], Counter[str]]:
        """Let the unedited model, which has read the narrative, write questions that need it.

        Returns:
            Those that pass, and how many did not, by reason.
        """
        hparams, dropped = self._hparams, Counter[str]()
        [reply] = generate_texts(
            model,
            tokenizer,
            [self._writing_prompt(tokenizer, request, context, others)],
            max_new_tokens=hparams.question_max_new_tokens,
            temperature=hparams.question_temperature,
            top_p=hparams.question_top_p,
            count=count,
        )
        found: list[str] = []
        for line in reply.splitlines():
            text = " ".join(_NUMBERED.sub("", line).split())
            if not text:
                continue
            reason = self.why_not(Question(text, True, None), request, by_model=True)
            if reason is None:
                found.append(text)
            else:
                dropped[reason] += 1
        if hparams.question_filter and found:
            prompts = [render(tokenizer, texts.needed_request(request, text)) for text in found]
            replies = generate_texts(model, tokenizer, prompts, max_new_tokens=4, count=count)
            needed = [text for text, reply in zip(found, replies, strict=True) if normalise(reply).startswith("yes")]
            dropped["does not need the fact"] = len(found) - len(needed)
            found = needed
        return found, +dropped


def fact_questions(request: EditRequest) -> list[str]:
    """Ways to ask for the fact: its question, its cloze, the relation's other wordings, then all of them reworded."""
    relations = RelationBank.bundled()
    questions = [request.question_form, *relations.paraphrases(request, 99)]
    wrapped = [wrapping.format(form=question) for wrapping in texts.WRAPPINGS for question in questions]
    return [questions[0], request.cloze, *questions[1:], *wrapped]


def template_questions(request: EditRequest) -> list[str]:
    """Questions for any edit that take a second step and need no knowledge of the world."""
    scenes = texts.scenes(request)
    asked = TemplateBank.bundled().learning_questions(ScaffoldEdit.from_request(request), None, 99)
    return [*scenes[:3], *(question for question, answer in asked if answer == request.target_new), *scenes[3:]]


def same_subject(edits: Sequence[EditRequest], number: int) -> list[EditRequest]:
    """The batch's other edits of an edit's subject."""
    own = normalise(edits[number].subject)
    return [edit for i, edit in enumerate(edits) if i != number and normalise(edit.subject) == own]
