"""Text behind second moments: what is read, and that nothing else is taken for text."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile

import numpy as np
import pytest
import torch
from conftest import make_llama
from locate import find_moments

from causaledit.errors import HparamsError
from causaledit.methods.shared.locate_edit.corpus import open_corpus

pytestmark = pytest.mark.usefixtures("own_files")

TEXTS = ["one", "two\n\nlines", "drei, größer"]
LINES = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS) + "\n"


def parquet(file):
    pytest.importorskip("datasets").Dataset.from_dict({"id": [1, 2, 3], "text": TEXTS}).to_parquet(file)


def arrow_file(file):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"text": TEXTS})
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def arrow_stream(file):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"text": TEXTS})
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def zipped(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inner/b.jsonl", LINES)
        archive.writestr("readme.pdf", b"%PDF")


def comma_separated(file):
    file.write_text('id,text\n1,one\n2,"two\n\nlines"\n3,"drei, größer"\n', "utf-8")


READ = {
    "a.jsonl": lambda file: file.write_text(LINES, "utf-8"),
    "a.json": lambda file: file.write_text(json.dumps([{"text": text} for text in TEXTS]), "utf-8"),
    "a.csv": comma_separated,
    "a.tsv": lambda file: file.write_text('text\tid\none\t1\n"two\n\nlines"\t2\ndrei, größer\t3\n', "utf-8"),
    "a.jsonl.gz": lambda file: file.write_bytes(gzip.compress(LINES.encode())),
    "a.jsonl.bz2": lambda file: file.write_bytes(bz2.compress(LINES.encode())),
    "a.jsonl.xz": lambda file: file.write_bytes(lzma.compress(LINES.encode())),
    "a.zip": zipped,
    "a.parquet": parquet,
    "a.arrow": arrow_file,
    "b.arrow": arrow_stream,
}


@pytest.mark.parametrize("name", READ)
def test_files_of_every_kind(name, tmp_path):
    READ[name](tmp_path / name)
    corpus = open_corpus(str(tmp_path / name))
    assert list(corpus.documents()) == list(corpus.documents()) == TEXTS
    if name not in ("a.json", "a.zip"):  # and where the folder is named
        assert list(open_corpus(str(tmp_path)).documents()) == TEXTS


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("text", ["eins\nzwei\n\n\ndrei", "\ufeffeins\nzwei\n\ndrei\n"], ids=["text", "with a mark"])
def test_paragraphs_whatever_the_name_of_a_text(text, pack, tmp_path):
    file = tmp_path / "notes.rst"
    file.write_bytes(pack(text.encode()))
    assert list(open_corpus(str(file)).documents()) == ["eins\nzwei", "drei"]


def test_what_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    rows.save_to_disk(str(tmp_path / "rows"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "parts"))
    for folder in ("rows", "parts"):
        corpus = open_corpus(str(tmp_path / folder))
        assert list(corpus.documents()) == list(corpus.documents()) == TEXTS


def test_a_compressed_text_gives_the_same_moment(tmp_path, text_file):
    packed = tmp_path / "packed.txt.gz"
    packed.write_bytes(gzip.compress(text_file.read_bytes()))
    plain, unpacked = (find_moments(make_llama(), mom2_dataset=str(file)) for file in (text_file, packed))
    for layer in (0, 1):
        assert torch.equal(plain[layer].matrix, unpacked[layer].matrix)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def moments_archive(file):
    np.savez(file, **{"mom2.mom2": np.eye(2), "mom2.count": 3})


def weights(file):
    torch.save({"weight": torch.randn(100)}, file)


REFUSED = {
    "moments.npz": (moments_archive, ["moments.npz", "NumPy", "`mom2_file`"]),
    "array.npy": (lambda file: np.save(file, np.eye(3)), ["array.npy", "NumPy"]),
    "wiki.txt": (lambda file: file.write_bytes(POINTER), ["wiki.txt", "Git LFS pointer", "git lfs pull"]),
    "wiki.parquet": (lambda file: file.write_bytes(POINTER), ["wiki.parquet", "Git LFS pointer"]),
    "wiki.jsonl": (lambda file: file.write_bytes(POINTER), ["wiki.jsonl", "Git LFS pointer"]),
    "model.bin": (weights, ["model.bin", "holds no", ".jsonl"]),
    "noise.txt": (lambda file: file.write_bytes(bytes(range(256)) * 20), ["noise.txt", "no text"]),
    "utf16.txt": (lambda file: file.write_bytes("The capital of Egypt".encode("utf-16")), ["utf16.txt", "UTF-8"]),
    "packed.gz": (lambda file: file.write_bytes(gzip.compress(bytes(range(256)) * 20)), ["packed.gz", "no text"]),
    "cut.gz": (lambda file: file.write_bytes(gzip.compress(LINES.encode())[:30]), ["cut.gz", "cannot be read"]),
    "cut.parquet": (lambda file: file.write_bytes(b"PAR1" + b"x" * 50), ["cut.parquet", "cannot be read"]),
    "cut.zip": (lambda file: file.write_bytes(b"PK\x03\x04" + b"x" * 50), ["cut.zip", "cannot be read"]),
    "paper.pdf": (lambda file: file.write_bytes(b"%PDF-1.7 ..."), ["paper.pdf", "a PDF"]),
    "bad.jsonl": (lambda file: file.write_text('{"no": 1}\n'), ["bad.jsonl", "line 1", "`text`"]),
    "bad.json": (lambda file: file.write_text('{"no": 1}'), ["bad.json", "row 1", "`text`", "no"]),
    "bad.csv": (lambda file: file.write_text("id,body\n1,x\n"), ["bad.csv", "row 1", "`text`", "body"]),
    "broken.json": (lambda file: file.write_text("[1,"), ["broken.json", "cannot be read"]),
    "empty.jsonl": (lambda file: file.write_text(""), ["no text"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_is_refused_before_the_model_is_run(name, tmp_path):
    make, words = REFUSED[name]
    make(tmp_path / name)
    model, passes = make_llama(), []
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(HparamsError) as caught:
        find_moments(model, mom2_dataset=str(tmp_path / name))
    assert not passes
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_name_that_is_nothing(tmp_path):
    with pytest.raises(HparamsError, match=r"no/such/text.*local"):
        find_moments(make_llama(), mom2_dataset="no/such/text")
