"""EtCon as a host calls it: labels → proximal SFT → consolidation → merged model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.methods.call import host_call
from causaledit.methods.etcon import METHOD
from causaledit.methods.etcon import prompts as P
from causaledit.methods.etcon.consolidate import engine_settings, run_consolidation
from causaledit.methods.etcon.labels import training_pairs
from causaledit.methods.etcon.proximal import run_proximal
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.checks import check_training
from causaledit.methods.shared.delivery import deliver
from causaledit.methods.shared.preservation import build_preservation, preserved_questions
from causaledit.methods.shared.rehearsal import remember, rows_of_pairs
from causaledit.methods.shared.rollouts import check_vllm, longest_prompt
from causaledit.methods.shared.supervised import completion_rows
from causaledit.methods.shared.window import check_length
from causaledit.models.adapters import add_adapter
from causaledit.models.chat import prepare_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.etcon.hparams import EtConHyperParams
    from causaledit.methods.etcon.labels import LabelReport
    from causaledit.methods.shared.trainers import StepLosses
    from causaledit.models.edited import Edited

logger = logging.getLogger(__name__)


@dataclass
class EtConReport(MethodReport):
    """The report of every method, with how the labels came about and what the rewards were.

    Beside the losses of the stages (`proximal`, `consolidate`, and `…_preservation`), `losses` holds their curves:
    `proximal_clipped`, the share of clipped tokens; `reward` and its parts, `reward_correctness`, `reward_format`,
    `reward_cleanliness` and `reward_consistency`; `flat_groups`, the share of groups whose rewards are all equal;
    `consolidate_clipped` and `consolidate_kl`.

    Attributes:
        labels: Per edit; empty without stage 1.
        without_old_answer: Subjects of edits without an old answer, for which consistency is always 1 and an answer
            that also gives the old one cannot be told.
    """

    labels: list[LabelReport] = field(default_factory=list)
    without_old_answer: list[str] = field(default_factory=list)

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """The card of every method, plus labels and edits without an old answer."""
        return {
            **super().card(hparams, metrics),
            "labels": [vars(label) for label in self.labels],
            "without_old_answer": self.without_old_answer,
        }

    def add(self, stage: str, losses: StepLosses, curves: dict[str, list[float]]) -> None:
        """Record a stage's losses and curves."""
        self.losses.update(losses.named(stage) | curves)


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: EtConHyperParams,
    call: Call,
) -> Edited:
    """Edit, then consolidate (EtCon, arXiv 2512.04753) on an adapter, which is then merged.

    With `stages: [2]` the model is taken to hold the edit already. A callable `after_stage_1` in the call's further
    arguments gets the adapted model between the stages, to inspect the result of stage 1.
    """
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    _check_before_compute(model, tokenizer, edits, hparams, merged=hparams.merge_adapter or call.sequence is not None)
    report, tally = call.report, call.report.tally
    report.without_old_answer = [request.subject for request in edits if not request.ground_truth]
    if report.without_old_answer:
        logger.warning(
            "no old answer for %s: the reward's consistency is always 1, and hedging is not noticed",
            ", ".join(map(repr, report.without_old_answer)),
        )
    with tally.timed("preserve"):
        preservation = build_preservation(
            model, tokenizer, edits, hparams,
            count=tally.tokens, sequence=call.sequence, first_layer=hparams.first_layer,
        )  # fmt: skip
    by_edit = _labels(model, tokenizer, edits, hparams, call) if 1 in hparams.stages else []
    pairs = [pair for found in by_edit for pair in found]
    prompts = [prompt for prompt, _ in pairs]
    if 2 in hparams.stages:
        prompts += [prompt for request in edits for prompt in P.reasoning_prompts(request, hparams)]
    report.trained_prompts = list(dict.fromkeys([*prompts, *preserved_questions(preservation)]))
    peft_model = add_adapter(model, hparams)
    shared: dict[str, Any] = {"preservation": preservation, "progress": call.progress, "count": tally.tokens}
    if pairs:
        with tally.timed("proximal"):
            losses, curves = run_proximal(peft_model, tokenizer, pairs, len(edits), hparams, requests=edits, **shared)
        report.add("proximal", losses, {f"proximal_{name}": values for name, values in curves.items()})
        if (look := call.extra.get("after_stage_1")) is not None:
            look(peft_model)
    if 2 in hparams.stages:
        with tally.timed("consolidate"):
            losses, curves = run_consolidation(peft_model, tokenizer, edits, hparams, **shared)
        report.add("consolidate", losses, curves)
    edited = deliver(peft_model, model, tokenizer, edits, hparams, call)
    if by_edit:
        trained = [rows_of_pairs(found, completion_rows(tokenizer, found)) for found in by_edit]
        remember(call.sequence, hparams, edits, trained)
    return edited


def _labels(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: EtConHyperParams,
    call: Call,
) -> list[list[tuple[str, str]]]:
    """Each edit's (prompt, label) pairs."""
    by_edit: list[list[tuple[str, str]]] = []
    with call.report.tally.timed("labels"):
        for request in edits:
            found, label = training_pairs(model, tokenizer, request, hparams, count=call.report.tally.tokens)
            call.report.labels.append(label)
            by_edit.append(found)
    rows = completion_rows(tokenizer, [pair for found in by_edit for pair in found])
    check_length(model, max(len(row["input_ids"]) for row in rows), "A prompt with its label")
    return by_edit


def _check_before_compute(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: EtConHyperParams,
    *,
    merged: bool,
) -> None:
    """Refuse what this model, these edits and these hyper-parameters cannot do together."""
    check_training(model, hparams, merged=merged)
    if 2 in hparams.stages and hparams.rollout_use_vllm:
        check_vllm(model, engine_settings(hparams))
    lengths = [hparams.rollout_max_new_tokens] if 2 in hparams.stages else [1]
    if 2 in hparams.stages and not hparams.reference_kl:
        logger.warning("`reference_kl: 0`: nothing holds stage 2 to the edited model but the preservation term, if any")
    if 1 in hparams.stages and hparams.label_source == "self":
        lengths.append(hparams.label_max_new_tokens)
    prompts = [prompt for request in edits for prompt in P.reasoning_prompts(request, hparams)]
    check_length(model, longest_prompt(tokenizer, prompts) + max(lengths), "A prompt with the longest response")


apply_etcon_to_model = host_call(METHOD)
