"""The requests of `causaledit edit`: from its options or a file, with a subject suggested where one is missing."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from causaledit.facts.requests import EditRequest


def read_edits(data: Any, *, needs_subject: bool, suggest: Suggestions) -> list[EditRequest]:
    """Read requests; one without a subject gets the suggestion that `suggest` confirms.

    Args:
        data: As `requests_from_data` takes it; left as it is.
        needs_subject: Whether the method needs one.

    Raises:
        RequestError: A request is unusable, has no subject and the suggestion is not taken, or two change one fact.
    """
    from causaledit.facts.requests import refuse_doubles, requests_from_data

    if needs_subject:
        data = _with_subjects(data, suggest)
    edits = requests_from_data(data, needs_subject=needs_subject)
    refuse_doubles(edits)
    return edits


def _with_subjects(data: Any, suggest: Suggestions) -> Any:
    """A copy of requests in which those without a subject have the suggested one; see `read_edits`."""
    from causaledit.facts.rewrites import rewrites_with_places, text_in

    data = copy.deepcopy(data)
    flat = rewrites_with_places(data)
    for number, (place, item) in enumerate(flat, start=1):
        if not isinstance(item, Mapping) or text_in(item.get("subject")):
            continue
        prompt = text_in(item.get("prompt"))
        if prompt and "{}" not in prompt:
            where = f"Request {number}{place}: " if len(flat) > 1 or place else ""
            item["subject"] = suggest.subject(prompt, where)  # type: ignore[index]  # read from JSON: a dict
    return data


class Suggestions:
    """Suggests subjects: asks in a terminal, takes them with `--yes`, and otherwise ends with the suggestion.

    Args:
        taken: Take every suggestion without asking.
        console: Where a question is asked.
        planning: Nothing is edited: take every suggestion, and note it.

    Attributes:
        noted: The suggestions that were taken without asking.
    """

    def __init__(self, *, taken: bool, console: Console, planning: bool = False) -> None:
        self._taken, self._console, self._planning = taken, console, planning
        self.noted: list[str] = []

    def subject(self, prompt: str, where: str = "") -> str:
        """The subject of a prompt that came without one.

        Args:
            prompt: Without `{}`.
            where: The request's place, for the message.

        Raises:
            RequestError: Nothing can be suggested, or nobody can be asked.
        """
        from causaledit.errors import RequestError
        from causaledit.facts.subjects import suggest_subject

        found = suggest_subject(prompt)
        asking = not self._taken and sys.stdin.isatty() and self._console.is_terminal
        if asking:
            from rich.prompt import Prompt

            self._console.print(
                f"{where}no subject is given for: {prompt}", highlight=False, markup=False, soft_wrap=True
            )
            answer = Prompt.ask("Which entity is it about?", console=self._console, default=found or ...)
            return str(answer).strip()
        if found is None:
            raise RequestError(
                f"{where}--subject is missing, and the prompt {prompt!r} does not show which entity it is about: give "
                "--subject (`subject` in a file of requests)."
            )
        if not (self._taken or self._planning):
            raise RequestError(
                f"{where}--subject is missing: the prompt {prompt!r} seems to be about {found!r}. Give --subject "
                f"{found!r} (`subject` in a file of requests), or --yes to take it."
            )
        self.noted.append(found)
        if self._taken:
            self._console.print(f"{where}subject: {found} (suggested)", highlight=False, markup=False, soft_wrap=True)
        return found


def request_from_options(
    subject: str, prompt: str, question: str, old: str, new: str, narrative: str, *, needs_subject: bool
) -> dict[str, Any]:
    """The one request that the command's options make.

    Raises:
        RequestError: An option is missing, or the narrative's file cannot be read.
    """
    from causaledit.errors import RequestError

    needed = [("--prompt", prompt), ("--new", new)]
    if needs_subject and "{}" in prompt:  # there is nothing that could be suggested
        needed.insert(0, ("--subject", subject))
    for option, value in needed:
        if not value.strip():
            raise RequestError(
                f"{option} is missing: an edit needs --subject, --prompt and --new (or --requests FILE)."
            )
    return {
        "subject": subject,
        "prompt": prompt,
        "question": question or None,
        "ground_truth": old or None,
        "target_new": new,
        "narrative": _narrative_text(narrative) or None,
    }


def _narrative_text(value: str) -> str:
    """A file's text where the value names one, the value itself otherwise."""
    from causaledit.errors import PathError, RequestError
    from causaledit.support.paths import expanded, is_file, is_folder

    if not value:
        return ""
    try:
        path = expanded(value)
    except PathError:  # a text that begins with a tilde
        path = Path(value)
    if is_file(path):
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"--narrative: the file {value!r} cannot be read as UTF-8 text ({error}).") from None
        if not text:
            raise RequestError(f"--narrative: the file {value!r} is empty: write the narrative in it.")
        return text
    if not value.strip():
        raise RequestError("--narrative is empty: give a text or a file that holds it, or leave it out.")
    if is_folder(path):
        raise RequestError(f"--narrative: {value!r} is a folder: give a file with the narrative in it.")
    # one word says no reason, except in scripts that put no spaces between words
    if value.endswith((".txt", ".md")) or (len(value.split()) == 1 and value.isascii()):
        raise RequestError(f"--narrative: the file {value!r} does not exist, and it is no text that gives a reason.")
    return value
