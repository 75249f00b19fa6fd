"""`causaledit history`: the edits that were made on a saved model."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causaledit.support.console import plain_console
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from causaledit.models.history import Card, MadeEdit

_NARROWEST = 80  # width of the table where there is no terminal


def history(
    model: Annotated[str, typer.Argument(help="Folder of a saved model or adapter, or its name on the Hub.")],
    json: Annotated[bool, typer.Option("--json", help="Print the history as JSON.")] = False,
) -> None:
    """List the edits that were made on a saved model, and which of them can be undone."""
    from causaledit.errors import ModelError
    from causaledit.models.history import CARD_NAME, cards_of, made_edits, read_card
    from causaledit.models.origin import is_hub_name
    from causaledit.support.paths import exists

    cards = cards_of(read_card(model, fetch=True))
    if not cards:
        if not (exists(expanded(model)) or is_hub_name(model)):
            raise ModelError(
                f"The model folder {model!r} does not exist: give the folder that an edit was saved to, or owner/name."
            )
        raise ModelError(
            f"The model {model!r} has no history: there is no {CARD_NAME} with edits there. Give the folder that an "
            "edit was saved to."
        )
    made = made_edits(cards)
    out = plain_console()
    if not out.is_terminal:
        out = plain_console(width=_NARROWEST)
    first, why = _first_to_undo(model, cards)
    if json:
        import json as texts

        data = [_as_data(one, cards[one.number - 1], first) for one in made]
        out.print(texts.dumps(data, ensure_ascii=False, indent=1), highlight=False, markup=False, soft_wrap=True)
        return
    _show(made, out)
    if first is None:
        ending = f"none can be undone: {why}"
    else:
        numbers = f"edit {first}" if first == len(cards) else f"edits {first} to {len(cards)}"
        ending = f"{numbers} can be undone: causaledit undo {shlex.quote(model)} --edit {first} --save DIR"
    out.print(ending, highlight=False, markup=False, soft_wrap=True)


def _first_to_undo(model: str, cards: Sequence[Card]) -> tuple[int | None, str]:
    """The first edit from which on all can be taken back; None where not even the last can, and why it cannot."""
    from causaledit.errors import ModelError
    from causaledit.models.undo import plan_undo
    from causaledit.support.paths import exists

    if not exists(expanded(model)):
        return None, f"{model} is not on this machine; download it first (hf download {model} --local-dir DIR)"
    first, why = None, ""
    for number in range(len(cards), 0, -1):
        try:
            plan_undo(model, number)
        except ModelError as error:
            why = str(error).removeprefix(f"--edit {number}: ")  # who asks for a history gave no such option
            break
        first = number
    return first, why


def _as_data(made: MadeEdit, card: Card, first: int | None) -> dict[str, Any]:
    request = made.request
    return {
        "edit": made.number,
        "created": made.created,
        "method": made.method,
        "subject": request.subject,
        "prompt": request.prompt,
        "question": request.question,
        "old": request.ground_truth,
        "new": request.target_new,
        "narrative": request.narrative,
        "narrative_from": made.narrative_from or None,
        "base_model": (card.get("origin") or {}).get("name"),
        "undoable": first is not None and made.number >= first,
    }


def _show(made: Sequence[MadeEdit], out: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("made", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for name in ("fact", "old → new"):
        table.add_column(name, overflow="fold")
    table.add_column("narrative", no_wrap=True)
    before = 0
    for one in made:
        request, again = one.request, one.number == before
        edit = ("", "", "") if again else (str(one.number), one.created[:10], one.method)
        answers = f"{request.ground_truth or '(not known)'} → {request.target_new}"
        cells = (*edit, request.cloze, answers, one.narrative_from or "–")
        table.add_row(*(Text(cell) for cell in cells))
        before = one.number
    out.print(table)
