"""The model card of an edited model or adapter: the `README.md` that the Hub shows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from causaledit.models.history import EARLIER, made_edits
from causaledit.models.originals import ORIGINALS
from causaledit.support.curves import curve_label, missing_gradient, read_curves

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from causaledit.models.origin import Origin

VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values `--max-lora-rank` takes; vLLM rounds none up
_PROMPTS = "the edits' own prompts"


@dataclass(frozen=True)
class Metric:
    """One measured share, over all edits of a card.

    Attributes:
        name: What was measured, in words.
        kind: Its name in `causaledit.json`.
        before: Mean on the unedited model, 0 to 1; None where it was not measured there, or means nothing.
        after: Mean on the edited model, 0 to 1.
        count: How many values the mean is of.
    """

    name: str
    kind: str
    before: float | None
    after: float
    count: int


def model_card(name: str, card: Mapping[str, Any], origin: Origin, adapter: Any = None) -> ModelCard:
    """The model card of a saved result.

    Args:
        name: The folder's name, under which the loading examples find it.
        card: What a method's report says of the edit (`MethodReport.card`), and the cards of the edits before it
            (`history.as_card`).
        origin: The base model.
        adapter: The peft configuration of an adapter that is saved alone; None for a whole model.
    """
    metrics = collect_metrics(card.get("metrics", []))
    hparams, curves = card["hparams"], read_curves(card.get("losses"))
    rank = adapter.r if adapter is not None and adapter.peft_type == "LORA" else None  # vLLM serves no other kind
    licence: dict[str, Any] = dict(origin.license)
    # the Hub refuses a card whose base model it lacks; an adapter's is the edited model, not where that came from
    base = origin.hub_name or (origin.root if adapter is None else None)
    data = ModelCardData(
        model_name=name,
        base_model=base,
        base_model_relation=("finetune" if adapter is None else "adapter") if base else None,
        library_name="transformers" if adapter is None else "peft",
        pipeline_tag="text-generation",
        tags=["knowledge-editing", "causaledit", card["method"], *([] if rank is None else ["lora"])],
        eval_results=[_eval_result(metric) for metric in metrics] or None,
        **licence,
    )
    return ModelCard.from_template(
        data,
        template_str=files("causaledit.models").joinpath("model_card.md.jinja").read_text(encoding="utf-8"),
        name=name,
        method=card["method"],
        origin=origin,
        license=licence.get("license_name") or licence.get("license"),
        edits=list(_edits(card)),
        earlier=[*_earlier(card)],
        number=len(card.get(EARLIER) or ()) + 1,
        kept=ORIGINALS if card.get(ORIGINALS) else None,
        metrics=[_row(metric) for metric in metrics],
        training=_training(curves),
        missing_gradient=missing_gradient(curves),
        merge_error=card.get("merge_error"),
        preserved=_preserved(card["requests"], hparams),
        template_kwargs=hparams.get("chat_template_kwargs"),
        adapter=adapter is not None,
        rank=rank,
        max_lora_rank=next((size for size in VLLM_LORA_RANKS if rank is not None and size >= rank), None),
        versions=", ".join(f"{package} {version}" for package, version in card["versions"].items()),
        seconds=sum(card["seconds"].values()),
        created=card["created"],
    )


def collect_metrics(measured: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Means over all edits of what a host measured.

    Args:
        measured: Per edit `{"pre": …, "post": …}` with `rewrite_acc`, `rephrase_acc`, `locality`, `portability`
            (shares, 0 to 1) and, where answers were generated, `answers` with their verdict.
    """
    values: dict[str, dict[tuple[str, str], list[float]]] = {"pre": defaultdict(list), "post": defaultdict(list)}
    for edit in measured:
        for phase, found in values.items():
            for key, value in _values(edit.get(phase) or {}):
                found[key] += value
    return [
        Metric(
            name=name,
            kind=kind,
            before=statistics.fmean(before) if (before := values["pre"].get((name, kind))) else None,
            after=statistics.fmean(after),
            count=len(after),
        )
        for (name, kind), after in values["post"].items()
    ]


def _values(phase: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], list[float]]]:
    verdicts = [float(a["gives_new_answer"]) for a in phase.get("answers", []) if "gives_new_answer" in a]
    shares: list[tuple[tuple[str, str], Any]] = [(("answers that give the new answer", "answers"), verdicts)]
    for kind, name in (
        ("rewrite_acc", "token accuracy of the new answer"),
        ("rephrase_acc", "token accuracy of the new answer to paraphrases"),
    ):
        shares.append(((name, kind), phase.get(kind)))
    for group, meaning in (("locality", "unchanged"), ("portability", "token accuracy")):
        for key, share in (phase.get(group) or {}).items():
            if key.endswith("_acc"):
                shares.append(((f"{group}, {key.removesuffix('_acc')}: {meaning}", f"{group}.{key}"), share))
    for key, share in shares:
        numbers = [float(value) for value in _listed(share)]
        if numbers:
            yield key, numbers


def _listed(share: Any) -> Iterable[Any]:
    if share is None:
        return []
    return share if isinstance(share, list | tuple) else [share]


def _eval_result(metric: Metric) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type="knowledge-editing",
        dataset_name=_PROMPTS,
        metric_type=metric.kind,
        metric_name=f"{metric.name} (n = {metric.count})",
        metric_value=round(metric.after, 4),
    )


def _row(metric: Metric) -> list[str]:
    if metric.kind == "answers":  # a count of verdicts says more than its share
        shares = [
            None if s is None else f"{round(s * metric.count)} of {metric.count}" for s in (metric.before, metric.after)
        ]
    else:
        shares = [None if s is None else f"{s:.2f}" for s in (metric.before, metric.after)]
    return [_cell(metric.name), *(share or "–" for share in shares), str(metric.count)]


def _training(curves: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Per loss and reward: its name, its value at the first step and at the last, the number of steps."""
    return [
        [_cell(curve_label(name)), f"{values[0]:.3g}", f"{values[-1]:.3g}", str(len(values))]
        for name, values in curves.items()
    ]


def _edits(card: Mapping[str, Any]) -> Iterator[list[str]]:
    """Per edit: subject, fact, old answer, new answer, where its narrative came from."""
    sources = card.get("narrative_source") or []
    for number, request in enumerate(card["requests"]):
        source = sources[number] if number < len(sources) else "not used"
        old = request.get("ground_truth") or "(not known)"
        yield [_cell(t) for t in (request["subject"] or "–", request["prompt"], old, request["target_new"], source)]


def _earlier(card: Mapping[str, Any]) -> Iterator[list[str]]:
    """The same per edit that was made before: its number, day and method, then subject, fact and answers."""
    for made in made_edits(card.get(EARLIER) or ()):
        request = made.request
        texts = (request.subject or "–", request.prompt, request.ground_truth or "(not known)", request.target_new)
        yield [_cell(text) for text in (str(made.number), made.created[:10], made.method, *texts)]


def _cell(text: str) -> str:
    """A text as it stands in a table's cell: nothing in it is taken for Markdown's columns, HTML or emphasis."""
    text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in ("\\", "|", "`", "*", "_", "["):
        text = text.replace(mark, f"\\{mark}")
    return text


def _preserved(requests: Sequence[Mapping[str, Any]], hparams: Mapping[str, Any]) -> list[str]:
    said = []
    if weight := hparams.get("preserve_weight"):
        term = f"A preservation term (`preserve_weight: {weight:g}`) held the model to its unedited answers on"
        if file := hparams.get("preserve_file"):
            name = Path(str(file)).name.replace("`", "'")
            said.append(f"{term} questions of the file `{name}`, except those whose answers the edits may change.")
        else:
            drawn = "drawn for it" if len(requests) == 1 else "drawn for all edits together"
            edits = "edit does" if len(requests) == 1 else "edits do"
            said.append(
                f"{term} up to {hparams.get('preserve_prompts')} questions that the {edits} not touch, {drawn}."
            )
    else:
        said.append("No preservation term was trained: nothing but the method itself kept other knowledge in place.")
    if count := sum(len(request.get("locality") or ()) for request in requests):
        said.append(f"The requests name {count} question{'s'[: count > 1]} whose answers the edits must not change.")
    return said
