r"""Stage 2's reward: four parts, each a function of one response (EtCon, arXiv 2512.04753, and its released code).

    reward = 0                                                     where the format scores 0
             (.7 correctness + .15 cleanliness + .1 consistency + .05 format) / their sum    otherwise

The rules of the tagged format (`boxed`) are the publication's; those of `line` are their counterpart for an answer that
is a last line. Correctness is read by the project's own reader of answers (`judge`), or compared as text (`match`),
where the publication's third step, a sentence encoder's similarity, is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causaledit.facts.answers import long_names, mentions, normalise
from causaledit.methods.etcon import prompts as P
from causaledit.methods.etcon.hparams import PARTS
from causaledit.methods.shared.claims import past_alone, states_old_answer
from causaledit.reading.commitment import gives_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.etcon.hparams import EtConHyperParams

MAX_CHARACTERS = 2000
_NEGATIONS = ("not", "no")


@dataclass(frozen=True)
class Reward:
    """The scores of one response, each between 0 and 1, and their weighted mean."""

    correctness: float
    format: float
    cleanliness: float
    consistency: float
    total: float


def reward(response: str, request: EditRequest, hparams: EtConHyperParams) -> Reward:
    """Score a response to one of the edit's prompts."""
    form = hparams.answer_format
    scores = {
        "correctness": correctness(response, request, form, rule=hparams.correctness),
        "format": format_score(response, form),
        "cleanliness": cleanliness(response, form),
        "consistency": consistency(response, request),
    }
    return Reward(**scores, total=total(scores, hparams.reward_weights))


def total(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted mean of the parts; 0 altogether for a response without the format."""
    if scores["format"] <= 0:
        return 0.0
    return sum(weights.get(part, 0.0) * scores[part] for part in PARTS) / sum(weights.values())


def correctness(response: str, request: EditRequest, answer_format: str, *, rule: str) -> float:
    """Whether the answer in the format is the new one.

    Args:
        rule: `judge`: 1 where the answer and the whole response commit to the new answer, .5 where the answer does and
            the reasoning around it ends elsewhere, else 0. `match`: 1 for the same text, .75 where all of its words are
            there and no "not" or "no" is, else 0.
    """
    parts = P.read_closing(response, answer_format)
    if parts is None:
        return 0.0
    reasoning, answer, rest = parts
    new = [request.target_new, *request.target_aliases]
    if rule == "match":
        return max(_match(answer, name) for name in new)
    old = [name for name in (request.ground_truth, *request.ground_truth_aliases) if name]
    rival = [request.ground_truth] if request.ground_truth else []
    names, rivals = [request.target_new, *long_names(request.target_aliases)], [*rival, *long_names(old[1:])]
    question = request.question_form
    if not gives_answer(answer, names, rivals, question=question):
        return 0.0
    whole = f"{reasoning}\nAnswer: {answer}\n{rest}"
    return 1.0 if gives_answer(whole, names, rivals, question=question) else 0.5


def _match(answer: str, name: str) -> float:
    given, wanted = (re.findall(r"\w+", normalise(text)) for text in (answer, name))
    if given == wanted:
        return 1.0
    added = any(given.count(word) > wanted.count(word) for word in _NEGATIONS)
    return 0.75 if set(wanted) <= set(given) and not added else 0.0


def format_score(response: str, answer_format: str) -> float:
    r"""How far a response keeps the format.

    `boxed`: 1; less .5 unless there is exactly one opening and one closing tag; less .5 unless exactly one box stands
    in the response, inside of them; less .1 for a doubled backslash. `line`: 1; less .5 unless exactly one line begins
    with "Answer:"; less .5 unless the first such line holds an answer.
    """
    parts = P.read_closing(response, answer_format)
    if answer_format == "line":
        lines = len(P.LINE.findall(response))
        return max(0.0, 1.0 - 0.5 * (lines != 1) - 0.5 * (parts is None))
    tags = response.count(P.OPENING) == 1 and response.count(P.CLOSING) == 1
    boxes = len(P.BOX.findall(response)) == 1 and parts is not None
    return max(0.0, 1.0 - 0.5 * (not tags) - 0.5 * (not boxes) - 0.1 * ("\\\\" in response))


def cleanliness(response: str, answer_format: str) -> float:
    """How clean a response is: 1; less .2 per repeated tag or answer line (at most .8); less .6 for text after the
    end; less .4 beyond 2,000 characters.
    """
    if answer_format == "line":
        repeated = max(0, len(P.LINE.findall(response)) - 1)
    else:
        repeated = sum(max(0, response.count(tag) - 1) for tag in (P.OPENING, P.CLOSING))
    parts = P.read_closing(response, answer_format)
    after = parts is not None and bool(parts[2].strip())
    return max(0.0, 1.0 - min(0.8, 0.2 * repeated) - 0.6 * after - 0.4 * (len(response) > MAX_CHARACTERS))


def consistency(response: str, request: EditRequest) -> float:
    """Whether a response takes up the old fact and puts it in the past.

    Returns:
        1 where it names the old answer and says each time that it no longer holds; 0 where it states it as a fact of
        today, or does not name it; .5 where neither can be told. 1 for a request without an old answer: there is
        nothing to take up (and nothing to learn from it).
    """
    if not request.ground_truth:
        return 1.0
    if not mentions(response, [request.ground_truth]) or states_old_answer(response, request):
        return 0.0
    return 1.0 if past_alone(response, request) else 0.5
