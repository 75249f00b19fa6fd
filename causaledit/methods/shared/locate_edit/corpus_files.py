"""Documents in local files: text, JSON, CSV, Parquet and Arrow, compressed or not. Content decides what a file is."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from causaledit.errors import HparamsError, one_line
from causaledit.support.json_text import read_json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_TEXT = (".txt", ".md", ".jsonl", ".csv", ".tsv")
_TABLES = (".parquet", ".arrow")
_COMPRESSED = (".gz", ".bz2", ".xz")
_BEGINNING = 4096  # bytes that are inspected
_MOST_UNREADABLE = 0.1  # of the characters of a beginning that is text, though perhaps not in UTF-8
_LFS = b"version https://git-lfs.github.com/spec/"
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_KINDS = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",  # the stream that `datasets` keeps
    b"PK\x03\x04": "zip",
    b"\x93NUMPY": "NumPy array",
    b"\x28\xb5\x2f\xfd": "zstd archive",
    b"7z\xbc\xaf\x27\x1c": "7z archive",
    b"%PDF": "PDF",
    b"GGUF": "GGUF model",
}
_READERS_ERRORS = (
    OSError, EOFError, ValueError, KeyError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, csv.Error,
)  # fmt: skip


def corpus_files(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders whose names say that they hold documents, in order.

    `.json` is left out: in folders it is mostly something else.
    """
    return sorted(file for file in folder.rglob("*") if _holds_documents(file) and file.is_file())


def _holds_documents(path: PurePath) -> bool:
    inner = path.with_suffix("") if path.suffix in _COMPRESSED else path
    return inner.suffix in _TEXT or path.suffix in _TABLES


def documents_in(file: Path) -> Iterator[str]:
    """A file's documents: its paragraphs, or the `text` of its lines, objects or rows.

    Raises:
        HparamsError: It is not of a kind that can be read, is damaged, or has no `text`.
    """
    try:
        with file.open("rb") as stream:
            beginning = stream.read(_BEGINNING)
        kind = _kind_of(beginning)
        if kind in ("parquet", "arrow"):
            yield from _rows_of(file, kind)
        elif kind == "zip":
            yield from _zipped(file)
        elif kind is not None:
            raise HparamsError(f"`mom2_dataset`: {str(file)!r} is {kind}, not text.")
        else:
            with _opener(beginning)(file) as stream:
                yield from _documents(stream, file.name, str(file))
    except HparamsError:
        raise
    except _READERS_ERRORS as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise HparamsError(f"`mom2_dataset`: {str(file)!r} cannot be read ({reason}).") from None


def _kind_of(beginning: bytes) -> str | None:
    """The kind of a file that is neither text nor compressed text: `parquet`, `arrow`, `zip`, or words for an error."""
    if beginning.startswith(_LFS):
        return "a Git LFS pointer (fetch the file itself with `git lfs pull`)"
    kind = next((kind for magic, kind in _KINDS.items() if beginning.startswith(magic)), None)
    return kind if kind in (None, "parquet", "arrow", "zip") else f"a {kind}"


def _opener(beginning: bytes) -> Callable[[Path], Any]:
    return next((opener for magic, opener in _OPENERS.items() if beginning.startswith(magic)), _open_plain)


def _open_plain(file: Path) -> Any:
    return file.open("rb")


def _rows_of(file: Path, kind: str) -> Iterator[str]:
    from datasets import load_dataset

    rows = load_dataset(kind, data_files=str(file), split="train", streaming=True)
    yield from texts_of(rows, str(file))


def texts_of(rows: Iterable[Any], where: str) -> Iterator[str]:
    """The `text` of rows, empty ones left out.

    Raises:
        HparamsError: A row has none.
    """
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or "text" not in row:
            columns = f", only {', '.join(sorted(map(str, row)))}" if isinstance(row, dict) else ""
            raise HparamsError(f"`mom2_dataset`: row {number} of {where!r} has no `text`{columns}.")
        if isinstance(row["text"], str) and row["text"].strip():
            yield row["text"]


def _zipped(file: Path) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(name.endswith(".npy") for name in names):
            raise HparamsError(
                f"`mom2_dataset`: {str(file)!r} is a NumPy archive, not text: give second moments as `mom2_file`."
            )
        readable = sorted(name for name in names if PurePath(name).suffix in (*_TEXT, ".json"))
        if not readable:
            raise HparamsError(f"`mom2_dataset`: the archive {str(file)!r} holds no {', '.join(_TEXT)} file.")
        for name in readable:
            with archive.open(name) as stream:
                yield from _documents(stream, name, f"{file}:{name}")


def _documents(stream: Any, name: str, where: str) -> Iterator[str]:
    """Documents of a file opened for bytes, after a look at its beginning."""
    readable = io.BufferedReader(stream)
    _refuse_binary(readable.peek(_BEGINNING)[:_BEGINNING], where)
    path = PurePath(name)
    suffix = path.with_suffix("").suffix if path.suffix in _COMPRESSED else path.suffix
    lines = io.TextIOWrapper(
        readable, encoding="utf-8-sig", errors="replace", newline="" if suffix in (".csv", ".tsv") else None
    )
    if suffix == ".jsonl":
        yield from _lines(lines, where)
    elif suffix == ".json":
        data = read_json_text(lines.read())
        yield from texts_of(data if isinstance(data, list) else [data], where)
    elif suffix in (".csv", ".tsv"):
        yield from texts_of(csv.DictReader(lines, delimiter="," if suffix == ".csv" else "\t"), where)
    else:
        yield from _paragraphs(lines)


def _refuse_binary(beginning: bytes, where: str) -> None:
    kind = _kind_of(beginning)
    text = beginning.decode("utf-8", errors="replace").removesuffix("\N{REPLACEMENT CHARACTER}")
    unreadable = sum(c == "\N{REPLACEMENT CHARACTER}" or (c < " " and c not in "\t\n\r\f\x1b") for c in text)
    if kind is not None or "\0" in text or unreadable > _MOST_UNREADABLE * max(len(text), 1):
        what = kind if kind and kind.startswith("a ") else "no text in UTF-8"
        raise HparamsError(
            f"`mom2_dataset`: {where!r} is {what}: give text, JSON, CSV, Parquet or Arrow, compressed or not."
        )


def _lines(lines: Iterable[str], where: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            text = read_json_text(line)["text"] if line.strip() else ""
        except (ValueError, KeyError, TypeError):
            raise HparamsError(
                f"`mom2_dataset`: line {number} of {where!r} is not a JSON object with `text`."
            ) from None
        if isinstance(text, str) and text.strip():
            yield text


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph).strip()
            paragraph = []
    if paragraph:
        yield "".join(paragraph).strip()
