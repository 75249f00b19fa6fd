"""The template source: every relation, every mechanism; deterministic; what is known is woven in."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from conftest import MQUAKE_300, REPOSITORY, beside

from causaledit.errors import ScaffoldError
from causaledit.facts.answers import mentions, normalise
from causaledit.facts.relations import RelationBank
from causaledit.narratives.cases import Entity, ScaffoldEdit, read_cases
from causaledit.narratives.check import rule_failures
from causaledit.narratives.generate import TemplateWriter, produce
from causaledit.narratives.ground import EntityInfo, Grounding
from causaledit.narratives.templates import TemplateBank

BANK = TemplateBank.bundled()


def edit(pid="P36", subject="Egypt", old="Cairo", new="Alexandria", **changes):
    relation = BANK.relations.get(pid)
    prompt = relation.cloze if relation else "The answer for {} is"
    return ScaffoldEdit(Entity(subject), Entity(old), Entity(new), prompt, relation_id=pid, **changes)


@pytest.mark.parametrize("pid", BANK.relations)
def test_every_mechanism_of_a_relation_makes_a_sound_narrative(pid):
    seen, mechanisms = set(), set()
    for seed in range(40):
        e = edit(pid, "Zorblat", "Quimby", "Tessaly")
        text = BANK.narrative(e, seed=seed)
        assert rule_failures(e, text) == [], text
        assert text.endswith("Tessaly.")
        assert "  " not in text
        seen.add(text)
        for i, (_, mechanism) in enumerate(BANK.relations[pid].mechanisms):
            piece = max(re.split(r"(?:\ba )?\{\w+\}", mechanism), key=len).strip()
            if piece in text:
                mechanisms.add(i)
    assert len(mechanisms) >= 3
    assert len(seen) > 20
    assert len(BANK.paraphrases(e, 9)) >= 3
    assert all(mentions(q, ["Zorblat"]) and "Tessaly" not in q for q in BANK.paraphrases(e, 9))


def test_paraphrases_are_not_those_the_method_trains_on():
    # what `prompt_paraphrases` takes from relations.json stays out of the probes that are written here
    trained = {normalise(q) for r in RelationBank.bundled().relations for q in r.questions}
    ours = {normalise(q) for r in BANK.relations.values() for q in r.ask}
    assert not ours & trained


def test_same_seed_same_text_and_other_edits_other_texts():
    assert BANK.narrative(edit(), seed=1) == BANK.narrative(edit(), seed=1)
    assert BANK.narrative(edit(), seed=1) != BANK.narrative(edit(), seed=2)
    assert BANK.narrative(edit(), seed=1) != BANK.narrative(edit(), seed=1, attempt=1)


def test_an_unknown_relation_is_refused_and_one_without_id_is_told_from_its_words():
    with pytest.raises(ScaffoldError, match="P9999"):
        BANK.narrative(edit("P9999"))
    bare = dataclasses.replace(edit(), relation_id=None)
    assert BANK.relation_id(bare) == "P36"
    other = ScaffoldEdit(Entity("Zorblat"), Entity("Quimby"), Entity("Tessaly"), "The colour of the door of {} is")
    assert BANK.relation_id(other) is None
    assert rule_failures(other, BANK.narrative(other)) == []


def test_braces_articles_and_full_stops():
    odd = edit("P106", "{old} & {x}", "plumber", "actor")
    text = " ".join(BANK.narrative(odd, seed=s) for s in range(12))
    assert "{old} & {x}" in text
    assert "a actor" not in text
    assert "an actor" in text
    company = edit("P159", "Acme Inc.", "Oslo", "Bergen Inc.")
    assert not any(".." in BANK.narrative(company, seed=s) for s in range(12))


def grounded(**infos):
    return Grounding({key: EntityInfo(key, label=key, **values) for key, values in infos.items()})


def test_what_is_known_is_woven_in_but_never_an_answer():
    person = ScaffoldEdit(Entity("Ada", "Q1"), Entity("Oslo"), Entity("Bergen"), "{} was born in the city of",
                          relation_id="P19")  # fmt: skip
    facts = {"P19": ["Trondheim"], "P106": ["chemist"], "P27": ["Norway"], "P108": ["University of Oslo"]}
    grounding = grounded(Q1={"description": "Norwegian chemist", "facts": facts})
    text = " ".join(BANK.narrative(person, grounding, seed=s) for s in range(20))
    assert "Norwegian chemist" in text
    assert "occupation as chemist" in text
    assert "Trondheim" not in text  # the edited relation
    assert "University of Oslo" not in text  # it would name the old answer


def test_nothing_new_happens_to_the_dead():
    person = edit("P108", "Ada", "Acme", "Bolt")
    person = dataclasses.replace(person, subject=Entity("Ada", "Q1"))
    dead = grounded(Q1={"facts": {"P570": ["1900"]}})
    events = [text.split("{")[0] for kind, text in BANK.relations["P108"].mechanisms if kind == "event"]
    texts = " ".join(BANK.narrative(person, dead, seed=s) for s in range(20))
    assert not any(start in texts for start in events)
    assert any(start in " ".join(BANK.narrative(person, seed=s) for s in range(20)) for start in events)


def test_related_facts_are_told_unless_they_name_an_answer():
    fine = edit(related=("the head of state of Egypt is Ada",))
    assert "the head of state of Egypt is Ada" in BANK.narrative(fine)
    risky = edit(related=("the twin town of Egypt is Cairo",))
    assert "twin town" not in BANK.narrative(risky)


def test_learning_questions_go_on_from_what_is_known_of_the_new_answer():
    e = dataclasses.replace(edit(), new=Entity("Alexandria", "Q87"))
    pairs = BANK.learning_questions(e, grounded(Q87={"facts": {"P112": ["Alexander the Great"]}}), 3)
    assert pairs[0] == ("Who founded the capital of Egypt?", "Alexander the Great")
    assert len(pairs) == 3
    assert all(answer == "Alexandria" for _, answer in pairs[1:])
    assert not any("Alexandria" in question for question, _ in pairs)


def test_real_mquake_edits_all_get_a_sound_narrative():
    file = read_cases(beside(MQUAKE_300))
    assert not file.problems
    edits = list({e.key: e for c in file.cases for e in c.edits}.values())
    results = produce(edits, TemplateWriter(BANK), max_attempts=3)
    failed = [(e.cloze, r.check.reason) for e, r in zip(edits, results, strict=True) if not r.check.passed]
    assert not failed
    assert len(edits) > 350


def test_the_data_file_is_plain():
    data = json.loads((REPOSITORY / "data" / "scaffold_templates.json").read_text())
    slots = {"subject", "old", "new"}
    for pid, relation in data["relations"].items():
        assert relation["cloze"].count("{}") == 1, pid
        assert relation["question"].count("{}") == 1, pid
        for mechanism in relation["mechanisms"]:
            assert set(re.findall(r"\{(\w*)\}", mechanism["text"])) <= slots, pid
            assert mechanism["type"] in ("event", "record")
