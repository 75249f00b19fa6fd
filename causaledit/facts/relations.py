"""What is known about relations: other ways to ask for a fact, and names for neighbouring questions.

The data are in `data/relations.json`. A fact whose relation is missing there still gets a paraphrase (its cloze, closed
with "which?") and neighbours of every kind.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causaledit.facts.text import is_question, normalise, word_start
from causaledit.support.paths import data_dir

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest


@dataclass(frozen=True)
class Relation:
    """One relation.

    Attributes:
        name: Its name.
        cues: Words in a prompt or question by which it is recognised.
        kind: Kind of its subjects (person, country, …).
        questions: Ways to ask for it; `{}` is the subject.
        neighbour_kinds: Kinds of the names that its questions can also be asked about.
        further_kinds: Further kinds of subjects, of which no neighbours are named: a founder is a religion's too.
        object_kind: Kind of its objects.
        object_phrases: Noun phrases for the object ("the capital of {}"); `{}` is the subject.
        statement: A sentence's beginning that the object completes; `{}` is the subject.
        members: What has a given object ("cities in {}"); `{}` is the object.
    """

    name: str
    cues: tuple[str, ...]
    kind: str
    questions: tuple[str, ...]
    neighbour_kinds: tuple[str, ...]
    further_kinds: tuple[str, ...]
    object_kind: str
    object_phrases: tuple[str, ...]
    statement: str
    members: str

    @property
    def subject_kinds(self) -> tuple[str, ...]:
        """Kinds of what it can be asked about."""
        return tuple(dict.fromkeys((self.kind, *self.neighbour_kinds, *self.further_kinds)))


@dataclass(frozen=True)
class RelationBank:
    """The relations, names by kind, questions about a subject by its kind (`{}` is the subject), and general ones."""

    relations: tuple[Relation, ...]
    names: dict[str, list[str]]
    about: dict[str, list[str]]
    general: list[str]

    @classmethod
    @functools.cache
    def bundled(cls) -> RelationBank:
        """The bank in `data/relations.json`, read once and shared: do not change it."""
        data = json.loads((data_dir() / "relations.json").read_text(encoding="utf-8"))
        relations = tuple(
            Relation(
                r["name"],
                tuple(r["cues"]),
                r["kind"],
                tuple(r["questions"]),
                tuple(r.get("neighbour_kinds", [r["kind"]])),
                tuple(r.get("further_kinds", ())),
                r["object_kind"],
                tuple(r["object_phrases"]),
                r["statement"],
                r["members"],
            )
            for r in data["relations"]
        )
        return cls(relations, data["names"], data["about"], data["general"])

    def relation_of(self, request: EditRequest) -> Relation | None:
        """The relation whose longest cue stands in the edit's cloze, or else in its question."""
        for text in (request.prompt, (request.question or "").replace(request.subject, " ")):
            hits = [
                (len(cue), relation)
                for relation in self.relations
                for cue in relation.cues
                if re.search(word_start(cue), text, re.IGNORECASE)
            ]
            if hits:
                return max(hits, key=lambda hit: hit[0])[1]
        return None

    def stated(self, request: EditRequest) -> str:
        """The new fact as one sentence: the cloze completed; where a question stands in its place the relation's
        own sentence or, of a relation that the bank does not know, the answer alone.
        """
        beginning = self.sentence_of(request).replace("{}", request.subject)
        return f"{beginning} {request.target_new}.".lstrip()

    def sentence_of(self, request: EditRequest) -> str:
        """The sentence that the edit's object completes, `{}` for the subject: its `prompt` or, where a question stands
        there, the relation's own; empty of a relation that the bank does not know.
        """
        if not is_question(request.cloze):
            return request.prompt
        relation = self.relation_of(request)
        return relation.statement if relation else ""

    def paraphrases(self, request: EditRequest, n: int) -> list[str]:
        """Up to `n` other ways to ask for the edited fact; the request's own paraphrases are held-out probes.

        None without a subject to ask about, nor, of a relation that the bank does not know, beside a question.
        """
        if not request.subject:
            return []
        relation = self.relation_of(request)
        beside = () if is_question(request.prompt) else (f"{request.prompt} which?",)
        templates = relation.questions if relation else beside
        asked = [template.replace("{}", request.subject) for template in templates]
        known = {
            normalise(text)
            for text in (
                request.question_form, request.cloze, *(pair.question for pair in request.rephrase), *request.held_out
            )
        }  # fmt: skip
        return [q for q in asked if normalise(q) not in known][:n]
