"""Facts that are not in MQuAKE form: a CSV or JSON-lines file becomes MQuAKE-like cases, one per fact."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from causaledit.errors import RequestError, ScaffoldError, did_you_mean
from causaledit.facts.requests import request_from_dict
from causaledit.facts.text import normalise
from causaledit.narratives.cases import CaseFile, Problem, parse_cases, read_bytes
from causaledit.narratives.templates import TemplateBank
from causaledit.support.json_text import read_json_text
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# column → its other names
COLUMNS: dict[str, tuple[str, ...]] = {
    "subject": (),
    "old": ("old_answer", "target_true", "ground_truth"),
    "new": ("new_answer", "target_new"),
    "prompt": ("cloze",),
    "question": (),
    "relation_id": ("relation",),
    "subject_id": (),
    "old_id": (),
    "new_id": (),
    "case_id": ("id",),
}
REQUIRED = ("subject", "old", "new")
MOST_DIGITS = 18  # of a case id that is read as a number
_NEEDS = "a fact needs the columns subject, old, new, and prompt (a cloze with {}) or relation_id"


def read_facts(path: str | Path, *, limit: int | None = None) -> CaseFile:
    """Read facts as cases.

    Columns (or keys): `subject`, `old`, `new`, and `prompt` (a cloze with `{}` or the subject in it) or
    `relation_id` (a Wikidata property the templates know); optional `question`, `subject_id`, `old_id`,
    `new_id`, `case_id`. CSV may be separated by comma, semicolon or tab, in UTF-8 or in UTF-16 with a byte-order mark.

    Raises:
        ScaffoldError: The file is missing, in another encoding, without a needed column, or empty.
    """
    path = expanded(path)
    if path.suffix.lower() not in (".csv", ".tsv", ".jsonl"):
        raise ScaffoldError(f"--facts: {str(path)!r} is neither .csv nor .jsonl.")
    text = _decode(path)
    rows = _csv_rows(text, path) if path.suffix.lower() in (".csv", ".tsv") else _jsonl_rows(text)
    bank = TemplateBank.bundled()
    cases, problems = [], []
    total = 0
    for number, (where, row) in enumerate(rows, start=1):
        if limit is not None and total >= limit:
            break
        total += 1
        if isinstance(row, str):
            problems.append(Problem(where, "read", row))
            continue
        try:
            cases.append(_case(row, number, bank))
        except (ScaffoldError, RequestError) as error:
            problems.append(Problem(where, "read", str(error)))
    if not total:
        raise ScaffoldError(f"--facts: {str(path)!r} holds no fact.")
    if not cases:
        return CaseFile([], problems)
    found = parse_cases(json.dumps(cases, ensure_ascii=False, indent=1), str(path))
    return CaseFile(found.cases, [*problems, *found.problems])


def _decode(path: Path) -> str:
    raw = read_bytes(path, "--facts")
    marked = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\x00" in raw and not marked:
        raise ScaffoldError(
            f"--facts: {str(path)!r} holds zero bytes; it may be UTF-16 without a byte-order mark: save it as UTF-8."
        )
    try:
        return raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ScaffoldError(
            f"--facts: {str(path)!r} is not UTF-8 (byte 0x{raw[error.start]:02x} in line {line}): save it as UTF-8, "
            "for example with `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from None


def _canonical(names: list[str]) -> dict[str, str]:
    """The given column names mapped to ours; a column of our own name goes before its other names.

    Raises:
        ScaffoldError: Two columns are one of ours.
    """
    found: dict[str, str] = {}
    for column, others in COLUMNS.items():
        own = [name for name in names if name and normalise(name) == column]
        if len(given := own or [name for name in names if name and normalise(name) in others]) > 1:
            raise ScaffoldError(f"{' and '.join(map(repr, given))} both stand for `{column}`: keep one.")
        found |= dict.fromkeys(given, column)
    return found


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        try:
            columns = _canonical(names)
        except ScaffoldError as error:
            raise ScaffoldError(f"--facts: {str(path)!r}: {error}") from None
        have = set(columns.values())
        missing = [name for name in REQUIRED if name not in have]
        if not have & {"prompt", "relation_id"}:
            missing.append("prompt (or relation_id)")
        if missing:
            near = did_you_mean(missing[0], [n for n in names if n])
            raise ScaffoldError(
                f"--facts: {str(path)!r} lacks the column {', '.join(missing)}; it has {', '.join(names) or 'none'}."
                f"{near} In short, {_NEEDS}."
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"line {reader.line_num}"
            if len(cells) != len(names):
                yield where, f"it has {len(cells)} columns, the header has {len(names)} (is a comma not quoted?)"
                continue
            row = dict(zip(names, cells, strict=True))
            yield where, {columns[name]: value.strip() for name, value in row.items() if name in columns}
    except csv.Error as error:
        raise ScaffoldError(f"--facts: {str(path)!r} is not valid CSV (line {reader.line_num}: {error}).") from None


def _jsonl_rows(text: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    # a line ends where JSON lines end: a text may hold the other separators of `str.splitlines`
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            row = read_json_text(line)
        except ValueError as error:
            yield where, f"it is not JSON ({error})"
            continue
        if not isinstance(row, dict):
            yield where, f"it is {type(row).__name__}, not an object"
            continue
        try:
            columns = _canonical(list(row))
        except ScaffoldError as error:
            yield where, str(error)
            continue
        yield where, {columns[name]: value for name, value in row.items() if name in columns}


def _case(row: Mapping[str, Any], number: int, bank: TemplateBank) -> dict[str, Any]:
    """One fact as a case.

    Raises:
        ScaffoldError, RequestError: Something is missing, or the new answer equals the old one.
    """
    given = {name: value for name, value in row.items() if value is not None}
    for column, value in given.items():
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ScaffoldError(f"`{column}` must be a text or a number, got {value!r}")
    texts = {name: text for name, value in given.items() if (text := str(value).strip())}
    if absent := [name for name in REQUIRED if name not in texts]:
        raise ScaffoldError(f"{', '.join(absent)} is empty: {_NEEDS}")
    subject, relation_id = texts["subject"], texts.get("relation_id")
    relation = bank.relations.get(relation_id or "")
    prompt, question = texts.get("prompt"), texts.get("question")
    if not prompt:
        if relation is None:
            known = did_you_mean(relation_id or "", bank.relations)
            raise ScaffoldError(f"unknown relation {relation_id!r} and no prompt: {_NEEDS}.{known}")
        prompt, question = relation.cloze, question or relation.question.replace("{}", subject)
    rewrite: dict[str, Any] = {
        "prompt": prompt,
        "relation_id": relation_id,
        "target_new": {"str": texts["new"], "id": texts.get("new_id")},
        "target_true": {"str": texts["old"], "id": texts.get("old_id")},
        "subject": subject,
        "subject_id": texts.get("subject_id"),
        "question": question,
    }
    request = request_from_dict(rewrite)
    rewrite["prompt"], rewrite["question"] = request.prompt, request.question_form
    name = relation.name if relation else relation_id
    hop = {"question": request.question_form, "cloze": request.cloze}
    ids = [texts.get("subject_id"), relation_id]
    case_id = texts.get("case_id", str(number))
    return {
        "case_id": int(case_id) if case_id.isdecimal() and len(case_id) <= MOST_DIGITS else case_id,
        "requested_rewrite": [rewrite],
        "questions": [request.question_form],
        "answer": texts["old"],
        "answer_alias": [],
        "new_answer": texts["new"],
        "new_answer_alias": [],
        "single_hops": [{**hop, "answer": texts["old"], "answer_alias": []}],
        "new_single_hops": [{**hop, "answer": texts["new"], "answer_alias": []}],
        "orig": {
            "triples": [[*ids, texts.get("old_id")]],
            "triples_labeled": [[subject, name, texts["old"]]],
            "new_triples": [[*ids, texts.get("new_id")]],
            "new_triples_labeled": [[subject, name, texts["new"]]],
            "edit_triples": [[*ids, texts.get("new_id")]],
        },
    }
