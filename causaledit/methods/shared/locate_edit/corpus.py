"""Text behind the keys' second moment: any local text, a datasets name, or what the model itself writes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import HparamsError, one_line
from causaledit.methods.shared.locate_edit.corpus_files import corpus_files, documents_in, texts_of
from causaledit.support.hub import hub_fault, is_offline
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from causaledit.methods.shared.locate_edit.hparams import LocateEditHyperParams

# EasyEdit's short names for what it downloads.
KNOWN_DATASETS = {
    "wikipedia": "wikimedia/wikipedia:20231101.en",
    "wikitext": "Salesforce/wikitext:wikitext-103-raw-v1",
    "wikitext2": "Salesforce/wikitext:wikitext-2-raw-v1",
}
SAMPLE_TOKENS = 128
SAMPLE_BATCH = 32
SAMPLE_BUDGET = 20_000  # tokens, if no budget is set


@dataclass(frozen=True)
class Corpus:
    """Documents that can be read again from the start.

    Attributes:
        name: What it is, in words.
        digest: Differs whenever the text differs.
        documents: Gives the documents in a fixed order.
    """

    name: str
    digest: str
    documents: Callable[[], Iterator[str]]


def open_corpus(source: str) -> Corpus:
    """A file, a folder of them, what `datasets` saved to disk, or a data set by name (`name` or `name:configuration`).

    A document is a paragraph (up to an empty line) of a text file, a line's `text` in a `.jsonl` file, or a row's or
    object's `text` in CSV, JSON, Parquet, Arrow and data sets. Files may be compressed.

    Raises:
        HparamsError: There is nothing of that kind, or no text in it.
    """
    path = expanded(source)
    if path.is_file():
        return _from_files(source, [path])
    if path.is_dir():
        if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return _from_disk(source, path)
        if files := corpus_files(path):
            return _from_files(source, files)
    return _from_datasets(source)


def _from_files(name: str, files: list[Path]) -> Corpus:
    digest = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise HparamsError(f"`mom2_dataset`: {str(error.filename)!r} cannot be read ({error.strerror}).") from None
    for file in files:
        next(documents_in(file), None)  # refuses what is not text before anything is computed

    def documents() -> Iterator[str]:
        for file in files:
            yield from documents_in(file)

    return Corpus(name, digest.hexdigest(), documents)


def _from_disk(source: str, folder: Path) -> Corpus:
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
        rows = found["train"] if isinstance(found, DatasetDict) else found
    except Exception as error:  # whatever a damaged folder causes
        raise HparamsError(f"`mom2_dataset` {source!r} cannot be loaded ({one_line(error)}).") from None
    next(texts_of(rows, source), None)
    digest = hashlib.sha256(f"{rows._fingerprint}:{len(rows)}".encode()).hexdigest()
    return Corpus(source, digest, lambda: texts_of(rows, source))


def _from_datasets(source: str) -> Corpus:
    name, _, configuration = KNOWN_DATASETS.get(source, source).partition(":")
    if not is_offline() and (fault := hub_fault()):
        raise HparamsError(
            f"`mom2_dataset` {source!r} is neither a text file nor a folder here, and {fault}: give a local text, or "
            "leave it out to use text sampled from the model itself."
        )
    try:
        from datasets import load_dataset

        rows = load_dataset(name, configuration or None, split="train", streaming=True)
        first = next(iter(rows))
    except Exception as error:  # a missing package, no network, no such data set: all the same to the caller
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HparamsError(
            f"`mom2_dataset` {source!r} is neither a text file or folder nor a data set that can be loaded ({reason}): "
            "give a local text, or leave it out to use text sampled from the model itself."
        ) from None
    if "text" not in first:
        raise HparamsError(f"`mom2_dataset` {source!r} has no column `text`, only {sorted(first)}.")
    digest = hashlib.sha256(f"{name}:{configuration}:{first['text']}".encode()).hexdigest()
    return Corpus(source, digest, lambda: texts_of(rows, source))


def own_samples(model: Any, tokenizer: Any, hparams: LocateEditHyperParams, revision: str, keep: Path | None) -> Corpus:
    """Text that the model writes itself. Enough for small models and demonstrations, but no replacement for a corpus.

    Args:
        revision: The revision of all the model's weights.
        keep: Folder where sampled texts are kept, so that an interrupted run can resume.
    """
    from causaledit.models.own_text import OPENINGS, own_texts  # which needs torch

    budget = hparams.mom2_max_tokens or SAMPLE_BUDGET
    length = min(SAMPLE_TOKENS, hparams.mom2_document_tokens)
    number = min(hparams.mom2_n_samples, -(-budget // length))
    parts = (revision, hparams.seed, length, OPENINGS, tokenizer.bos_token)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()
    file = keep / f"samples-{key[:24]}.jsonl" if keep else None

    def documents() -> Iterator[str]:
        texts = _kept(file)
        for start in range(0, number, SAMPLE_BATCH):
            if len(texts) < start + SAMPLE_BATCH:
                # each batch by itself, so that a resumed run samples the same
                batch = own_texts(model, tokenizer, SAMPLE_BATCH, max_new_tokens=length, seed=hparams.seed + start)
                texts = [*texts[:start], *batch]
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    temporary = file.with_suffix(".part")
                    temporary.write_text("".join(json.dumps(t) + "\n" for t in texts), encoding="utf-8")
                    temporary.replace(file)
            yield from (text for text in texts[start : min(start + SAMPLE_BATCH, number)] if text.strip())

    return Corpus("text sampled from the model itself", f"{key}-{number}", documents)


def _kept(file: Path | None) -> list[str]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file else []
    except (OSError, ValueError):
        return []
