"""Where the bundled files are (beside the package in a checkout, inside it once installed), and the cache."""

from __future__ import annotations

import os
from pathlib import Path

from causaledit.errors import PathError

_PACKAGE = Path(__file__).resolve().parents[1]


def _root() -> Path:
    checkout = _PACKAGE.parent
    return checkout if (checkout / "hparams" / "CausalEdit").is_dir() else _PACKAGE


def hparams_dir(alg_name: str) -> Path:
    """Folder with the bundled YAML files of one method."""
    return _root() / "hparams" / alg_name


def data_dir() -> Path:
    """Folder with the bundled data sets."""
    return _root() / "data"


def cache_dir() -> Path:
    """`CAUSALEDIT_CACHE`, or `causaledit` under the user's cache folder."""
    if override := os.environ.get("CAUSALEDIT_CACHE"):
        return expanded(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "causaledit"


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path that a user named, with a home folder in place of `~`.

    Raises:
        PathError: It begins with `~NAME`, and nobody has that name. (pathlib's own error names nothing.)
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise PathError(
            f"{str(path)!r} begins with somebody's home folder, and {Path(path).parts[0]} is nobody here: write the "
            "folder out."
        ) from None


def exists(path: Path) -> bool:
    """Whether there is something at a path that a user named; at one that no file can have (too long), there is not."""
    try:
        return path.exists()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file at a path that a user named; see `exists`."""
    return exists(path) and path.is_file()


def is_folder(path: Path) -> bool:
    """Whether there is a folder at a path that a user named; see `exists`."""
    return exists(path) and path.is_dir()
