"""A response cut into sentences, and one plain spelling for the rules to read.

Sentences are spans of the response itself, so that evidence is quoted verbatim; only their copies are folded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from causaledit.facts.answers import without_accents

if TYPE_CHECKING:
    from collections.abc import Iterable

# Longer stretches without an end of sentence are cut, so that no rule ever sees an unbounded string.
LONGEST_SENTENCE = 600

# markup that sets off words within a sentence; any other tag ends one
_INLINE = r"(?:b|strong|i|em|u|code|span|mark|small|sup|sub|tt)"
# the look-behind keeps a long run of stops from being tried at each of its places
_BOUNDARY = re.compile(
    rf"\n+|</?(?!{_INLINE}>)\w{{1,12}}>|<br ?/>|[。！？｡۔।॥።؟]+"
    r"|(?<![.!?…;])[.!?…;]+[\"'”’»)\]*_]{0,3}\s"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|vs|etc|ca|approx|e\.g|i\.e|Mt|Ft|Gen|Gov|Inc|Ltd|Co|Corp)"
    r"|(?<![\w.])[A-Za-z](?:\.[A-Za-z])*|(?:^|\n)\s*\d{1,2})\.$",
    re.IGNORECASE,
)
_ALWAYS_ABBREVIATED = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|e\.g|i\.e|Mt|Ft|Gen|Gov)|(?:^|\n)\s*\d{1,2})\.$", re.I
)
_INITIAL = re.compile(r"(?<![\w.'’])(?!I\.)[A-Z](?:\.[A-Z])*\.$")

# letters that Unicode does not decompose, and typographic signs with a plain twin
_LETTERS = str.maketrans(
    {
        "đ": "d", "Đ": "D", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ı": "i", "ð": "d", "þ": "th",
        "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss",
        "’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
        "–": "-", "—": "-", "‑": "-", "−": "-", "*": "", "#": "",
    }
)  # fmt: skip
_MARKUP = (
    # a tag that calls its text old or wrong is left: it says so
    (re.compile(r"</?(?!(?:old|prev|former|orig|wrong|incorrect))[a-z]\w{0,15}(?: [^<>\n]{0,80})?/?>", re.I), " "),
    (re.compile(r"<\|\w{1,20}\|>|\[/?INST\]"), " "),
    (re.compile(r"~~[^~\n]{1,80}~~"), " "),
    (re.compile(r"\[\^?\d{1,3}\]"), ""),
    (re.compile(r"(?<![\w_])_{1,3}(?=[^\W_])|(?<=[^\s_])_{1,3}(?![\w_])"), ""),
)
_BRACKETS = str.maketrans("[]", "()")
_DASH = re.compile(r"\s[-–—]{1,2}\s|\s?—\s?")
_CONTRACTIONS = (
    (re.compile(r"\b(ca)n't\b|\bcannot\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(is|are|was|were|does|do|did|has|have|had|could|would|should)nt\b"), r"\1 not"),
    (re.compile(r"\b(it|that|he|she|there|what|who|here|which|this|where|answer)'s\b"), r"\1 is"),
    (re.compile(r"\blet's\b"), "let us"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'d\b"), " would"),
    (re.compile(r"\s+"), " "),
)


def plain(text: str) -> str:
    """Accents, typographic signs and markup folded; case kept; dashes between words become " ; "."""
    if any(sign in text for sign in "<[_~"):
        text = _without_markup(text)
    text = _DASH.sub(" ; ", text)
    return without_accents(text.translate(_LETTERS)) if not text.isascii() else text.translate(_LETTERS)


def _without_markup(text: str) -> str:
    """Without tags, special tokens, underlines, citations and what is struck out; square brackets as parentheses."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text.translate(_BRACKETS)


def spell_out(text: str) -> str:
    """Lower case, one space, contractions spelled out: "isn't" → "is not"."""
    text = text.casefold()
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    return text.strip()


def sentences(text: str, names: Iterable[str] = ()) -> list[str]:
    """The sentences of a text, each verbatim and stripped.

    Args:
        text: Any text; lines end sentences, and so do semicolons.
        names: Names whose full stops end nothing ("St. Louis", "H. C. Andersen").
    """
    kept = _spans(text, [n for n in names if re.search(r"[.!?;]", n)])
    found: list[str] = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        end = match.end()
        head = text[max(start, end - 20) : end].rstrip()
        inside_name = any(a < match.start() + 1 < b for a, b in kept)
        if inside_name or (match.group()[0] == "." and _abbreviated(head, text[end : end + 1])):
            continue
        _append(found, text[start : match.end()])
        start = end
    _append(found, text[start:])
    return found


def _append(found: list[str], sentence: str) -> None:
    sentence = sentence.strip()
    while len(sentence) > LONGEST_SENTENCE:
        cut = sentence.rfind(" ", LONGEST_SENTENCE // 2, LONGEST_SENTENCE)
        cut = cut if cut > 0 else LONGEST_SENTENCE
        found.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    if sentence:
        found.append(sentence)


def _abbreviated(tail: str, following: str) -> bool:
    """Whether the full stop at the end of `tail` belongs to an abbreviation or an initial."""
    if _ALWAYS_ABBREVIATED.search(tail):
        return True
    if following.islower():
        return bool(_ABBREVIATION.search(tail))
    # an initial before a surname, but "option B." before a new sentence is no initial
    return bool(_INITIAL.search(tail)) and not re.search(
        r"(?i:option|letter|answer|choice|is|pick|choose)\s\w\.$|^\w\.$", tail
    )


def _spans(text: str, names: list[str]) -> list[tuple[int, int]]:
    if not names:
        return []
    pattern = re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True)), re.IGNORECASE)
    return [m.span() for m in pattern.finditer(text)]
