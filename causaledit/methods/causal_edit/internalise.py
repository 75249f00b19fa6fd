"""Stage 2, causal internalisation: asymmetric on-policy self-distillation on trl's SDFTTrainer.

arXiv 2605.28303, stage 2. The student samples closed-book; the teacher, the same network behind the
privileged context, scores the same tokens; the loss is a KL on the union of both top-k sets, weighted by
how plausible the teacher finds each rollout.

Teacher × adapter, and what its forward pass uses:

    ==============  ==========================  =======================================
    teacher         adapter while scoring       needs
    ==============  ==========================  =======================================
    base            none (adapter disabled)     nothing
    bootstrapped    `teacher`, a frozen copy    stage 1; refused by the hparams otherwise
    ==============  ==========================  =======================================
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import set_peft_model_state_dict
from torch.nn.utils.rnn import pad_sequence

with warnings.catch_warnings():  # trl warns that its experimental classes change: we pin the range and test the hooks
    warnings.filterwarnings("ignore", message=".*trl.experimental.*")
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer
    from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder, DistillationLogits
from trl.trainer.utils import use_adapter

from causaledit.methods.causal_edit import losses
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit.leads import ADAPTERS, TEACHER_ADAPTER, StudyPrompt, mixed
from causaledit.methods.shared.preservation import PreservingMixin
from causaledit.methods.shared.processes import most
from causaledit.methods.shared.rollouts import RolloutMixin, longest_prompt
from causaledit.methods.shared.trainers import (
    ON_POLICY_PRESERVATION,
    StepLosses,
    WatchCallback,
    checkpointing_paused,
    quiet_trainers,
    train,
    trainer_arguments,
    without_dropout,
)
from causaledit.models.adapters import adapter_state, exact_merging
from causaledit.models.batches import in_batches, positions_for, unpadded
from causaledit.models.chat import with_end_token
from causaledit.models.scoring import completion_logits, logits_in_one_pass
from causaledit.support.launch import launched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink

STUDENT_ADAPTER = "default"


class PrivilegedContextBuilder(DemonstrationTeacherContextBuilder):
    """Builds the teacher's prompt: the privileged context, then the student's own prompt."""

    def __init__(self, trainer: Any, *, role: str) -> None:
        super().__init__(trainer)
        self.role = role

    def _compose_teacher_prompt(self, prompt: Any, privileged_context: Any) -> Any:
        if not privileged_context:  # a preserved question: the unedited model reads what the student reads
            return prompt
        return P.teacher_messages(prompt[-1]["content"], privileged_context, role=self.role)


class InternalisationTrainer(RolloutMixin, PreservingMixin, SDFTTrainer):
    """SDFTTrainer with CODE's teacher prompt and CODE's loss.

    Callbacks that have a method `on_rollouts_scored` get each batch of rollouts with `inputs`, `logits`
    (`DistillationLogits`) and the `loss` before it is scaled for accumulation, beside what trl gives its own events.

    Args:
        hparams: The method's hyper-parameters (loss, filter, groups).
        teacher: `base` or `bootstrapped`, already resolved.
        context_role: Message that carries the privileged context.
        preservation: The preservation term, if any.
        count: Receives generated and trained tokens.
    """

    def __init__(
        self,
        *args: Any,
        hparams: CausalEditHyperParams,
        teacher: str,
        context_role: str,
        preservation: PreservationSet | None,
        count: TokenCount,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.hparams = hparams
        self.teacher = teacher
        self.preservation = preservation
        self.count = count
        self.teacher_context_builder = PrivilegedContextBuilder(self, role=context_role)

    def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> Any:
        batch = super()._prepare_training_batch(inputs)
        device = batch["completion_ids"].device
        for name in ("bootstrapped", "preserved"):
            batch[name] = torch.tensor([bool(row[name]) for row in inputs], device=device)
        return batch

    # ---- rollouts ------------------------------------------------------------------------------
    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        result = super()._generate(prompt_ids)
        self.count.generated += sum(len(ids) for ids in result[1])
        return result

    def _generate_transformers(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        student, sample = self.accelerator.unwrap_model(self.model), super()._generate_transformers
        with self.sampling(student):
            return prompt_ids, in_batches(student, prompt_ids, lambda rows: sample(rows)[1])

    # ---- teacher -------------------------------------------------------------------------------
    def _get_teacher_context_for_self_distillation(self) -> Any:
        return self._as_teacher(self.teacher)

    def _as_teacher(self, teacher: str) -> Any:
        """A block in which the network is a teacher: `base` or `bootstrapped`."""
        return use_adapter(self.accelerator.unwrap_model(self.model), adapter_name=ADAPTERS[teacher])

    def _forward_logits(self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int) -> torch.Tensor:
        # trl divides by the sampling temperature (our loss has one of its own) and counts padding in positions
        keep = {"logits_to_keep": logits_to_keep + 1} if "logits_to_keep" in self.model_kwarg_keys else {}
        positions = positions_for(self.accelerator.unwrap_model(model), attention_mask)
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **positions, **keep).logits
        return logits[:, :-1, :][:, -logits_to_keep:, :]

    def _compute_teacher_student_logits(self, model: Any, teacher_model: Any, inputs: Any) -> DistillationLogits:
        teacher = self.accelerator.unwrap_model(teacher_model)
        if not self.runs_alone:
            return self._logits_together(model, teacher_model, inputs)
        tokens, mask = inputs["completion_ids"], inputs["completion_mask"]
        length = tokens.size(1)
        completions = unpadded(tokens, mask)
        prompts = unpadded(inputs["prompt_ids"], inputs["prompt_mask"])
        student_rows = logits_in_one_pass(model, prompts, completions, share=self.shares_prefix)
        contexts = unpadded(inputs["teacher_input_ids"][:, :-length], inputs["teacher_attention_mask"][:, :-length])
        teacher_rows = self._teacher_rows(teacher, contexts, completions, inputs["bootstrapped"].tolist())
        student_logits, teacher_logits = (
            torch.nn.functional.pad(pad_sequence(rows, batch_first=True), (0, 0, 0, length - max(map(len, rows))))
            for rows in (student_rows, teacher_rows)
        )
        return DistillationLogits(
            completion_ids=tokens,
            loss_mask=mask,
            student_logits=student_logits,
            teacher_logits=teacher_logits,
        )

    def _logits_together(self, model: Any, teacher_model: Any, inputs: Any) -> DistillationLogits:
        """In several processes: all rows in one pass, and so often under each teacher as any process needs it."""
        found = super()._compute_teacher_student_logits(model, teacher_model, inputs)
        other = "base" if self.teacher == "bootstrapped" else "bootstrapped"
        rows = inputs["bootstrapped"] == (other == "bootstrapped")
        if most(int(rows.any()), rows.device):
            with torch.no_grad(), self._as_teacher(other):
                logits = self._forward_logits(
                    teacher_model,
                    inputs["teacher_input_ids"],
                    inputs["teacher_attention_mask"],
                    found.completion_ids.shape[1],
                )
            found.teacher_logits[rows] = logits[rows].to(found.teacher_logits)
        return found

    def _teacher_rows(
        self, teacher: Any, contexts: list[list[int]], completions: list[list[int]], bootstrapped: list[bool]
    ) -> list[torch.Tensor]:
        """Each rollout's logits under its own prompt's teacher."""
        out: dict[int, torch.Tensor] = {}
        for name in ADAPTERS:
            rows = [i for i, snapshot in enumerate(bootstrapped) if snapshot == (name == "bootstrapped")]
            if rows:
                with torch.no_grad(), self._as_teacher(name), checkpointing_paused(teacher):
                    logits = completion_logits(teacher, [contexts[i] for i in rows], [completions[i] for i in rows])
                out.update(zip(rows, logits, strict=True))
        return [out[i] for i in range(len(contexts))]

    # ---- loss ----------------------------------------------------------------------------------
    def _compute_self_distillation_loss(
        self, model: Any, inputs: Any, distillation_logits: DistillationLogits
    ) -> torch.Tensor:
        h = self.hparams
        tokens, mask = distillation_logits.completion_ids, distillation_logits.loss_mask
        keep = losses.repetition_keep(
            tokens,
            mask,
            ngram=h.distill_repetition_ngram,
            window=h.distill_repetition_window,
            threshold=h.distill_repetition_threshold,
        )
        scores = losses.sequence_log_probability(distillation_logits.teacher_logits, tokens, mask)
        weights = losses.sequence_weights(scores, group_size=h.distill_num_generations, keep=keep)
        preserved = inputs["preserved"]
        divergence = losses.token_divergence(
            distillation_logits.teacher_logits,
            distillation_logits.student_logits,
            top_k=h.distill_top_k,
            forward=h.distill_forward_kl,
            temperature=h.distill_kd_temperature,
        )
        loss = losses.weighted_token_mean(divergence, weights * ~preserved, mask)
        mode = "train" if model.training else "eval"
        own = h.distill_weight * loss
        if h.distill_preserve_share:  # also where these rows lie in another part of the step, or in another process
            term = h.distill_preserve_weight * losses.weighted_token_mean(divergence, preserved.float(), mask)
            self._metrics[mode][ON_POLICY_PRESERVATION].append(self.accelerator.gather(term.detach()).mean().item())
            own = own + term - term.detach()  # its gradient enters; what is logged, and stopped on, is the method's
        self._log_self_distillation_metric(mode, self.accelerator.gather(loss.detach()).mean().item())
        self._metrics[mode]["dropped_rollouts"].append(1.0 - keep.float().mean().item())
        self.count.trained += int(mask.sum()) + int(inputs["prompt_mask"].sum())
        self._dispatch_self_distillation_callback(
            "on_rollouts_scored", inputs=inputs, logits=distillation_logits, loss=loss.detach()
        )
        return own


def add_teacher_snapshot(model: PeftModel) -> None:
    """Freeze a copy of the student's adapter under the name `teacher`."""
    state = {k: v.clone() for k, v in adapter_state(model, STUDENT_ADAPTER).items()}
    model.add_adapter(TEACHER_ADAPTER, copy.deepcopy(model.peft_config[STUDENT_ADAPTER]))
    set_peft_model_state_dict(model, state, adapter_name=TEACHER_ADAPTER)
    model.set_adapter(STUDENT_ADAPTER)


def vllm_arguments(
    tokenizer: PreTrainedTokenizerBase, study: Sequence[StudyPrompt], hparams: CausalEditHyperParams
) -> dict[str, Any]:
    """trl's arguments for rollouts through vLLM.

    vLLM sees the closed-book prompts alone, so that its longest text is the longest of them and a rollout, far
    below the model's context window, for which it would otherwise reserve its cache.
    """
    if not hparams.distill_use_vllm:
        return {"use_vllm": False}
    longest = longest_prompt(tokenizer, (prompt.text for prompt in study))
    return {
        "use_vllm": True,
        "vllm_mode": hparams.distill_vllm_mode,
        "vllm_max_model_length": hparams.distill_vllm_max_model_length or longest + hparams.distill_max_new_tokens,
        "vllm_gpu_memory_utilization": hparams.distill_vllm_gpu_memory_utilization,
        "vllm_enable_sleep_mode": hparams.distill_vllm_sleep_mode,
        "vllm_tensor_parallel_size": hparams.distill_vllm_tensor_parallel_size,
        "vllm_server_base_url": hparams.distill_vllm_server_base_url,
        "vllm_server_host": hparams.distill_vllm_server_host,
        "vllm_server_port": hparams.distill_vllm_server_port,
    }


def run_internalisation(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    study: Sequence[StudyPrompt],
    edits: int,
    hparams: CausalEditHyperParams,
    *,
    teacher: str,
    context_role: str,
    preservation: PreservationSet | None,
    progress: ProgressSink,
    count: TokenCount,
    subjects: Sequence[str] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> StepLosses:
    """Distil the open-book teacher into the student's adapter.

    Args:
        model: The model with the student's adapter (and the `teacher` snapshot for `bootstrapped`).
        study: The prompts of all edits of the batch; each rollout's teacher sees its own prompt's context.
        edits: How many edits they stand for.
        teacher: `base` or `bootstrapped`; a prompt may have another.
        context_role: Message that carries the privileged context.
        preservation: The preservation term, if any.
        subjects: Of the edits, for the run's name in a tracker.
        callbacks: Further callbacks of the trainer (see `InternalisationTrainer` for what they can hear).

    Returns:
        The losses of every optimiser step. Whatever merges the adapter in between, the base weights stay as they are.
    """
    processes = launched()
    per_step = hparams.distill_prompts_per_step(processes)
    held = 0 if preservation is None else hparams.distill_preserved_per_step(processes)
    steps = hparams.distill_step_limit(edits, len(study), per_step - held)
    if steps == 0 or not study:  # the trainer would take 0 for "not given"
        return StepLosses()
    rows, in_order = list(study), False
    if held and preservation is not None:
        questions = [StudyPrompt(question, "", "base", preserved=True) for question in preservation.questions]
        rows = mixed(study, questions, per_step=per_step, steps=steps, held=held, seed=hparams.seed)
        in_order = True
    elif len(rows) < per_step:  # trl leaves out what fills no step, and would train on nothing
        rows *= -(-per_step // len(rows))
    watch = WatchCallback(progress, tokens=lambda: count.generated + count.trained)
    progress.start("stage 2: internalise", steps)
    settings = trainer_arguments(model, hparams, stage="internalise", subjects=subjects)
    with without_dropout(model), exact_merging(model), settings as arguments, quiet_trainers():
        trainer = InternalisationTrainer(
            hparams=hparams,
            teacher=teacher,
            context_role=context_role,
            preservation=preservation,
            count=count,
            model=model,
            args=SDFTConfig(
                **arguments,
                max_steps=steps,
                per_device_train_batch_size=hparams.distill_batch_size,
                gradient_accumulation_steps=hparams.distill_gradient_accumulation_steps,
                num_generations=hparams.distill_num_generations,
                learning_rate=hparams.distill_learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=math.ceil(steps * hparams.distill_warmup_ratio),
                max_grad_norm=hparams.distill_max_grad_norm,
                temperature=hparams.distill_temperature,
                top_p=hparams.distill_top_p,
                max_completion_length=hparams.distill_max_new_tokens,
                max_prompt_length=None,  # trl would cut the narrative off from the left, in silence
                teacher_model_kind="base",  # which adapter scores is decided in the class above
                distillation_is_clip=None,
                shuffle_dataset=not in_order,
                **vllm_arguments(tokenizer, rows, hparams),
            ),
            train_dataset=Dataset.from_list([prompt.row() for prompt in rows]),
            processing_class=with_end_token(tokenizer),
            callbacks=[watch, *callbacks],
        )
        return train(trainer, watch)
