"""`causaledit doctor`: is everything installed that an edit, and EasyEdit, need?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from causaledit.support.console import plain_console

if TYPE_CHECKING:
    from causaledit.hosts.easyedit.diagnosis import Diagnosis


def doctor(
    easyedit: Annotated[
        str, typer.Option("--easyedit", help="Folder of an EasyEdit checkout; EASYEDIT_HOME by default.")
    ] = "",
) -> None:
    """Check versions, torch, and what an EasyEdit checkout still needs: all at once, with the pip commands to run."""
    with plain_console(stderr=True).status("looking"):
        from causaledit.hosts.easyedit.diagnosis import diagnose

        found = diagnose(easyedit or None)
    console = plain_console(soft_wrap=True)
    for line in _lines(found):
        console.print(line, highlight=False, markup=False)
    if not found.usable:
        raise typer.Exit(1)


def _lines(found: Diagnosis) -> list[str]:
    lines = [f"Python {found.python}, torch {found.torch} ({'GPU build' if found.gpu else 'CPU build'})"]
    lines += [f"{package} {version}" for package, version in found.versions.items()]
    lines += [f"problem: {problem}" for problem in found.problems]
    if found.home is None:
        return [*lines, "EasyEdit: not found (EASYEDIT_HOME is not set); the embedded host is used"]
    revision = f" at {found.revision}" if found.revision else ""
    lines.append(f"EasyEdit: {found.home}{revision}")
    lines += [f"problem: {problem}" for problem in found.easyedit_problems]
    if found.missing:
        lines.append(f"missing for EasyEdit's import: {', '.join(found.missing)}")
        lines += ["to install them:", *(f"    {line}" for line in found.install)]
    elif not found.easyedit_problems:
        lines.append("EasyEdit can be imported, and takes this plugin")
    return lines
