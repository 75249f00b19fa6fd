"""Ask the probes of an edit before and after it, and count: direct, reasoning, multi-hop, locality."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from causaledit.evaluation.probes import MAX_NEW_TOKENS, Probe
from causaledit.models.chat import prepare_tokenizer, render_for, user
from causaledit.models.generation import generate_texts
from causaledit.reading.commitment import gives_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.tally import TokenCount


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
    """Whether a response ends committed to a probe's answer, and not to its rival."""
    return gives_answer(response, probe.answers, probe.rivals, question=probe.prompt, prompt=probe.prompt)


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
