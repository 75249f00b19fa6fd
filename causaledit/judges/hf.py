"""`hf`: a local chat model as judge, in batches, with the prompts and the reply form of `llm`."""

from __future__ import annotations

import abc
import logging
from typing import TYPE_CHECKING, Any

from causaledit.errors import JudgeError
from causaledit.judges.prompts import (
    PROMPT_VERSION,
    SCHEMAS,
    Verdict,
    error_verdict,
    judge_messages,
    verdict_from_reply,
)
from causaledit.models.batches import context_window
from causaledit.models.chat import prepare_tokenizer, render, supports_system_role
from causaledit.models.generation import generate_texts
from causaledit.models.loading import load_model
from causaledit.support.replies import check_schema, parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.judges.base import AnswerVerdict, JudgedResponse, RationaleVerdict, RefutationVerdict, Task

logger = logging.getLogger(__name__)

FORMAT_ATTEMPTS = 2
BATCH = 16  # responses judged at a time


def identity_of(model: Any, config: Any = None) -> str:
    """The judge's identity: its model's name, and the version of the prompts.

    Args:
        model: As for `HfJudge`.
        config: Of the loaded model, for one that was given as such.
    """
    name = model if isinstance(model, str) else getattr(config, "name_or_path", "") or "model"
    return f"hf:{name}:prompts-v{PROMPT_VERSION}"


def check_named(model: Any) -> None:
    """Refuse a judge without a model.

    Raises:
        JudgeError: None was named.
    """
    if not model:
        raise JudgeError("The hf judge needs a model: give --judge-model (a folder, a hub name or a .gguf file).")


class OneByOne(abc.ABC):
    """The tasks of a judge that works on batches."""

    @abc.abstractmethod
    def judge_many(self, task: Task, items: Sequence[JudgedResponse]) -> list[Any]:
        """Verdicts for a batch of responses, in order."""

    def judge_answer(self, item: JudgedResponse) -> AnswerVerdict:
        """See `Judge.judge_answer`."""
        return self.judge_many("answer", [item])[0]

    def judge_refutation(self, item: JudgedResponse) -> RefutationVerdict:
        """See `Judge.judge_refutation`."""
        return self.judge_many("refutation", [item])[0]

    def judge_rationale(self, item: JudgedResponse) -> RationaleVerdict:
        """See `Judge.judge_rationale`."""
        return self.judge_many("rationale", [item])[0]


class HfJudge(OneByOne):
    """Judges with a causal LM on this machine, greedily.

    Args:
        model: Folder, hub name, GGUF file, embedded name, or a `(model, tokenizer)` pair.
        device: As for `load_model`.
        max_new_tokens: Longest reply.
        batch_size: Responses judged at a time.

    Raises:
        JudgeError: No model was named.
        ModelError: It cannot be loaded.
    """

    name = "hf"

    def __init__(self, model: Any, *, device: Any = "auto", max_new_tokens: int = 400, batch_size: int = BATCH) -> None:
        check_named(model)
        loaded = load_model(model, device=device, argument="--judge-model")
        self.batch_size = batch_size
        self._model, self._tokenizer = loaded.model, prepare_tokenizer(loaded.tokenizer, model=loaded.model)
        self._max_new_tokens = max_new_tokens
        self._system_role = supports_system_role(self._tokenizer)
        self.identity = identity_of(model, loaded.model.config)

    def judge_many(self, task: Task, items: Sequence[JudgedResponse]) -> list[Any]:
        """Verdicts for a batch of responses, in order.

        A malformed reply is asked for once more, with the reason, and then becomes an error verdict; a
        response that does not fit into the model's window is an error, never cut.
        """
        verdicts: dict[int, Verdict] = {}
        conversations = {i: judge_messages(task, item, system_role=self._system_role) for i, item in enumerate(items)}
        for attempt in range(FORMAT_ATTEMPTS):
            prompts = {i: render(self._tokenizer, conversations[i]) for i in conversations}
            for i in [i for i, prompt in prompts.items() if not self._fits(prompt)]:
                verdicts[i] = verdicts.get(i) or error_verdict(task, "the prompt does not fit into the judge's window")
                del prompts[i], conversations[i]
            replies = generate_texts(
                self._model,
                self._tokenizer,
                list(prompts.values()),
                max_new_tokens=self._max_new_tokens,
                batch_size=self.batch_size,
            )
            for i, reply in zip(list(prompts), replies, strict=True):
                try:
                    verdicts[i] = verdict_from_reply(task, _read(task, reply), items[i])
                    del conversations[i]
                except ValueError as error:
                    logger.debug("malformed reply (try %d): %s: %.200r", attempt + 1, error, reply)
                    verdicts[i] = error_verdict(task, f"malformed: no reply of the asked-for form: {error}")
                    conversations[i] += [
                        {"role": "assistant", "content": reply},
                        {"role": "user", "content": f"That cannot be used: {error}. Reply with the JSON object alone."},
                    ]
            if not conversations:
                break
        return [verdicts[i] for i in range(len(items))]

    def _fits(self, prompt: str) -> bool:
        window = context_window(self._model)
        length = len(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])
        return not window or length + self._max_new_tokens <= window


def _read(task: Task, reply: str) -> dict[str, Any]:
    data = parse_json(reply)
    check_schema(data, SCHEMAS[task])
    return data
