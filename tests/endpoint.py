"""A real HTTP server on loopback that speaks the chat protocol and misbehaves as a test tells it to."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Endpoint:
    """Answers `/v1/chat/completions` in threads; use as a context manager.

    Args:
        behave: Given the number of the request (from 0) and its body, says what to do: a text is the reply, a
            `Fault` is made to happen. Left out, the marks of `published.py` in the response are the verdict.
        port: 0 takes a free one.
    """

    def __init__(self, behave: Callable[[int, dict[str, Any]], Any] | None = None, port: int = 0) -> None:
        self.behave = behave or (lambda _, body: verdict_by_marks(body))
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = self._running = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with endpoint.lock:
                    number = len(endpoint.requests)
                    endpoint.requests.append(body)
                    endpoint.headers.append(dict(self.headers))
                    endpoint.times.append(time.monotonic())
                    endpoint._running += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint._running)
                try:
                    outcome = endpoint.behave(number, body)
                    (outcome if isinstance(outcome, Fault) else Fault(content=outcome)).happen(self, endpoint)
                finally:
                    with endpoint.lock:
                        endpoint._running -= 1

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class Fault:
    """What a request gets: a chat reply, a status with headers, raw bytes, silence, or a dropped connection."""

    def __init__(
        self,
        *,
        content: str | None = None,
        status: int = 200,
        headers: dict[str, str] | None = None,
        error: dict[str, Any] | None = None,
        raw: bytes | None = None,
        finish: str = "stop",
        refusal: str | None = None,
        hang: float = 0.0,
        drop: bool = False,
    ) -> None:
        self.status, self.headers, self.raw, self.hang, self.drop = status, headers or {}, raw, hang, drop
        message = {"role": "assistant", "content": content, "refusal": refusal}
        self.data = (
            {"error": error or {"message": f"status {status}"}}
            if status >= 400
            else {
                "id": "1", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "finish_reason": finish, "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )  # fmt: skip

    def happen(self, handler: Any, endpoint: Endpoint) -> None:
        if self.hang:
            endpoint.closing.wait(self.hang)
        if self.drop:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.raw if self.raw is not None else json.dumps(self.data).encode()
        handler.send_response(self.status)
        for name, value in {"content-type": "application/json", **self.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def response_in(body: dict[str, Any]) -> str:
    """The response that a request asks about."""
    return re.findall(r"<response>\n(.*)\n</response>", body["messages"][-1]["content"], re.DOTALL)[0]


def task_of(body: dict[str, Any]) -> str:
    text = body["messages"][0]["content"]
    return "refutation" if "explicit_negation" in text else "rationale" if "UNSURE" in text else "answer"


def verdict_by_marks(body: dict[str, Any]) -> str:
    """A well-formed reply that says what the marks say."""
    response = response_in(body)
    marks = response.partition("[")[2].partition("]")[0]
    if task_of(body) == "refutation":
        return json.dumps(
            {
                "assertion_evidence": response[:20] if "+" in marks else "",
                "assertion_of_target_new": "+" in marks,
                "negation_evidence": "never said" if "-" in marks else "",
                "explicit_negation_of_target_new": "-" in marks,
                "final_evidence": "",
                "final_answer_is_target_new": "=" in marks,
            }
        )
    grade = next((g for g in ("PASS", "UNSURE") if g in marks), "FAIL")
    reply = {"evidence": response[:10], "grade": grade}
    return json.dumps(reply if task_of(body) == "answer" else {**reply, "reason": "so marked"})
