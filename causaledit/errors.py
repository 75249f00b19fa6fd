"""Errors a user can act on. Each message names the argument, its value and the fix.

The rule: bad input raises one of these before any compute is spent; something the method can work
around is a `logging` warning; a choice it made on its own is logged at INFO.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_NEAR = 0.75  # share of letters that a name and a suggestion have in common
_BEGINNING = 6  # letters from which on a name may stand for a longer one


class CausalEditError(Exception):
    """Base of every error raised on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class RequestError(CausalEditError, ValueError):
    """An edit request is unusable (subject, prompt, answers or narrative)."""

    exit_code = 2


class OptionError(CausalEditError, ValueError):
    """An option of the command line would have no effect beside the others."""

    exit_code = 2


class PathError(CausalEditError, ValueError):
    """A path lies in the home folder of nobody."""

    exit_code = 2


class HparamsError(CausalEditError, ValueError):
    """A hyper-parameter file or value is unusable."""

    exit_code = 2


class ModelError(CausalEditError, ValueError):
    """A model, tokenizer or device is unusable."""

    exit_code = 2


class HostError(CausalEditError, RuntimeError):
    """The editing host (EasyEdit or the embedded one) cannot do what was asked."""

    exit_code = 2


class MissingExtraError(CausalEditError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""

    exit_code = 2


class SaveError(CausalEditError, OSError):
    """A result cannot be written."""


class PushError(CausalEditError, OSError):
    """A model cannot be pushed to the Hub (its name, no token, a refusal, no connection), said before it is edited."""

    exit_code = 2


class EditFailedError(CausalEditError, RuntimeError):
    """The edit itself went wrong (for example a loss that is not finite); the model was restored."""


class LLMError(CausalEditError, RuntimeError):
    """A chat endpoint gave no usable reply (no key, refused connection, retries used up, malformed reply)."""


class MalformedReplyError(LLMError):
    """The endpoint works, and its replies never had the requested form."""


class ContentFilterError(LLMError):
    """The endpoint refused the prompt or cut the reply on grounds of content; asking again would not help."""


class ScaffoldError(CausalEditError, ValueError):
    """The scaffold's input is unusable (cases, facts, flags), or part of its output is missing."""

    exit_code = 2


class DatasetError(CausalEditError, ValueError):
    """A data set is unknown, damaged, or not in MQuAKE form."""

    exit_code = 2


class DownloadError(CausalEditError, OSError):
    """A file cannot be downloaded, or is not what was published."""


class RunError(CausalEditError, ValueError):
    """An evaluation run cannot start or continue with these arguments."""

    exit_code = 2


class AbilityError(CausalEditError, ValueError):
    """An ability task is unknown, or cannot be asked here."""

    exit_code = 2


class MetricsError(CausalEditError, ValueError):
    """A metrics file does not have the published form, or two of them cannot be compared."""

    exit_code = 2


class JudgeError(CausalEditError, ValueError):
    """A judge is unknown, or cannot be set up with these arguments (no key, no model)."""

    exit_code = 2


class JudgingStoppedError(CausalEditError, RuntimeError):
    """Judging could not continue (endpoint down, interrupted); the verdicts so far are kept."""


class PageError(CausalEditError, OSError):
    """The local page cannot be served."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name nearest to `name`, or an empty string where none is near.

    Case and separators do not count. A name is near if it shares at least three of four letters in order, differs in
    one letter, or begins like the given one, as "smollm2-135m-instruct" does like "smolm2-135m"; "GRACE" is not near
    "ICE".
    """

    def bare(text: str) -> str:
        return "".join(character for character in text.casefold() if character.isalnum())

    def likeness(candidate: str) -> float:
        a, b = bare(name), bare(candidate)
        beginning = difflib.SequenceMatcher(None, a, b[: len(a)]).ratio() if _BEGINNING <= len(a) < len(b) else 0.0
        if len(a) == len(b) >= 3 and sum(x != y for x, y in zip(a, b, strict=True)) == 1:
            return 1.0  # one wrong letter, in a short name too: "lmm" and "llm"
        return max(difflib.SequenceMatcher(None, a, b).ratio(), 0.99 * beginning)  # the whole name before a longer one

    # of names that are as near, the shortest: "smollm2-135m-instruct" before its variants
    rated = [(likeness(candidate), -len(candidate), candidate) for candidate in known] if bare(name) else []
    best, _, nearest = max(rated, default=(0.0, 0, ""))
    return f" Did you mean {nearest!r}?" if best >= _NEAR else ""


def one_line(error: Exception) -> str:
    """An error in one line."""
    reason = (str(error).strip().splitlines() or [""])[0]
    return reason if isinstance(error, CausalEditError) else f"{type(error).__name__}: {reason}"
