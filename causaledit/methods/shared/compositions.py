"""Prompts of two hops around an edit, each with an answer from the edit and the model's own knowledge.

Reasoning-dependent questions (Gao et al., arXiv 2602.02028) without a writer: the relation bank composes them, the
unedited model supplies the other hop, and what it is not sure of is left out.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causaledit.facts.answers import mentions
from causaledit.facts.compositions import in_turn, leading_questions, leading_relations, onward_questions
from causaledit.facts.relations import RelationBank
from causaledit.facts.text import capitalised, normalise, word_count
from causaledit.models.chat import render, user
from causaledit.models.generation import greedy_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.compositions import Onward
    from causaledit.facts.relations import Relation
    from causaledit.facts.requests import EditRequest
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

ANSWER_TOKENS = 12
LIST_TOKENS = 32
# The geometric mean of an answer's token probabilities below which the model is taken not to know it. Of SmolLM2's
# answers between 0.3 and 0.4 two or three of twenty were true (docs/log.md).
MIN_CONFIDENCE = 0.4
# Of the relations that may lead to a subject, so many are tried.
MAX_LEADING = 4
# No name or place is longer.
MAX_WORDS = 6
_END = re.compile(r"[.,;:!?\n(]")
_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*])?\s*")


@dataclass(frozen=True)
class Composition:
    """A prompt of two hops.

    Attributes:
        prompt: The question; it names the edit's subject or something that leads to it, never the new answer.
        knowledge: The hop that is no edit, as one sentence of the model's own knowledge.
        completion: Both hops in order, the last of which answers the question: what the edited model should be able
            to say.
        answer: The last hop's object, by itself.
    """

    prompt: str
    knowledge: str
    completion: str
    answer: str


@dataclass(frozen=True)
class _Said:
    """What the model completes a sentence with, and the geometric mean of its token probabilities."""

    text: str
    confidence: float


def compose(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    *,
    onward: int,
    leading: int,
    count: TokenCount,
) -> list[list[Composition]]:
    """Prompts of two hops of each edit.

    Args:
        model: The unedited network.
        requests: The edits of the batch: where one edit's object is another's subject, its new fact is the second hop.
        onward: At most how many go on from the new object, per edit.
        leading: At most how many lead to the subject, per edit.

    Returns:
        One list per edit, in which the two ways take turns, what the model is surest of first; empty where the bank
        does not know the edit's relation or the model nothing around it.
    """
    bank = RelationBank.bundled()
    found = [
        in_turn(
            [
                _onward(model, tokenizer, request, requests, bank, onward, count) if onward else [],
                _leading(model, tokenizer, request, bank, leading, count) if leading else [],
            ]
        )
        for request in requests
    ]
    logger.info("prompts of two hops: %s", ", ".join(str(len(items)) for items in found))
    return found


def _onward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    requests: Sequence[EditRequest],
    bank: RelationBank,
    n: int,
    count: TokenCount,
) -> list[Composition]:
    asked: dict[Relation, list[Onward]] = {}
    for item in onward_questions(request, bank):
        asked.setdefault(item.relation, []).append(item)
    edited = {bank.relation_of(r): r for r in requests if normalise(r.subject) == normalise(request.target_new)}
    sentences = {
        relation: (bank.stated(other), other.target_new)
        for relation, other in edited.items()
        if relation in asked and normalise(other.target_new) != normalise(request.target_new)
    }
    unedited = [relation for relation in asked if relation not in edited]
    beginnings = [relation.statement.replace("{}", request.target_new) for relation in unedited]
    hops = [asked[relation][0].hop for relation in unedited]
    said = _complete(model, tokenizer, list(zip(hops, beginnings, strict=True)), count=count)
    names = [request.target_new, *request.target_aliases]
    # "The head of government of India is the Prime Minister of India" tells nothing
    known = [
        (answer.confidence, relation, f"{capitalised(beginning)} {answer.text}.", answer.text)
        for relation, beginning, answer in zip(unedited, beginnings, said, strict=True)
        if answer and answer.confidence >= MIN_CONFIDENCE and not mentions(answer.text, names)
    ]
    for _, relation, sentence, text in sorted(known, key=lambda item: item[0], reverse=True):
        sentences[relation] = sentence, text
    return in_turn(
        [
            [
                Composition(item.prompt, knowledge, f"{bank.stated(request)} {knowledge}", answer)
                for item in asked[relation]
            ]
            for relation, (knowledge, answer) in sentences.items()
        ]
    )[:n]


def _leading(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    bank: RelationBank,
    n: int,
    count: TokenCount,
) -> list[Composition]:
    # heads of a country and the like are many relations that few subjects stand in
    relations = sorted(leading_relations(request, bank), key=lambda r: r.kind == "country")[:MAX_LEADING]
    candidates = [
        (relation, name)
        for relation, names in zip(
            relations,
            _named(model, tokenizer, [r.members.replace("{}", request.subject) for r in relations], count),
            strict=True,
        )
        for name in names
        if not mentions(name, [request.subject, request.target_new])
    ]
    answers = _complete(
        model,
        tokenizer,
        [
            (relation.questions[0].replace("{}", name), relation.statement.replace("{}", name))
            for relation, name in candidates
        ],
        count=count,
    )
    confirmed = [
        candidate
        for candidate, answer in zip(candidates, answers, strict=True)
        if answer and _same_thing(answer.text, request.subject)
    ]
    return in_turn([_leads(request, bank, relation, name) for relation, name in confirmed])[:n]


def _leads(request: EditRequest, bank: RelationBank, relation: Relation, name: str) -> list[Composition]:
    knowledge = f"{relation.statement.replace('{}', name)} {request.subject}."
    completion = f"{knowledge} {bank.stated(request)}"
    return [
        Composition(prompt, knowledge, completion, request.target_new)
        for prompt in leading_questions(request, bank, relation, name)
    ]


def _complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[tuple[str, str]],
    *,
    count: TokenCount,
) -> list[_Said | None]:
    """What the model completes each (question, beginning of its answer) with; None where that is no name."""
    if not asked:
        return []
    prompts = [
        tokenizer(render(tokenizer, user(question), prefill=beginning), add_special_tokens=False)["input_ids"]
        for question, beginning in asked
    ]
    found: list[_Said | None] = []
    for answer in greedy_answers(model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS, top_k=1, count=count):
        text, used = "", 0
        while used < len(answer.tokens) and not _END.search(text.strip()):
            used += 1
            text = str(tokenizer.decode(answer.tokens[:used]))
        clause = _END.split(text.strip())[0].strip()
        confidence = math.exp(float(answer.top[:used, 0].mean())) if used else 0.0
        found.append(_Said(clause, confidence) if clause and word_count(clause) <= MAX_WORDS else None)
    return found


def _named(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, members: Sequence[str], count: TokenCount
) -> list[list[str]]:
    """Names that the model gives for each description ("cities in France")."""
    if not members:
        return []
    prompts = [
        tokenizer(render(tokenizer, user(f"Name three {text}."), prefill="1."), add_special_tokens=False)["input_ids"]
        for text in members
    ]
    answers = greedy_answers(model, tokenizer, prompts, max_new_tokens=LIST_TOKENS, top_k=1, count=count)
    listed: list[list[str]] = []
    for answer in answers:
        lines = str(tokenizer.decode(answer.tokens)).split("\n")
        names = [_END.split(_ITEM.sub("", line).replace("**", ""))[0].strip() for line in lines]
        listed.append([name for name in dict.fromkeys(names) if name[:1].isupper() and word_count(name) <= MAX_WORDS])
    return listed


def _same_thing(answer: str, name: str) -> bool:
    """Whether an answer names a thing, though perhaps shorter: "China" for "People's Republic of China"."""
    wanted, given = ({word for word in normalise(text).split() if len(word) > 3} for text in (name, answer))
    return mentions(answer, [name]) or (bool(given) and given <= wanted)
