"""Where no hub answers: one line at once, and what is in the cache is read from there."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPOSITORY

from causaledit.errors import HparamsError, ModelError
from causaledit.methods.shared.locate_edit.corpus import open_corpus
from causaledit.models.loading import load_config, load_model
from causaledit.support.hub import ANSWER_WAIT, hub_fault

CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def unreachable(monkeypatch):
    """A hub at a port where nothing listens."""
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def silent(monkeypatch):
    """A hub that accepts connections and never answers."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def refused(call, *told, within, error=ModelError):
    begun = time.monotonic()
    with pytest.raises(error) as caught:
        call()
    assert time.monotonic() - begun < within
    message = str(caught.value)
    assert "\n" not in message
    for text in told:
        assert text in message, message


@pytest.mark.parametrize("read", [load_model, load_config])
def test_a_closed_port(read, unreachable):
    refused(
        lambda: read("HuggingFaceTB/SmolLM2-135M-Instruct"),
        "'HuggingFaceTB/SmolLM2-135M-Instruct'", "--model", f"{CLOSED} cannot be reached", "smollm2-135m-instruct'?",
        within=2,
    )  # fmt: skip
    refused(lambda: read("owner/name"), "'owner/name'", "a folder", "smollm2-135m-instruct", within=2)


def test_a_server_that_never_answers(silent):
    refused(lambda: load_config("owner/name"), f"no answer within {ANSWER_WAIT:g} s", within=ANSWER_WAIT + 2)


def test_the_user_sets_how_long_to_wait(silent, monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    refused(lambda: load_config("owner/name"), "no answer within 1 s", within=3)


def test_a_name_that_cannot_be_looked_up(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    refused(lambda: load_config("owner/name"), "http://no-such-host.invalid cannot be reached", within=ANSWER_WAIT + 2)


def test_offline_nothing_is_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    refused(lambda: load_model("owner/name"), "HF_HUB_OFFLINE is set", "not in the hub's cache", within=1)


@contextlib.contextmanager
def answering(status):
    """A hub with one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_any_answer_but_a_servers_fault_will_do(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for status, fault in ((404, None), (200, None), (503, "it answers 503")):
        with answering(status) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            found = hub_fault("owner/name")
            assert (found is None) if fault is None else (fault in found)


def test_text_for_second_moments(unreachable):
    refused(lambda: open_corpus("wikipedia"), "`mom2_dataset`", CLOSED, "a local text", within=2, error=HparamsError)


def test_what_is_in_the_cache_is_read_from_there(unreachable, tiny_model_folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    kept = cache / "models--owner--name"
    shutil.copytree(tiny_model_folder, kept / "snapshots" / ("0" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    begun = time.monotonic()
    assert load_config("owner/name").model_type == "llama"
    assert load_model("owner/name", device="cpu").model.config.model_type == "llama"
    assert time.monotonic() - begun < 4
    refused(lambda: load_model("owner/other"), "'owner/other'", within=2)


def test_the_command_says_one_line(tmp_path):
    """In a process of its own: the hub's libraries read their settings when they are imported."""
    environment = {**os.environ, "HF_ENDPOINT": CLOSED, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [
        sys.executable,
        "-m",
        "causaledit",
        "plan",
        "--hparams",
        "smollm2-135m-instruct",
        "--model",
        "owner/name",
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "'owner/name'" in done.stderr
    assert f"{CLOSED} cannot be reached" in done.stderr
