"""Chat formatting: the tokenizer's own template, or a plain one with a warning."""

from __future__ import annotations

import copy
import functools
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Messages = list[dict[str, str]]

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, template_kwargs: dict[str, Any] | None = None
) -> PreTrainedTokenizerBase:
    """Return a copy ready for batched generation; the caller's tokenizer stays as it is.

    The copy pads on the left, has a padding token, and has a chat template (a plain one, with a
    warning, where the tokenizer brings none).

    Args:
        tokenizer: The caller's.
        template_kwargs: Arguments that every use of the chat template gets (`enable_thinking: false`, …).
    """
    prepared = copy.deepcopy(tokenizer)
    prepared.padding_side = "left"
    prepared.truncation_side = "left"
    if prepared.pad_token_id is None:
        prepared.pad_token = prepared.eos_token or prepared.unk_token
    if not prepared.chat_template:
        logger.warning(
            "the tokenizer %s has no chat template: a plain 'User: … Assistant:' format is used instead",
            getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__,
        )
        prepared.chat_template = PLAIN_TEMPLATE
    if template_kwargs:
        prepared.apply_chat_template = functools.partial(prepared.apply_chat_template, **template_kwargs)
    return prepared


def user(content: str) -> Messages:
    """A conversation of one user message."""
    return [{"role": "user", "content": content}]


def supports_system_role(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template takes a system message and does not drop it."""
    marker = "privileged-context-marker"
    messages = [{"role": "system", "content": marker}, {"role": "user", "content": "question"}]
    try:
        return marker in tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja raises whatever the template author chose
        logger.debug("the chat template refuses a system message: %s", error)
        return False


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, prefill: str = "") -> str:
    """Render a conversation up to the start of the assistant's turn, `prefill` opening that turn."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text + prefill


def in_context_prefix(model: Any) -> str:
    """The text a model wants before every prompt: an in-context edit (IKE) carries its facts there."""
    return getattr(model, "in_context_prefix", "")


def with_context(model: Any, prompt: str) -> str:
    """A bare prompt as this model is to read it: behind its in-context facts, where it carries any."""
    prefix = in_context_prefix(model)
    return f"{prefix}\n{prompt}" if prefix else prompt


def render_for(model: Any, tokenizer: PreTrainedTokenizerBase, messages: Messages, *, prefill: str = "") -> str:
    """As `render`, with the model's in-context facts before the first user message.

    Whatever asks an edited model goes through here, so that an edit that changes no weights is heard.
    """
    if in_context_prefix(model):
        first = next((i for i, message in enumerate(messages) if message["role"] == "user"), None)
        messages = [
            {**message, "content": with_context(model, message["content"])} if i == first else message
            for i, message in enumerate(messages)
        ]
    return render(tokenizer, messages, prefill=prefill)
