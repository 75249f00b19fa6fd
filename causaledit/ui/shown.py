"""What the page shows, whether it comes from a saved model or from a run: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causaledit.judges.base import Judge


@dataclass(frozen=True)
class ShownEdit:
    """One fact that was changed.

    Attributes:
        subject: The entity it is about.
        question: The fact as a question.
        old: The old answer; None where it is not known.
        new: The new answer.
        narrative: Why it changed; None without one.
        source: Where the narrative came from; empty where that is not known.
        aliases: Further names of the new answer.
        old_aliases: Further names of the old one.
    """

    subject: str
    question: str
    old: str | None
    new: str
    narrative: str | None = None
    source: str = ""
    aliases: tuple[str, ...] = ()
    old_aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Response:
    """What a model said to a probe, with the verdicts on it.

    Attributes:
        when: Before or after the edit, in words; empty where there is only one.
        text: The response; None where there is none.
        verdicts: As `judges.base.verdict_to_dict`, each with its `task`.
        left_out: How many characters were cut from the end.
    """

    when: str
    text: str | None
    verdicts: tuple[Mapping[str, Any], ...] = ()
    left_out: int = 0


@dataclass(frozen=True)
class ShownProbe:
    """One prompt with its responses.

    Attributes:
        kind: Which probe it is, in words.
        prompt: The user message.
        references: What counts as right; empty where the verdicts say enough.
        responses: In the order in which they are shown.
    """

    kind: str
    prompt: str
    references: tuple[str, ...]
    responses: tuple[Response, ...]


@dataclass(frozen=True)
class Part:
    """What is looked at together: an edit of a saved model, or a case of a run.

    Attributes:
        name: What the page calls it.
        edits: The facts that were changed.
        probes: What was asked.
        problem: Why there are no probes; empty where there are some.
    """

    name: str
    edits: tuple[ShownEdit, ...]
    probes: tuple[ShownProbe, ...]
    problem: str = ""


@dataclass(frozen=True)
class HistoryEntry:
    """One edit in a model's history, the oldest first.

    Attributes:
        created: When it was made.
        method: By which method.
        edit: The fact.
        note: Anything else, in words.
    """

    created: str
    method: str
    edit: ShownEdit
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """A saved model or a run, as the page shows it.

    Attributes:
        title: The page's heading.
        about: Label and value, about the whole.
        part_label: What a part is called: "edit" or "case".
        parts: At least one.
        history: The edits made on the model one after the other; empty for a run, which undoes each of them.
        judge: Who gave the verdicts; it also reads what is asked on the page.
        base: The model before the edit, by its name; None where nothing can be asked.
        edited: The folder of the edited model; None where nothing can be asked.
        silence: Why nothing can be asked, in words.
    """

    title: str
    about: tuple[tuple[str, str], ...]
    part_label: str
    parts: tuple[Part, ...]
    history: tuple[HistoryEntry, ...]
    judge: Judge = field(repr=False)
    base: str | None = None
    edited: str | None = None
    silence: str = ""
