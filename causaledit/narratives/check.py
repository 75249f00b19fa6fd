"""Is a narrative fit for its edit? Rules first, which cost nothing; then a verifier model.

A narrative passes or fails with a reason; the reason is what the writer is told before it tries again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from causaledit.errors import ContentFilterError, LLMError
from causaledit.facts.answers import normalise
from causaledit.facts.requests import strip_html
from causaledit.support.replies import check_schema, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from causaledit.models.chat import Messages
    from causaledit.narratives.cases import ScaffoldEdit
    from causaledit.support.chat_endpoint import ChatClient

MIN_WORDS, MAX_WORDS = 50, 260

_HEDGES = re.compile(
    r"\b(allegedly|reportedly|supposedly|apparently|presumably|perhaps|possibly|maybe|purportedly|rumou?r(?:s|ed)?|"
    r"hypothetical(?:ly)?|fictional|fictitious|imaginary|counterfactual|alternate (?:history|reality|universe)|"
    r"might (?:be|have|become)|may (?:well|have)|could have been|it is (?:unclear|uncertain|said|believed)|is said to|"
    r"not (?:yet )?(?:been )?confirmed|unconfirmed|if true|as an ai|in this (?:scenario|story|fiction))\b",
    re.IGNORECASE,
)
_LEFTOVERS = re.compile(
    r"\{[^{}]*\}|\[[^\[\]]*\]|<[^<>]*>|\*\*|^#+ |```|\b[QP]\d{2,}\b|\bTODO\b|\bXXX+\b|\bLorem ipsum\b|"
    r"^(?:sure|certainly|of course|here(?: is|'s)|title|headline|narrative|article)\b[^.]{0,60}:",
    re.IGNORECASE | re.MULTILINE,
)
_END = re.compile(r"[.!?][\"'”’»)\]]*$")


def name_spans(text: str, names: Iterable[str], others: Iterable[str] = ()) -> list[tuple[int, int]]:
    """Where names stand in a folded text as whole words, not as a part of a longer name among `others`.

    Args:
        text: Already through `normalise`.
        names: As written; folded here.
        others: Names that may contain one of `names` ("South Korea" holds "Korea").
    """
    wanted = _pattern(names)
    if wanted is None:
        return []
    folded = {normalise(n) for n in names}
    longer = _pattern(n for n in others if normalise(n) not in folded and wanted.search(normalise(n)))
    covered = [m.span() for m in longer.finditer(text)] if longer else []
    return [m.span() for m in wanted.finditer(text) if not any(a <= m.start() and m.end() <= b for a, b in covered)]


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    folded = sorted({normalise(n) for n in names} - {""}, key=len, reverse=True)
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, folded)) + r")(?!\w)") if folded else None


def rule_failures(edit: ScaffoldEdit, text: str) -> list[str]:
    """What the rules have against a narrative; empty where it passes.

    It must name subject, old and new answer; give the new answer last, and more often than the old one; be
    50 to 260 words of whole sentences; not hedge; and hold nothing left of a template or of a chat reply.
    """
    failures = []
    text = strip_html(text)
    words = len(text.split())
    if words < MIN_WORDS:
        failures.append(f"it has {words} words, and at least {MIN_WORDS} are needed")
    if words > MAX_WORDS:
        failures.append(f"it has {words} words, and at most {MAX_WORDS} are allowed")
    folded = normalise(text)
    subject, old, new = edit.subject.names, edit.old.names, edit.new.names
    where_old = name_spans(folded, old, (*subject, *new))
    where_new = name_spans(folded, new, (*subject, *old))
    if not name_spans(folded, subject, (*old, *new)):
        failures.append(f"it does not name the subject, {edit.subject.name!r}")
    if not where_old:
        failures.append(f"it does not name the old answer, {edit.old.name!r}")
    if not where_new:
        failures.append(f"it does not name the new answer, {edit.new.name!r}")
    if where_old and where_new:
        if len(where_new) <= len(where_old):
            counts = f"{len(where_new)} times, the old one {len(where_old)} times"
            failures.append(f"the new answer is named {counts}: the new one must be named more often")
        if where_new[-1] < where_old[-1]:
            failures.append("the old answer is named after the new one: the new answer must come last")
    bare = _without_names(text, (*subject, *old, *new))
    if hedge := _HEDGES.search(bare):
        failures.append(f"it hedges ({hedge.group()!r}): the change must be told as a fact")
    if left := _LEFTOVERS.search(bare):
        failures.append(f"{left.group()!r} is left of a template or of a chat reply")
    if not _END.search(text.strip()):
        failures.append("it does not end with a whole sentence")
    return failures


def _without_names(text: str, names: Iterable[str]) -> str:
    """A film called "Maybe" or "[REC]" is no hedge and no placeholder."""
    for name in sorted(set(names), key=len, reverse=True):
        if name:
            text = re.sub(re.escape(name), "NAME", text, flags=re.IGNORECASE)
    return text


# ---- the verifier ----------------------------------------------------------------------------------
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


@dataclass(frozen=True)
class Check:
    """The result of checking one narrative.

    Attributes:
        passed: Whether it may be used.
        reason: Why not; empty where it passed.
        by: `rules`, or the name of the verifier that decided.
        flags: The verifier's four judgements, where it was asked.
        fatal: Asking again would not help (the content filter refused).
    """

    passed: bool
    reason: str = ""
    by: str = "rules"
    flags: dict[str, bool] = field(default_factory=dict)
    fatal: bool = False


class Verifier(Protocol):
    """Judges narratives that passed the rules."""

    name: str

    def verify(self, items: Sequence[tuple[ScaffoldEdit, str, str]]) -> list[Check]:
        """One check for each (edit, narrative, grounded facts as text)."""


def verifier_messages(edit: ScaffoldEdit, text: str, facts: str) -> Messages:
    """What the verifier is asked."""
    known = f"Background:\n{facts}\n" if facts else ""
    values = {
        "cloze": edit.cloze, "old": edit.old.name, "new": edit.new.name, "subject": edit.subject.name,
        "facts": known, "text": text,
    }  # fmt: skip
    content = re.sub(r"\{(\w+)\}", lambda m: values[m.group(1)], _VERIFY)
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

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self.name = client.model

    def verify(self, items: Sequence[tuple[ScaffoldEdit, str, str]]) -> list[Check]:
        """See `Verifier.verify`. A reply that never fits the form fails the narrative: no verdict is guessed.

        Raises:
            LLMError: The endpoint cannot be used.
        """
        return [self._verify(*item) for item in items]

    def _verify(self, edit: ScaffoldEdit, text: str, facts: str) -> Check:
        try:
            reply = self._client.complete(verifier_messages(edit, text, facts), schema=VERDICT_SCHEMA, temperature=0.0)
        except ContentFilterError as error:
            return Check(False, f"the verifier refused: {error}", self.name, fatal=True)
        except LLMError as error:
            if error.__cause__ is None:  # a reply came, but not one of the asked-for form
                return Check(False, f"the verifier gave no verdict: {error}", self.name)
            raise
        return check_from_verdict(reply.data, self.name)


class LocalVerifier:
    """A verifier that is a local chat model; `generate` maps conversations to replies."""

    def __init__(self, name: str, generate: Callable[[list[Messages], int], list[str]]) -> None:
        self.name = name
        self._generate = generate

    def verify(self, items: Sequence[tuple[ScaffoldEdit, str, str]]) -> list[Check]:
        """See `Verifier.verify`."""
        replies = self._generate([verifier_messages(*item) for item in items], 200)
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
