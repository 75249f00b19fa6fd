"""Whether two names mean the same model."""

from __future__ import annotations

import shutil

import pytest

from causaledit.models.identity import same_models


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def test_spellings_of_one_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    assert same_models(["model", "./model/", folder, str(tmp_path / "link")])


def test_a_copy_is_the_same_model_and_another_is_not(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("mine")
    assert same_models([folder, copy])
    (copy / "model.safetensors").write_bytes(b"wEIghts")
    assert not same_models([folder, copy])
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.json").write_text('{"a": 1}')
    assert not same_models([folder, other])


def test_names_that_are_nowhere(folder):
    assert same_models(["org/name", "org/name"])
    assert not same_models(["org/name", "org/other"])
    assert not same_models([folder, "./hugging_cache/nowhere"])
    pair, another = (object(), object()), (object(), object())
    assert same_models([pair, pair])
    assert not same_models([pair, another])
