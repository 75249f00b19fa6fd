"""Verifier models: they judge the narratives that passed the rules of `check`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from causaledit.errors import ContentFilterError, MalformedReplyError
from causaledit.narratives.check import Check
from causaledit.support.replies import check_schema, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causaledit.models.chat import Messages
    from causaledit.narratives.cases import ScaffoldEdit
    from causaledit.support.chat_endpoint import ChatClient

VERIFIER_VERSION = 1
VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "explicit_support": {"type": "boolean"},
        "explicit_supersession": {"type": "boolean"},
        "causal_coherence": {"type": "boolean"},
        "entity_confusion": {"type": "boolean"},
        "reason": {"type": "string"},
    },
    "required": ["explicit_support", "explicit_supersession", "causal_coherence", "entity_confusion", "reason"],
    "additionalProperties": False,
}
_VERIFY = (
    "You check a text that explains why a fact changed. Take the text as it is: whether the event happened in our "
    "world does not matter.\n\nFact: {cloze} ...\nOld answer: {old}\nNew answer: {new}\n{facts}\nText:\n{text}\n\n"
    "Judge four things:\n"
    "explicit_support: the text says in plain words that the answer is now {new}.\n"
    "explicit_supersession: the text says in plain words that {old} was the answer and no longer is.\n"
    "causal_coherence: the text gives a concrete cause, and the change follows from it without a gap or a "
    "contradiction.\n"
    "entity_confusion: the text mixes up {subject}, {old} or {new} with something else, or with one another.\n"
    "reason: one sentence that names the worst fault, or says that there is none.\n"
    "Reply with a JSON object with exactly these keys; the first four are true or false."
)
_SUPERSESSION = "the text says in plain words that {old} was the answer and no longer is."
_STORY_SUPERSESSION = "the text makes plain that this is new; it need not say what the answer was before."


class Verifier(Protocol):
    """Judges narratives that passed the rules."""

    name: str

    def verify(self, items: Sequence[tuple[ScaffoldEdit, str, str]]) -> list[Check]:
        """One check for each (edit, narrative, grounded facts as text)."""


def verifier_messages(edit: ScaffoldEdit, text: str, facts: str, *, stories: bool = False) -> Messages:
    """The verifier's prompt; a story does not name the old answer, and need not."""
    template = _VERIFY.replace(_SUPERSESSION, _STORY_SUPERSESSION) if stories else _VERIFY
    known = f"Background:\n{facts}\n" if facts else ""
    values = {
        "cloze": edit.cloze, "old": edit.old.name, "new": edit.new.name, "subject": edit.subject.name,
        "facts": known, "text": text,
    }  # fmt: skip
    content = re.sub(r"\{(\w+)\}", lambda m: values[m.group(1)], template)
    return [{"role": "user", "content": content}]


def check_from_verdict(data: dict[str, Any], name: str) -> Check:
    """PASS needs all four judgements right."""
    flags = {key: data[key] for key in VERDICT_SCHEMA["required"] if key != "reason"}
    faults = [key.replace("_", " ") for key, value in flags.items() if value is (key == "entity_confusion")]
    if not faults:
        return Check(True, "", name, flags)
    missing = [f for f in faults if f != "entity confusion"]
    said = [f"no {fault}" for fault in missing] + ["entity confusion"] * (len(missing) < len(faults))
    return Check(False, f"{', '.join(said)} ({' '.join(str(data['reason']).split())})", name, flags)


class ChatVerifier:
    """A verifier behind a chat endpoint."""

    def __init__(self, client: ChatClient, *, stories: bool = False) -> None:
        self._client, self._stories = client, stories
        self.name = client.model

    def verify(self, items: Sequence[tuple[ScaffoldEdit, str, str]]) -> list[Check]:
        """See `Verifier.verify`. A reply that never fits the form fails the narrative: no verdict is guessed.

        Raises:
            LLMError: The endpoint cannot be used.
        """
        return [self._verify(*item) for item in items]

    def _verify(self, edit: ScaffoldEdit, text: str, facts: str) -> Check:
        try:
            messages = verifier_messages(edit, text, facts, stories=self._stories)
            reply = self._client.complete(messages, schema=VERDICT_SCHEMA, temperature=0.0)
        except ContentFilterError as error:
            return Check(False, f"the verifier refused: {error}", self.name, fatal=True)
        except MalformedReplyError as error:
            return Check(False, f"the verifier gave no verdict: {error}", self.name)
        return check_from_verdict(reply.data, self.name)


class LocalVerifier:
    """A verifier that is a local chat model; `generate` maps conversations to replies."""

    def __init__(
        self, name: str, generate: Callable[[list[Messages], int], list[str]], *, stories: bool = False
    ) -> None:
        self.name = name
        self._generate, self._stories = generate, stories

    def verify(self, items: Sequence[tuple[ScaffoldEdit, str, str]]) -> list[Check]:
        """See `Verifier.verify`."""
        replies = self._generate([verifier_messages(*item, stories=self._stories) for item in items], 200)
        checks = []
        for reply in replies:
            try:
                data = parse_json(reply)
                check_schema(data, VERDICT_SCHEMA)
            except ValueError as error:
                checks.append(Check(False, f"the verifier gave no verdict: {error}", self.name))
            else:
                checks.append(check_from_verdict(data, self.name))
        return checks
