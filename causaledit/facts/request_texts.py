"""The texts of edit requests: normalised once, on the way in, so that what is measured is what was edited."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from causaledit.errors import RequestError
from causaledit.facts.answers import without_accents

# no-break spaces count as spaces; zero-width ones and soft hyphens are dropped
_INVISIBLE = {0xA0: " ", 0x202F: " ", 0x2007: " ", 0x200B: None, 0x2060: None, 0xFEFF: None, 0xAD: None}
# one character for one, so that positions in the folded text are positions in the text
_TYPOGRAPHY = str.maketrans("’‘ʼ`´“”„‐‑–—−", "'''''\"\"\"-----")


def clean_text(text: str) -> str:
    """Composed characters (NFC), plain spaces, single ones between words, none around the text; line breaks stay."""
    text = unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip()
    return re.sub(r"(?<=\S)[ \t]+(?=\S)", " ", text)


def read_text(value: Any, name: str) -> str:
    """A text that says something, cleaned.

    Raises:
        RequestError: It is not a text, or it is empty; the message names `name`.
    """
    if not isinstance(value, str):
        as_text = f': write it as "{value}"' if isinstance(value, int | float) else ""
        raise RequestError(f"`{name}` must be a non-empty text, got {value!r}{as_text}.")
    if not (text := clean_text(value)):
        raise RequestError(f"`{name}` must be a non-empty text, got {value!r}.")
    return text


def items(value: Any) -> list[Any] | None:
    """What a list, a tuple or another collection holds; None for a text, an object or a single value."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) else None


def read_answers(value: Any, name: str) -> tuple[str, ...]:
    """An answer and its aliases, cleaned: a text, `{"str": …}` (MQuAKE), or lists of these, nested or not (KnowEdit).

    Returns:
        The answer first; nothing where the value is None, empty, or a list of such.

    Raises:
        RequestError: It holds something else, such as a number.
    """
    if isinstance(value, Mapping):
        value = value.get("str")
    if value is None:
        return ()
    if isinstance(value, str):
        return (text,) if (text := clean_text(value)) else ()
    if (parts := items(value)) is None:
        as_text = f': write it as "{value}"' if isinstance(value, int | float) else ""
        raise RequestError(f"`{name}` must be a text, a list of texts or an object with `str`, got {value!r}{as_text}.")
    return tuple(dict.fromkeys(answer for part in parts for answer in read_answers(part, name)))


def answer_text(value: Any, name: str) -> str | None:
    """The answer without its aliases, if there is one; see `read_answers`."""
    if isinstance(value, Mapping):
        value = value.get("str")
    return next(iter(read_answers(value, name)), value if isinstance(value, str) else None)


# ---- the subject in its prompt ---------------------------------------------------------------------
def place_subject(prompt: str, subject: str) -> tuple[str, str]:
    """Put `{}` in place of the subject.

    Curly and straight apostrophes and quotes, the kinds of dashes and of white space count as the same.

    Args:
        prompt: Cleaned, with the subject in it.
        subject: Cleaned.

    Returns:
        The prompt with `{}`, and the subject as the prompt spells it.

    Raises:
        RequestError: The subject does not occur; the message says so if a similar text does.
    """
    folded, wanted = _plain_typography(prompt), re.escape(_plain_typography(subject))
    found = re.search(rf"(?<!\w){wanted}(?!\w)", folded) or re.search(wanted, folded)
    if found is None:
        hint = _difference(prompt, subject)
        raise RequestError(
            f"`prompt` ({prompt!r}) neither holds `{{}}` nor the subject {subject!r}{hint}: put one of them in."
        )
    start, end = found.span()
    return f"{prompt[:start]}{{}}{prompt[end:]}", prompt[start:end]


def _plain_typography(text: str) -> str:
    return "".join(" " if character.isspace() else character for character in text.translate(_TYPOGRAPHY))


def _difference(prompt: str, subject: str) -> str:
    """How the subject differs from a part of the prompt, if the difference is small."""

    def letters(text: str) -> str:
        return "".join(character for character in text if character.isalnum())

    def compatible(text: str) -> str:
        return unicodedata.normalize("NFKC", text)

    for what, fold in (
        ("upper and lower case", str.casefold),
        ("the form of its letters (Unicode compatibility forms)", compatible),
        ("accents", without_accents),
        ("spaces and punctuation", letters),
        ("case, accents, spaces or punctuation", lambda text: letters(without_accents(text.casefold()))),
    ):
        if fold(subject) and fold(subject) in fold(prompt):
            return f" (it differs only in {what}; write both the same way)"
    return ""
