"""The short set of probes that an edit is asked before and after it, and their scores.

Families: direct, reasoning, multi-hop, locality. A probe whose prompt the method trained on is counted among all and
left out of "unseen"; the edit's own question and cloze are such probes for every method that trains on them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from causaledit.facts.answers import long_names
from causaledit.facts.text import normalise, word_count
from causaledit.models.chat import prepare_tokenizer, render_for, user
from causaledit.models.generation import generate_texts
from causaledit.mquake.cases import aliases_of, read_case
from causaledit.reading.commitment import gives_answer
from causaledit.support.statistics import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.probes.trained import TrainedPrompts
    from causaledit.support.costs import TokenCount

PROBE_VERSION = 6  # of prompts and scoring: only scores of one version can be compared

Family = Literal["direct", "reasoning", "multi_hop", "locality"]
# what is scored: the families, and how many locality answers are as they were
SCORES = (*get_args(Family), "unchanged")
MAX_NEW_TOKENS: dict[Family, int] = {"direct": 48, "reasoning": 96, "multi_hop": 48, "locality": 48}

STEP_BY_STEP = "Now, {question} Let's work it out step by step."
WHY = "Now, {question} Why is that? Explain step by step."


# ---- what is asked -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Probe:
    """One closed-book prompt.

    Attributes:
        family: Which rate it counts in.
        kind: What it is within the family (question, cloze, paraphrase, step by step, why, …).
        prompt: The user message.
        answers: The answer that counts as right, with aliases.
        rivals: What it must not fall for, with aliases: the old answer, or for locality the edit's new one.
    """

    family: Family
    kind: str
    prompt: str
    answers: tuple[str, ...]
    rivals: tuple[str, ...] = ()


def edit_probes(
    request: EditRequest, *, aliases: tuple[str, ...] = (), rival_aliases: tuple[str, ...] = ()
) -> list[Probe]:
    """Direct, reasoning and locality probes of one edit.

    Args:
        request: The edit; its paraphrases and locality questions become probes.
        aliases: Further names of the new answer.
        rival_aliases: Further names of the old answer.
    """
    new = (request.target_new, *aliases)
    old = (*((request.ground_truth,) if request.ground_truth else ()), *rival_aliases)
    question = request.question_form
    lowered = question[:1].lower() + question[1:]
    probes = [
        Probe("direct", "question", question, new, old),
        Probe("direct", "cloze", request.cloze, new, old),
        *(Probe("direct", "paraphrase", pair.question, new, old) for pair in request.rephrase),
        Probe("reasoning", "step by step", STEP_BY_STEP.format(question=lowered), new, old),
        Probe("reasoning", "why", WHY.format(question=lowered), new, old),
    ]
    probes += [Probe("locality", "locality", pair.question, (pair.answer,), new) for pair in request.locality]
    return list(dict.fromkeys(probes))


def case_probes(case: Mapping[str, Any], requests: list[EditRequest]) -> list[Probe]:
    """All probes of an MQuAKE case: those of its edits, and its multi-hop questions.

    Args:
        case: The case (`questions`, `new_answer`, `new_answer_alias`, `single_hops`, `new_single_hops`).
        requests: Its edits.
    """
    read = read_case(case)
    probes: list[Probe] = []
    for request in requests:
        # codes such as "PL" match by accident
        probes += edit_probes(
            request,
            aliases=long_names(aliases_of(request.target_new, read.hops)),
            rival_aliases=long_names(aliases_of(request.ground_truth or "", read.old_hops)),
        )
    new, old = (read.new_answer, *read.new_answer_alias), (read.answer, *read.answer_alias)
    probes += [Probe("multi_hop", "multi-hop", question, new, old) for question in read.questions]
    return probes


# ---- the answers ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answered:
    """A probe with the model's greedy answer.

    Attributes:
        probe: What was asked.
        response: The answer.
        hit: Whether it is right.
        trained: Whether the method trained on the prompt; None where that is not known.
    """

    probe: Probe
    response: str
    hit: bool
    trained: bool | None = None

    @property
    def words(self) -> int:
        """How long the answer is."""
        return word_count(self.response)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self.probe), "response": self.response, "hit": self.hit, "trained": self.trained}


def is_hit(probe: Probe, response: str) -> bool:
    """Whether a response commits to the probe's answer rather than to a rival."""
    return gives_answer(response, probe.answers, probe.rivals, question=probe.prompt, prompt=probe.prompt)


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    *,
    template_kwargs: dict[str, Any] | None = None,
    trained: TrainedPrompts | None = None,
    count: TokenCount | None = None,
    batch_size: int = 32,
) -> list[Answered]:
    """Answer probes closed-book: greedy, chat template, no system message of ours.

    Args:
        model: The model, edited or not.
        tokenizer: Its tokenizer; left as it is.
        probes: What is asked.
        template_kwargs: Further arguments of the chat template, as in the method's hyper-parameters
            (`chat_template_kwargs`): an edit is probed in the mode that it was made in.
        trained: What the method trained on, for marking.
        count: Where generated tokens are counted.
        batch_size: Prompts in one batch.
    """
    tokenizer = prepare_tokenizer(tokenizer, template_kwargs)
    responses = [""] * len(probes)
    for length in sorted(set(MAX_NEW_TOKENS.values())):
        rows = [i for i, probe in enumerate(probes) if MAX_NEW_TOKENS[probe.family] == length]
        texts = generate_texts(
            model,
            tokenizer,
            [render_for(model, tokenizer, user(probes[i].prompt)) for i in rows],
            max_new_tokens=length,
            batch_size=batch_size,
            count=count,
        )
        for i, text in zip(rows, texts, strict=True):
            responses[i] = text.strip()
    return [
        Answered(probe, response, is_hit(probe, response), None if trained is None else probe.prompt in trained)
        for probe, response in zip(probes, responses, strict=True)
    ]


# ---- the scores ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Score:
    """A rate over all probes, over those that were not trained on, and how long the answers are.

    Attributes:
        rate: Over all.
        unseen: Over those whose prompt was not trained on; None where it is not known what was trained on.
        responses: How many answers there are (multi-hop: several count once).
        words: Their total number of words.
    """

    rate: Rate
    unseen: Rate | None
    responses: int
    words: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the rate's, `unseen`, `responses`, `words` and `words_per_response`."""
        return {
            **self.rate.to_dict(),
            "unseen": self.unseen and self.unseen.to_dict(),
            "responses": self.responses,
            "words": self.words,
            "words_per_response": self.words / self.responses if self.responses else None,
        }


def rates(pre: Sequence[Answered], post: Sequence[Answered]) -> dict[str, dict[str, Any]]:
    """The scores after an edit as plain data; pre and post hold the same probes in the same order.

    Multi-hop counts a case once (any of its questions), so it expects one case's probes per call. Locality counts
    answers that were right before; `unchanged` all of its answers: the same text, or right both times. A rate over
    nothing is None.
    """
    by_family: dict[str, list[tuple[bool, Answered]]] = {name: [] for name in SCORES}
    for before, after in zip(pre, post, strict=True):
        if after.probe.family != "locality" or before.hit:
            by_family[after.probe.family].append((after.hit, after))
        if after.probe.family == "locality":
            same = normalise(before.response) == normalise(after.response)
            by_family["unchanged"].append((same or (before.hit and after.hit), after))
    known = all(answered.trained is not None for answered in post)
    return {
        name: Score(
            rate=_rate([hit for hit, _ in found], once=name == "multi_hop"),
            unseen=_rate([hit for hit, a in found if not a.trained], once=name == "multi_hop") if known else None,
            responses=len(found),
            words=sum(answered.words for _, answered in found),
        ).to_dict()
        for name, found in by_family.items()
    }


def _rate(hits: Sequence[bool], *, once: bool) -> Rate:
    return Rate.of([any(hits)] if once and hits else hits)


def pooled(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The scores of several cases together, from each one's `rates`."""

    def rate(found: Sequence[Mapping[str, Any]]) -> Rate:
        return Rate(sum(part["hits"] for part in found), sum(part["total"] for part in found))

    unseen = {name: [part[name]["unseen"] for part in parts] for name in SCORES}
    return {
        name: Score(
            rate=rate([part[name] for part in parts]),
            unseen=None if None in unseen[name] else rate(unseen[name]),
            responses=sum(part[name]["responses"] for part in parts),
            words=sum(part[name]["words"] for part in parts),
        ).to_dict()
        for name in SCORES
    }
