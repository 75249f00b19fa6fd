"""The cases a scaffold works on: MQuAKE files, read so that they can be given back byte for byte.

What is wrong with one case is a `Problem` of that case; the others go on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.errors import RequestError, ScaffoldError
from causaledit.facts.answers import normalise
from causaledit.facts.requests import EditRequest, request_from_dict
from causaledit.narratives.verbatim import json_items

if TYPE_CHECKING:
    from collections.abc import Mapping

# a shorter alias ("US", "it") is too easily another word
SHORTEST_ALIAS = 4


class Problem(NamedTuple):
    """Something that is missing in the result: which item, at which stage, and why."""

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
        """The name and every alias long enough to be told from ordinary words."""
        return (self.name, *(a for a in self.aliases if len(a) >= SHORTEST_ALIAS))


@dataclasses.dataclass(frozen=True)
class ScaffoldEdit:
    """One fact that needs a narrative.

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

    @classmethod
    def from_request(cls, request: EditRequest, data: Mapping[str, Any] | None = None) -> ScaffoldEdit:
        """Take over a checked request; `data` is the MQuAKE rewrite it was read from, for the ids."""
        data = data or {}

        def entity(name: str, key: str) -> Entity:
            value = data.get(key)
            found = value.get("id") if isinstance(value, dict) else None
            return Entity(name, found if isinstance(found, str) and found.strip() else None)

        subject_id = data.get("subject_id")
        relation = data.get("relation_id")
        return cls(
            subject=Entity(request.subject, subject_id if isinstance(subject_id, str) and subject_id else None),
            old=entity(request.ground_truth or "", "target_true"),
            new=entity(request.target_new, "target_new"),
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
        limit: Take the first so many cases only.

    Raises:
        ScaffoldError: The file is missing, is no UTF-8 JSON, or is not a list of cases.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ScaffoldError(f"--mquake_file: the file {str(path)!r} does not exist.") from None
    except OSError as error:
        raise ScaffoldError(f"--mquake_file: {str(path)!r} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise ScaffoldError(f"--mquake_file: {str(path)!r} is not UTF-8 text ({error.reason}).") from None
    return parse_cases(text, str(path), limit=limit)


def parse_cases(text: str, where: str, *, limit: int | None = None) -> CaseFile:
    """Read cases from the text of a JSON list; see `read_cases`."""
    try:
        json.loads(text)  # the whole file must be sound before a part of it is used
        items = list(json_items(text))
    except ValueError as error:
        raise ScaffoldError(f"{where!r} is not a JSON list of MQuAKE cases ({error}).") from None
    if not items:
        raise ScaffoldError(f"{where!r} holds no case.")
    items = items[:limit]
    seen = Counter(_id_of(data) for data, _ in items if isinstance(data, dict))
    cases, problems, done = [], [], set()
    for number, (data, raw) in enumerate(items, start=1):
        case_id = _id_of(data) if isinstance(data, dict) else None
        item = f"case {case_id}" if case_id is not None else f"case number {number}"
        if case_id is not None and case_id in done:
            problems.append(Problem(item, "read", f"this case_id occurs {seen[case_id]} times; the first one is used"))
            continue
        try:
            edits = _edits_of(data, case_id)
        except ScaffoldError as error:
            problems.append(Problem(item, "read", str(error)))
            continue
        done.add(case_id)
        cases.append(ScaffoldCase(case_id, edits, data, raw))
    return CaseFile(cases, problems)


def _id_of(data: Mapping[str, Any]) -> Any:
    value = data.get("case_id")
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _edits_of(data: Any, case_id: Any) -> tuple[ScaffoldEdit, ...]:
    if not isinstance(data, dict):
        raise ScaffoldError(f"a case must be an object, got {type(data).__name__}")
    if case_id is None:
        raise ScaffoldError("`case_id` is missing or is neither a number nor a text")
    rewrites = data.get("requested_rewrite")
    if not isinstance(rewrites, list) or not rewrites:
        raise ScaffoldError(f"`requested_rewrite` must be a list of edits, got {rewrites!r}")
    edits = []
    ids = _subject_ids(data)
    for number, rewrite in enumerate(rewrites, start=1):
        try:
            request = request_from_dict(rewrite)
        except RequestError as error:
            raise ScaffoldError(f"edit {number}: {error}") from None
        if not request.ground_truth:
            raise ScaffoldError(f"edit {number}: `target_true` (the old answer) is missing")
        edit = ScaffoldEdit.from_request(request, rewrite)
        subject = edit.subject if edit.subject.id else Entity(edit.subject.name, ids.get(edit.subject.name))
        edits.append(
            dataclasses.replace(
                edit,
                subject=subject,
                old=dataclasses.replace(edit.old, aliases=_aliases(data.get("single_hops"), edit.old.name)),
                new=dataclasses.replace(edit.new, aliases=_aliases(data.get("new_single_hops"), edit.new.name)),
            )
        )
    return tuple(edits)


def _subject_ids(data: Mapping[str, Any]) -> dict[str, str]:
    """Ids of names in the triples (a rewrite gives ids for its answers only)."""
    found: dict[str, str] = {}
    orig = data.get("orig")
    if not isinstance(orig, dict):
        return found
    for ids_key, names_key in (("triples", "triples_labeled"), ("new_triples", "new_triples_labeled")):
        for ids, names in zip(orig.get(ids_key) or (), orig.get(names_key) or (), strict=False):
            if isinstance(ids, list) and isinstance(names, list) and len(ids) == len(names) == 3:
                for position in (0, 2):
                    if isinstance(ids[position], str) and isinstance(names[position], str):
                        found.setdefault(names[position], ids[position])
    return found


def _aliases(hops: Any, answer: str) -> tuple[str, ...]:
    for hop in hops if isinstance(hops, list) else ():
        if isinstance(hop, dict) and hop.get("answer") == answer and isinstance(hop.get("answer_alias"), list):
            return tuple(a for a in hop["answer_alias"] if isinstance(a, str))
    return ()


# ---- JSON text, cut into its parts -----------------------------------------------------------------
