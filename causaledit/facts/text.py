"""Text in any script: one spelling, word boundaries, length in words, sentences, questions, quotation marks.

All code that asks "is this a whole word", "how long is it", "where does the sentence end" or "is this a question" uses
this module. Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan put no spaces between words ("spaceless" below). A
name may begin and end

- in Latin, Greek, Cyrillic, Devanagari and the like: beside anything but a letter, digit or vowel sign of such a
  script ("Denver市" has Denver);
- in Chinese, Hiragana, Thai, Lao, Khmer, Burmese: between any two whole characters; a single Chinese character is a
  name only on its own or beside a function word;
- in Katakana: at the ends of a run of Katakana ("インド" is not in "インドネシア");
- in Korean: at the ends of a word, particles and copula aside ("서울은" has 서울, "인도네시아" does not have 인도);
- in Arabic and Hebrew: at the ends of a word, prefixed particles and article aside, for names of three letters or more
  ("والقاهرة" has القاهرة, "בירושלים" has ירושלים).

Inflected forms ("в Москве") are other words. The accents of Latin, Greek, Cyrillic, Hebrew and Arabic are folded; marks
that make another letter in other scripts are not ("バリ" is not "パリ"); "ü" is "u", never "ue".
"""

from __future__ import annotations

import functools
import re
import unicodedata
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# ---- scripts, as the inside of a character class ---------------------------------------------------
_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_KANA = "\u3041-\u309f\u3100-\u312f" + _KATAKANA
_TIBETAN_BURMESE_KHMER = "\u0f00-\u0fff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"
_THAI_LAO = "\u0e01-\u0eff"
_OTHER_SPACELESS = "\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9df"  # Tai Lue, Tai Tham, Balinese, Javanese
_SPACELESS = _HAN + _KANA + _TIBETAN_BURMESE_KHMER + _THAI_LAO + _OTHER_SPACELESS
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
_HEBREW, _ARABIC = "\u0590-\u05ff", "\u0600-\u06ff\u0750-\u077f"
# vowel signs and the like, which Python does not count as \w: of India's scripts, and of spaceless ones
_INDIC_SIGNS = "\u0900-\u0903\u093a-\u094f\u0955-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd\u09d7\u0a01-\u0a03" \
    "\u0a3c-\u0a51\u0a70\u0a71\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b57\u0b82\u0bbe-\u0bd7\u0c00-\u0c04" \
    "\u0c3c-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d57\u0d81-\u0d83\u0dca-\u0df3"  # fmt: skip
_SPACELESS_SIGNS = "\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u0eb0-\u0ebc\u0ec8-\u0ece\u0f71-\u0f84\u102b-\u103e" \
    "\u1056-\u1060\u17b4-\u17d3\u3099\u309a"  # fmt: skip
_LEADING_VOWELS = "\u0e40-\u0e44\u0ec0-\u0ec4"  # Thai and Lao, written before the consonant that they follow

# ---- one spelling ----------------------------------------------------------------------------------
_APOSTROPHES = dict.fromkeys("’‘‛ʼʻ`´′＇", "'")
_QUOTES = dict.fromkeys("“”„‟«»″＂", '"')
_HYPHENS = dict.fromkeys("‐‑‒–−﹣－", "-")
_DOTS = dict.fromkeys("・･‧•⋅", "·")  # between the parts of a transcribed name
# letters that Unicode does not decompose, and Persian letters with an Arabic twin
_LETTERS = {"đ": "d", "Đ": "D", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ı": "i", "ð": "d", "Ð": "D", "þ": "th",
            "Þ": "Th", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss", "ẞ": "SS", "ی": "ي", "ى": "ي", "ک": "ك",
            "ـ": ""}  # fmt: skip
SIGNS = str.maketrans({**_APOSTROPHES, **_QUOTES, **_HYPHENS, **_DOTS})
_PLAIN_LETTERS = str.maketrans({**_LETTERS})
_LAST_WITH_ACCENTS = "\u06ff"  # Latin, Greek, Cyrillic, Hebrew and Arabic end here


def normalise(text: str) -> str:
    """One spelling for comparisons: case, accents, spaces, apostrophes, hyphens and full-width forms are folded.

    "Côte d’Ivoire" matches "cote d'ivoire" in whichever Unicode form either is written.
    """
    if not text.isascii():
        text = without_accents(text.translate(SIGNS).casefold())
    return " ".join(text.casefold().split())


def composed(text: str) -> str:
    """A text as a key: in one Unicode form and with single plain spaces, otherwise as written."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def without_accents(text: str) -> str:
    """Accents, compatibility forms and invisible characters folded, case kept.

    Marks are dropped where they are accents of a letter. Where they make another letter (kana, Indic and Thai vowel
    signs) they stay, as does the Cyrillic й.
    """
    if text.isascii():
        return text
    kept: list[str] = []
    base = ""
    for c in unicodedata.normalize("NFKD", text):
        if unicodedata.combining(c):
            accent = "" < base <= _LAST_WITH_ACCENTS and not (c == "\u0306" and base in "иИ")
            if not accent:
                kept.append(c)
        elif unicodedata.category(c) != "Cf":  # soft hyphens, joiners, direction marks
            base = c
            kept.append(c)
    return unicodedata.normalize("NFC", "".join(kept)).translate(_PLAIN_LETTERS)


# ---- word boundaries -------------------------------------------------------------------------------
_LETTER = rf"[^\W_{_SPACELESS}{_HANGUL}]"
_SPACED_EDGES = (rf"(?<!{_LETTER})(?<![{_INDIC_SIGNS}])", rf"(?!{_LETTER})(?![{_INDIC_SIGNS}])")
# a consonant that bears an asat or stands under another one closes the syllable before it
_SPACELESS_EDGES = (rf"(?<![{_LEADING_VOWELS}\u17d2])", rf"(?![{_SPACELESS_SIGNS}])(?![\u1000-\u1021]\u103a)")
_HAN_EDGES = (
    rf"(?:(?<![{_HAN}])|(?<=[是为為叫在于於的和与與或乃]))",
    rf"(?:(?![{_HAN}])|(?=[的是在和与與或了也]))",
)
_PARTICLES = [
    "은",
    "는",
    "이",
    "가",
    "을",
    "를",
    "의",
    "에",
    "에서",
    "에게",
    "께",
    "께서",
    "로",
    "으로",
    "와",
    "과",
    "도",
    "만",
    "까지",
    "부터",
    "처럼",
    "보다",
    "나",
    "이나",
    "하고",
    "랑",
    "이랑",
    "한테",
    "조차",
    "마저",
    "뿐",
    "밖에",
    "들",
    "씨",
    "님",
    "시",
    "특별시",
    "광역시",
    "이다",
    "다",
    "입니다",
    "이에요",
    "예요",
    "이었다",
    "였다",
    "이었습니다",
    "였습니다",
    "이라고",
    "라고",
    "이라는",
    "라는",
    "이란",
    "란",
    "이며",
    "며",
    "이고",
    "고",
    "이지만",
    "지만",
    "이므로",
    "이라서",
    "이었고",
    "였고",
    "이었으며",
    "였으며",
]
_KOREAN_END = "(?=(?:" + "|".join(sorted(_PARTICLES, key=len, reverse=True)) + rf"){{0,3}}(?![{_HANGUL}]))"
_ARABIC_ASSIMILATED = [c + "لل" for c in ("", "و", "ف")]
_ARABIC_PREFIXES = [c + p for c, p in product(("", "و", "ف"), ("", "ب", "ك", "ل"))]
_HEBREW_PREFIXES = ["".join(p) for p in product(("", "ו"), ("", "ש", "כש"), ("", "ב", "ל", "מ", "כ", "ה", "מה"))]
SHORTEST_PREFIXED = 3


def word_start(text: str) -> str:
    """The source of a pattern that finds a text at the beginning of a word, whatever follows it."""
    return _edges(text[0])[0] + re.escape(text)


def occurrences(text: str, name: str) -> list[tuple[int, int]]:
    """Where a name stands in a text as a whole word, as the name's script has words.

    Args:
        text: Spelt as the name is (for example through `normalise`).
        name: Not empty.
    """
    found = []
    for form in _forms(name):
        start = text.find(form.name)
        while start >= 0:
            end = start + len(form.name)
            if _compiled(form.before).match(text, start) and _compiled(form.after).match(text, end):
                found.append((start, end))
            start = text.find(form.name, start + 1)
    return found


class _Form(NamedTuple):
    """A way to write a name, and what must hold before and after it."""

    name: str
    before: str
    after: str


@functools.lru_cache(maxsize=4096)
def _forms(name: str) -> tuple[_Form, ...]:
    first, last = name[0], name[-1]
    if len(name) == 1 and _in(_HAN, name):
        return (_Form(name, *_HAN_EDGES),)
    after = _edges(last)[1]
    if len(name) >= SHORTEST_PREFIXED and _in(_HEBREW, first):
        return (_Form(name, _after_prefix(_HEBREW_PREFIXES), after),)
    if len(name) >= SHORTEST_PREFIXED and _in(_ARABIC, first):
        # the article "ال" belongs to the name or to the prefix; behind "ل" it is written "لل"
        if name.startswith("ال") and len(name) > SHORTEST_PREFIXED + 1:
            stem = _Form(name[2:], _after_prefix(_ARABIC_ASSIMILATED), after)
            return (_Form(name, _after_prefix(_ARABIC_PREFIXES), after), stem)
        prefixes = [p + article for p, article in product(_ARABIC_PREFIXES, ("", "ال"))]
        return (_Form(name, _after_prefix((*prefixes, *_ARABIC_ASSIMILATED)), after),)
    # a space within a Chinese or Japanese name may be left out
    closed = re.sub(rf"(?<=[{_HAN}{_KANA}]) (?=[{_HAN}{_KANA}])", "", name) if not name.isascii() else name
    return tuple(_Form(spelt, _edges(first)[0], after) for spelt in dict.fromkeys((name, closed)))


@functools.cache
def _compiled(edge: str) -> re.Pattern[str]:
    return re.compile(edge)


@functools.cache
def _class(script: str) -> re.Pattern[str]:
    return re.compile(f"[{script}]")


def _in(script: str, character: str) -> bool:
    return _class(script).match(character) is not None


def _edges(character: str) -> tuple[str, str]:
    """What must hold before a name that begins, and after one that ends, with a character."""
    if character.isascii():
        return _SPACED_EDGES
    if _in(_KATAKANA, character):
        return rf"(?<![{_KATAKANA}])", rf"(?![{_KATAKANA}])"
    if _in(_SPACELESS, character):
        return _SPACELESS_EDGES
    if _in(_HANGUL, character):
        return rf"(?<![{_HANGUL}])", _KOREAN_END
    return _SPACED_EDGES


def _after_prefix(prefixes: Iterable[str]) -> str:
    """At the beginning of a word, or behind one of the prefixes at its beginning."""
    return "(?:" + "|".join(f"(?<={_SPACED_EDGES[0]}{p})" if p else _SPACED_EDGES[0] for p in prefixes) + ")"


# ---- length ----------------------------------------------------------------------------------------
def word_count(text: str) -> int:
    """The length of a text in words: what spaces separate, and each character of a script without spaces."""
    characters, others = _lengths(text)
    return characters + others


def is_spaceless(text: str) -> bool:
    """Whether most of a text is in a script without spaces, so that `word_count` counts characters."""
    characters, others = _lengths(text)
    return characters > others


def _lengths(text: str) -> tuple[int, int]:
    """Characters of scripts without spaces, and words between spaces and such characters."""
    characters = others = 0
    for token in text.split():
        if token.isascii():
            others += 1
            continue
        own = sum(c.isalnum() and _in(_SPACELESS, c) for c in token)
        between = [run for run in re.split(f"[{_SPACELESS}]+", token) if any(c.isalnum() for c in run)]
        characters += own
        others += len(between) if own else 1
    return characters, others


# ---- sentences, questions, quotation marks ---------------------------------------------------------
CLOSING = "\"'”’»›)]}*_」』）】》〉"
_STOPS, _WIDE_STOPS = ".!?…‽", "。！？｡．؟۔।॥።፧។៕။།༎։\u037e"
_QUESTION_MARKS = "?？؟⁇⁈‽፧՞\u037e"
_SENTENCE_END = re.compile(
    rf"[{_STOPS}]+[{re.escape(CLOSING)}]*(?=\s|$|[{_SPACELESS}])|[{_WIDE_STOPS}]+(?!\d)[{re.escape(CLOSING)}]*|\n+"
)
_WRAPPED_FROM = 40  # characters: a shorter line that ends no sentence may be a heading
_ABBREVIATED = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Mt|Ft|Gen|Gov|Sen|Rep|Lt|Col|Capt|vs|cf|e\.g|i\.e)|(?<![^\W\d_])[A-Z](?:\.[A-Z])*)\.$"
)
_PAIRS = dict(zip("\"'“‘„«‹「『", "\"'”’“»›」』", strict=True))


def sentences(text: str, names: Iterable[str] = ()) -> list[str]:
    """The sentences of a text, each as it is written and stripped; lines end sentences too.

    Args:
        text: Any text. Abbreviated titles, initials and stops before a small letter end nothing.
        names: Names whose full stops end nothing ("St. Louis", "Yahoo! Inc.").
    """
    kept = [m.span() for name in names if name for m in re.finditer(re.escape(name), text, re.IGNORECASE)]
    found, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        inside = any(a < match.start() + 1 < b for a, b in kept)
        if inside or (match.group() == "." and _abbreviates(text[start : match.end()], text[match.end() :])):
            continue
        found.append(text[start : match.end()])
        start = match.end()
    return [s for s in (part.strip() for part in (*found, text[start:])) if s]


def _abbreviates(sentence: str, rest: str) -> bool:
    return rest.lstrip()[:1].islower() or bool(rest.strip() and _ABBREVIATED.search(sentence))


def ends_sentence(text: str) -> bool:
    """Whether a text ends with a whole sentence. Thai and Lao have no mark for that, so any ending is accepted."""
    bare = text.rstrip().rstrip(CLOSING)
    return bare.endswith(tuple(_STOPS + _WIDE_STOPS)) or bool(re.search(rf"[{_THAI_LAO}]$", bare))


def capitalised(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]


def whole_sentences(text: str) -> str:
    """A text without the fragment after its last whole sentence; empty where there is no whole sentence."""
    if ends_sentence(text):
        return text.rstrip()
    ends = [m.end() for m in _SENTENCE_END.finditer(text) if m.group().strip()]
    return text[: ends[-1]].rstrip() if ends else ""


def is_question(text: str) -> bool:
    """Whether a text ends as a question: with any script's question mark, or with a question particle.

    A semicolon is a question mark in Greek; Chinese, Japanese and Korean questions may end with a particle alone.
    """
    bare = text.rstrip().rstrip(CLOSING).rstrip()
    greek = bare.endswith(";") and bool(re.search("[\u0370-\u03ff\u1f00-\u1fff]", bare))
    armenian = "\u055e" in bare.rsplit(" ", 1)[-1]  # the mark stands on the word's stressed vowel
    return greek or armenian or bare.endswith(tuple(_QUESTION_MARKS)) or bool(re.search(r"[か吗嗎呢까][。｡.]?$", bare))


def bare_sentence(text: str) -> str:
    """A sentence without its final stop and without quotation marks around it; initials ("Washington, D.C.") stay."""
    while True:
        bare = unquoted(text)
        if not re.search(r"(?:[A-Z]\.){2,}$", bare):
            bare = bare.rstrip(_STOPS + _WIDE_STOPS)
        if bare == text:
            return bare
        text = bare


def unquoted(text: str) -> str:
    """A text without the pair of quotation marks around the whole of it."""
    text = text.strip()
    while len(text) > 1 and _PAIRS.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
        text = text[1:-1].strip()
    return text


def strip_html(text: str) -> str:
    """Drop the simple HTML tags that occur in published narratives, keep their text."""
    return re.sub(r"[ \t]+", " ", re.sub(r"</?[A-Za-z][^<>]*>", " ", text)).strip()


def unwrapped(text: str) -> str:
    """A text whose lines were broken at a width, with each paragraph on one line; a line's end ends a sentence here.

    A break inside a sentence is one behind a line of some length that ends none, or before a small letter. Other breaks
    stay: paragraphs, headings, lists.
    """
    return re.sub(r"(?<=\S)[ \t]*\n[ \t]*(?=[^\W\d_])", lambda m: " " if _is_wrap(text, m) else m.group(), text)


def _is_wrap(text: str, found: re.Match[str]) -> bool:
    line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
    return text[found.end()].islower() or (len(line) >= _WRAPPED_FROM and not ends_sentence(line))
