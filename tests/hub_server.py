"""A Hub on the loopback interface: the part of it through which huggingface_hub makes a repository and pushes to it.

Large files travel by the basic transfer of Git LFS, as they do where `hf_xet` is switched off.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "hf_good"


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repos: Name → its visibility and its files, as committed.
        role: What the token may do.
        refused: Parts of addresses that are answered with 401 from now on.
        seen: Method and path of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, Any]] = {}
        self.large: dict[str, bytes] = {}
        self.role = "write"
        self.refused: list[str] = []
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def _answer(self, status: int, data: Any = None) -> None:
        body = b"" if data is None else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.server.seen.append(f"{self.command} {path}")
        stored = path.startswith("/large/")  # a signed address: no token
        if not stored and (
            self.headers.get("Authorization") != f"Bearer {TOKEN}" or any(part in path for part in self.server.refused)
        ):
            self._answer(401, {"error": "Invalid credentials"})
        elif "/resolve/" in path:
            self._file(path)
        elif path == "/api/whoami-v2":
            self._answer(200, {"name": "me", "type": "user", "auth": {"accessToken": {"role": self.server.role}}})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.endswith("/info/lfs/objects/batch"):
            self._answer(200, {"objects": [self._upload(item) for item in json.loads(body)["objects"]]})
        elif stored:
            self.server.large[path.rpartition("/")[2]] = body
            self._answer(200)
        else:
            self._repository(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _file(self, path: str) -> None:
        repo, _, rest = path[1:].partition("/resolve/")
        found = self.server.repos.get(repo, {"files": {}})["files"].get(rest.partition("/")[2])
        self.send_response(404 if found is None else 200)
        if found is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha1(found or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(found or b"")

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if name in self.server.repos:
            self._answer(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
            return
        self.server.repos[name] = {"private": wanted.get("visibility") == "private", "files": {}}
        self._answer(200, {"url": f"{self.server.url}/{name}"})

    def _upload(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.server.url}/large/{item['oid']}"}}}

    def _repository(self, path: str, body: bytes) -> None:
        _, _, _, owner, name, *rest = path.split("/")
        repo = self.server.repos.get(f"{owner}/{name}")
        if repo is None:
            self._answer(404, {"error": "Repository not found"})
        elif not rest:
            self._answer(200, {"id": f"{owner}/{name}", "private": repo["private"]})
        elif rest[0] == "preupload":
            mode = lambda path: "lfs" if path.endswith(".safetensors") else "regular"  # noqa: E731
            files = [file["path"] for file in json.loads(body)["files"]]
            self._answer(200, {"files": [{"path": f, "uploadMode": mode(f), "shouldIgnore": False} for f in files]})
        else:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    repo["files"][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    repo["files"][entry["value"]["path"]] = self.server.large[entry["value"]["oid"]]
            page = f"{self.server.url}/{owner}/{name}/commit/{'0' * 40}"
            self._answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": page})


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """The server, for the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
