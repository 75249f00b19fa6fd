"""`edit --push-to-hub` against a Hub on the loopback interface: what arrives, and what is refused when."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import huggingface_hub.constants
import pytest
from conftest import EGYPT, FAST, REPOSITORY
from hub_server import TOKEN, running_hub
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import PushError, SaveError
from causaledit.models.hub import find_target


@pytest.fixture
def hub(monkeypatch):
    with running_hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def edit(tmp_path, tiny_model_folder):
    """`edit(*options)` runs `causaledit edit` with a fast method on a tiny model."""
    file = tmp_path / "ft.yaml"
    lines = {"alg_name": "FT", **FAST["FT"], "steps": 1}
    file.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    fact = ["--subject", "France", "--prompt", "The capital of {} is", "--old", "Paris", "--new", "Lyon"]
    common = ["edit", *fact, "--method", "FT", "--hparams", str(file), "--model", str(tiny_model_folder)]

    def run(*options):
        return CliRunner().invoke(app, [*common, "--device", "cpu", *map(str, options)])

    return run


def test_a_pushed_model_is_the_saved_one(hub, edit, tmp_path):
    done = edit("--save", tmp_path / "out", "--push-to-hub", "me/edited", "--private", "--keep-originals")
    assert done.exit_code == 0, done.output
    repo = hub.repos["me/edited"]
    local = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert repo["private"] is True
    assert repo["files"] == {name: path.read_bytes() for name, path in local.items()}
    assert "originals/edit-1.safetensors" in repo["files"]
    assert f"pushed to {hub.url}/me/edited" in done.stdout
    card = ModelCard(repo["files"]["README.md"].decode())
    assert 'from_pretrained("me/edited")' in card.text
    assert "knowledge-editing" in card.data.tags


def test_a_push_needs_no_folder_of_ones_own(hub, edit, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = edit("--push-to-hub", "edited")  # the owner is the token's
    assert done.exit_code == 0, done.output
    assert {"model.safetensors", "README.md", "causaledit.json"} <= set(hub.repos["me/edited"]["files"])
    assert hub.repos["me/edited"]["private"] is False
    assert not list(tmp_path.glob("causaledit-*"))


def test_nothing_is_pushed_without_the_flag(hub, edit, tmp_path):
    assert edit("--save", tmp_path / "out").exit_code == 0
    assert hub.seen == []


def test_the_history_and_licence_of_a_model_on_the_hub(hub, tmp_path):
    card = {"method": "FT", "created": "2026-01-02T03:04:05", "requests": [EGYPT], "hparams": {}}
    readme = "---\nlicense: mit\n---\n# Edited\n"
    files = {"causaledit.json": json.dumps(card).encode(), "README.md": readme.encode()}
    hub.repos["me/edited"] = {"private": False, "files": files}
    code = (
        "from causaledit.models.history import read_card; from causaledit.models.origin import *; "
        "print(find_origin('me/edited').license); note_license('me/edited'); print(find_origin('me/edited').license); "
        "print(read_card('me/edited')); print(read_card('me/edited', fetch=True)['requests'][0]['subject']); "
        "print(read_card('me/other', fetch=True))"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"),
                   "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == ["{}", "{'license': 'mit'}", "None", "Egypt", "None"], done.stderr


# ---- refused before anything is computed -----------------------------------------------------------
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("a refused token", ["me/edited", "401", "HF_TOKEN"]),
        ("a token that may read", ["me/edited", "only read"]),
        ("no token", ["me/edited", "hf auth login"]),
        ("an unreachable hub", ["me/edited", "cannot be reached"]),
        ("offline", ["me/edited", "HF_HUB_OFFLINE"]),
        ("a name of another form", ["a/b/c", "owner/name"]),
        ("a public repository", ["--private", "public"]),
    ],
)
def test_what_cannot_be_pushed_is_not_edited(hub, edit, case, words, tmp_path, monkeypatch):
    options = ["--push-to-hub", "me/edited"]
    if case == "a refused token":
        monkeypatch.setenv("HF_TOKEN", "hf_bad")
    elif case == "a token that may read":
        hub.role = "read"
    elif case == "no token":
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    elif case == "an unreachable hub":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    elif case == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    elif case == "a name of another form":
        options = ["--push-to-hub", "a/b/c"]
    else:
        hub.repos["me/edited"] = {"private": False, "files": {}}
        options += ["--private"]
    done = edit("--save", tmp_path / "out", *options)
    assert isinstance(done.exception, PushError), done.output
    text = str(done.exception)
    assert len(text.splitlines()) == 1
    assert all(word in text for word in words), text
    assert not (tmp_path / "out").exists()
    assert all(repo["files"] == {} for repo in hub.repos.values())


def test_private_alone_is_refused(edit, tmp_path):
    done = edit("--save", tmp_path / "out", "--private")
    assert isinstance(done.exception, PushError)
    assert "--push-to-hub" in str(done.exception)


# ---- what fails after the edit loses nothing -------------------------------------------------------
@pytest.mark.parametrize(("refused", "saved"), [("/preupload/", True), ("/repos/create", False)])
def test_a_push_that_fails_leaves_the_model(hub, edit, refused, saved, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    hub.refused.append(refused)
    done = edit("--push-to-hub", "me/edited", *(["--save", tmp_path / "out"] if saved else []))
    assert isinstance(done.exception, SaveError), done.output
    text = str(done.exception)
    assert len(text.splitlines()) == 1
    assert "401" in text
    folder = tmp_path / "out" if saved else next((tmp_path / "tmp").glob("causaledit-*/model"))
    assert str(folder) in text
    assert {"model.safetensors", "README.md", "causaledit.json"} <= {file.name for file in folder.iterdir()}


def test_ctrl_c_during_a_push_says_where_the_model_is(hub, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", stopped)
    folder = tmp_path / "my model"
    folder.mkdir()
    with pytest.raises(SaveError, match="interrupted") as caught:
        find_target("me/edited").push(folder)
    assert f"hf upload me/edited '{folder}'" in str(caught.value)


def test_a_hub_that_goes_away_leaves_the_model(hub, tmp_path, monkeypatch):
    target = find_target("me/edited")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(SaveError, match="cannot be reached") as caught:
        target.push(tmp_path / "model")
    assert str(tmp_path / "model") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
