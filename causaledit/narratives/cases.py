"""The cases a scaffold works on: MQuAKE files, read so that they can be given back byte for byte.

A fault in a case is a `Problem` of that case alone; the other cases are used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.errors import DatasetError, ScaffoldError
from causaledit.facts.answers import long_names
from causaledit.facts.rewrites import id_in, log_narrative_keys
from causaledit.facts.text import normalise
from causaledit.facts.twins import twin_file
from causaledit.mquake.cases import CaseEdit, read_edits
from causaledit.narratives.verbatim import json_items
from causaledit.support.json_text import read_json_text, well_formed
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from pathlib import Path

    from causaledit.facts.requests import EditRequest


class Problem(NamedTuple):
    """Something missing from the result: which item, at which stage, and why."""

    item: str
    stage: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Entity:
    """A thing with a name; `id` is its Wikidata id where that is known."""

    name: str
    id: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The id, or else the folded name."""
        return self.id or f"label:{normalise(self.name)}"

    @property
    def names(self) -> tuple[str, ...]:
        """The name and every alias long enough not to be an ordinary word."""
        return (self.name, *long_names(self.aliases))


@dataclasses.dataclass(frozen=True)
class ScaffoldEdit:
    """One fact that needs a narrative: an edit as its writer and its checks see it, with entities for answers.

    Attributes:
        prompt: The cloze with `{}` for the subject.
        related: What else becomes true in the same case, about the same entities, as sentences.
        narrative: The narrative that the file already holds; it is kept.
    """

    subject: Entity
    old: Entity
    new: Entity
    prompt: str
    question: str | None = None
    relation_id: str | None = None
    related: tuple[str, ...] = ()
    narrative: str | None = None

    @property
    def key(self) -> str:
        """Content address: the same edit in two cases needs one narrative."""
        content = [self.subject.name, self.relation_id, self.prompt, self.old.name, self.new.name, *self.related]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()[:20]

    @property
    def cloze(self) -> str:
        """The cloze with the subject filled in."""
        return self.prompt.replace("{}", self.subject.name)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the three entities."""
        return (*self.subject.names, *self.old.names, *self.new.names)

    @classmethod
    def from_request(cls, request: EditRequest) -> ScaffoldEdit:
        """An edit of which only its request is known."""
        return cls.from_case_edit(CaseEdit(request, request.prompt, {}))

    @classmethod
    def from_case_edit(cls, edit: CaseEdit) -> ScaffoldEdit:
        """An edit of a case: with ids and aliases where the case has them."""
        request, data = edit.request, edit.data
        relation = data.get("relation_id")
        return cls(
            subject=Entity(request.subject, edit.subject_id),
            old=Entity(request.ground_truth or "", id_in(data.get("target_true")), edit.old_aliases),
            new=Entity(request.target_new, id_in(data.get("target_new")), edit.new_aliases),
            prompt=request.prompt,
            question=request.question,
            relation_id=relation if isinstance(relation, str) and relation.strip() else None,
            narrative=request.narrative,
        )


@dataclasses.dataclass(frozen=True)
class ScaffoldCase:
    """One case: its id, its edits, its data, and the very text it was read from."""

    case_id: int | str
    edits: tuple[ScaffoldEdit, ...]
    data: dict[str, Any]
    raw: str


class CaseFile(NamedTuple):
    """The usable cases of a file, and what is wrong with the others."""

    cases: list[ScaffoldCase]
    problems: list[Problem]


def read_cases(path: str | Path, *, limit: int | None = None) -> CaseFile:
    """Read an MQuAKE file.

    Args:
        limit: Number of cases to take, from the beginning of the file; None takes all.

    Raises:
        ScaffoldError: The file is missing, is no UTF-8 JSON, or is not a list of cases.
    """
    path = expanded(path)
    try:
        text = read_bytes(path, "--mquake_file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScaffoldError(f"--mquake_file: {str(path)!r} is not UTF-8 text ({error.reason}).") from None
    return parse_cases(text, str(path), limit=limit)


def read_bytes(path: Path, option: str) -> bytes:
    """The content of an input file.

    Raises:
        ScaffoldError: It is missing or cannot be read; `option` is the argument that names it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ScaffoldError(f"{option}: the file {str(path)!r} does not exist.{twin_file(path)}") from None
    except OSError as error:
        raise ScaffoldError(f"{option}: {str(path)!r} cannot be read ({error.strerror}).") from None


def parse_cases(text: str, where: str, *, limit: int | None = None) -> CaseFile:
    """Read cases from the text of a JSON list; see `read_cases`."""
    try:
        read_json_text(text)  # the whole file must be valid before a part of it is used
        items = [(well_formed(data), raw) for data, raw in json_items(text)]
    except ValueError as error:
        raise ScaffoldError(f"{where!r} is not a JSON list of MQuAKE cases ({error}).") from None
    if not items:
        raise ScaffoldError(f"{where!r} holds no case.")
    items = items[:limit]
    seen = Counter(_id_of(data) for data, _ in items)
    cases: dict[int | str, ScaffoldCase] = {}
    problems = []
    for number, (data, raw) in enumerate(items, start=1):
        case_id = _id_of(data)
        item = f"case {case_id}" if case_id is not None else f"case number {number}"
        if case_id is not None and case_id in cases:
            problems.append(Problem(item, "read", f"this case_id occurs {seen[case_id]} times; the first one is used"))
            continue
        try:
            case = _case(data, case_id, raw)
        except (ScaffoldError, DatasetError) as error:
            problems.append(Problem(item, "read", str(error)))
            continue
        cases[case.case_id] = case
    log_narrative_keys((e for case in cases.values() for e in case.data["requested_rewrite"]), where)
    return CaseFile(list(cases.values()), problems)


def _id_of(data: Any) -> int | str | None:
    value = data.get("case_id") if isinstance(data, dict) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _case(data: Any, case_id: int | str | None, raw: str) -> ScaffoldCase:
    if not isinstance(data, dict):
        raise ScaffoldError(f"a case must be an object, got {type(data).__name__}")
    if case_id is None:
        raise ScaffoldError("`case_id` is missing or is neither a number nor a text")
    if not isinstance(data.get("requested_rewrite"), list):
        raise ScaffoldError(f"`requested_rewrite` must be a list of edits, got {data.get('requested_rewrite')!r}")
    edits = tuple(ScaffoldEdit.from_case_edit(edit) for edit in read_edits(data))
    return ScaffoldCase(case_id, edits, data, raw)
