"""MQuAKE cases: the schema of a case, and its one reader.

All published forms are read: plain, -v2 and -T files, the causal-enhanced ones (`article`, `rephrase_prompt`,
`learning_prompt`, …) and AKEW's (`fact_new_uns`). Answers may be texts or `{"str", "id"}`. Keys that only some files
have are optional, and what is not needed here stays in `data` as it was.

Source: Zhong et al., MQuAKE (arXiv 2305.14795).
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import DatasetError, RequestError
from causaledit.facts.requests import EditRequest, request_from_dict
from causaledit.facts.rewrites import id_in, log_narrative_keys, rewrites_in, text_in
from causaledit.facts.text import composed, normalise
from causaledit.mquake.checks import check_cases, refuse
from causaledit.mquake.containers import looks_inside, looks_like
from causaledit.mquake.forms import SOURCE, cases_from, form_of, unknown_form
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)


# ---- the schema ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Hop:
    """One link of a case's chain of facts."""

    question: str
    cloze: str
    answer: str
    answer_alias: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseEdit:
    """One edit of a case: a request, and what the case knows beyond it.

    Attributes:
        request: The edit request; its old answer is known, unless the case was made from another form.
        relation: Wikidata relation, or the cloze where the file names none.
        data: The `requested_rewrite` entry as it is in the file.
        new_aliases: Further names of the new answer, from the new chain.
        old_aliases: Further names of the old answer, from the old chain.
        subject_id: Wikidata id of the subject, from the entry or from the case's triples.
    """

    request: EditRequest
    relation: str
    data: Mapping[str, Any]
    new_aliases: tuple[str, ...] = ()
    old_aliases: tuple[str, ...] = ()
    subject_id: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two edits the same: subject, relation, new answer."""
        return (*self.fact, composed(self.request.target_new))

    @property
    def fact(self) -> tuple[str, str]:
        """The fact that is changed: two edits of one fact contradict each other."""
        return (composed(self.request.subject), self.relation)

    def to_request(self, case_id: int | str) -> dict[str, Any]:
        """The request as passed to a method's `apply`: everything in the file, answers and narrative as texts."""
        request = self.request
        return {
            **copy.deepcopy(dict(self.data)),  # a copy, whatever a method does to it
            "case_id": case_id,
            "subject": request.subject,
            "prompt": request.prompt,
            "question": request.question,
            "target_new": request.target_new,
            "ground_truth": request.ground_truth,
            "narrative": request.narrative,
            "relation_id": self.relation,
            "held_out": list(request.held_out),
        }


@dataclass(frozen=True)
class Case:
    """One MQuAKE case.

    Attributes:
        case_id: As in the file.
        edits: Applied together before the case is probed.
        questions: Multi-hop questions.
        answer: Their answer before the edits, with `answer_alias`.
        new_answer: Their answer after the edits, with `new_answer_alias`.
        hops: The new chain (`new_single_hops`).
        old_hops: The old chain (`single_hops`), where the file has it.
        data: The case as it is in the file.
    """

    case_id: int | str
    edits: tuple[CaseEdit, ...]
    questions: tuple[str, ...]
    answer: str
    answer_alias: tuple[str, ...]
    new_answer: str
    new_answer_alias: tuple[str, ...]
    hops: tuple[Hop, ...]
    old_hops: tuple[Hop, ...]
    data: Mapping[str, Any]

    def edit_of_hop(self, hop: int) -> int | None:
        """Index of the edit that made a hop of the new chain, or None where the hop is unchanged."""
        asked = self.hops[hop]
        forms = {normalise(asked.question), normalise(asked.cloze)} - {""}
        for index, edit in enumerate(self.edits):
            request = edit.request
            own = {normalise(request.question or ""), normalise(request.cloze)}
            if normalise(asked.answer) == normalise(request.target_new) and own & forms:
                return index
        return None


# ---- reading a file --------------------------------------------------------------------------------
def read_cases(path: str | Path, what: str = "--datatype", *, keep_flawed: bool = False) -> list[Mapping[str, Any]]:
    """The cases of a file as they are, unchecked but for the JSON; those of another form made into MQuAKE's.

    Args:
        path: The file.
        what: The argument it was named by, for messages.
        keep_flawed: Keep entries of another form that cannot be used; else they are left out, with a warning.

    Raises:
        DatasetError: There is no such file, it is not valid JSON (cut off, for example), or its entries are of no
            form that is read here.
    """
    try:
        data = load_json(path, what)
    except RequestError as error:
        raise DatasetError(f"{error}{looks_like(path)}") from None
    if not isinstance(data, list) or not data:
        raise DatasetError(f"{what}: {str(path)!r}: {check_cases(data)[0]}.{looks_inside(data)}")
    if not any(isinstance(entry, Mapping) for entry in data):
        raise DatasetError(f"{what}: {str(path)!r} holds no entry that is an object, but {type(data[0]).__name__}s.")
    form = form_of(data)
    if form is None:
        raise DatasetError(f"{what}: {str(path)!r}: {unknown_form(data)}.")
    if form.why_not:
        raise DatasetError(f"{what}: {str(path)!r} looks like {form.name}: {form.why_not}.")
    cases: list[Mapping[str, Any]] = data
    if form.read is not None:
        logger.info("%s: read as %s", path, form.name)
        cases = _usable(cases_from(data, form), keep_flawed)
    log_narrative_keys((r for case in cases for r in _entries(case, "requested_rewrite")), str(path))
    return cases


def _usable(cases: Sequence[Mapping[str, Any]], keep_flawed: bool) -> list[Mapping[str, Any]]:
    """The cases without those that have a flaw."""
    flaws = check_cases(cases)
    flawed = {flaw.index for flaw in flaws}
    if keep_flawed or not flawed or len(flawed) == len(cases):
        return list(cases)
    logger.warning("%d of %d entries cannot be used and are left out, the first: %s", len(flawed), len(cases), flaws[0])
    return [case for number, case in enumerate(cases) if number not in flawed]


def parse_cases(data: Sequence[Mapping[str, Any]]) -> list[Case]:
    """Cases from checked data.

    Raises:
        DatasetError: There is still a problem; the first few are named.
    """
    refuse(check_cases(list(data)), "the data")
    return [read_case(case) for case in data]


# ---- reading a case --------------------------------------------------------------------------------
def read_case(data: Mapping[str, Any]) -> Case:
    """One case; whatever is missing beside its edits reads as empty (`check_cases` says what is missing).

    Raises:
        DatasetError: An edit is unusable.
    """
    return Case(
        case_id=data.get("case_id", ""),
        edits=read_edits(data),
        questions=_texts(data.get("questions")),
        answer=text_in(data.get("answer")),
        answer_alias=_texts(data.get("answer_alias")),
        new_answer=text_in(data.get("new_answer")),
        new_answer_alias=_texts(data.get("new_answer_alias")),
        hops=read_hops(data, "new_single_hops"),
        old_hops=read_hops(data, "single_hops"),
        data=data,
    )


def read_edits(data: Mapping[str, Any]) -> tuple[CaseEdit, ...]:
    """The edits of a case, with aliases from its chains and ids from its triples.

    Raises:
        DatasetError: There is none, or one is unusable; edits are counted from 1.
    """
    rewrites = data.get("requested_rewrite")
    if not isinstance(rewrites, list | Mapping) or not rewrites:
        raise DatasetError(f"`requested_rewrite` must be a list of edits, got {rewrites!r}")
    new_hops, old_hops, ids = read_hops(data, "new_single_hops"), read_hops(data, "single_hops"), entity_ids(data)
    edits = []
    for number, rewrite in enumerate(rewrites_in([data]), start=1):
        try:
            request = with_held_out(request_from_dict(rewrite), data)
        except RequestError as error:
            raise DatasetError(f"edit {number}: {error}") from None
        if not request.ground_truth and SOURCE not in data:
            raise DatasetError(f"edit {number}: `target_true` (the old answer) is missing")
        edits.append(
            CaseEdit(
                request,
                str(rewrite.get("relation_id") or request.prompt),
                rewrite,
                new_aliases=aliases_of(request.target_new, new_hops),
                old_aliases=aliases_of(request.ground_truth or "", old_hops),
                subject_id=id_in(rewrite.get("subject_id")) or ids.get(normalise(request.subject)),
            )
        )
    return tuple(edits)


def with_held_out(request: EditRequest, data: Mapping[str, Any]) -> EditRequest:
    """A case's edit that holds out what the case asks: its questions and hops, but the edit's own two forms."""
    hops = (*read_hops(data, "new_single_hops"), *read_hops(data, "single_hops"))
    asked = (*_texts(data.get("questions")), *(text for hop in hops for text in (hop.question, hop.cloze)))
    own = {normalise(request.question_form), normalise(request.cloze)}
    kept = tuple(dict.fromkeys(text for text in asked if text and normalise(text) not in own))
    return dataclasses.replace(request, held_out=(*request.held_out, *kept))


def read_hops(data: Mapping[str, Any], key: str) -> tuple[Hop, ...]:
    """The chain under `key`; entries that are not objects are left out."""
    return tuple(
        Hop(
            text_in(hop.get("question")),
            text_in(hop.get("cloze")),
            text_in(hop.get("answer")),
            _texts(hop.get("answer_alias")),
        )
        for hop in _entries(data, key)
        if isinstance(hop, Mapping)
    )


def aliases_of(answer: str, hops: Iterable[Hop]) -> tuple[str, ...]:
    """Every alias that a chain gives an answer, in order."""
    own = normalise(answer)
    return tuple(dict.fromkeys(alias for hop in hops if normalise(hop.answer) == own for alias in hop.answer_alias))


def entity_ids(data: Mapping[str, Any]) -> dict[str, str]:
    """Wikidata ids by normalised name, from a case's triples (a rewrite gives ids for its answers only)."""
    found: dict[str, str] = {}
    orig = data.get("orig")
    if not isinstance(orig, Mapping):
        return found
    for key in ("triples", "new_triples"):
        for ids, names in zip(_entries(orig, key), _entries(orig, f"{key}_labeled"), strict=False):
            if isinstance(ids, list) and isinstance(names, list) and len(ids) == len(names) == 3:
                for position in (0, 2):
                    if isinstance(ids[position], str) and isinstance(names[position], str):
                        found.setdefault(normalise(names[position]), ids[position])
    return found


def _entries(data: Any, key: str) -> list[Any]:
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, list) else []


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else ()
    return tuple(text for text in map(text_in, values) if text)


def describe_cases(data: Sequence[Mapping[str, Any]]) -> str:
    """A checked file in one line: cases by hops, edits, distinct edits, narratives."""
    cases = parse_cases(data)
    hops = Counter(len(case.hops) for case in cases)
    edits = [edit for case in cases for edit in case.edits]
    return (
        f"{len(cases)} cases ({', '.join(f'{hops[n]} of {n} hops' for n in sorted(hops))}), {len(edits)} edits, "
        f"{len({edit.key for edit in edits})} of them distinct, {sum(bool(e.request.narrative) for e in edits)} with a "
        "narrative"
    )
