"""What an EasyEdit checkout needs before it can be imported, all of it at once.

EasyEdit's package imports every method and data set it has, so one missing package stops it, and each attempt names
only the next. Its import statements are read instead of run: what they name and this environment lacks is listed,
with the pip lines that bring it.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PACKAGE = "easyeditor"
# what the plugin imports of it (see `found.import_parts`)
ENTRY_MODULES = (PACKAGE, f"{PACKAGE}.util.alg_dict", f"{PACKAGE}.editors.batch_editor", f"{PACKAGE}.editors.editor")
# names on the package index that are not those of the import
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",  # the plain one wants a display's libraries
    "hydra": "hydra-core",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# timm declares torchvision, which would bring another torch
WITHOUT_DEPENDENCIES = ("timm",)
# the newest torchvision that imports beside a CPU build of torch, given its operator (see `support.torchvision`)
CPU_TORCHVISION = "torchvision==0.24.1"


class Needed(NamedTuple):
    """A package that EasyEdit imports.

    Attributes:
        name: Its name in the import statement.
        module: The first module of EasyEdit that imports it.
    """

    name: str
    module: str


def needed_packages(home: Path) -> list[Needed]:
    """The packages outside the standard library that EasyEdit's import runs into, by name.

    Imports inside functions, `try` and `if` are left out: EasyEdit gets by without them.

    Args:
        home: The checkout (the folder that holds `easyeditor/`).
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(ENTRY_MODULES)
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        if (file := _file_of(home, name)) is None:
            continue
        parent = name.rpartition(".")[0]
        if parent:
            waiting.append(parent)
        package = name if file.name == "__init__.py" else parent
        for target in _imports(file, package):
            top = target.partition(".")[0]
            if top == PACKAGE:
                waiting.append(target)
            elif top not in sys.stdlib_module_names:
                found.setdefault(top, name)
    return [Needed(name, found[name]) for name in sorted(found, key=str.casefold)]


def missing_packages(home: Path) -> list[Needed]:
    """Those of `needed_packages` that this environment lacks."""
    return [needed for needed in needed_packages(home) if find_spec(needed.name) is None]


def install_lines(missing: Sequence[str], *, gpu: bool) -> list[str]:
    """The pip commands that bring missing packages without replacing torch.

    Args:
        missing: Names in import statements.
        gpu: Whether torch is a GPU build.
    """
    names = [DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in missing]
    lines = []
    plain = [name for name in names if name not in (*WITHOUT_DEPENDENCIES, "torchvision")]
    if plain:
        lines.append(f"pip install {' '.join(plain)}")
    alone = [name for name in names if name in WITHOUT_DEPENDENCIES]
    if "torchvision" in names:
        if gpu:
            lines.append("pip install torchvision  # choose the release that belongs to your torch")
        else:
            alone.append(CPU_TORCHVISION)
    if alone:
        lines.append(f"pip install --no-deps {' '.join(alone)}")
    return lines


class Clash(NamedTuple):
    """A pin of EasyEdit's that this package cannot work with.

    Attributes:
        package: The distribution.
        pinned: What the checkout's requirements.txt says.
        wanted: The range that causaledit declares.
    """

    package: str
    pinned: str
    wanted: str


def pin_clashes(home: Path, declared: Sequence[str] | None = None) -> list[Clash]:
    """Pins of the checkout's requirements.txt that lie outside causaledit's ranges (an old checkout has such).

    Args:
        home: The checkout.
        declared: causaledit's requirements; None reads them from the installed package, where it is installed.
    """
    file = home / "requirements.txt"
    if not file.is_file():
        return []
    ours = {r.name.lower(): r for r in map(_requirement, declared if declared is not None else _own()) if r is not None}
    clashes = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        theirs = _requirement(line.partition("#")[0])
        if theirs is None or (mine := ours.get(theirs.name.lower())) is None:
            continue
        pins = [part.version for part in theirs.specifier if part.operator == "=="]
        if pins and not mine.specifier.contains(pins[0], prereleases=True):
            clashes.append(Clash(theirs.name, f"=={pins[0]}", str(mine.specifier)))
    return clashes


def outside_range() -> list[str]:
    """Installed versions that lie outside the ranges causaledit declares, a line each."""
    problems = []
    for wanted in map(_requirement, _own()):
        if wanted is None:
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{wanted.name} is not installed: causaledit needs {wanted}")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            problems.append(
                f"{wanted.name} {version} is installed, and causaledit needs {wanted.name}{wanted.specifier}"
            )
    return problems


def _own() -> list[str]:
    try:
        return metadata.requires("causaledit") or []
    except metadata.PackageNotFoundError:  # run from a checkout
        return []


def _requirement(line: str) -> Requirement | None:
    text = re.sub(r"^\s*-.*", "", line).strip()
    try:
        found = Requirement(text) if text else None
    except InvalidRequirement:
        return None
    return None if found is None or (found.marker and "extra" in str(found.marker)) else found


def _file_of(home: Path, name: str) -> Path | None:
    path = home.joinpath(*name.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _imports(file: Path, package: str) -> Iterator[str]:
    """Full names of the modules that a file imports when it is itself imported."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8", errors="replace"))
    except SyntaxError:  # its own business
        return
    bodies = [tree.body]
    while bodies:
        for node in bodies.pop():
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*parts, base] if base else parts)
                yield base
                if base.partition(".")[0] == PACKAGE:  # what is imported may be a module
                    yield from (f"{base}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.ClassDef | ast.With):
                bodies.append(node.body)
