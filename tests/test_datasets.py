"""Fetching public files from a real HTTP server on loopback, with its faults; finding a data set by name."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import socket
import threading
import time
from dataclasses import dataclass, field

import pytest
from conftest import REPOSITORY
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import DatasetError, DownloadError, SaveError
from causaledit.mquake import datasets
from causaledit.mquake.datasets import fetch_dataset, locate_dataset
from causaledit.mquake.published import AKEW, DATASETS, Dataset

CONTENT = (REPOSITORY / "data" / "causaledit-mini.json").read_bytes()
FORMS = REPOSITORY / "tests" / "data" / "forms"


def blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Behaviour:
    """What the server does: `faults` are used up one per request, then it serves `content`."""

    content: bytes = CONTENT
    faults: list[str] = field(default_factory=list)
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def server():
    behaviour = Behaviour()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked = self.headers.get("Range")
            behaviour.asked.append(asked)
            behaviour.paths.append(self.path)
            fault = behaviour.faults.pop(0) if behaviour.faults else ""
            if fault.isdigit():
                self.send_response(int(fault))
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and behaviour.ranges else 0
            if start >= len(behaviour.content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = behaviour.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault == "cut":
                self.wfile.write(body[: len(body) // 3])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    behaviour.url = f"http://127.0.0.1:{httpd.server_address[1]}/files"
    yield behaviour
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def known_file(monkeypatch):
    """The table's entry for a file this server can serve."""
    monkeypatch.setitem(DATASETS, "MQuAKE-T", Dataset("MQuAKE-T.json", blob_id(CONTENT)))


def fetch(server, folder, **options):
    return fetch_dataset("MQuAKE-T", base_url=server.url, folder=folder, longest_wait=0.05, **options)


def test_a_file_is_fetched_verified_and_recorded(server, tmp_path):
    seen = []
    fetched = fetch(server, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "MQuAKE-T.json.sha256").read_text() == f"{fetched.sha256}  MQuAKE-T.json\n"
    assert (fetched.cases, fetched.problems, fetched.downloaded) == (len(json.loads(CONTENT)), [], True)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MQuAKE-T.json", "MQuAKE-T.json.sha256"]
    assert not fetch(server, tmp_path).downloaded  # it is there and intact: nothing is asked
    assert len(server.asked) == 1


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    (tmp_path / "MQuAKE-T.json").write_bytes(CONTENT[:-1])
    assert fetch(server, tmp_path).downloaded
    assert (tmp_path / "MQuAKE-T.json").read_bytes() == CONTENT


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.faults = ["cut", "503", "cut"]
    fetched = fetch(server, tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    first = len(CONTENT) // 3
    assert server.asked[0] is None
    assert server.asked[1] == server.asked[2] == f"bytes={first}-"


def test_what_arrived_is_kept_for_a_later_call(server, tmp_path):
    server.faults = ["cut"] * datasets.ATTEMPTS
    with pytest.raises(DownloadError, match=r"could not be fetched after 5 attempts.*bytes are kept"):
        fetch(server, tmp_path)
    assert not (tmp_path / "MQuAKE-T.json").exists()
    kept = (tmp_path / "MQuAKE-T.json.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    server.asked.clear()
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={kept}-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges, server.faults = False, ["cut"]
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT


def test_the_rest_of_another_file_is_not_glued_on(server, tmp_path):
    (tmp_path / "MQuAKE-T.json.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT
    (tmp_path / "MQuAKE-T.json").unlink()
    (tmp_path / "MQuAKE-T.json.part").write_bytes(b"x" * (len(CONTENT) + 5))  # longer than the file: status 416
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT


def test_404_is_final(server, tmp_path):
    server.faults = ["404"]
    with pytest.raises(DownloadError, match=r"MQuAKE-T\.json.*404"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1
    assert not list(tmp_path.iterdir())


def test_another_content_is_refused(server, tmp_path, monkeypatch):
    server.content = CONTENT.replace(b"case_id", b"case-id", 1)
    with pytest.raises(DownloadError, match="git blob id"):
        fetch(server, tmp_path)
    assert not list(tmp_path.iterdir())
    wrong = Dataset("MQuAKE-T.json", blob_id(server.content), sha256="0" * 64)
    monkeypatch.setitem(DATASETS, "MQuAKE-T", wrong)
    with pytest.raises(DownloadError, match=f"SHA-256.*expected {'0' * 64}"):
        fetch(server, tmp_path)


def test_a_server_that_is_down_is_not_waited_for(tmp_path):
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=r"could not be fetched: .*Check the network") as caught:
        fetch_dataset("MQuAKE-T", base_url="http://127.0.0.1:1/files", folder=tmp_path)
    assert str(tmp_path / "MQuAKE-T.json") in str(caught.value) and "\n" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DownloadError, match=r"could not be fetched: .*Check the network"):
            fetch_dataset("MQuAKE-T", base_url=address, folder=tmp_path)
    assert time.monotonic() - begun < 10
    with pytest.raises(DownloadError, match="not an address"):
        fetch_dataset("MQuAKE-T", base_url="files", folder=tmp_path, longest_wait=0.01)


def test_unknown_name_and_unwritable_folder(server, tmp_path):
    with pytest.raises(DatasetError, match="Did you mean 'MQuAKE-CF-3k'"):
        fetch_dataset("MQuAKE-CF3k", folder=tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveError, match="cannot be written"):
        fetch(server, tmp_path / "file")


def test_the_table_is_pinned():
    assert list(DATASETS)[:3] == ["MQuAKE-CF-3k", "MQuAKE-CF-3k-v2", "MQuAKE-T"]
    for name, spec in DATASETS.items():
        assert spec.file == f"{name}.json" and spec.source.licence and spec.source.citation
        if "githubusercontent" in spec.source.base_url:
            commit = spec.source.base_url.split("/")[-2]
            assert len(commit) == 40 and int(commit, 16)
            assert spec.source is AKEW or len(spec.git_blob) == 40
        else:
            assert len(spec.sha256) == 64 and int(spec.sha256, 16)


# ---- other data sets -------------------------------------------------------------------------------
OTHERS = {
    "CounterFact": ("counterfact", "counterfact.json", "CounterFact"),
    "ZsRE": ("zsre", "zsre_mend_eval.json", "ZsRE"),
    "KnowEdit-wiki_recent": ("knowedit", "wiki_recent/recent_test.json", "KnowEdit"),
    "KnowEdit-WikiBio": ("wikibio", "WikiBio/wikibio-test-all.json", "WikiBio (KnowEdit)"),
    "QAEdit": ("qaedit", "QAEdit.json", "QAEdit"),
    "MQuAKE-Remastered-CF-3k": ("mquake_remastered", "MQuAKE-Remastered-CF-3k.json", "MQuAKE-Remastered"),
    "AKEW-CounterFact": ("akew_counterfact", "CounterFact.json", "CounterFact"),
    "AKEW-WikiUpdate": ("akew_wikiupdate", "WikiUpdate.json", "AKEW's WikiUpdate"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_data_sets_of_other_forms_are_fetched_under_their_names_and_read(name, server, tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path))
    form, remote, said = OTHERS[name]
    server.content = (FORMS / f"{form}.json").read_bytes()
    known = DATASETS[name]
    if known.sha256 or known.git_blob:
        digest = {"sha256": hashlib.sha256(server.content).hexdigest()} if known.sha256 else {
            "git_blob": blob_id(server.content)}  # fmt: skip
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(known, **digest))
    with pytest.raises(DatasetError, match=f"causaledit data fetch {name}"):
        locate_dataset(name)
    result = CliRunner().invoke(app, ["data", "fetch", name, "--base-url", server.url])
    assert result.exit_code == 0, result.output
    assert server.paths == [f"/files/{remote}"]
    flat = result.output.replace("\n", "")
    assert known.source.citation in flat and f"licence: {known.source.licence}" in flat
    assert ("none is on record" in flat) == (known.source is AKEW)
    assert locate_dataset(name).path.read_bytes() == server.content
    shown = CliRunner().invoke(app, ["data", "check", str(locate_dataset(name).path)])
    assert shown.exit_code == 0 and f": {said}; " in shown.output.replace("\n", "")


def test_without_a_checksum_what_is_no_data_set_is_refused(server, tmp_path):
    server.content = b"<html>Sign in to go on</html>"
    with pytest.raises(DownloadError, match=r"is not the published AKEW-CounterFact.*JSON"):
        fetch_dataset("AKEW-CounterFact", base_url=server.url, folder=tmp_path, longest_wait=0.05)
    assert not list(tmp_path.iterdir())


def test_without_a_name_the_public_data_sets_are_listed():
    result = CliRunner().invoke(app, ["data", "fetch"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(name in result.output for name in DATASETS) and "CC BY 4.0" in result.output


# ---- by name ---------------------------------------------------------------------------------------
def test_a_data_set_is_found_by_path_or_name(tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path))
    file = tmp_path / "my cases.json"
    file.write_text(json.dumps([]))
    assert locate_dataset(str(file)).name == "my cases"
    assert locate_dataset("causaledit-mini").path.is_file()
    kept = tmp_path / "datasets" / "MQuAKE-T-causal.json"
    kept.parent.mkdir()
    kept.write_text("[]")
    assert locate_dataset("MQuAKE-T-causal").path == kept


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MQuAKE-T", "causaledit data fetch MQuAKE-T"),
        ("MQuAKE-CF-3k-causal", "no public address"),
        ("MQUAKE-CF-3K-V2", "Known: MQuAKE-CF-3k"),
        ("MQuAKE-CF3k-v2", "Did you mean 'MQuAKE-CF-3k-v2'"),
        ("some/where.json", "does not exist"),
        (" ", "is empty"),
    ],
)
def test_a_data_set_that_is_not_there(name, words, tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path))
    with pytest.raises(DatasetError, match=words):
        locate_dataset(name)


@pytest.mark.parametrize("name", ["x" * 300, "y" * 300 + ".json"])
def test_a_name_longer_than_any_file_can_have_is_refused_in_one_short_line(name):
    with pytest.raises(DatasetError, match=r"^--datatype: .* cannot be read \(File name too long\)\.$") as caught:
        locate_dataset(name)
    assert len(str(caught.value)) < 200
