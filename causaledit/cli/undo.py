"""`causaledit undo`: take the last edits of a saved model back."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import Annotated

import typer

from causaledit.support.console import plain_console


def undo(
    model: Annotated[str, typer.Argument(help="Folder of a saved model or adapter.")],
    save: Annotated[Path, typer.Option(help="Folder for the model as it was before; must not exist or be empty.")],
    edit: Annotated[
        int | None, typer.Option("--edit", help="Take back this edit and all after it; by default, the last one.")
    ] = None,
) -> None:
    """Take the last edits of a saved model back, bit for bit, where their originals were kept, and save the result."""
    from causaledit.models.history import made_edits
    from causaledit.models.saving import check_new_folder
    from causaledit.models.undo import plan_undo

    found = plan_undo(model, edit)
    check_new_folder(save, "--save")
    with plain_console(stderr=True).status(f"taking back the edits of {model}"):
        found.save(save)
    out = plain_console(soft_wrap=True)
    stay = len(found.cards)
    for one in made_edits([*found.cards, *found.undone]):
        if one.number > stay:
            request = one.request
            out.print(
                f"edit {one.number} taken back: {request.cloze}: {request.target_new} → "
                f"{request.ground_truth or '(not known)'}",
                highlight=False,
                markup=False,
            )
    left = "no edits are left in it" if not stay else f"{stay} edit{'s'[: stay != 1]} left in it"
    out.print(f"saved to {save}; {left}", highlight=False, markup=False)
