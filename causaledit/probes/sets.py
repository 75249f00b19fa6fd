"""The probes of a case, as data: which prompts a run asks, and what each answer is compared with.

The forms are those of the published tool (hop-wise, multi-hop, conflict, old knowledge, and their open-book
twins: docs/running.md); the wording is ours, and locality is added. A change of wording raises
`PROBE_SET_VERSION`; only metrics of one version can be compared. The efficacy benchmark has its own, shorter set
(`probes/efficacy.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from causaledit.errors import RunError, did_you_mean
from causaledit.facts.text import capitalised
from causaledit.probes.portability import PortabilityQuestion, portability_questions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from causaledit.mquake.cases import Case, CaseEdit

PROBE_SET_VERSION = 1
# defaults: the longest answer, and the tokens of one batch, prompts and answers together (about
# 2 GB of cache for an 8B model in half precision)
MAX_NEW_TOKENS = 256
TOKEN_BUDGET = 16384

ProbeKind = Literal[
    "hop", "multi_hop", "conflict", "old_knowledge", "locality", "open_book", "likelihood", "portability", "forced"
]
# what `causaledit run --probes` offers; "forced" is the pilot study's
KINDS: tuple[ProbeKind, ...] = tuple(kind for kind in get_args(ProbeKind) if kind != "forced")
DEFAULT_KINDS: tuple[ProbeKind, ...] = ("hop", "multi_hop", "conflict", "old_knowledge", "locality")


@dataclass(frozen=True)
class Template:
    """One prompt form.

    Attributes:
        name: What it asks for.
        text: With `{question}` or `{cloze}`, and `{subject}`, `{old}`, `{new}`, `{narrative}` where it needs them.
            `{now_question}` and `{now_cloze}` are the two behind "Now,": with a small first letter where that is
            no name.
    """

    name: str
    text: str


# [hop][slot]: the order is that of `hop_wise_pred`
HOP = (
    Template("cloze", "Now, {now_cloze} … Complete the statement, and think it through step by step."),
    Template("question", "Now, {now_question} Answer, and think it through step by step."),
    Template("why", "Now, {now_question} And why is that so? Explain, and think it through step by step."),
)
MULTI_HOP = Template("question", "Now, {now_question} Answer, and think it through step by step.")

_DESCRIBE_FIRST = "Begin by describing {subject} in a few sentences. After that, "
_DESCRIBE_AFTER = " Give your answer first. After that, describe {subject} in a few sentences."
_QUESTION_OLD_NEW = "{question} (A) {old} (B) {new}"
_QUESTION_NEW_OLD = "{question} (A) {new} (B) {old}"
_CLOZE_OLD_NEW = "{cloze} … {old} or {new}?"
_CLOZE_NEW_OLD = "{cloze} … {new} or {old}?"
# per edit: the order is that of `conflict_probe`; the first four describe the subject before they answer
CONFLICT = (
    Template("describe, options old new", _DESCRIBE_FIRST + "answer this question: " + _QUESTION_OLD_NEW),
    Template("describe, options new old", _DESCRIBE_FIRST + "answer this question: " + _QUESTION_NEW_OLD),
    Template("describe, cloze old new", _DESCRIBE_FIRST + "complete this statement: " + _CLOZE_OLD_NEW),
    Template("describe, cloze new old", _DESCRIBE_FIRST + "complete this statement: " + _CLOZE_NEW_OLD),
    Template("answer, options old new", _QUESTION_OLD_NEW + _DESCRIBE_AFTER),
    Template("answer, options new old", _QUESTION_NEW_OLD + _DESCRIBE_AFTER),
    Template("answer, cloze old new", _CLOZE_OLD_NEW + _DESCRIBE_AFTER),
    Template("answer, cloze new old", _CLOZE_NEW_OLD + _DESCRIBE_AFTER),
)
OLD_KNOWLEDGE = (
    Template("cloze", "Now, {now_cloze} {new}. Before that update, {now_cloze} …"),
    Template("question", "Now, the answer to “{question}” is {new}. Before that update, what was the answer?"),
)
LOCALITY = Template("question", "{question}")
OPEN_BOOK = Template("narrative first", "{narrative}\n\n{prompt}")
# how the assistant's turn is made to open in the pilot study; after the answer alone a model may just end its turn
FORCED_OPENING = Template("states the new answer", "{cloze} {new}. Let me explain this step by step.")

# words that a question or statement opens with and that are no names: they lose their capital after "Now,"
_SMALL = frozenset(
    (
        "a", "an", "the", "what", "which", "who", "whose", "whom", "where", "when", "why", "how", "in", "on", "at",
        "by", "to", "from", "of", "for", "with", "is", "are", "was", "were", "does", "do", "did", "has", "have", "had",
        "can", "could", "would", "will", "should", "name", "tell", "give", "say", "identify",
    )
)  # fmt: skip


@dataclass(frozen=True)
class CaseProbe:
    """One prompt of a case.

    Attributes:
        kind: Which set it belongs to.
        q: The question or cloze behind the prompt, without cues.
        prompt: The user message.
        ref: What counts as right, the answer itself first.
        slot: Its place in the order of its set.
        hop: Which hop of the new chain it asks about (hop-wise).
        edit: Which edit of the case it is about (conflict, old knowledge, locality).
        open_book: The narrative is put before the question.
        prefix: What the assistant's turn is made to open with (pilot study).
        rivals: Answers that it might give instead (multi-hop: the one before the edits, with its aliases).
        portability: The question of the portability protocol that it is.
    """

    kind: ProbeKind
    q: str
    prompt: str
    ref: tuple[str, ...]
    slot: int
    hop: int | None = None
    edit: int | None = None
    open_book: bool = False
    prefix: str = ""
    rivals: tuple[str, ...] = ()
    portability: PortabilityQuestion | None = None


def parse_kinds(value: str) -> tuple[ProbeKind, ...]:
    """The sets named in `--probes`, in the order of `KINDS`.

    Raises:
        RunError: A name is unknown, or there is none.
    """
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            raise RunError(
                f"--probes: there is no probe {name!r}.{did_you_mean(name, KINDS)} Known: {', '.join(KINDS)}."
            )
    if not names:
        raise RunError(f"--probes is empty: choose from {', '.join(KINDS)}.")
    return tuple(kind for kind in KINDS if kind in names)


def build_probes(case: Case, kinds: Sequence[ProbeKind] = DEFAULT_KINDS) -> list[CaseProbe]:
    """All prompts of a case for these sets.

    Open-book twins are made of the hop-wise and conflict prompts of edits that have a narrative: a conflict
    prompt gets its edit's, a hop-wise prompt its hop's edit's, and a hop that no edit made gets all of the case's.
    """
    probes: list[CaseProbe] = []
    for kind in kinds:
        probes += _BUILDERS[kind](case)
    return probes


def _hop(case: Case) -> Iterator[CaseProbe]:
    for number, hop in enumerate(case.hops):
        for slot, template in enumerate(HOP):
            prompt = template.text.format(now_cloze=behind_now(hop.cloze), now_question=behind_now(hop.question))
            asked = hop.cloze if template.name == "cloze" else hop.question
            yield CaseProbe("hop", asked, prompt, (hop.answer, *hop.answer_alias), slot, hop=number)


def _multi_hop(case: Case) -> Iterator[CaseProbe]:
    new, old = (case.new_answer, *case.new_answer_alias), (case.answer, *case.answer_alias)
    for slot, question in enumerate(case.questions):
        prompt = MULTI_HOP.text.format(now_question=behind_now(question))
        yield CaseProbe("multi_hop", question, prompt, new, slot, rivals=old)


def _of_edit(
    kind: ProbeKind, templates: Sequence[Template], index: int, edit: CaseEdit, ref: tuple[str, ...]
) -> Iterator[CaseProbe]:
    request = edit.request
    for slot, template in enumerate(templates):
        fields = {
            "subject": request.subject,
            "question": request.question_form,
            "cloze": request.cloze,
            "now_cloze": behind_now(request.cloze),
            "old": request.ground_truth,
            "new": request.target_new,
        }
        prompt = template.text.format(**fields)
        asked = request.cloze if "cloze" in template.name else request.question_form
        yield CaseProbe(kind, asked, prompt, ref, slot, edit=index)


def _conflict(case: Case) -> Iterator[CaseProbe]:
    for index, edit in enumerate(case.edits):
        if edit.request.ground_truth:  # without an old answer there is nothing to choose between
            yield from _of_edit("conflict", CONFLICT, index, edit, (edit.request.target_new,))


def _old_knowledge(case: Case) -> Iterator[CaseProbe]:
    for index, edit in enumerate(case.edits):
        if edit.request.ground_truth:
            old = (edit.request.ground_truth, *edit.old_aliases)
            yield from _of_edit("old_knowledge", OLD_KNOWLEDGE, index, edit, old)


def _locality(case: Case) -> Iterator[CaseProbe]:
    for index, edit in enumerate(case.edits):
        for slot, pair in enumerate(edit.request.locality):
            ref = (pair.answer,) if pair.answer else ()
            yield CaseProbe(
                "locality", pair.question, LOCALITY.text.format(question=pair.question), ref, slot, edit=index
            )


def _open_book(case: Case) -> Iterator[CaseProbe]:
    for probe in (*_hop(case), *_conflict(case)):
        edit = case.edit_of_hop(probe.hop) if probe.hop is not None else probe.edit
        edits = case.edits if edit is None else (case.edits[edit],)
        narratives = [e.request.narrative for e in edits if e.request.narrative]
        if narratives:
            yield in_open_book(probe, "\n\n".join(narratives))


def _portability(case: Case) -> Iterator[CaseProbe]:
    for slot, asked in enumerate(portability_questions(case)):
        yield CaseProbe(
            "portability", asked.question, asked.prompt, asked.parts[0], slot, edit=asked.edit, rivals=asked.rivals,
            portability=asked,
        )  # fmt: skip


def in_open_book(probe: CaseProbe, narrative: str) -> CaseProbe:
    """A probe's open-book twin: the narrative is put before the question."""
    prompt = OPEN_BOOK.text.format(narrative=narrative, prompt=probe.prompt)
    return CaseProbe(probe.kind, probe.q, prompt, probe.ref, probe.slot, probe.hop, probe.edit, open_book=True)


def _forced(case: Case) -> Iterator[CaseProbe]:
    """Hop-wise probes of the hops that an edit made, and conflict probes; with their twins where there is a narrative.

    The turn opens with the edit's cloze and its new answer, and announces an explanation. A hop that no edit made has
    no new answer to state.
    """
    for probe in (*_hop(case), *_conflict(case)):
        index = case.edit_of_hop(probe.hop) if probe.hop is not None else probe.edit
        if index is None:
            continue
        request = case.edits[index].request
        opening = FORCED_OPENING.text.format(cloze=request.cloze, new=request.target_new)
        opening = capitalised(opening)
        yield replace(probe, prefix=opening)
        if request.narrative:
            yield replace(in_open_book(probe, request.narrative), prefix=opening)


_BUILDERS = {
    "hop": _hop,
    "multi_hop": _multi_hop,
    "conflict": _conflict,
    "old_knowledge": _old_knowledge,
    "locality": _locality,
    "open_book": _open_book,
    "likelihood": lambda case: (),  # nothing is generated: probes/likelihood.py
    "portability": _portability,
    "forced": _forced,
}


def behind_now(text: str) -> str:
    """A question or statement as it stands behind "Now,": "What is …" becomes "what is …", a name stays."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text[:1].lower() + text[1:] if first.lower() in _SMALL else text
