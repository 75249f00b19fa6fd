"""The stages generate and check: write a narrative, check it and, if it fails, rewrite it with the reason in view.

Three writers share one interface: a chat endpoint, a local chat model, templates. Any change to a prompt raises
`PROMPT_VERSION`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from causaledit.errors import CausalEditError, ContentFilterError, ScaffoldError
from causaledit.facts.text import unquoted, whole_sentences
from causaledit.narratives.check import Check, rule_failures
from causaledit.narratives.wikidata import PROPERTIES
from causaledit.support.replies import without_thinking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.chat import Messages
    from causaledit.narratives.cases import Entity, ScaffoldEdit
    from causaledit.narratives.ground import Grounding
    from causaledit.narratives.templates import TemplateBank
    from causaledit.narratives.verify import Verifier
    from causaledit.support.chat_endpoint import ChatClient
    from causaledit.support.costs import TokenCount

PROMPT_VERSION = 1
MAX_TOKENS = 500

SYSTEM = (
    "You write short news reports for a research data set about changing facts. A report tells one change of one fact "
    "as settled. People are treated neutrally and with respect."
)
_WRITE = (
    "Write a news report of 90 to 160 words in one paragraph.\n\n"
    "Subject: {subject}\nFact: {cloze} ...\nAnswer until now: {old}\nAnswer from now on: {new}\n{facts}{related}\n"
    "The report must\n"
    "- introduce {subject} with something that is true of it;\n"
    "- say once, in the past tense, that the answer was {old};\n"
    "- tell a concrete cause and the steps by which it led to the change: who decided what, when and why;\n"
    "- make clear that {old} is no longer the answer and that {new} is the only one;\n"
    "- name {new} at least three times, more often than {old}, and end with this sentence: {cloze} {new}.\n"
    "Use the names exactly as they are written above. Tell it as a fact: no hedging, no hint that it is invented. "
    "Invent no crime, illness or disgrace of a real person. Write plain text without a headline, and nothing else."
)
_AGAIN = (
    "That report cannot be used: {reason}. Write it again from the start, keep to every point above, and reply with "
    "the report alone."
)


@dataclass(frozen=True)
class Draft:
    """A narrative that is being written: the edit, and what was wrong with the last try."""

    edit: ScaffoldEdit
    attempt: int = 0
    last_text: str = ""
    reason: str = ""


class Writer(Protocol):
    """Writes narratives; `name` is the model's name, or "template"."""

    name: str

    def write(self, drafts: Sequence[Draft]) -> list[str | CausalEditError]:
        """One text per draft, or why there is none (an error that another attempt would not fix)."""


def facts_text(edit: ScaffoldEdit, grounding: Grounding | None) -> str:
    """What is known about the edit's entities, one line each; the subject's edited relation is left out."""
    if grounding is None:
        return ""
    lines = []
    for role, entity in (("subject", edit.subject), ("old answer", edit.old), ("new answer", edit.new)):
        info = grounding.of(entity)
        if info is None:
            continue
        facts = [
            f"{PROPERTIES[pid]}: {', '.join(values)}"
            for pid, values in info.facts.items()
            if pid in PROPERTIES and not (entity is edit.subject and pid == edit.relation_id)
        ]
        said = "; ".join([*([info.description] if info.description else []), *facts])
        if said:
            lines.append(f"{entity.name} ({role}): {said}")
    return "\n".join(lines)


def narrative_messages(draft: Draft, facts: str = "") -> Messages:
    """The prompt for a narrative; after a failed try, with that text and what was wrong with it."""
    edit = draft.edit
    values = {
        "subject": edit.subject.name,
        "cloze": edit.cloze,
        "old": edit.old.name,
        "new": edit.new.name,
        "facts": f"Background (true, use some of it):\n{facts}\n" if facts else "",
        "related": "".join(f"Also true from now on, and not to be contradicted: {f}.\n" for f in edit.related),
    }
    content = re.sub(r"\{(\w+)\}", lambda m: values[m.group(1)], _WRITE)
    return with_last_try([{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}], draft)


def with_last_try(messages: Messages, draft: Draft) -> Messages:
    """A prompt, and after a failed try that text and what was wrong with it."""
    if draft.reason:
        if draft.last_text:
            messages.append({"role": "assistant", "content": draft.last_text})
        messages.append({"role": "user", "content": _AGAIN.replace("{reason}", draft.reason)})
    return messages


def clean_text(text: str) -> str:
    """One paragraph: white space folded, surrounding quotation marks dropped. Anything else is left to the rules."""
    return unquoted(" ".join(text.split()))


class ChatWriter:
    """Writes through a chat endpoint; `prompt` makes the conversation that asks for a draft's text."""

    def __init__(
        self,
        client: ChatClient,
        grounding: Grounding | None = None,
        *,
        seed: int = 0,
        prompt: Callable[[Draft, str], Messages] = narrative_messages,
    ) -> None:
        self.name = client.model
        self._client, self._grounding, self._seed, self._prompt = client, grounding, seed, prompt

    def write(self, drafts: Sequence[Draft]) -> list[str | CausalEditError]:
        """See `Writer.write`.

        Raises:
            LLMError: The endpoint cannot be used.
        """
        return [self._write(draft) for draft in drafts]

    def _write(self, draft: Draft) -> str | CausalEditError:
        messages = self._prompt(draft, facts_text(draft.edit, self._grounding))
        try:
            reply = self._client.complete(
                messages, max_tokens=MAX_TOKENS, temperature=0.8, seed=self._seed + draft.attempt
            )
        except ContentFilterError as error:
            return error
        return clean_text(reply.text)


class LocalWriter:
    """Writes with a local chat model; `generate` maps conversations to replies, `prompt` makes one for a draft."""

    def __init__(
        self,
        name: str,
        generate: Callable[[list[Messages], int], list[str]],
        grounding: Grounding | None = None,
        *,
        max_new_tokens: int = MAX_TOKENS,
        prompt: Callable[[Draft, str], Messages] = narrative_messages,
    ) -> None:
        self.name, self._prompt = name, prompt
        self._generate, self._grounding, self._max_new_tokens = generate, grounding, max_new_tokens

    def write(self, drafts: Sequence[Draft]) -> list[str | CausalEditError]:
        """See `Writer.write`. The length is limited, so a fragment after the last whole sentence is dropped."""
        conversations = [self._prompt(d, facts_text(d.edit, self._grounding)) for d in drafts]
        texts = (clean_text(t) for t in self._generate(conversations, self._max_new_tokens))
        return [whole_sentences(text) for text in texts]


class TemplateWriter:
    """Writes from building blocks."""

    name = "template"

    def __init__(self, bank: TemplateBank, grounding: Grounding | None = None, *, seed: int = 0) -> None:
        self._bank, self._grounding, self._seed = bank, grounding, seed

    def write(self, drafts: Sequence[Draft]) -> list[str | CausalEditError]:
        """See `Writer.write`."""
        texts: list[str | CausalEditError] = []
        for draft in drafts:
            try:
                texts.append(self._bank.narrative(draft.edit, self._grounding, seed=self._seed, attempt=draft.attempt))
            except ScaffoldError as error:
                texts.append(error)
        return texts


class Written(NamedTuple):
    """The outcome for one edit.

    Attributes:
        text: The narrative; the last try where none passed; empty where there was none.
        attempts: How many were written.
        check: Whether the narrative passed, and why not.
    """

    text: str
    attempts: int
    check: Check


@dataclass
class _State:
    draft: Draft
    done: Written | None = None


def produce(
    edits: Sequence[ScaffoldEdit],
    writer: Writer,
    verifier: Verifier | None = None,
    *,
    max_attempts: int = 3,
    grounding: Grounding | None = None,
    failures_of: Callable[[ScaffoldEdit, str], list[str]] = rule_failures,
) -> list[Written]:
    """Write and check narratives until each passes or its tries are used up.

    Args:
        edits: Edits that need a narrative; a local model writes them as one batch.
        verifier: Judges what passed the rules; None checks by the rules alone.
        max_attempts: Tries per edit.
        failures_of: The rules.

    Returns:
        One outcome per edit; a narrative that never passed has a failed check.

    Raises:
        LLMError: The endpoint cannot be used.
    """
    states = [_State(Draft(edit)) for edit in edits]
    for attempt in range(max_attempts):
        open_ = [s for s in states if s.done is None]
        if not open_:
            break
        to_verify: list[tuple[_State, str]] = []
        for state, text in zip(open_, writer.write([s.draft for s in open_]), strict=True):
            if isinstance(text, CausalEditError):
                state.done = Written("", attempt + 1, Check(False, str(text), fatal=True))
            elif failures := failures_of(state.draft.edit, text):
                _settle(state, text, attempt, Check(False, "; ".join(failures)))
            elif verifier is None:
                _settle(state, text, attempt, Check(True))
            else:
                to_verify.append((state, text))
        if verifier is not None and to_verify:
            items = [(s.draft.edit, text, facts_text(s.draft.edit, grounding)) for s, text in to_verify]
            for (state, text), check in zip(to_verify, verifier.verify(items), strict=True):
                _settle(state, text, attempt, check)
    return [s.done or Written(s.draft.last_text, max_attempts, Check(False, s.draft.reason)) for s in states]


def _settle(state: _State, text: str, attempt: int, check: Check) -> None:
    if check.passed or check.fatal:
        state.done = Written(text, attempt + 1, check)
    else:
        state.draft = Draft(state.draft.edit, attempt + 1, text, check.reason)


def local_generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, temperature: float | None = None, count: TokenCount
) -> Callable[[list[Messages], int], list[str]]:
    """A function from conversations to replies of a local model, as `LocalWriter` and `LocalVerifier` take it.

    Args:
        tokenizer: As from `prepare_tokenizer`. Where its template knows no system message, that is put
            before the user's.
        temperature: None for greedy decoding.
        count: Receives the number of generated tokens.
    """
    from causaledit.models.chat import render, supports_system_role
    from causaledit.models.generation import generate_texts

    has_system = supports_system_role(tokenizer)

    def generate(conversations: list[Messages], max_new_tokens: int) -> list[str]:
        prompts = [render(tokenizer, c if has_system else _without_system(c)) for c in conversations]
        replies = generate_texts(
            model, tokenizer, prompts, max_new_tokens=max_new_tokens, temperature=temperature, top_p=0.95, count=count
        )
        return [without_thinking(reply) for reply in replies]

    return generate


def _without_system(messages: Messages) -> Messages:
    if not messages or messages[0]["role"] != "system":
        return messages
    first, second, *rest = messages
    return [{"role": "user", "content": f"{first['content']}\n\n{second['content']}"}, *rest]


def entities_of(edits: Sequence[ScaffoldEdit]) -> list[Entity]:
    """Subject, old and new answer of every edit, in order."""
    return [entity for edit in edits for entity in (edit.subject, edit.old, edit.new)]
