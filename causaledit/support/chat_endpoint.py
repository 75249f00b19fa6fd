"""A chat client for any OpenAI-compatible endpoint: retries, JSON replies, typed errors, a count of the cost.

    client = ChatClient("gpt-4o-mini")                                  # key from OPENAI_API_KEY
    client = ChatClient("qwen", base_url="http://127.0.0.1:8000/v1")    # a local server needs no key
    client.complete([{"role": "user", "content": "…"}], max_tokens=400).text
    client.complete(messages, schema=SCHEMA).data                       # a dict checked against SCHEMA
    client.usage.to_dict()                                              # calls, tokens, retries, …

One client may be used from many threads. A call that finally fails raises an `LLMError`; a refusal because of the
content raises a `ContentFilterError` and is never retried; replies without the requested form are a
`MalformedReplyError`, unlike a body without a reply. After `stop()` (Ctrl-C) nothing is retried.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import openai
import tenacity

from causaledit.errors import ContentFilterError, LLMError, MalformedReplyError
from causaledit.support.json_text import well_formed
from causaledit.support.replies import check_schema, parse_json, without_thinking
from causaledit.support.retries import RETRIED_STATUS, Pace, wait_as_asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"
# a refused connection rarely recovers within a minute
CONNECTION_ATTEMPTS = 3
# words in the errors of endpoints that do not support `response_format`, or only an older form of it
_NO_SCHEMA = re.compile(r"response_format|json_schema|guided|structured output", re.IGNORECASE)
_FILTER = re.compile(r"content[ _-]?(filter|policy|management)|content_filter|safety system|moderation", re.IGNORECASE)


@dataclass
class Usage:
    """Cost of the calls so far. Tokens are those that the endpoint reports (0 where it reports none)."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    malformed: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, seconds rounded."""
        return {**asdict(self), "seconds": round(self.seconds, 2)}


@dataclass(frozen=True)
class ChatReply:
    """One reply.

    Attributes:
        text: The reply as it came, without a reasoning model's `<think>` part.
        data: The parsed object, where a schema was given.
        finish_reason: As the endpoint gave it; `length` means that the reply was cut.
    """

    text: str
    data: Any = None
    finish_reason: str | None = None


class ChatClient:
    """Calls one model of an OpenAI-compatible endpoint.

    Args:
        model: Name of the model at the endpoint.
        base_url: Address of the endpoint; None stands for `OPENAI_BASE_URL`, or else for OpenAI's own.
        api_key: The key itself; the environment is the better place for it.
        key_variable: Environment variable that holds the key. An endpoint given by address may need none.
        timeout: Longest wait for one reply, in seconds.
        attempts: Attempts per call (429, 5xx, time-outs and broken connections are retried).
        initial_wait, longest_wait: In seconds, the first wait where no `Retry-After` is sent, and the longest wait.
        format_attempts: Attempts to get a reply that fits the schema.

    Raises:
        LLMError: No model name, or no key for an endpoint that was not given by address.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        key_variable: str = KEY_VARIABLE,
        timeout: float = 120.0,
        attempts: int = 6,
        initial_wait: float = 1.0,
        longest_wait: float = 60.0,
        format_attempts: int = 3,
    ) -> None:
        if not model:
            raise LLMError("No model name was given for the chat endpoint.")
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = api_key or os.environ.get(key_variable)
        if not key and base_url is None:
            raise LLMError(
                f"No API key: set the environment variable {key_variable}, or give the address of your own endpoint."
            )
        self.model = model
        self.base_url = base_url
        self.usage = Usage()
        self._key_variable = key_variable
        self._client = openai.OpenAI(api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=0)
        self._format_attempts = max(1, format_attempts)
        self._attempts = max(1, attempts)
        self._initial_wait, self._longest_wait = initial_wait, longest_wait
        self._takes_schema = True
        self._pace = Pace()
        self._lock = threading.Lock()

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        schema: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChatReply:
        """Ask once, with retries.

        Args:
            messages: The conversation, `role` and `content` each.
            max_tokens: Longest reply; the endpoint's own limit where it is None.
            temperature, seed: Left out of the request where they are None.
            schema: A JSON schema of an object. The endpoint is asked for structured output; where it does not
                support that, the schema is put into the prompt. A reply that does not fit is requested again.
            options: Further fields of the request.

        Raises:
            ContentFilterError: The endpoint refused.
            MalformedReplyError: Replies came, and none fitted the schema.
            LLMError: The endpoint gave no reply after all tries.
        """
        request: dict[str, Any] = {"model": self.model, **options}
        for name, value in (("max_tokens", max_tokens), ("temperature", temperature), ("seed", seed)):
            if value is not None:
                request[name] = value
        if schema is None:
            return self._ask(list(messages), request)
        return self._ask_for_json(list(messages), request, schema)

    def stop(self) -> None:
        """Start no further attempt and end every wait (on Ctrl-C)."""
        self._pace.stop()

    def _ask_for_json(self, messages: list[Any], request: dict[str, Any], schema: Mapping[str, Any]) -> ChatReply:
        problem, asked = "", messages
        for attempt in range(self._format_attempts):
            reply = self._ask_structured(asked, request, schema)
            try:
                data = parse_json(reply.text)
                check_schema(data, schema)
            except ValueError as error:
                problem = str(error)
                self._add(malformed=1)
                logger.debug("malformed reply (try %d): %s: %.200r", attempt + 1, problem, reply.text)
                # some endpoints take the schema and ignore it, so that the model has never seen it
                correction = f"That reply cannot be used: {problem}.{_schema_words(schema)}"
                said = [{"role": "assistant", "content": reply.text}] if reply.text.strip() else []
                asked = [*messages, *said, {"role": "user", "content": correction}] if said else messages
                continue
            return ChatReply(reply.text, data, reply.finish_reason)
        self._add(failed=1)
        raise MalformedReplyError(
            f"{self.model} gave no reply of the requested form in {self._format_attempts} tries: {problem}."
        )

    def _ask_structured(self, messages: list[Any], request: dict[str, Any], schema: Mapping[str, Any]) -> ChatReply:
        if self._takes_schema:
            form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema), "strict": True}}
            try:
                return self._ask(messages, {**request, "response_format": form})
            except LLMError as error:
                cause = error.__cause__
                if not isinstance(cause, openai.BadRequestError | openai.UnprocessableEntityError) or not (
                    _NO_SCHEMA.search(str(cause))
                ):
                    raise
                self._takes_schema = False
                logger.info("%s does not support JSON schemas: the schema goes into the prompt instead", self.model)
        last = {**messages[-1], "content": messages[-1]["content"] + "\n\n" + _schema_words(schema)}
        return self._ask([*messages[:-1], last], request)

    def _ask(self, messages: list[Any], request: dict[str, Any]) -> ChatReply:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._worth_retrying),
            wait=self._wait(),
            stop=self._enough,
            sleep=self._pace.sleep,
            before_sleep=self._note_retry,
            reraise=True,
        )
        began = time.perf_counter()
        try:
            response = retrying(self._call, messages, request)
        except (ValueError, RecursionError) as error:  # a body that is not JSON
            self._add(seconds=time.perf_counter() - began, failed=1)
            raise LLMError(f"{self.model}: the reply is not JSON (is {self.base_url!r} a chat endpoint?).") from error
        except openai.OpenAIError as error:
            refused = _is_filtered(error)
            self._add(seconds=time.perf_counter() - began, refused=int(refused), failed=int(not refused))
            kind = ContentFilterError if refused else LLMError
            said = well_formed(_say(error, self.model, self.base_url, self._key_variable))
            raise kind(said) from error
        self._add(seconds=time.perf_counter() - began)
        return self._read(response)

    def _call(self, messages: list[Any], request: dict[str, Any]) -> Any:
        if self._pace.stopped:
            raise openai.OpenAIError("interrupted")
        self._pace.wait()
        self._add(calls=1)
        return self._client.chat.completions.create(messages=messages, **request)

    def _read(self, response: Any) -> ChatReply:
        usage = getattr(response, "usage", None)
        self._add(
            prompt_tokens=_number(getattr(usage, "prompt_tokens", 0)),
            completion_tokens=_number(getattr(usage, "completion_tokens", 0)),
        )
        choices = getattr(response, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if choice is None or message is None:
            self._add(failed=1)
            raise LLMError(
                f"{self.model}: the endpoint's reply holds no choice (is {self.base_url!r} a chat endpoint?)"
            )
        refusal, finish_reason = getattr(message, "refusal", None), getattr(choice, "finish_reason", None)
        if finish_reason == "content_filter" or refusal:
            self._add(refused=1)
            said = refusal if isinstance(refusal, str) else ""
            raise ContentFilterError(f"{self.model} refused: {well_formed(said) or 'the content filter cut the reply'}")
        content = getattr(message, "content", None)
        text = well_formed(content) if isinstance(content, str) else ""
        return ChatReply(without_thinking(text), None, finish_reason)

    def _worth_retrying(self, error: BaseException) -> bool:
        if self._pace.stopped or _is_filtered(error):
            return False
        if isinstance(error, openai.APIStatusError):
            # a used-up quota is a 429 that waiting does not help
            quota = error.code == "insufficient_quota" or "insufficient_quota" in str(error)
            return error.status_code in RETRIED_STATUS and not quota
        return isinstance(error, openai.APIConnectionError)  # time-outs included

    def _enough(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        away = isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)
        return state.attempt_number >= (min(self._attempts, CONNECTION_ATTEMPTS) if away else self._attempts)

    def _wait(self) -> Any:
        return wait_as_asked(_headers, initial=self._initial_wait, longest=self._longest_wait)

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        self._add(retries=1)
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        if isinstance(error, openai.RateLimitError):
            self._pace.pause(pause)  # the limit is the account's, not this thread's
        logger.debug("%s: trying again in %.1f s after %s", self.model, pause, error)

    def _add(self, **amounts: float) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self.usage, name, getattr(self.usage, name) + amount)


def _number(value: Any) -> int:
    """A count as the endpoint reports it; 0 where it reports something else."""
    return value if isinstance(value, int) else 0


def _schema_words(schema: Mapping[str, Any]) -> str:
    return " Reply with one JSON object that fits this schema, and nothing else:\n" + json.dumps(schema)


def _headers(error: BaseException) -> Mapping[str, str] | None:
    response = getattr(error, "response", None)
    return getattr(response, "headers", None)


def _is_filtered(error: BaseException) -> bool:
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 403, 422, 451):
        return False
    return bool(_FILTER.search(f"{error.code} {error}"))


def _say(error: openai.OpenAIError, model: str, base_url: str | None, key_variable: str) -> str:
    """One line for the user."""
    where = f"{model} at {base_url}" if base_url else model
    if isinstance(error, openai.APITimeoutError):
        return f"{where}: no reply in time."
    if isinstance(error, openai.APIConnectionError):
        return f"{where}: cannot be reached ({error.__cause__ or error})."
    if isinstance(error, openai.AuthenticationError):
        return f"{where}: the key was not accepted (401); set {key_variable}."
    if isinstance(error, openai.APIStatusError):
        text = error.response.text if error.body is None else str(error)
        kind = "an HTML page" if text.lstrip().lower().startswith(("<!doctype", "<html")) else " ".join(text.split())
        return f"{where}: HTTP {error.status_code}: {kind[:300]}"
    return f"{where}: {error}"
