"""`llm`: any OpenAI-compatible chat endpoint as judge.

What goes wrong, and what becomes of it:

| fault | outcome |
| --- | --- |
| 429, 5xx, time-out, broken connection | asked again with back-off, as long as `Retry-After` says |
| the same, tries used up | an error verdict that is not kept; three in a row stop the work (`judging.py`) |
| a body that holds no reply | the same, without further tries |
| refused connection, wrong key or model, quota, lasting 429 | the work stops with one message |
| malformed reply | asked again with the reason, then an error verdict |
| content filter, refusal | an error verdict with the reason |
| prompt too long, other 4xx | an error verdict; not kept, as above, while no request has succeeded yet |

What is not kept is asked again by the next run.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai

from causaledit.errors import ContentFilterError, JudgeError, JudgingStoppedError, LLMError, MalformedReplyError
from causaledit.judges.prompts import (
    ENDPOINT_ERROR,
    PROMPT_VERSION,
    SCHEMAS,
    Verdict,
    error_verdict,
    judge_messages,
    verdict_from_reply,
)
from causaledit.support.chat_endpoint import KEY_VARIABLE, ChatClient

if TYPE_CHECKING:
    from causaledit.judges.base import AnswerVerdict, JudgedResponse, RationaleVerdict, RefutationVerdict, Task

logger = logging.getLogger(__name__)

MAX_REPLY_TOKENS = 700


class LlmJudge:
    """Judges through a chat endpoint, at temperature 0; may be used from many threads.

    Args:
        model: Name of the model at the endpoint.
        base_url: Its address; `OPENAI_BASE_URL`, else OpenAI's own, where it is None.
        api_key_env: Environment variable that holds the key. It may be missing only for an endpoint given by address.
        timeout: Longest wait for one reply, in seconds.
        attempts: Tries per request.
        initial_wait: First back-off in seconds, where the endpoint does not say how long.

    Raises:
        JudgeError: No model, no key, or an address that is none.
    """

    name = "llm"
    concurrent = True

    def __init__(
        self,
        model: str | None,
        *,
        base_url: str | None = None,
        api_key_env: str = KEY_VARIABLE,
        timeout: float = 60.0,
        attempts: int = 5,
        initial_wait: float = 1.0,
    ) -> None:
        if not model:
            raise JudgeError("The llm judge needs the name of a model: give --judge-model.")
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        if base_url and urlsplit(base_url).scheme not in ("http", "https"):
            raise JudgeError(f"--base-url must begin with http:// or https://, got {base_url!r}.")
        if not os.environ.get(api_key_env) and (base_url is None or api_key_env != KEY_VARIABLE):
            raise JudgeError(
                f"The llm judge finds no key: set the environment variable {api_key_env}, name another one with "
                "--api-key-env, or give the --base-url of an endpoint that needs none."
            )
        self._client = ChatClient(
            model,
            base_url=base_url,
            key_variable=api_key_env,
            timeout=timeout,
            attempts=attempts,
            initial_wait=initial_wait,
        )
        self.identity = f"llm:{model}{'@' + _address(base_url) if base_url else ''}:prompts-v{PROMPT_VERSION}"
        self._lock = threading.Lock()
        self._has_worked = False
        # what a model does not take is found out from its first reply, and then left out for good
        self._temperature: float | None = 0.0
        self._length_name = "max_tokens"

    def judge_answer(self, item: JudgedResponse) -> AnswerVerdict:
        """See `Judge.judge_answer`."""
        return self._judge("answer", item)

    def judge_refutation(self, item: JudgedResponse) -> RefutationVerdict:
        """See `Judge.judge_refutation`."""
        return self._judge("refutation", item)

    def judge_rationale(self, item: JudgedResponse) -> RationaleVerdict:
        """See `Judge.judge_rationale`."""
        return self._judge("rationale", item)

    def stop(self) -> None:
        """Let running calls end without further tries (on Ctrl-C)."""
        self._client.stop()

    def _judge(self, task: Task, item: JudgedResponse) -> Any:
        """Raises `JudgingStoppedError` where no further request would fare better."""
        try:
            reply = self._ask(task, item)
        except ContentFilterError as error:
            self._has_worked = True
            return error_verdict(task, f"refused: {error}")
        except MalformedReplyError as error:  # the endpoint works, its replies do not fit
            self._has_worked = True
            return error_verdict(task, f"malformed: {error}")
        except LLMError as error:
            return self._failed(task, error)
        self._has_worked = True
        return verdict_from_reply(task, reply, item)

    def _ask(self, task: Task, item: JudgedResponse) -> dict[str, Any]:
        for _ in range(3):  # as it is, without temperature, with the other name of the length limit
            temperature, length_name = self._temperature, self._length_name
            try:
                return self._client.complete(
                    judge_messages(task, item),
                    schema=SCHEMAS[task],
                    temperature=temperature,
                    **{length_name: MAX_REPLY_TOKENS},
                ).data
            except LLMError as error:
                if not self._adapted(error, temperature, length_name):
                    raise
        raise LLMError(f"{self._client.model} takes neither `max_tokens` nor `max_completion_tokens`.")

    def _adapted(self, error: LLMError, temperature: float | None, length_name: str) -> bool:
        """Whether the endpoint named a parameter it does not take that can be left out or renamed."""
        cause = error.__cause__
        if not isinstance(cause, openai.BadRequestError | openai.UnprocessableEntityError):
            return False
        text = str(cause)
        with self._lock:
            if "temperature" in text and temperature is not None:
                if self._temperature is not None:
                    logger.info("%s takes no temperature: its verdicts may vary", self._client.model)
                self._temperature = None
                return True
            if "max_tokens" in text and length_name == "max_tokens" and "context" not in text.lower():
                self._length_name = "max_completion_tokens"
                return True
        return False

    def _failed(self, task: Task, error: LLMError) -> Verdict:
        cause = error.__cause__
        status = getattr(cause, "status_code", None)
        interrupted = isinstance(cause, openai.OpenAIError) and not isinstance(cause, openai.APIError)
        if status in (401, 403, 404, 429) or interrupted or _refused_connection(cause):
            raise JudgingStoppedError(str(error)) from error
        if status is not None and status < 500 and self._has_worked:  # this request's fault, a prompt too long
            return error_verdict(task, f"rejected: {error}")
        return error_verdict(task, f"{ENDPOINT_ERROR}{error}")


def _refused_connection(error: BaseException | None) -> bool:
    """Nobody listens there, or the name is unknown: another prompt would fare no better."""
    while error is not None:
        if type(error).__name__ == "ConnectError":  # of whichever HTTP library the client uses
            return True
        error = error.__cause__
    return False


def _address(base_url: str) -> str:
    """Host and path; a name and password in the address are nobody's business."""
    parts = urlsplit(base_url)
    return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}"
