"""A guess at the entity a prompt is about, for a request that does not name it.

It is shown and confirmed before it is used: nothing edits a model on the strength of it alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from causaledit.facts.request_texts import clean_text

# small words within a name, where a capitalised word follows: "Bank of America", "Ludwig van Beethoven"
_WITHIN = re.compile(
    r"a|al|an|and|bin|da|das|de|del|della|den|der|des|di|do|dos|du|el|en|et|for|i|ibn|in|la|las|le|les|los|of|on|san|"
    r"the|to|und|v|van|von|y|zu|&"
)
# capitalised only because a sentence begins with them
_OPENERS = re.compile(
    r"a|after|all|also|an|and|any|are|as|at|before|being|both|but|by|can|concerning|could|currently|did|do|does|during|"
    r"each|every|for|formerly|from|had|has|have|he|her|here|his|how|if|in|is|it|its|last|may|most|my|name|next|no|now|"
    r"of|on|one|our|over|please|say|she|should|since|so|some|tell|that|the|their|then|there|these|they|this|those|to|"
    r"today|tomorrow|under|until|was|we|were|what|when|where|which|who|whom|whose|why|will|with|would|yesterday|you|your",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_](?:[\w'’.&/-]*[\w.])?|&")
_QUOTED = re.compile(r"[\"“«„]([^\"“”«»„]{2,})[\"”»“]|(?<!\w)['‘]([^'‘’]{3,})['’](?!\w)")
# a sentence's beginning up to its verb, with an article only before a name ("The Beatles were formed in")
_BEGINS = re.compile(
    rf"((?:The\s(?=[^\W\d_a-z])|(?!(?i:{_OPENERS.pattern})\b))[^,;:?]+?)\s"
    r"(?:is|was|are|were|has|had|plays|speaks|works|lives|died)\s(?=\w)"
)
# in it, what belongs to a relation: "mother tongue of", "Norway's capital"
_RELATION = re.compile(r"(?:^|\s)[^\W\dA-Z_]\S*\s(?:of|in|for|that|which|who)\b|['’]s\s(?=[^\W\dA-Z_])")
_POSSESSIVE = re.compile(r"(?:'s|’s|['’])$")
# without capitals: what stands before a possessive, else what the relation's last preposition leads to
_OWNER = re.compile(
    r"^(?:(?:the|what|who|which|where|is|are|was|were)\s+)*(.+?)(?:['’]s\s|\s*[的の]|의\s)", re.IGNORECASE
)
_OWNED = re.compile(
    r".*\b(?:of|for|by|in|about|does|did|is|was|are)\s+(?:the\s+)?(.+?)"
    r"(?:\s+(?:is|was|are|were|has|have|had|plays?|works?|lives?|speaks?|comes?|belongs?|located|born|named|called|known)\b"
    r".*)?[\s?.:]*$",
    re.IGNORECASE | re.DOTALL,
)


class _Span(NamedTuple):
    """A run of capitalised words, and how much it looks like a name."""

    text: str
    words: int
    sure: bool


def suggest_subject(prompt: str) -> str | None:
    """The part of a prompt that is most likely the entity it is about.

    In this order: what stands in quotation marks; what the sentence begins with, up to its verb, where that is no noun
    of the relation ("the capital of …") and no question; the longest run of capitalised words, small words of names
    between them ("Bank of America"), where a single capitalised word that only begins the sentence counts last; without
    capitals, what stands before a possessive ("norway's capital"), or behind the last preposition ("the capital of
    norway is").

    Args:
        prompt: A cloze or a question without `{}`.

    Returns:
        A text as it stands in the prompt; None where nothing in it looks like a name.
    """
    prompt = clean_text(prompt)
    if quoted := _QUOTED.search(prompt):
        return next(text.strip() for text in quoted.groups() if text)
    if (begins := _BEGINS.match(prompt)) and not _RELATION.search(begins[1]):
        return begins[1]
    if spans := _capitalised(prompt):
        return max(spans, key=lambda span: (span.sure, span.words, len(span.text))).text
    for shape in (_OWNER, _OWNED):
        if (found := shape.match(prompt)) and (text := found[1].strip(" ,?.:")) and not _OPENERS.fullmatch(text):
            return text
    return None


def _capitalised(prompt: str) -> list[_Span]:
    """The runs of capitalised words, in their order."""
    spans: list[_Span] = []
    run: list[re.Match[str]] = []

    def close() -> None:
        while run and not _is_capital(run[-1].group()):
            run.pop()
        if run and run[0].start() == 0 and _OPENERS.fullmatch(_bare(run[0].group())):
            run.pop(0)  # "The Netherlands" is found without its article, "What" is no name
            while run and not _is_capital(run[0].group()):
                run.pop(0)
        if run:
            text = _bare(prompt[run[0].start() : run[-1].end()])
            words = sum(_is_capital(word.group()) for word in run)
            spans.append(_Span(text, words, run[0].start() > 0 or words > 1))
        run.clear()

    for word in _WORD.finditer(prompt):
        text = word.group()
        between = prompt[run[-1].end() : word.start()] if run else ""
        # a comma, a colon, a dash; a possessive, unless the name goes on ("People's Daily")
        if run and (between.strip() or (_POSSESSIVE.search(run[-1].group()) and not _is_capital(text))):
            close()
        if _is_capital(text) or (run and _WITHIN.fullmatch(text)):
            run.append(word)
        else:
            close()
    close()
    return spans


def _is_capital(word: str) -> bool:
    """Whether a word is written as one of a name: with a capital in it, or a number ("iPhone 5")."""
    return any(letter.isupper() for letter in word) or word[:1].isdigit()


def _bare(text: str) -> str:
    """Without a possessive ending and without what punctuation left at the end."""
    text = _POSSESSIVE.sub("", text)
    return text.rstrip(",;:") if not re.search(r"\.[^\W\d_]\.$", text) else text
