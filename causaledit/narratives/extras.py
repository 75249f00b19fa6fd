"""Optional stage: paraphrases, locality questions and learning questions (CAKE) for every edit.

Paraphrases and learning questions come from a model where there is one, else from templates. Locality
questions always come from known facts, never from a model: an unchecked answer cannot serve as a reference.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.errors import ContentFilterError, MalformedReplyError
from causaledit.facts.answers import mentions
from causaledit.facts.text import normalise
from causaledit.mquake.cases import read_hops
from causaledit.narratives.cases import Problem
from causaledit.narratives.generate import facts_text
from causaledit.narratives.stories import ASK_QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from causaledit.narratives.cases import ScaffoldCase, ScaffoldEdit
    from causaledit.narratives.ground import Grounding
    from causaledit.narratives.templates import TemplateBank
    from causaledit.support.chat_endpoint import ChatClient

logger = logging.getLogger(__name__)

_PAIRS = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
                "required": ["question", "answer"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["items"],
    "additionalProperties": False,
}
_ASK_PARAPHRASES = (
    "Question: {question}\nWrite {n} other questions that ask for exactly the same thing in clearly different words. "
    "Each must contain the name {subject} as written and must not contain its answer. Reply with a JSON object "
    '{"items": [{"question": "...", "answer": "{new}"}, ...]}; every answer is {new}.'
)
_ASK_LEARNING = (
    "A fact has changed. {cloze} {new}. (It used to be {old}.)\n{facts}\nWrite {n} short questions, each with its "
    "answer, that can only be answered by somebody who has taken in the new fact: some ask for it from another side, "
    "some take one step on from {new} to a fact you are certain of. No question may give its answer away. Reply with "
    'a JSON object {"items": [{"question": "...", "answer": "..."}, ...]}.'
)


class Amounts(NamedTuple):
    """How many of each are wanted per edit."""

    paraphrases: int = 0
    locality: int = 0
    questions: int = 0


class ExtrasWriter:
    """Finds paraphrases, locality and learning questions.

    Args:
        cases: All cases: the single hops of the others are where neighbours come from.
        client: A chat endpoint for paraphrases and learning questions; None for templates alone.
        stories: Its questions are those that StoryDistill is trained on.
    """

    def __init__(
        self,
        cases: Sequence[ScaffoldCase],
        bank: TemplateBank,
        amounts: Amounts,
        *,
        grounding: Grounding | None = None,
        client: ChatClient | None = None,
        stories: bool = False,
    ) -> None:
        self._ask_learning = ASK_QUESTIONS if stories else _ASK_LEARNING
        self._bank, self._amounts, self._grounding, self._client = bank, amounts, grounding, client
        self._edited = {normalise(e.question or e.cloze) for c in cases for e in c.edits}
        self._neighbours = self._collect(cases) if amounts.locality else {}

    def _collect(self, cases: Sequence[ScaffoldCase]) -> dict[str, dict[str, tuple[str, str, str]]]:
        """Per relation, facts that no case edits: (subject, question, answer) by question."""
        found: dict[str, dict[str, tuple[str, str, str]]] = {}
        for case in cases:
            orig = case.data.get("orig")
            orig = orig if isinstance(orig, dict) else {}
            triples, labels = orig.get("triples") or [], orig.get("triples_labeled") or []
            hops = read_hops(case.data, "single_hops")
            if not len(hops) == len(triples) == len(labels):
                continue
            for hop, triple, label in zip(hops, triples, labels, strict=True):
                question = normalise(hop.question)
                if question and question not in self._edited and len(triple) == len(label) == 3:
                    facts = found.setdefault(str(triple[1]), {})
                    facts.setdefault(question, (str(label[0]), hop.question, hop.answer))
        return found

    def would_ask(self, kept: Mapping[str, Any]) -> bool:
        """Whether an endpoint is asked for an edit of which these members are there."""
        wanted = {"rephrase_prompt": self._amounts.paraphrases, "learning_prompt": self._amounts.questions}
        return self._client is not None and any(len(kept.get(key) or ()) < n for key, n in wanted.items())

    def write(
        self, case: ScaffoldCase, index: int, kept: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[Problem]]:
        """The extra members of one edit, and what is missing.

        Args:
            kept: Members that an earlier run made. Those that are whole stay, but for the locality questions: which
                facts no case edits depends on all cases.

        Raises:
            LLMError: The endpoint cannot be used.
        """
        edit = case.edits[index]
        item = f"case {case.case_id}, edit {index + 1} ({edit.subject.name})"
        members: dict[str, Any] = {}
        problems = []
        for key, wanted, made in (
            ("rephrase_prompt", self._amounts.paraphrases, self._paraphrases),
            ("locality", self._amounts.locality, self._locality),
            ("learning_prompt", self._amounts.questions, self._learning),
        ):
            if not wanted:
                continue
            there = (kept or {}).get(key) or []
            if key == "locality" or len(there) < wanted:
                there = [{"question": q, "answer": a} for q, a in made(edit, wanted)]
            members[key] = there
            if len(there) < wanted:
                problems.append(Problem(item, "extras", f"{len(there)} of {wanted} for {key}"))
        return members, problems

    def _paraphrases(self, edit: ScaffoldEdit, n: int) -> list[tuple[str, str]]:
        pairs = []
        if self._client is not None:
            own = normalise(edit.question or edit.cloze)
            pairs = [
                (question, edit.new.name)
                for question, _ in self._asked(_ASK_PARAPHRASES, edit, n)
                if mentions(question, [edit.subject.name]) and normalise(question) != own
                and not mentions(question.replace(edit.subject.name, " "), [edit.new.name])
            ]  # fmt: skip
        pairs += [(question, edit.new.name) for question in self._bank.paraphrases(edit, n)]
        return _distinct(pairs)[:n]

    def _learning(self, edit: ScaffoldEdit, n: int) -> list[tuple[str, str]]:
        pairs = []
        if self._client is not None:
            pairs = [(q, a) for q, a in self._asked(self._ask_learning, edit, n) if a.strip() and not mentions(q, [a])]
        return _distinct([*pairs, *self._bank.learning_questions(edit, self._grounding, n)])[:n]

    def _locality(self, edit: ScaffoldEdit, n: int) -> list[tuple[str, str]]:
        """A third about the subject itself, the others about its relation elsewhere, then about anything else."""
        own = [
            (q, a) for q, a in self._bank.subject_questions(edit, self._grounding) if normalise(q) not in self._edited
        ]
        near = self._elsewhere(edit, [self._neighbours.get(edit.relation_id or "", {})], n)
        share = max(1, n // 3)
        pairs = _distinct([*own[:share], *near])
        if len(pairs) < n:
            others = [facts for pid, facts in self._neighbours.items() if pid != edit.relation_id]
            pairs = _distinct([*pairs, *self._elsewhere(edit, others, n), *own])
        return pairs[:n]

    def _elsewhere(
        self, edit: ScaffoldEdit, groups: Sequence[dict[str, tuple[str, str, str]]], n: int
    ) -> list[tuple[str, str]]:
        """Up to `n` unedited facts of other subjects; which ones follows from the edit."""
        facts = [fact for group in groups for fact in group.values()]
        answers = {normalise(x) for x in (*edit.new.names, *edit.old.names)}
        subject = normalise(edit.subject.name)
        start = int(edit.key, 16) % len(facts) if facts else 0
        found: list[tuple[str, str]] = []
        for name, question, answer in (*facts[start:], *facts[:start]):
            if len(found) == n:
                break
            if normalise(name) != subject and normalise(answer) not in answers:
                found.append((question, answer))
        return found

    def _asked(self, template: str, edit: ScaffoldEdit, n: int) -> list[tuple[str, str]]:
        assert self._client is not None
        values = {
            "question": edit.question or edit.cloze, "subject": edit.subject.name, "new": edit.new.name,
            "old": edit.old.name, "cloze": edit.cloze, "n": str(n), "facts": facts_text(edit, self._grounding),
        }  # fmt: skip
        content = re.sub(r"\{(\w+)\}", lambda m: values.get(m.group(1), m.group()), template)
        try:
            reply = self._client.complete([{"role": "user", "content": content}], schema=_PAIRS, temperature=0.7)
        except (ContentFilterError, MalformedReplyError) as error:  # just this reply; not the endpoint itself
            logger.info("%s: %s", edit.subject.name, error)
            return []
        return [(p["question"].strip(), p["answer"].strip()) for p in reply.data["items"] if p["question"].strip()]


def _distinct(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs without repeated questions, the first one of each kept."""
    found: dict[str, tuple[str, str]] = {}
    for question, answer in pairs:
        found.setdefault(normalise(question), (question, answer))
    return list(found.values())
