"""What a model says of itself when asked: EasyEdit's measures by free generation, and its fluency."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.chat import render_for, supports_system_role, user, with_context
from causaledit.models.generation import generate_texts
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.request_probes import QuestionAnswer
    from causaledit.hosts.reading import HostRequest

SYSTEM = "You are a helpful assistant."
PHRASE_TOKENS = 64  # of an answer that is cut at its first full stop or line break
WHOLE_TOKENS = 512
FLUENCY_LENGTH = 100  # tokens, the prompt's included
FLUENCY_TOP_K = 5


def say(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, prompts: Sequence[str], *, max_new_tokens: int = WHOLE_TOKENS
) -> list[str]:
    """Greedy answers to user messages, with EasyEdit's system message where the chat template takes one.

    Args:
        tok: Prepared (`models.chat.prepare_tokenizer`).
    """
    if not prompts:
        return []
    first = [{"role": "system", "content": SYSTEM}] if supports_system_role(tok) else []
    asked = [render_for(model, tok, [*first, *user(prompt)]) for prompt in prompts]
    return [text.strip() for text in generate_texts(model, tok, asked, max_new_tokens=max_new_tokens)]


def first_phrase(text: str) -> str:
    """A text up to its first full stop or line break, where EasyEdit stops generating."""
    return re.split(r"[.\n]", text.strip(), maxsplit=1)[0].strip()


def exact_match(said: str, answers: Sequence[str]) -> float:
    """Whether a phrase is one of the answers, but for case, articles and punctuation (SQuAD, arXiv 1606.05250)."""

    def bare(text: str) -> str:
        text = "".join(character for character in text.lower() if character not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    return float(bare(said) in {bare(answer) for answer in answers})


def generated_quality(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, request: HostRequest, *, scored: bool
) -> dict[str, Any]:
    """Phrases that the model says to the probes of one request.

    Args:
        scored: Also give `…_acc`, the exact match; locality is compared before and after (`finish_generated`).

    Returns:
        `rewrite_gen_content`, `rephrase_gen_content`, and `<key>_gen_content` in `locality` and `portability`.
    """

    def phrases(probes: Sequence[QuestionAnswer]) -> list[str]:
        said = say(model, tok, [probe.question for probe in probes], max_new_tokens=PHRASE_TOKENS)
        return [first_phrase(text) for text in said]

    def measured(name: str, probes: Sequence[QuestionAnswer], *, score: bool = scored) -> dict[str, Any]:
        if not probes:
            return {}
        said = phrases(probes)
        accuracy = [exact_match(text, probe.answers) for text, probe in zip(said, probes, strict=True)]
        return {**({f"{name}_acc": accuracy} if score else {}), f"{name}_gen_content": said}

    result: dict[str, Any] = {
        **measured("rewrite", request.rewrite),
        **measured("rephrase", request.rephrase),
        "locality": {},
        "portability": {},
    }
    for key, probes in request.locality.items():
        result["locality"] |= measured(key, probes, score=False)
    for key, probes in request.portability.items():
        result["portability"] |= measured(key, probes)
    return result


def finish_generated(metrics: dict[str, Any]) -> None:
    """Add `<key>_acc` of locality: whether the model says the same as before the edit."""
    after = metrics["post"]["locality"]
    for name, said in metrics["pre"]["locality"].items():
        pairs = zip(said, after[name], strict=True)
        after[f"{name.removesuffix('_gen_content')}_acc"] = [float(old == new) for old, new in pairs]


def whole_answers(model: PreTrainedModel, tok: PreTrainedTokenizerBase, request: HostRequest) -> dict[str, Any]:
    """Whole answers to everything a request asks, as `generate_edit` of EasyEdit gives them."""
    groups = {
        "rewrite": request.rewrite,
        "rephrase": request.rephrase,
        "portability": tuple(probe for probes in request.portability.values() for probe in probes),
        "locality": tuple(probe for probes in request.locality.values() for probe in probes),
    }
    said = {name: say(model, tok, [probe.question for probe in probes]) for name, probes in groups.items() if probes}
    return {f"{name}_ans": texts[0] if name == "rewrite" else texts for name, texts in said.items()}


# ---- fluency ---------------------------------------------------------------------------------------
def fluency(model: Any, tok: PreTrainedTokenizerBase, prompt: str, *, seed: int = 42) -> dict[str, float]:
    """`ngram_entropy` of a text that the model samples behind a bare prompt: low where it repeats itself.

    As in EasyEdit, the next token is drawn from the five likeliest until the text has 100 tokens, the prompt's
    included; here with a seed, and words are split by a simple rule.

    Args:
        tok: Prepared (`models.chat.prepare_tokenizer`).
    """
    inputs = tok(with_context(model, prompt), return_tensors="pt").to(model.device)
    length = inputs["input_ids"].shape[1]
    new = max(FLUENCY_LENGTH - length, 1)
    with torch.no_grad(), seeded(seed):
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=True,
            top_k=FLUENCY_TOP_K,
            top_p=1.0,
            temperature=1.0,
            pad_token_id=tok.pad_token_id,
        )
    return {"ngram_entropy": ngram_entropy(str(tok.decode(ids[0], skip_special_tokens=True)))}


def ngram_entropy(text: str) -> float:
    """Mean of 2/3 of the entropy of bigrams and 4/3 of that of trigrams, in bits.

    Source: the generation entropy of ROME's evaluation (arXiv 2202.05262).
    """
    words = re.findall(r"\w+|[^\w\s]", text)

    def entropy(n: int) -> float:
        counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        total = counts.total()
        return -sum(c / total * math.log2(c / total) for c in counts.values()) if total else 0.0

    return (2 / 3 * entropy(2) + 4 / 3 * entropy(3)) / 2
