"""Problems in the cases of a file, each with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import DatasetError, RequestError
from causaledit.facts.requests import answer_text, request_from_dict
from causaledit.facts.rewrites import NARRATIVE_KEYS
from causaledit.facts.text import composed
from causaledit.mquake.forms import SOURCE, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_SHOWN = 5


@dataclass(frozen=True)
class Flaw:
    """Something wrong in a file.

    Attributes:
        case: Which case: its `case_id`, or its place in the file where it has none.
        field: Path of the field in the case, such as `requested_rewrite[0].prompt`; empty for the whole case.
        message: What is wrong with it.
        index: Place of the case in the file, from 0; None for the file as a whole.
    """

    case: str
    field: str
    message: str
    index: int | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.case, self.field, self.message) if part)


def check_cases(data: Any) -> list[Flaw]:
    """All problems in the content of an MQuAKE file, by case and field."""
    if not isinstance(data, list):
        return [Flaw("the file", "", f"must hold a list of cases, got {type(data).__name__}")]
    if not data:
        return [Flaw("the file", "", "holds no case")]
    repeated = Counter(repr(case["case_id"]) for case in data if isinstance(case, Mapping) and "case_id" in case)
    problems: list[Flaw] = []
    for index, case in enumerate(data):
        if not isinstance(case, Mapping):
            problems.append(Flaw(f"entry {index + 1}", "", f"must be an object, got {type(case).__name__}", index))
            continue
        known = "case_id" in case
        name = f"case {case['case_id']}" if known else f"entry {index + 1}"
        found = list(_case_problems(case))
        if known and repeated[repr(case["case_id"])] > 1:
            found.insert(0, ("case_id", f"{case['case_id']!r} occurs {repeated[repr(case['case_id'])]} times"))
        problems += [Flaw(name, field, message, index) for field, message in found]
    return problems


_Found = tuple[str, str]


def _case_problems(case: Mapping[str, Any]) -> Iterator[_Found]:
    case_id = case.get("case_id")
    if not isinstance(case_id, int | str) or isinstance(case_id, bool) or case_id == "":
        yield "case_id", f"must be a number or a text, got {case_id!r}"
    if UNREADABLE in case:
        yield "", str(case[UNREADABLE])
        return
    other = SOURCE in case  # made from another form: one edit, and perhaps no old answer
    yield from _edit_problems(case.get("requested_rewrite"), old_needed=not other)
    questions = case.get("questions")
    if other:
        return
    if not isinstance(questions, list) or not questions:
        yield "questions", f"must be a list of multi-hop questions, got {questions!r}"
    else:
        for i, question in enumerate(questions):
            yield from _text(question, f"questions[{i}]")
    for side in ("answer", "new_answer"):
        yield from _text(case.get(side), side)
        yield from _aliases(case, f"{side}_alias", f"{side}_alias")
    yield from _hop_problems(case, "new_single_hops", needed=True)
    yield from _hop_problems(case, "single_hops", needed=False)


def _text(value: Any, field: str) -> Iterator[_Found]:
    if not isinstance(value, str):
        yield field, "is missing" if value is None else f"must be a text, got {value!r}"
    elif not value.strip():
        yield field, "is empty"


def _aliases(holder: Mapping[str, Any], key: str, field: str) -> Iterator[_Found]:
    aliases = holder.get(key, [])
    if not isinstance(aliases, list):
        yield field, f"must be a list of texts, got {aliases!r}"
        return
    for i, alias in enumerate(aliases):
        yield from _text(alias, f"{field}[{i}]")


def _hop_problems(case: Mapping[str, Any], key: str, *, needed: bool) -> Iterator[_Found]:
    hops = case.get(key)
    if hops is None and not needed:
        return
    if not isinstance(hops, list) or (needed and not hops):
        yield key, "has no hop" if hops in (None, []) else f"must be a list of hops, got {hops!r}"
        return
    for i, hop in enumerate(hops):
        field = f"{key}[{i}]"
        if not isinstance(hop, Mapping):
            yield field, f"must be an object, got {hop!r}"
            continue
        for part in ("question", "cloze", "answer"):
            yield from _text(hop.get(part), f"{field}.{part}")
        yield from _aliases(hop, "answer_alias", f"{field}.answer_alias")


def _edit_problems(rewrites: Any, *, old_needed: bool) -> Iterator[_Found]:
    if not isinstance(rewrites, list) or not rewrites:
        yield (
            "requested_rewrite",
            "has no edit" if rewrites in (None, []) else f"must be a list of edits, got {rewrites!r}",
        )
        return
    facts: set[tuple[str, str]] = set()
    for i, rewrite in enumerate(rewrites):
        field = f"requested_rewrite[{i}]"
        if not isinstance(rewrite, Mapping):
            yield field, f"must be an object, got {rewrite!r}"
            continue
        found = list(_rewrite_problems(rewrite, field, old_needed=old_needed))
        yield from found
        if found:
            continue
        try:
            request_from_dict(rewrite)
        except RequestError as error:  # anything else that the schema of requests refuses
            yield field, str(error).rstrip(".")
        fact = (composed(rewrite["subject"]), str(rewrite.get("relation_id") or rewrite["prompt"]))
        if fact in facts:
            yield field, f"changes a fact that another edit of the case changes (subject {rewrite['subject']!r})"
        facts.add(fact)


def _rewrite_problems(rewrite: Mapping[str, Any], field: str, *, old_needed: bool) -> Iterator[_Found]:
    yield from _text(rewrite.get("subject"), f"{field}.subject")
    prompt = rewrite.get("prompt")
    yield from _text(prompt, f"{field}.prompt")
    if isinstance(prompt, str) and prompt.strip() and prompt.count("{}") != 1:
        yield f"{field}.prompt", f"must hold exactly one {{}} where the subject stands, got {prompt!r}"
    for key in ("target_new", "target_true"):
        if key == "target_true" and not old_needed and rewrite.get(key) is None:
            continue
        try:
            yield from _text(answer_text(rewrite.get(key), key), f"{field}.{key}")
        except RequestError as error:
            yield f"{field}.{key}", str(error).rstrip(".")
    for key in ("question", *NARRATIVE_KEYS):
        if rewrite.get(key) is not None:
            yield from _text(rewrite[key], f"{field}.{key}")


def refuse(problems: Sequence[Flaw], what: str) -> None:
    """Raise a `DatasetError` that lists the first problems, if there are any."""
    if problems:
        listed = "; ".join(str(problem) for problem in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DatasetError(
            f"{what} cannot be used: {listed}{more}. `causaledit data check FILE` lists everything that is wrong."
        )
