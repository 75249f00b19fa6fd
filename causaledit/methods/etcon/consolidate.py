"""Stage 2, consolidation: GRPO on the fact's reasoning prompts, on trl's GRPOTrainer (EtCon, arXiv 2512.04753).

The policy samples groups of closed-book responses; each is scored by `rewards`; what is better than its group's mean
becomes likelier, within a clipped ratio, held by a KL to the policy that the stage starts from: the edited model.
"""

from __future__ import annotations

import logging
import statistics
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOConfig, GRPOTrainer

from causaledit.errors import ModelError
from causaledit.methods.etcon import prompts as P
from causaledit.methods.etcon.curves import Curves
from causaledit.methods.etcon.hparams import PARTS
from causaledit.methods.etcon.rewards import reward
from causaledit.methods.shared.preservation import PreservingMixin
from causaledit.methods.shared.rollouts import RolloutMixin, longest_prompt
from causaledit.methods.shared.trainers import (
    StepLosses,
    WatchCallback,
    checkpointing_paused,
    quiet_trainers,
    train,
    trainer_arguments,
    without_dropout,
)
from causaledit.models.adapters import exact_merging
from causaledit.models.batches import in_batches, unpadded
from causaledit.models.chat import user, with_end_token
from causaledit.models.scoring import completion_logits, logits_in_one_pass, token_log_probabilities
from causaledit.models.vllm_engine import SERVER, EngineSettings
from causaledit.support.curves import FLAT_GROUPS, MANY_FLAT, REWARD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.etcon.hparams import EtConHyperParams
    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)

POLICY_ADAPTER = "default"
REFERENCE_ADAPTER = "ref"  # the name that trl gives to its copy of the policy's adapter
# what trl logs → what a report calls it
CURVES = {
    REWARD: REWARD,
    **{f"reward_{part}": f"reward_{part}" for part in PARTS},
    "frac_reward_zero_std": FLAT_GROUPS,
    "clip_ratio/region_mean": "consolidate_clipped",
    "kl": "consolidate_kl",
}


class EditReward:
    """The reward in the form that trl calls: one number per response, its parts logged.

    Args:
        requests: The edits; a row's `edit` says which one its prompt asks for.
        hparams: The method's.
    """

    __name__ = "reward"  # trl asks for a function's name

    def __init__(self, requests: Sequence[EditRequest], hparams: EtConHyperParams) -> None:
        self._requests, self._hparams = list(requests), hparams

    def __call__(self, *, completions: Any, edit: Sequence[int], log_metric: Any, **others: Any) -> list[float]:
        texts = [completion[-1]["content"] for completion in completions]
        scores = [reward(text, self._requests[i], self._hparams) for text, i in zip(texts, edit, strict=True)]
        for part in PARTS:
            log_metric(f"reward_{part}", statistics.fmean(getattr(score, part) for score in scores))
        return [score.total for score in scores]


class ConsolidationTrainer(RolloutMixin, PreservingMixin, GRPOTrainer):
    """GRPOTrainer with our rollouts, our reading of log-probabilities and the preservation term.

    Args:
        preservation: The preservation term, if any.
        count: Receives generated and trained tokens.
    """

    def __init__(self, *args: Any, preservation: PreservationSet | None, count: TokenCount, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preservation = preservation
        self.count = count

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[Any, Any]:
        def sample(rows: Any) -> tuple[Any, Any]:
            made: tuple[Any, Any] = super(ConsolidationTrainer, self)._generate_single_turn(
                rows, images, multimodal_fields, num_generations, has_tool_images
            )
            return made

        if self.use_vllm:
            completions, log_p = sample(prompt_ids)
        else:
            student = self.accelerator.unwrap_model(self.model)
            with self.sampling(student):
                completions, log_p = in_batches(student, prompt_ids, lambda rows: sample(rows)[0]), None
        self.count.generated += sum(len(ids) for ids in completions)
        return completions, log_p

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        # trl counts padding in positions, and reads a group's prompt once per rollout
        if not self.runs_alone:
            found: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
                )
            )
            return found
        prompts = unpadded(input_ids[:, :-logits_to_keep], attention_mask[:, :-logits_to_keep])
        completions = unpadded(input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:])
        if torch.is_grad_enabled():
            rows = logits_in_one_pass(model, prompts, completions, share=self.shares_prefix)
            self.count.trained += int(attention_mask.sum())
        else:
            with checkpointing_paused(model):
                rows = completion_logits(model, prompts, completions)
        rows = [row / self.temperature for row in rows]
        log_p = [token_log_probabilities(row, tokens) for row, tokens in zip(rows, completions, strict=True)]
        entropies = [torch.distributions.Categorical(logits=row.detach()).entropy() for row in rows]
        return self._as_columns(log_p, logits_to_keep), self._as_columns(entropies, logits_to_keep), None

    @staticmethod
    def _as_columns(rows: Sequence[torch.Tensor], length: int) -> torch.Tensor:
        """Rows of values as a `(rows, length)` tensor, 0 behind each row's end."""
        padded = pad_sequence(list(rows), batch_first=True)
        return torch.nn.functional.pad(padded, (0, length - padded.shape[1]))


def run_consolidation(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[EditRequest],
    hparams: EtConHyperParams,
    *,
    preservation: PreservationSet | None,
    progress: ProgressSink,
    count: TokenCount,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[StepLosses, dict[str, list[float]]]:
    """Consolidate what the adapter, or the model under it, has learnt.

    Args:
        model: The model with a trainable adapter under the name `default`.
        requests: All edits of the batch.
        preservation: The preservation term, if any.
        callbacks: Further callbacks of the trainer.

    Returns:
        The losses of every step, and the curves of `CURVES`: the reward's at every step that sampled, the others' at
        every step.

    Raises:
        ModelError: There is no adapter to take the KL's reference from.
    """
    if hparams.reference_kl and POLICY_ADAPTER not in model.peft_config:
        raise ModelError(
            f"`reference_kl` is {hparams.reference_kl}, and its reference is a copy of the adapter {POLICY_ADAPTER!r}; "
            f"the model has {', '.join(map(repr, model.peft_config))}: rename it, or set `reference_kl: 0`."
        )
    rows = [
        {"prompt": user(text), "edit": i}
        for i, request in enumerate(requests)
        for text in P.reasoning_prompts(request, hparams)
    ] * hparams.prompts_per_rollout  # so that every prompt is drawn: trl leaves out what fills no batch
    steps = hparams.steps_of_stage_2(len(requests))
    watch, curves = WatchCallback(progress, tokens=lambda: count.generated + count.trained), Curves(list(CURVES))
    progress.start("stage 2: consolidate", steps)
    subjects = [request.subject for request in requests]
    settings = trainer_arguments(model, hparams, stage="consolidate", subjects=subjects)
    with without_dropout(model), exact_merging(model), settings as arguments, quiet_trainers():
        trainer = ConsolidationTrainer(
            model=model,
            reward_funcs=EditReward(requests, hparams),
            args=GRPOConfig(
                **arguments,
                max_steps=steps,
                per_device_train_batch_size=hparams.rollouts_per_update,
                steps_per_generation=hparams.updates_per_rollout,
                num_generations=hparams.rollouts,
                learning_rate=hparams.consolidate_learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=0,
                max_grad_norm=hparams.consolidate_max_grad_norm,
                temperature=hparams.rollout_temperature,
                top_p=hparams.rollout_top_p,
                max_completion_length=hparams.rollout_max_new_tokens,
                beta=hparams.reference_kl,
                use_bias_correction_kl=False,
                epsilon=hparams.consolidate_clip_low,
                epsilon_high=hparams.consolidate_clip_high,
                loss_type="dapo",  # a mean over tokens
                scale_rewards="group",
                disable_dropout=True,  # of the reference's adapter too, which trl makes
                **vllm_arguments(tokenizer, requests, hparams),
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=with_end_token(tokenizer),
            preservation=preservation,
            count=count,
            callbacks=[watch, curves, *callbacks],
        )
        try:
            losses = train(trainer, watch)
        finally:
            if REFERENCE_ADAPTER in model.peft_config:  # trl leaves it there
                model.delete_adapter(REFERENCE_ADAPTER)
    found = {CURVES[name]: values for name, values in curves.found.items()}
    say_what_the_rewards_lack(found)
    return losses, found


def engine_settings(hparams: EtConHyperParams) -> EngineSettings:
    """The engine of rollouts, for what is checked before an edit."""
    server = hparams.rollout_vllm_server
    return EngineSettings(
        "`rollout_use_vllm: true`",
        mode="server" if server else "colocate",
        memory_share=hparams.rollout_vllm_memory,
        server=(server or SERVER).rstrip("/"),
    )


def vllm_arguments(
    tokenizer: PreTrainedTokenizerBase, requests: list[EditRequest], hparams: EtConHyperParams
) -> dict[str, Any]:
    """trl's arguments for rollouts through vLLM, whose longest text is the longest prompt and a rollout."""
    if not hparams.rollout_use_vllm:
        return {"use_vllm": False}
    longest = longest_prompt(tokenizer, (p for request in requests for p in P.reasoning_prompts(request, hparams)))
    return {
        "use_vllm": True,
        "vllm_mode": "server" if hparams.rollout_vllm_server else "colocate",
        "vllm_server_base_url": hparams.rollout_vllm_server,
        "vllm_gpu_memory_utilization": hparams.rollout_vllm_memory,
        "vllm_max_model_length": longest + hparams.rollout_max_new_tokens,
        "vllm_enable_sleep_mode": True,
    }


def say_what_the_rewards_lack(curves: dict[str, list[float]]) -> None:
    """Point out groups whose rewards are all equal: they give no gradient."""
    flat = curves.get(FLAT_GROUPS, [])
    share, mean = statistics.fmean(flat or [0.0]), statistics.fmean(curves.get(REWARD) or [0.0])
    if share == 1:
        known = any(curves.get("reward_correctness", []))
        logger.warning(
            "the rewards of every group were equal (their mean is %.2f): stage 2 had no gradient. %s", mean,
            "There was nothing to improve, or nothing varied: raise `rollout_temperature` or `rollouts`." if known
            else "No response was right: make the edit first (`stages: [1, 2]`, or another method's before `[2]`).",
        )  # fmt: skip
    elif share >= MANY_FLAT:
        logger.warning(
            "in %.0f %% of the groups all rewards were equal (the mean of all is %.2f): they give no gradient",
            100 * share, mean,
        )  # fmt: skip
