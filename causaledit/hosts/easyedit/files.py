"""Hyper-parameter files in EasyEdit's format: where they are, and how one is told from ours.

Nothing of EasyEdit is imported here.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import HparamsError, did_you_mean
from causaledit.hosts.easyedit.found import home_folder
from causaledit.methods.hyperparams import BaseHyperParams
from causaledit.support.paths import expanded, hparams_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from causaledit.methods.method import Method

BUNDLED = "easyedit"  # hparams/easyedit/METHOD/: our files for EasyEdit's methods
_SUFFIXES = ("", ".yaml", ".yml", ".json")


def plain_name(name: str) -> str:
    """A method's name without what its spellings differ in (`ULTRAEDIT`, `UltraEdit`; `R-ROME`, `R_ROME`)."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def spelled(name: str, known: Iterable[str]) -> str | None:
    """The method that a name means: its `alg_name`, or the name of the folder its files are in."""
    names = list(known)
    if name in names:
        return name
    folders = [folder.name for root in roots() if root.is_dir() for folder in root.iterdir()]
    alike = [other for other in names if plain_name(other) == plain_name(name)]
    return alike[0] if len(alike) == 1 and name in folders else None


def roots() -> list[Path]:
    """Folders that hold one folder of files a method: ours for EasyEdit's methods, then the checkout's."""
    home = home_folder()
    return [hparams_dir(BUNDLED), *([home / "hparams"] if home else [])]


def files_of(name: str, label: str) -> Iterator[Path]:
    """Files of that name among the bundled ones in EasyEdit's format, then in the checkout.

    Args:
        name: The method's, in any spelling.
        label: Of the file, with or without its ending.
    """
    for folder in _folders(name):
        for suffix in _SUFFIXES:
            file = folder / f"{label}{suffix}"
            if file.is_file():
                yield file


def _folders(name: str) -> list[Path]:
    found = []
    for root in roots():
        if root.is_dir():
            found += [folder for folder in sorted(root.iterdir()) if plain_name(folder.name) == plain_name(name)]
    return [folder for folder in found if folder.is_dir()]


def find_file(path: str | Path, name: str) -> Path:
    """A file in EasyEdit's format: as given, with its ending added, or by its name among those that are known.

    Raises:
        HparamsError: There is none; the known names are listed.
    """
    given = expanded(path)
    for suffix in _SUFFIXES:
        file = given.with_name(given.name + suffix) if given.name else given
        if file.is_file():
            return file
    label = given.name
    if given.parent == Path() and label and (file := next(files_of(name, label), None)):  # type: ignore[assignment]
        return file
    bundled = sorted({file.stem for folder in _folders(name) if _is_ours(folder) for file in folder.glob("*.yaml")})
    theirs = sorted({file.stem for folder in _folders(name) if not _is_ours(folder) for file in folder.glob("*.yaml")})
    raise HparamsError(
        f"There is no hparams file {str(given)!r} in EasyEdit's format for {name}."
        f"{did_you_mean(given.stem, [*bundled, *theirs])} Bundled: {', '.join(bundled) or 'none'}. "
        f"In EasyEdit's checkout: {', '.join(theirs) or 'none'}."
    )


def _is_ours(folder: Path) -> bool:
    return folder.parent == hparams_dir(BUNDLED)


def may_be_easyedits(data: dict[str, Any], ours: Method) -> bool:
    """Whether a file of a method that both have holds a key that is no setting of ours: EasyEdit's loader decides."""
    known = {spec.name for spec in dataclasses.fields(ours.load_hparams())} | set(BaseHyperParams.PUBLISHED_KEYS)
    return any(str(key) not in known for key in data)
