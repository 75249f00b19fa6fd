"""The page's parts as HTML. Whatever a model or a file wrote is escaped by the template, and never parsed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.ui.marks import MEANINGS, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.ui.shown import Response, Shown

TASKS = {"answer": "Answer", "refutation": "Self-refutation", "rationale": "Rationale"}
_GRADES = {"PASS": ("good", "✓", "right"), "FAIL": ("bad", "✗", "wrong"), "UNSURE": ("plain", "?", "unsure")}


class Badge(NamedTuple):
    """A verdict in two or three words."""

    tone: str
    text: str


class VerdictRow(NamedTuple):
    """A line of the table of verdicts."""

    question: str
    verdict: str
    evidence: str
    note: str = ""


def header(shown: Shown) -> str:
    """Title and what is known of the whole."""
    return str(_macros().header(shown))


def facts(shown: Shown, number: int) -> str:
    """What was changed in one edit or case, and why.

    Args:
        shown: What the page is about.
        number: Which of its parts, from 0.
    """
    return str(_macros().facts(shown.parts[number]))


def probes(shown: Shown, number: int) -> str:
    """What was asked in one edit or case, with responses and verdicts; as `facts`."""
    return str(_macros().probes(shown.parts[number]))


def history(shown: Shown) -> str:
    """The edits made on the model one after the other; empty where there are none."""
    return str(_macros().history(shown)) if shown.history else ""


def response(said: Response) -> str:
    """One response with its evidence marked."""
    return str(_macros().response(said))


def note(text: str) -> str:
    """A remark."""
    return str(_macros().note(text))


def waiting(text: str) -> str:
    """What stands in an answer's place until it comes."""
    return str(_macros().waiting(text))


# ---- verdicts in words ---------------------------------------------------------------------------------------------
def badges(said: Response) -> list[Badge]:
    """What a reader looks for first."""
    found: list[Badge] = []
    for verdict in said.verdicts:
        if verdict.get("error"):
            found.append(Badge("plain", "not judged"))
        elif verdict["task"] == "refutation":
            if verdict["self_refutation"]:
                found.append(Badge("alarm", "⚠ refutes itself"))
            elif verdict["assertion_of_target_new"]:
                found.append(Badge("plain", "asserts the new answer"))
        else:
            tone, mark, answer = _GRADES[verdict["grade"]]
            found.append(Badge(tone, f"{mark} {answer if verdict['task'] == 'answer' else 'rationale'}"))
    return list(dict.fromkeys(found))


def verdict_rows(said: Response, *, several: bool) -> Iterator[VerdictRow]:
    """Every verdict with its evidence.

    Args:
        said: A response.
        several: Whether the case has several edits, so that a verdict says which one it is about.
    """
    for verdict in said.verdicts:
        about = f" ({verdict['about']})" if several and verdict.get("about") else ""
        question = f"{TASKS[verdict['task']]}{about}"
        if verdict.get("error"):
            yield VerdictRow(question, "not judged", "", str(verdict["error"]))
        elif verdict["task"] == "refutation":
            yield VerdictRow(question, "refutes itself" if verdict["self_refutation"] else "does not refute itself", "")
            for name, meaning, quote in (
                ("assertion_of_target_new", "asserts the new answer", "assertion"),
                ("explicit_negation_of_target_new", "denies the new answer", "negation"),
                ("final_answer_is_target_new", "ends on the new answer", "final"),
            ):
                yield VerdictRow(f"– {meaning}", _yes_no(verdict[name]), verdict.get(f"{quote}_evidence") or "")
        else:
            by = f", by {verdict['by']}" if verdict.get("by") else ""
            yield VerdictRow(
                question + by, verdict["grade"], verdict.get("evidence") or "", verdict.get("reason") or ""
            )


def _yes_no(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not judged"}[value]


def _title(kinds: tuple[str, ...]) -> str:
    return "; ".join(MEANINGS[kind] for kind in kinds)


@functools.cache
def _macros() -> Any:
    """The template's macros; each gives escaped HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(pieces=pieces, badges=badges, verdict_rows=verdict_rows, title_of=_title)
    return environment.get_template("fragments.html.jinja").module
