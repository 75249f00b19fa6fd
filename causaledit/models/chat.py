"""Chat formatting: the tokenizer's own template, or a plain one with a warning."""

from __future__ import annotations

import copy
import functools
import logging
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError, one_line
from causaledit.models.batches import PAD, eos_ids, vocabulary_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Messages = list[dict[str, str]]

# What a model without a chat template is shown: chosen by benchmarks/base_formats.py (docs/log.md has its figures).
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}Q: {{ message['content'] }}\n"
    "{% elif message['role'] == 'assistant' %}A: {{ message['content'] }}\n"
    "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)
PLAIN_NEXT_TURN = "\nQ:"
_BEGINNING = "{{ bos_token }}"


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, template_kwargs: dict[str, Any] | None = None, *, model: Any = None
) -> PreTrainedTokenizerBase:
    """Return a copy ready for batched generation; the caller's tokenizer stays as it is.

    The copy pads on the left, has a padding token that the model has an embedding for (padding is masked: any serves),
    and has a chat template: a plain one, with a warning, where the tokenizer brings none.

    Args:
        tokenizer: The caller's.
        template_kwargs: Arguments that every use of the chat template gets (`enable_thinking: false`, …). Of several
            named templates, `chat_template: name` takes one.
        model: The model that it is for; without it, any token counts as one the model knows.

    Raises:
        ModelError: The chat template cannot be used, or asks for tokens that the model has no embedding for.
    """
    prepared = copy.deepcopy(tokenizer)
    prepared.padding_side = "left"
    prepared.truncation_side = "left"
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    if not prepared.chat_template:
        logger.warning(
            "the tokenizer %s has no chat template: a base model's plain format 'Q: … A:' is used instead",
            name,
        )
        prepared.chat_template = (_BEGINNING if _adds_beginning(prepared) else "") + PLAIN_TEMPLATE
    elif isinstance(prepared.chat_template, dict):
        _choose_template(prepared, name, template_kwargs or {})
    if template_kwargs:
        vars(prepared)["apply_chat_template"] = functools.partial(prepared.apply_chat_template, **template_kwargs)
    rows = None if model is None else vocabulary_rows(model)
    if prepared.eos_token_id is None and model is not None and (ends := eos_ids(model, prepared)):
        prepared.eos_token = prepared.convert_ids_to_tokens(ends[0])
    known = (prepared.pad_token_id, prepared.eos_token_id, prepared.unk_token_id, PAD)
    padding = next(token for token in known if isinstance(token, int) and (rows is None or token < rows))
    if padding != prepared.pad_token_id:
        prepared.pad_token = prepared.convert_ids_to_tokens(padding)
    _check_template(prepared, name, rows)
    return prepared


def _adds_beginning(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether texts are read behind a beginning-of-text token, which a template has to write itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def _choose_template(tokenizer: PreTrainedTokenizerBase, name: str, template_kwargs: dict[str, Any]) -> None:
    templates = tokenizer.chat_template
    if "default" in templates or template_kwargs.get("chat_template"):
        return
    if len(templates) > 1:
        raise ModelError(
            f"The tokenizer {name} has the chat templates {', '.join(map(repr, templates))} and no default: name one "
            f"with `chat_template_kwargs: {{chat_template: {next(iter(templates))}}}`."
        )
    [tokenizer.chat_template] = templates.values()


def _check_template(tokenizer: PreTrainedTokenizerBase, name: str, rows: int | None) -> None:
    """Refuse a template that cannot ask a question, or a tokenizer that is not this model's."""
    asked = "Which question is this?"
    try:
        text = render(tokenizer, user(asked))
    except Exception as error:  # jinja raises whatever the template author chose
        raise ModelError(
            f"The chat template of {name} cannot render a user's message ({one_line(error)}): mend the tokenizer's "
            "`chat_template`, or the hyper-parameter `chat_template_kwargs`."
        ) from None
    if asked not in text:
        raise ModelError(
            f"The chat template of {name} leaves out the user's message: mend the tokenizer's `chat_template`."
        )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if rows is not None and max(ids) >= rows:
        raise ModelError(
            f"The tokenizer {name} gives the token {tokenizer.convert_ids_to_tokens(max(ids))!r} the id {max(ids)}, "
            f"and the model has {rows} embeddings: take the model's own tokenizer, or make room with "
            "`model.resize_token_embeddings(len(tokenizer))`."
        )


def with_end_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or for a trainer that needs one, a copy whose padding token stands for the missing end."""
    if tokenizer.eos_token_id is not None:
        return tokenizer
    ended = copy.deepcopy(tokenizer)
    ended.eos_token = ended.pad_token
    return ended


def next_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text that opens another user's turn, where no token ends the assistant's: in the plain format."""
    template = tokenizer.chat_template
    return PLAIN_NEXT_TURN if isinstance(template, str) and template.endswith(PLAIN_TEMPLATE) else None


def user(content: str) -> Messages:
    """A conversation of one user message."""
    return [{"role": "user", "content": content}]


def supports_system_role(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template takes a system message and does not drop it."""
    marker = "privileged-context-marker"
    messages = [{"role": "system", "content": marker}, {"role": "user", "content": "question"}]
    try:
        return marker in _rendered(tokenizer, messages)
    except Exception as error:  # jinja raises whatever the template author chose
        logger.debug("the chat template refuses a system message: %s", error)
        return False


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, prefill: str = "") -> str:
    """Render a conversation up to the start of the assistant's turn, `prefill` opening that turn."""
    text = _rendered(tokenizer, messages)
    return text + answer_gap(tokenizer) + prefill if prefill else text


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, open_turn: bool = True) -> str:
    """The conversation as text, with the assistant's turn opened or not."""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_turn))


def answer_gap(tokenizer: PreTrainedTokenizerBase) -> str:
    """The white space that the template itself writes between where an assistant's turn opens and its text."""
    marker = "assistants-answer-marker"
    asked: Messages = user("question")
    turn = [*asked, {"role": "assistant", "content": marker}]
    head = _rendered(tokenizer, asked)
    try:
        whole = _rendered(tokenizer, turn, open_turn=False)
    except Exception as error:  # as above
        logger.debug("the chat template refuses an assistant's message: %s", error)
        return ""
    between = whole[len(head) : whole.find(marker)] if whole.startswith(head) and marker in whole else ""
    return between if between.isspace() else ""


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
