"""The template source: deterministic narratives and questions from building blocks, without model or network.

The blocks are data: `data/scaffold_templates.json`. A narrative is an opening (with what is known of the
subject woven in), the old fact, a mechanism of the edit's relation that brings the change about, and a
closing that ends on the new fact. The seed and the edit alone determine which blocks are used.
"""

from __future__ import annotations

import functools
import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import ScaffoldError, did_you_mean
from causaledit.facts.answers import name_spans
from causaledit.facts.relations import RelationBank
from causaledit.facts.requests import EditRequest
from causaledit.facts.text import capitalised, normalise, word_count
from causaledit.support.paths import data_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causaledit.narratives.cases import ScaffoldEdit
    from causaledit.narratives.ground import Grounding

# dates of death and dissolution: after them nothing new happens to the subject
_ENDED = ("P570", "P576")
MAX_FACTS = 2
MAX_VALUE_WORDS = 8


@dataclass(frozen=True)
class RelationTemplate:
    """The blocks of one relation; texts with `{subject}`, `{old}`, `{new}`, or `{}` for the subject.

    Attributes:
        noun: The fact as a noun phrase ("the capital of {subject}").
        was, now: The fact as a sentence, before and after.
        ask: Other ways to ask for it.
        mechanisms: What brings the change about, by type: `event` needs a subject that still exists,
            `record` corrects what was believed.
    """

    name: str
    kind: str
    noun: str
    was: str
    now: str
    cloze: str
    question: str
    ask: tuple[str, ...]
    mechanisms: tuple[tuple[str, str], ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RelationTemplate:
        """Read one entry of the data file."""
        mechanisms = tuple((m["type"], m["text"]) for m in data["mechanisms"])
        return cls(**{**data, "ask": tuple(data["ask"]), "mechanisms": mechanisms})


class TemplateBank:
    """The building blocks, and the texts that are built from them.

    Args:
        data: As in `data/scaffold_templates.json`.
        names: Known relations, by which a cloze without a relation id is recognised.
    """

    def __init__(self, data: Mapping[str, Any], names: RelationBank) -> None:
        self._data = data
        self._names = names
        self.version: int = data["version"]
        self.relations = {pid: RelationTemplate.from_dict(r) for pid, r in data["relations"].items()}
        self._generic = RelationTemplate.from_dict(data["generic"])
        self._by_name = {r.name: pid for pid, r in self.relations.items()}

    @classmethod
    def bundled(cls) -> TemplateBank:
        """The blocks that come with the package."""
        return _bundled()

    def relation_id(self, edit: ScaffoldEdit) -> str | None:
        """The edit's relation: as stated, else recognised by the words of its cloze; None where neither works.

        Raises:
            ScaffoldError: There are no blocks for the stated relation.
        """
        if edit.relation_id:
            if edit.relation_id not in self.relations:
                raise ScaffoldError(
                    f"unknown relation {edit.relation_id!r}: the templates know {len(self.relations)} relations of "
                    f"Wikidata.{did_you_mean(edit.relation_id, self.relations)} Leave it out, or use --source llm or hf"
                )
            return edit.relation_id
        request = EditRequest(edit.subject.name, edit.prompt, edit.new.name, edit.question)
        found = self._names.relation_of(request)
        return self._by_name.get(found.name) if found else None

    def relation(self, edit: ScaffoldEdit) -> RelationTemplate:
        """The blocks for an edit; general ones where its relation is neither stated nor recognised."""
        pid = self.relation_id(edit)
        return self.relations[pid] if pid else self._generic

    def statement(self, edit: ScaffoldEdit) -> str:
        """The new fact as a sentence, without a full stop."""
        try:
            template = self.relation(edit).now
        except ScaffoldError:
            template = self._generic.now
        return _fill(template, _values(edit))

    def narrative(
        self, edit: ScaffoldEdit, grounding: Grounding | None = None, *, seed: int = 0, attempt: int = 0
    ) -> str:
        """Write a narrative.

        Args:
            grounding: What is known of the entities; facts that name an answer are left out.
            seed: The same seed and edit give the same narrative.
            attempt: Each attempt draws other blocks; later ones leave out what is woven in.

        Raises:
            ScaffoldError: The relation is unknown.
        """
        relation = self.relation(edit)
        rng = random.Random(f"{seed}|{attempt}|{edit.key}")
        info = grounding.of(edit.subject) if grounding else None
        facts = info.facts if info else {}
        values = {**_values(edit), "description": info.description if info else ""}
        for name in ("was", "now", "noun"):
            text = _fill(getattr(relation, name), values)
            values |= {name: text, name.capitalize(): capitalised(text)}
        woven = attempt < 2
        leads = self._data["leads"]
        described = bool(woven and values["description"] and _is_neutral(values["description"], edit))
        opening = rng.choice(leads["described" if described else self._data["lead_kinds"][relation.kind]])
        parts = [opening]
        if woven:
            parts += self._facts(edit, facts, values, rng)
        parts.append(rng.choice(self._data["eras"]))
        mechanisms = relation.mechanisms
        if any(facts.get(pid) for pid in _ENDED):  # nothing new can happen to a subject that has ended
            mechanisms = tuple(m for m in mechanisms if m[0] == "record") or mechanisms
        parts.append(rng.choice(mechanisms)[1])
        new_info = grounding.of(edit.new) if grounding else None
        if woven and new_info and new_info.description and _is_neutral(new_info.description, edit):
            parts.append(_fill(self._data["new_known"], {**values, "description": new_info.description}))
        if attempt == 0:
            safe = [fact for fact in edit.related if _is_neutral(fact, edit)]
            parts += [_fill(self._data["related"], {"fact": fact}) for fact in safe]
        parts.append(rng.choice(self._data["closings"]))
        return _tidy(" ".join(capitalised(_fill(_fill(part, values, nested=True), values)) for part in parts))

    def _facts(self, edit: ScaffoldEdit, facts: Mapping[str, Any], values: Mapping[str, str], rng: Any) -> list[str]:
        """Up to two known facts of the subject as sentences; none about the edited relation."""
        known = [
            _fill(template, {**values, "value": facts[pid][0]})
            for pid, template in self._data["facts"].items()
            if pid != edit.relation_id and facts.get(pid) and word_count(facts[pid][0]) <= MAX_VALUE_WORDS
        ]
        known = [sentence for sentence in known if _is_neutral(sentence, edit)]
        return rng.sample(known, min(MAX_FACTS, len(known)))

    def paraphrases(self, edit: ScaffoldEdit, n: int) -> list[str]:
        """Up to `n` other ways to ask for the fact, none equal to the edit's own question."""
        relation = self._relation_or_generic(edit)
        asked = [_fill(q.replace("{}", "{subject}"), _values(edit)) for q in relation.ask]
        own = {normalise(edit.question or ""), normalise(edit.cloze)}
        return [q for q in asked if normalise(q) not in own][:n]

    def learning_questions(self, edit: ScaffoldEdit, grounding: Grounding | None, n: int) -> list[tuple[str, str]]:
        """Up to `n` questions with answers that follow from the new fact (CAKE's learning prompts).

        Questions that lead from the new answer to a known fact about it come first.
        """
        relation = self._relation_or_generic(edit)
        values = _values(edit)
        noun = _fill(relation.noun, values)
        values |= {"noun": noun, "Noun": capitalised(noun)}
        info = grounding.of(edit.new) if grounding else None
        facts = info.facts if info else {}
        hops = [
            (_fill(template, values), facts[pid][0])
            for pid, template in self._data["hops"].items()
            if facts.get(pid) and pid != edit.relation_id
        ]
        plain = [(_fill(template, values), edit.new.name) for template in self._data["learning"]]
        return [*hops[: max(0, n - 1)], *plain][:n]

    def subject_questions(self, edit: ScaffoldEdit, grounding: Grounding | None) -> list[tuple[str, str]]:
        """Questions about the subject that the edit must not change, from what is known of it."""
        info = grounding.of(edit.subject) if grounding else None
        if info is None:
            return []
        return [
            (_fill(template.replace("{}", "{subject}"), _values(edit)), info.facts[pid][0])
            for pid, template in self._data["locality"].items()
            if pid != edit.relation_id and info.facts.get(pid) and _is_neutral(info.facts[pid][0], edit)
        ]

    def _relation_or_generic(self, edit: ScaffoldEdit) -> RelationTemplate:
        try:
            return self.relation(edit)
        except ScaffoldError:
            return self._generic


@functools.cache
def _bundled() -> TemplateBank:
    path = data_dir() / "scaffold_templates.json"
    return TemplateBank(json.loads(path.read_text(encoding="utf-8")), RelationBank.bundled())


def _values(edit: ScaffoldEdit) -> dict[str, str]:
    return {"subject": edit.subject.name, "old": edit.old.name, "new": edit.new.name, "cloze": edit.cloze}


_SLOT = re.compile(r"(?:(?<!\w)([Aa]) )?\{(\w+)\}")


def _fill(template: str, values: Mapping[str, str], *, nested: bool = False) -> str:
    """Put values into slots in one pass (braces in a value stay); "a {new}" becomes "an actor".

    Args:
        nested: Leave slots alone whose value is not a sentence of its own (they are filled next).
    """

    def put(match: re.Match[str]) -> str:
        article, name = match.groups()
        if name not in values or (nested and name not in ("was", "now", "noun", "Was", "Now", "Noun")):
            return match.group()
        value = values[name]
        if article:
            vowel = re.match(r"[aeio]|u(?!ni|se|ro)", value, re.IGNORECASE)
            return f"{article}{'n' if vowel else ''} {value}"
        return value

    return _SLOT.sub(put, template)


def _tidy(text: str) -> str:
    """Keep one full stop where a name that ends with one closes a sentence."""
    return re.sub(r"(?<!\.)\.\.(?!\.)", ".", " ".join(text.split()))


def _is_neutral(text: str, edit: ScaffoldEdit) -> bool:
    """Whether a text names neither answer, so that weaving it in cannot tip the balance."""
    folded = normalise(text)
    return not name_spans(folded, edit.old.names, edit.subject.names) and not name_spans(
        folded, edit.new.names, edit.subject.names
    )
