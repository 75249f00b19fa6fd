"""Grounding against a real HTTP server that speaks the Wikidata API's format."""

from __future__ import annotations

import json
import time

import pytest
from scaffold_servers import WikidataServer

from causaledit.narratives.cases import Entity
from causaledit.narratives.ground import ground
from causaledit.narratives.wikidata import GroundingError, Wikidata, read_time
from causaledit.support.jsonl import JsonlStore

EGYPT, CAIRO, ADA = Entity("Egypt", "Q79"), Entity("Cairo", "Q85"), Entity("Ada Person", "Q500")


@pytest.fixture
def server():
    with WikidataServer() as running:
        yield running


def wikidata(server, **options):
    defaults = {"url": server.url, "interval": 0.0, "initial_wait": 0.01, "timeout": 5.0, "contact": "me@example.org"}
    return Wikidata(**{**defaults, **options})


def look_up(server, entities, store=None, **options):
    return ground(entities, wikidata(server, **options), store or JsonlStore(None, "test"))


def test_labels_descriptions_and_plain_properties(server):
    info = look_up(server, [EGYPT]).of(EGYPT)
    assert (info.id, info.label, info.description) == ("Q79", "Egypt", "country in Northeast Africa")
    assert info.aliases == ("Arab Republic of Egypt",)
    assert info.facts == {"P36": ["Cairo"], "P37": ["Arabic"], "P571": ["28 February 1922"]}
    assert all("me@example.org" in agent and agent.startswith("causaledit/") for agent in server.agents)


def test_ranks_ended_statements_unknown_values_and_dates(server):
    facts = look_up(server, [ADA]).of(ADA).facts
    # the deprecated one and the one that has ended are not true now; a "somevalue" is no value
    assert facts == {"P27": ["Norway"], "P106": ["chemist"], "P569": ["March 1950"], "P570": ["7 May 2001"]}


def test_times_are_as_precise_as_they_are_known():
    assert read_time({"time": "-0331-00-00T00:00:00Z", "precision": 9}) == "331 BC"
    assert read_time({"time": "+1850-00-00T00:00:00Z", "precision": 8}) is None  # a decade
    assert read_time({"time": "garbage", "precision": 11}) is None


def test_redirected_missing_and_malformed_ids(server):
    moved, gone, odd = Entity("Old Ada", "Q9000"), Entity("Nobody", "Q424242"), Entity("Odd", "not-an-id")
    found = look_up(server, [moved, gone, odd, CAIRO])
    assert found.of(moved).id == "Q500"
    assert found.of(moved).label == "Ada Person"
    assert found.of(gone) is None
    assert "Q424242" in found.missing(gone)
    assert "not-an-id" in found.missing(odd)
    assert found.of(CAIRO).description == "capital city of Egypt"


def test_an_impossible_id_does_not_spoil_its_batch(server):
    impossible = Entity("Too big", "Q99999999999")
    found = look_up(server, [EGYPT, impossible, CAIRO])
    assert found.of(EGYPT)
    assert found.of(CAIRO)
    assert "Q99999999999" in found.missing(impossible)


def test_names_without_an_id_are_searched(server):
    named, similar = Entity("cairo"), Entity("Alexand")
    found = look_up(server, [named, similar])
    assert found.of(named).id == "Q85"
    assert "no entity is called 'Alexand'" in found.missing(similar)  # a prefix is not a name


def test_batches_of_fifty(server):
    entities = [Entity(f"e{i}", f"Q{1000 + i}") for i in range(120)]
    look_up(server, entities)
    sizes = [len(call["ids"].split("|")) for call in server.calls]
    assert sizes == [50, 50, 20]


@pytest.mark.parametrize(
    "fault",
    [
        ("html", 503),
        ("html", 200),
        ("sleep", 1.0),
        ("json", {"error": {"code": "maxlag", "info": "Waiting for db: 7 seconds lagged", "lag": 7}}),
        ("status", 500, [], {}),
    ],
    ids=["html-503", "html-200", "timeout", "maxlag", "500"],
)
def test_passing_trouble_is_tried_again(server, fault):
    server.faults = [fault]
    client = wikidata(server, timeout=0.4)
    assert ground([CAIRO], client, JsonlStore(None, "test")).of(CAIRO)
    assert client.usage.retries == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": "busy"},
        {
            "entities": {
                "Q85": {"id": "Q85", "labels": [], "claims": {"P17": None, "P31": [7], "P36": [{"mainsnak": "x"}]}}
            }
        },
        {"entities": {"Q85": {"id": "Q85", "labels": {"en": {"value": "\ud83d"}}}}},
    ],
    ids=["error", "claims", "surrogate"],
)
def test_what_is_not_of_the_apis_form_ends_nothing(server, body, tmp_path):
    server.faults = [("json", body)]
    found = ground([CAIRO], wikidata(server), JsonlStore(tmp_path / "g.jsonl", "test"))
    assert "busy" in found.missing(CAIRO) if "error" in body else not found.of(CAIRO).facts
    again = ground([CAIRO], wikidata(server, offline=True), JsonlStore(tmp_path / "g.jsonl", "test"))
    assert (again.of(CAIRO) is None) == ("error" in body)
    server.faults = [("json", {"search": ["x", {"id": "Q85", "label": "Cairo"}]})]
    assert wikidata(server).search("Cairo") == "Q85"


def test_throttling_is_heeded(server):
    server.faults = [("status", 429, [("Retry-After", "1")], {})]
    began = time.monotonic()
    assert look_up(server, [CAIRO]).of(CAIRO)
    assert time.monotonic() - began > 0.9


def test_calls_are_spaced(server):
    client = wikidata(server, interval=0.2)
    began = time.monotonic()
    for id_ in ("Q79", "Q85", "Q87"):
        client.entities([id_])
    assert time.monotonic() - began > 0.38


def test_an_http_redirect_is_followed(server):
    assert look_up(server, [CAIRO], url=f"{server.address}/moved").of(CAIRO)


def test_an_api_that_stays_down_leaves_what_is_done(server, tmp_path):
    store = JsonlStore(tmp_path / "g.jsonl", "test")
    first = [Entity(f"e{i}", f"Q{1000 + i}") for i in range(49)] + [CAIRO]
    ground(first, wikidata(server), store)
    server.faults = [("html", 503)] * 99
    calls = len(server.calls)
    found = ground([*first, EGYPT], wikidata(server, attempts=3), JsonlStore(tmp_path / "g.jsonl", "test"))
    assert found.of(CAIRO)
    assert "3 tries" in found.missing(EGYPT)
    assert len(server.calls) == calls + 3


def test_no_network():
    client = Wikidata(url="http://127.0.0.1:9/w/api.php", interval=0, initial_wait=0.01, attempts=2)
    with pytest.raises(GroundingError, match="no connection"):
        client.entities(["Q79"])


def test_the_store_resumes_and_asks_again_for_what_was_missing(server, tmp_path):
    file = tmp_path / "g.jsonl"
    gone = Entity("Nobody", "Q424242")
    look_up(server, [EGYPT, gone], JsonlStore(file, "test"))
    with file.open("ab") as stream:
        stream.write(b'{"key": "Q87", "id": "Q8')  # killed in the middle of a line
    calls = len(server.calls)
    found = look_up(server, [EGYPT, gone], JsonlStore(file, "test"))
    assert found.of(EGYPT).facts["P36"] == ["Cairo"]
    assert [call["ids"] for call in server.calls[calls:]] == ["Q424242"]
    assert all(json.loads(line)["key"] for line in file.read_text().splitlines())


def test_the_cache_has_an_age(server, tmp_path):
    look_up(server, [EGYPT], cache=tmp_path)
    calls = len(server.calls)
    client = wikidata(server, cache=tmp_path)
    assert ground([EGYPT], client, JsonlStore(None, "test")).of(EGYPT).facts["P36"] == ["Cairo"]
    assert len(server.calls) == calls
    assert client.usage.from_cache == 3  # the entity and the labels of its two values
    look_up(server, [EGYPT], cache=tmp_path, max_age_days=0.0)
    assert len(server.calls) == calls + 2


def test_offline_takes_the_cache_alone(server, tmp_path):
    look_up(server, [EGYPT], cache=tmp_path, max_age_days=0.0)
    calls = len(server.calls)
    found = look_up(server, [EGYPT, CAIRO, Entity("Atlantis")], cache=tmp_path, offline=True, max_age_days=0.0)
    assert len(server.calls) == calls
    assert found.of(EGYPT).facts["P37"] == ["Arabic"]
    assert "offline" in found.missing(CAIRO)
    assert "offline" in found.missing(Entity("Atlantis"))
