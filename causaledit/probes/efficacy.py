"""Ask the probes of an edit before and after it, and count: direct, reasoning, multi-hop, locality."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from causaledit.facts.answers import commits_to, long_names, mentions
from causaledit.models.chat import prepare_tokenizer, render_for, user
from causaledit.models.generation import generate_texts
from causaledit.mquake.cases import aliases_of, read_case

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causaledit.facts.requests import EditRequest


if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.support.costs import TokenCount


@dataclass(frozen=True)
class Answered:
    """A probe with the model's greedy answer and whether it hits."""

    probe: Probe
    response: str
    hit: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self.probe), "response": self.response, "hit": self.hit}


def is_hit(probe: Probe, response: str) -> bool:
    """Whether a response answers a probe.

    Locality asks whether the right answer is given at all; the others, whether the response commits to
    the new answer rather than to the old one.
    """
    if probe.family == "locality":
        return mentions(response, probe.answers)
    return commits_to(response, probe.answers, probe.rivals)


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    *,
    count: TokenCount | None = None,
    batch_size: int = 32,
) -> list[Answered]:
    """Answer probes closed-book: greedy, chat template, no system message of ours."""
    tokenizer = prepare_tokenizer(tokenizer)
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
    return [Answered(p, r, is_hit(p, r)) for p, r in zip(probes, responses, strict=True)]


def rates(pre: Sequence[Answered], post: Sequence[Answered]) -> dict[str, dict[str, float | int | None]]:
    """`{rate, hits, total}` per family after an edit; pre and post hold the same probes in the same order.

    Multi-hop counts a case once (any of its questions), so it expects one case's probes per call; locality
    counts answers that were right before. A rate over nothing is None.
    """
    hits: dict[str, list[bool]] = {"direct": [], "reasoning": [], "multi_hop": [], "locality": []}
    for before, after in zip(pre, post, strict=True):
        if after.probe.family != "locality" or before.hit:
            hits[after.probe.family].append(after.hit)
    if hits["multi_hop"]:
        hits["multi_hop"] = [any(hits["multi_hop"])]
    return {family: as_rate(sum(values), len(values)) for family, values in hits.items()}


def as_rate(hits: int, total: int) -> dict[str, float | int | None]:
    """A rate with its count."""
    return {"rate": hits / total if total else None, "hits": hits, "total": total}


def pooled(parts: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float | int | None]]:
    """Sum the counts of several cases and form the rates again."""
    families = ("direct", "reasoning", "multi_hop", "locality")
    return {f: as_rate(sum(p[f]["hits"] for p in parts), sum(p[f]["total"] for p in parts)) for f in families}


PROBE_VERSION = 1


Family = Literal["direct", "reasoning", "multi_hop", "locality"]


MAX_NEW_TOKENS: dict[Family, int] = {"direct": 48, "reasoning": 96, "multi_hop": 48, "locality": 48}


STEP_BY_STEP = "Now, {question} Let's work it out step by step."


WHY = "Now, {question} Why is that? Explain step by step."


@dataclass(frozen=True)
class Probe:
    """One closed-book prompt.

    Attributes:
        family: Which rate it counts in.
        kind: What it is within the family (question, cloze, paraphrase, step by step, why, …).
        prompt: The user message.
        answers: The answer that counts as right, with aliases.
        rivals: The old answer with aliases, which it must not fall back to; empty for locality.
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
    probes += [Probe("locality", "locality", pair.question, (pair.answer,)) for pair in request.locality]
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
