"""MQuAKE cases: read, checked, chosen and grouped.

All published forms are read: plain, -v2 and -T files, and the causal-enhanced ones (`article`,
`rephrase_prompt`, `learning_prompt`, …). `target_new` may be a text or `{"str", "id"}`. Keys that only some
files have are optional, and what is not needed here stays in `data` as it was.

Source: Zhong et al., MQuAKE (arXiv 2305.14795); the selection is that of the published CODE runs.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import DatasetError, RequestError
from causaledit.facts.request_texts import clean_text
from causaledit.facts.requests import EditRequest, request_from_dict
from causaledit.mquake.checks import check_cases, refuse
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


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
    """One edit of a case.

    Attributes:
        request: The edit request (old answer always known).
        relation: Wikidata relation, or the cloze where the file names none.
        data: The `requested_rewrite` entry as it is in the file.
    """

    request: EditRequest
    relation: str
    data: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two edits the same: subject, relation, new answer."""
        return (self.request.subject, self.relation, self.request.target_new)

    @property
    def fact(self) -> tuple[str, str]:
        """The fact that is changed: two edits of one fact contradict each other."""
        return (self.request.subject, self.relation)

    def to_request(self, case_id: int | str) -> dict[str, Any]:
        """The request as a method's `apply` gets it: everything the file says, answers and narrative as texts."""
        request = self.request
        return {
            **copy.deepcopy(dict(self.data)),  # whatever a method does to it
            "case_id": case_id,
            "subject": request.subject,
            "prompt": request.prompt,
            "question": request.question,
            "target_new": request.target_new,
            "ground_truth": request.ground_truth,
            "narrative": request.narrative,
            "relation_id": self.relation,
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
        """Index of the edit that made a hop of the new chain, or None where the hop is as before."""
        for index, edit in enumerate(self.edits):
            request = edit.request
            asked = self.hops[hop]
            if asked.answer == request.target_new and (
                asked.question == request.question or asked.cloze.casefold() == request.cloze.casefold()
            ):
                return index
        return None


# ---- checking --------------------------------------------------------------------------------------


# ---- reading ---------------------------------------------------------------------------------------
def read_cases(path: str | Path, what: str = "--datatype") -> list[Mapping[str, Any]]:
    """The cases of a file as they are, unchecked but for the JSON.

    Raises:
        DatasetError: There is no such file, or it is not valid JSON (cut off, for example).
    """
    try:
        data = load_json(path, what)
    except RequestError as error:
        raise DatasetError(str(error)) from None
    if not isinstance(data, list) or not data:
        raise DatasetError(f"{what}: {str(path)!r}: {check_cases(data)[0]}.")
    return data


def parse_cases(data: Sequence[Mapping[str, Any]]) -> list[Case]:
    """Cases from checked data.

    Raises:
        DatasetError: There is a problem after all; the first few are named.
    """
    refuse(check_cases(list(data)), "the data")
    return [_case(case) for case in data]


def _case(data: Mapping[str, Any]) -> Case:
    def edit(rewrite: Mapping[str, Any]) -> CaseEdit:
        request = request_from_dict(rewrite)
        return CaseEdit(request, str(rewrite.get("relation_id") or request.prompt), rewrite)

    def hops(key: str) -> tuple[Hop, ...]:
        return tuple(
            Hop(*(clean_text(h[key]) for key in ("question", "cloze", "answer")), tuple(h.get("answer_alias", ())))
            for h in data.get(key) or ()
        )

    return Case(
        case_id=data["case_id"],
        edits=tuple(edit(rewrite) for rewrite in data["requested_rewrite"]),
        questions=tuple(question.strip() for question in data["questions"]),
        answer=data["answer"].strip(),
        answer_alias=tuple(data.get("answer_alias", ())),
        new_answer=data["new_answer"].strip(),
        new_answer_alias=tuple(data.get("new_answer_alias", ())),
        hops=hops("new_single_hops"),
        old_hops=hops("single_hops"),
        data=data,
    )


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


# ---- choosing --------------------------------------------------------------------------------------


# ---- grouping --------------------------------------------------------------------------------------
