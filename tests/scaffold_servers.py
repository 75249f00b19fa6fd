"""Real HTTP servers on loopback for the scaffold's tests: Wikidata's API format, and a chat endpoint.

The Wikidata entities are written for these tests, in the form the API gives them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HTML = b"<!DOCTYPE html><html><head><title>Wikimedia Error</title></head><body>Our servers are busy.</body></html>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send(self, status, body, content_type="application/json; charset=utf-8", headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)


class _Server:
    """Serves in a thread; `faults` are answers that come before the regular ones, first in, first out."""

    def __init__(self):
        self.calls = []
        self.faults = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._http.shutdown()
        self._http.server_close()

    def take_fault(self, call):
        with self._lock:
            self.calls.append(call)
            return self.faults.pop(0) if self.faults else None

    def act(self, handler, fault):
        """Play a fault: ("status", code, headers, body), ("html", code), ("sleep", seconds), ("json", body)."""
        kind = fault[0]
        if kind == "status":
            handler.send(fault[1], fault[3] if len(fault) > 3 else {}, headers=fault[2])
        elif kind == "html":
            handler.send(fault[1], HTML, "text/html; charset=utf-8")
        elif kind == "json":
            handler.send(200, fault[1], headers=fault[2] if len(fault) > 2 else ())
        elif kind == "sleep":
            time.sleep(fault[1])
            handler.send(200, {})


# ---- Wikidata --------------------------------------------------------------------------------------
def item_snak(pid, qid):
    value = {"entity-type": "item", "numeric-id": int(qid[1:]), "id": qid}
    return _snak(pid, "wikibase-item", {"value": value, "type": "wikibase-entityid"})


def time_snak(pid, text, precision):
    value = {"time": text, "timezone": 0, "before": 0, "after": 0, "precision": precision,
             "calendarmodel": "http://www.wikidata.org/entity/Q1985727"}  # fmt: skip
    return _snak(pid, "time", {"value": value, "type": "time"})


def unknown_snak(pid):
    return {"snaktype": "somevalue", "property": pid, "hash": "0", "datatype": "wikibase-item"}


def _snak(pid, datatype, datavalue):
    return {"snaktype": "value", "property": pid, "hash": "0", "datavalue": datavalue, "datatype": datatype}


def statement(snak, rank="normal", ended=False):
    qualifiers = {"P582": [time_snak("P582", "+2001-00-00T00:00:00Z", 9)]} if ended else None
    found = {"mainsnak": snak, "type": "statement", "id": "x", "rank": rank}
    return {**found, "qualifiers": qualifiers} if qualifiers else found


def item(qid, label, description="", claims=(), aliases=()):
    def text(value):
        return {"language": "en", "value": value}

    by_property = {}
    for claim in claims:
        by_property.setdefault(claim["mainsnak"]["property"], []).append(claim)
    return {
        "pageid": 1, "ns": 0, "title": qid, "lastrevid": 1, "modified": "2026-01-01T00:00:00Z",
        "type": "item", "id": qid,
        "labels": {"en": text(label)}, "descriptions": {"en": text(description)} if description else {},
        "aliases": {"en": [text(a) for a in aliases]} if aliases else {}, "claims": by_property,
    }  # fmt: skip


ITEMS = {
    i["id"]: i
    for i in (
        item("Q79", "Egypt", "country in Northeast Africa", [
            statement(item_snak("P36", "Q85")),
            statement(item_snak("P37", "Q13955")),
            statement(time_snak("P571", "+1922-02-28T00:00:00Z", 11)),
        ], ["Arab Republic of Egypt"]),
        item("Q85", "Cairo", "capital city of Egypt", [statement(item_snak("P17", "Q79"))]),
        item("Q87", "Alexandria", "city on the Mediterranean", [
            statement(item_snak("P17", "Q79")),
            statement(time_snak("P571", "-0331-00-00T00:00:00Z", 9)),
        ]),
        item("Q13955", "Arabic"),
        item("Q500", "Ada Person", "chemist", [
            statement(item_snak("P27", "Q502"), rank="deprecated"),
            statement(item_snak("P27", "Q79"), ended=True),
            statement(item_snak("P27", "Q501"), rank="preferred"),
            statement(item_snak("P106", "Q503")),
            statement(unknown_snak("P19")),
            statement(time_snak("P569", "+1950-03-00T00:00:00Z", 10)),
            statement(time_snak("P570", "+2001-05-07T00:00:00Z", 11)),
        ], ["A. Person"]),
        item("Q501", "Norway"), item("Q502", "Atlantis"), item("Q503", "chemist"),
    )
}  # fmt: skip
REDIRECTS = {"Q9000": "Q500"}


class WikidataServer(_Server):
    """`/w/api.php` with wbgetentities and wbsearchentities; `/moved` redirects there."""

    def __init__(self):
        super().__init__()
        self.url = f"{self.address}/w/api.php"
        self.agents = set()

    def _handler(self):
        server = self

        class Handler(_Handler):
            def do_GET(self):
                parts = urlsplit(self.path)
                if parts.path == "/moved":
                    return self.send(301, b"", headers=[("Location", f"/w/api.php?{parts.query}")])
                query = {k: v[0] for k, v in parse_qs(parts.query).items()}
                server.agents.add(self.headers["User-Agent"])
                fault = server.take_fault(query)
                if fault:
                    return server.act(self, fault)
                return self.send(200, server.answer(query))

        return Handler

    def answer(self, query):
        if query["action"] == "wbsearchentities":
            name = query["search"].casefold()
            hits = [
                {"id": i["id"], "title": i["id"], "label": i["labels"]["en"]["value"],
                 "match": {"type": "label", "language": "en", "text": i["labels"]["en"]["value"]}}
                for i in ITEMS.values() if i["labels"]["en"]["value"].casefold().startswith(name)
            ]  # fmt: skip
            return {"searchinfo": {"search": query["search"]}, "search": hits, "success": 1}
        ids = query["ids"].split("|")
        assert len(ids) <= 50
        for id_ in ids:  # beyond any id that was ever given: the real API refuses the whole call
            if int(id_[1:]) > 10**9:
                info = f'Could not find an entity with the ID "{id_}".'
                return {"error": {"code": "no-such-entity", "info": info, "id": id_}, "servedby": "test"}
        props = query["props"].split("|")
        entities = {}
        for id_ in ids:
            target = REDIRECTS.get(id_, id_)
            if target not in ITEMS:
                entities[id_] = {"id": id_, "missing": ""}
                continue
            found = {k: v for k, v in ITEMS[target].items() if k in ("type", "id", *props)}
            if target != id_:
                found["redirects"] = {"from": id_, "to": target}
            entities[id_] = found
        return {"entities": entities, "success": 1}


# ---- a chat endpoint -------------------------------------------------------------------------------
def completion(text, finish_reason="stop", **message):
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish_reason,
                     "message": {"role": "assistant", "content": text, **message}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }  # fmt: skip


FILTERED = {"error": {"message": "The response was filtered due to our content management policy.",
                      "type": None, "param": "prompt", "code": "content_filter"}}  # fmt: skip


class ChatServer(_Server):
    """`/v1/chat/completions`; `reply(body)` gives a text, or a fault as in `_Server.act`."""

    def __init__(self, reply=lambda body: "yes"):
        super().__init__()
        self.reply = reply
        self.url = f"{self.address}/v1"

    def _handler(self):
        server = self

        class Handler(_Handler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = server.take_fault(body)
                if fault:
                    return server.act(self, fault)
                answer = server.reply(body)
                if isinstance(answer, tuple):
                    return server.act(self, answer)
                return self.send(200, completion(answer))

        return Handler
