"""Worked examples before the new facts: copying a fact, using it in a paraphrase, leaving others alone.

The three kinds of arXiv 2305.12740, section 3.2. Examples come from the host's `train_ds`, where the k most like the
edits are taken (section 3.3), or from a file, where they are drawn.
"""

from __future__ import annotations

import logging
import math
import random
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.errors import RequestError
from causaledit.facts.requests import requests_from_data
from causaledit.methods.ike.prompts import FACT
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.ike.hparams import IKEHyperParams

logger = logging.getLogger(__name__)

EXAMPLE = "{fact}\nPrompt: {prompt}\nAnswer: {answer}\n"
_WORD = re.compile(r"\w+")


class Example(NamedTuple):
    """A fact, and questions with answers: the fact's own first, then a paraphrase, then one that it must not change."""

    fact: str
    asked: list[tuple[str, str]]

    def text(self, number: int) -> str:
        """The example as it is put before the facts; the kinds alternate with its number."""
        prompt, answer = self.asked[number % len(self.asked)]
        return EXAMPLE.format(fact=self.fact, prompt=prompt, answer=answer)


def choose_examples(hparams: IKEHyperParams, edits: Sequence[EditRequest], train_ds: Any = None) -> list[str]:
    """The demonstrations for some edits, as texts; facts about an edited subject, or asked as an edit is, are left out.

    Args:
        hparams: `demonstrations` (EasyEdit's `k`) says how many.
        train_ds: What the host was given as `train_ds`: an iterable of EasyEdit's records (`prompt`, `target_new`, and
            where known `rephrase_prompt`, `locality_prompt`, `locality_ground_truth`).

    Raises:
        RequestError: Demonstrations are asked for, but there are none, or too few in the file.
    """
    number = hparams.demonstrations
    if not number or not hparams.use_icl_examples:
        return []
    edited = {text for edit in edits for text in (edit.subject, edit.cloze) if text}
    if train_ds is not None:
        examples = list(_from_records(train_ds, edited))
        if not examples:
            raise RequestError(
                "`train_ds` holds no record about another subject from which demonstrations could be made."
            )
        if len(examples) < number:
            logger.info("`train_ds` holds %d usable records: all of them serve as demonstrations", len(examples))
        chosen = most_alike(examples, [FACT.format(cloze=edit.cloze, new=edit.target_new) for edit in edits], number)
    elif hparams.demonstration_file:
        data = load_json(hparams.demonstration_file, "`demonstration_file`")
        requests = requests_from_data(data, needs_subject=False)
        pool = [request for request in requests if not edited & {request.subject, request.cloze}]
        if len(pool) < number:
            raise RequestError(
                f"`demonstration_file` holds {len(pool)} requests about other subjects, but `demonstrations` asks for "
                f"{number}: give a larger file or ask for fewer."
            )
        chosen = [_of_request(request) for request in random.Random(hparams.seed).sample(pool, number)]
    else:
        raise RequestError(
            f"`demonstrations` (EasyEdit's `k`) is {number}, but there is nothing to make them from: pass `train_ds`, "
            "name a JSON file of edit requests in `demonstration_file`, or set `demonstrations: 0`."
        )
    return [example.text(place) for place, example in enumerate(chosen)]


def most_alike(examples: Sequence[Example], facts: Sequence[str], number: int) -> list[Example]:
    """The examples whose facts share most words with some facts, the most similar last, next to the facts themselves.

    Similarity is the cosine of word counts weighted by rarity (tf–idf) over the examples. The paper compares sentence
    embeddings; words need no further model and give the same choice on every machine.
    """
    counts = [Counter(_words(example.fact)) for example in examples]
    spread = Counter(word for words in counts for word in words)
    rarity = {word: math.log((1 + len(examples)) / (1 + times)) + 1 for word, times in spread.items()}
    wanted = _weighed(Counter(word for fact in facts for word in _words(fact)), rarity)
    scores = [_dot(wanted, _weighed(words, rarity)) for words in counts]
    best = sorted(range(len(examples)), key=lambda i: (-scores[i], i))[:number]
    return [examples[i] for i in reversed(best)]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _weighed(counts: Counter[str], rarity: Mapping[str, float]) -> dict[str, float]:
    """A vector of length 1 over the words that the examples know."""
    weights = {word: times * rarity[word] for word, times in counts.items() if word in rarity}
    length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
    return {word: weight / length for word, weight in weights.items()}


def _dot(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    return sum(weight * b.get(word, 0.0) for word, weight in a.items())


def _of_request(request: EditRequest) -> Example:
    asked = [(request.cloze, request.target_new)]
    asked += [(probe.question, probe.answer) for probes in (request.rephrase, request.locality) for probe in probes[:1]]
    return Example(FACT.format(cloze=request.cloze, new=request.target_new), asked)


def _from_records(records: Iterable[Any], edited: set[str]) -> Iterator[Example]:
    """Examples of EasyEdit's records, without those that lack a prompt or an answer, or are about what is edited.

    Args:
        edited: The edits' subjects and prompts.

    Raises:
        RequestError: `train_ds` cannot be iterated over, or holds something other than records.
    """
    try:
        every = list(records)
    except TypeError:
        raise RequestError(f"`train_ds` must be an iterable of records, got {type(records).__name__}.") from None
    for number, record in enumerate(every):
        if not isinstance(record, Mapping):
            raise RequestError(f"`train_ds` must hold records (dicts), but item {number} is {type(record).__name__}.")
        prompt, new = _text(record.get("prompt")), _text(record.get("target_new"))
        subject = _text(record.get("subject"))
        prompt = prompt.replace("{}", subject)
        if not prompt or not new or edited & {subject, prompt}:
            continue
        asked = [(prompt, new)]
        if rephrased := _text(record.get("rephrase_prompt")):
            asked.append((rephrased, new))
        locality, answer = _text(record.get("locality_prompt")), _text(record.get("locality_ground_truth"))
        if locality and answer:
            asked.append((locality, answer))
        yield Example(FACT.format(cloze=prompt, new=new), asked)


def _text(value: Any) -> str:
    """A field's text; the first of a list."""
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return value.strip() if isinstance(value, str) else ""
