"""The chat client against a real endpoint on loopback: retries, refusals, structured replies, the tally."""

from __future__ import annotations

import threading
import time

import pytest
from scaffold_servers import FILTERED, ChatServer, completion

from causaledit.errors import ContentFilterError, LLMError
from causaledit.support.chat_endpoint import ChatClient
from causaledit.support.files import write_text
from causaledit.support.replies import check_schema, parse_json, without_thinking
from causaledit.support.retries import retry_after_seconds

ASK = [{"role": "user", "content": "Is it so?"}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "grade": {"type": "string", "enum": ["PASS", "FAIL"]}},
    "required": ["ok", "grade"],
}
GOOD = '{"ok": true, "grade": "PASS"}'


@pytest.fixture
def server():
    with ChatServer() as running:
        yield running


def client(server, **options):
    return ChatClient("m", base_url=server.url, **{"initial_wait": 0.01, "timeout": 5, **options})


def test_a_plain_reply_and_its_cost(server):
    chat = client(server)
    reply = chat.complete(ASK, max_tokens=7, temperature=0.0, seed=3)
    assert reply.text == "yes"
    assert {k: server.calls[0][k] for k in ("model", "max_tokens", "temperature", "seed", "messages")} == {
        "model": "m", "max_tokens": 7, "temperature": 0.0, "seed": 3, "messages": ASK,
    }  # fmt: skip
    usage = chat.usage.to_dict()
    assert (usage["calls"], usage["prompt_tokens"], usage["completion_tokens"], usage["retries"]) == (1, 10, 5, 0)


def test_retry_after_is_heeded(server):
    server.faults = [("status", 429, [("Retry-After", "1")], {"error": {"message": "slow down"}})]
    chat = client(server)
    began = time.monotonic()
    assert chat.complete(ASK).text == "yes"
    assert 0.9 < time.monotonic() - began < 3
    assert chat.usage.retries == 1


@pytest.mark.parametrize(
    "fault", [("status", 500, [], {}), ("status", 503, [], {}), ("html", 502), ("sleep", 1.0)], ids=str
)
def test_passing_trouble_is_tried_again(server, fault):
    server.faults = [fault, fault]
    chat = client(server, timeout=0.4)
    assert chat.complete(ASK).text == "yes"
    assert (chat.usage.calls, chat.usage.retries, chat.usage.failed) == (3, 2, 0)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (("status", 401, [], {"error": {"message": "bad key"}}), "OPENAI_API_KEY"),
        (("status", 404, [], {"error": {"message": "no model m"}}), "no model m"),
        (("html", 200), "chat endpoint"),
        (("json", {"choices": []}), "no choice"),
        (("status", 429, [], {"error": {"message": "insufficient_quota: pay", "code": "insufficient_quota"}}), "quota"),
    ],
)
def test_what_no_waiting_mends_is_not_tried_again(server, fault, words):
    server.faults = [fault]
    with pytest.raises(LLMError, match=words):
        client(server).complete(ASK)
    assert len(server.calls) == 1


def test_tries_are_limited(server):
    server.faults = [("status", 500, [], {})] * 9
    chat = client(server, attempts=3)
    with pytest.raises(LLMError, match="500"):
        chat.complete(ASK)
    assert (len(server.calls), chat.usage.failed) == (3, 1)


@pytest.mark.parametrize(
    "fault",
    [
        ("status", 400, [], FILTERED),
        ("json", completion("", finish_reason="content_filter")),
        ("json", completion("", refusal="I cannot help with that.")),
    ],
    ids=["400", "finish_reason", "refusal"],
)
def test_a_refusal_is_its_own_error_and_final(server, fault):
    server.faults = [fault]
    chat = client(server)
    with pytest.raises(ContentFilterError):
        chat.complete(ASK)
    assert (len(server.calls), chat.usage.refused) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        completion("half \ud83d of it"),
        {**completion("half ? of it"), "usage": {"prompt_tokens": "10", "completion_tokens": [5]}},
    ],
    ids=["surrogate", "usage"],
)
def test_what_an_endpoint_sends_can_be_kept(server, body, tmp_path):
    server.faults = [("json", body)]
    text = client(server).complete(ASK).text
    assert text == "half ? of it"
    assert write_text(tmp_path / "kept", text).read_text(encoding="utf-8") == text


def test_a_refusal_of_halves_of_characters_can_be_written(server, tmp_path):
    unknown = {"error": {"message": "no model \ud83d"}}
    server.faults = [("json", completion("", refusal="no \ud83d")), ("status", 404, [], unknown)]
    for kind in (ContentFilterError, LLMError):
        with pytest.raises(kind) as error:
            client(server).complete(ASK)
        write_text(tmp_path / "kept", str(error.value))


def test_structured_replies_are_checked_and_asked_for_again(server):
    replies = ["I think so.", '{"ok": "yes", "grade": "PASS"}', f"```json\n{GOOD}\n```"]
    server.reply = lambda body: replies[len(server.calls) - 1]
    chat = client(server)
    assert chat.complete(ASK, schema=SCHEMA).data == {"ok": True, "grade": "PASS"}
    assert chat.usage.malformed == 2
    assert server.calls[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "boolean" in server.calls[2]["messages"][-1]["content"]  # it was told what was wrong


def test_replies_that_never_fit_are_an_error_not_a_guess(server):
    server.reply = lambda body: '{"ok": true}'
    with pytest.raises(LLMError, match="'grade'"):
        client(server).complete(ASK, schema=SCHEMA)
    assert len(server.calls) == 3


def test_an_endpoint_without_schemas_gets_it_in_the_prompt(server):
    def reply(body):
        if "response_format" in body:
            return ("status", 400, [], {"error": {"message": "response_format is not supported"}})
        return GOOD

    server.reply = reply
    chat = client(server)
    for _ in range(2):
        assert chat.complete(ASK, schema=SCHEMA).data["ok"] is True
    assert ["response_format" in c for c in server.calls] == [True, False, False]  # it is asked only once
    assert '"enum"' in server.calls[1]["messages"][-1]["content"]


def test_many_threads_one_tally(server):
    chat = client(server)
    threads = [threading.Thread(target=lambda: [chat.complete(ASK) for _ in range(5)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (chat.usage.calls, chat.usage.completion_tokens) == (30, 150)


def test_stop_ends_a_long_wait(server):
    server.faults = [("status", 429, [("Retry-After", "50")], {})]
    chat = client(server)
    threading.Timer(0.3, chat.stop).start()
    began = time.monotonic()
    with pytest.raises(LLMError):
        chat.complete(ASK)
    assert time.monotonic() - began < 5


def test_a_key_is_needed_where_no_address_is_given(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(LLMError, match="OPENAI_API_KEY"):
        ChatClient("m")


def test_an_unreachable_endpoint():
    chat = ChatClient("m", base_url="http://127.0.0.1:9/v1", attempts=2, initial_wait=0.01)
    with pytest.raises(LLMError, match="cannot be reached"):
        chat.complete(ASK)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("<think>\nHm, {no}.\n</think>\n\nYes.", "Yes."),
        ("Hm, the template opened this.\n</think>\n\nYes.", "Yes."),
        ('{"ok": "</think> quoted"}', '{"ok": "</think> quoted"}'),
        ("<think>never done", "<think>never done"),
        ("Yes.", "Yes."),
    ],
)
def test_thoughts_are_no_part_of_a_reply(server, reply, text):
    server.reply = lambda body: reply
    assert client(server).complete(ASK).text == text == without_thinking(reply)


def test_reading_replies():
    assert parse_json('I see {braces}. </think> {"a": 1}') == {"a": 1}
    assert parse_json('Well: {"a": {"b": 1}} done') == {"a": {"b": 1}}
    for text in ("", "none", "[1]", '{"a": ', '{"a": ' * 100_000, '{"a": ' + "9" * 5000 + "}"):
        with pytest.raises(ValueError, match="no JSON object"):
            parse_json(text)
    with pytest.raises(ValueError, match="item"):
        check_schema(["x", 1], {"type": "array", "items": {"type": "string"}})
    with pytest.raises(ValueError, match="bool"):
        check_schema(True, {"type": "integer"})


def test_retry_after_as_a_date_and_in_milliseconds():
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime

    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after_seconds({"retry-after": later}) <= 30
    assert retry_after_seconds({"retry-after-ms": "250"}) == 0.25
    assert retry_after_seconds({"retry-after": "soon"}) is None
    assert retry_after_seconds({}) is None
