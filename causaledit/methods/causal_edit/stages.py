"""CausalEdit from narrative to trained adapter: edits → narratives → teacher → traces → stage 1 → stage 2."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.causal_edit.bootstrap import (
    TraceReport,
    all_prompts,
    answer_rows,
    collect_traces,
    raw_pairs,
    run_bootstrap,
    training_pairs,
    wanted_answers,
)
from causaledit.methods.causal_edit.internalise import TEACHER_ADAPTER, add_teacher_snapshot, run_internalisation
from causaledit.methods.causal_edit.leads import Leads, StudyPrompt, led_prompts, with_knowledge
from causaledit.methods.causal_edit.prompts import reasoning_cues
from causaledit.methods.causal_edit.questions import needing_questions
from causaledit.methods.causal_edit.sampling import trace_engine
from causaledit.methods.causal_edit.teacher import TeacherChoice, choose_teacher
from causaledit.methods.shared.compositions import Composition, compose
from causaledit.methods.shared.preservation import build_preservation, preserved_questions
from causaledit.methods.shared.processes import agreed
from causaledit.methods.shared.rehearsal import TrainedRow, rows_of_pairs
from causaledit.methods.shared.stopping import TrustRegion
from causaledit.methods.shared.supervised import text_rows
from causaledit.models.adapters import add_adapter
from causaledit.models.chat import supports_system_role
from causaledit.narratives.resolve import resolve_edits

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.bootstrap import WantedAnswer
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.causal_edit.traces import Trace
    from causaledit.methods.method import EditSequence
    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.methods.shared.questions import QuestionReport
    from causaledit.methods.shared.trainers import StepLosses
    from causaledit.support.costs import EditTally
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)

# So many preserved questions are kept aside for the trust region.
HELD_OUT = 12


@dataclass
class TrainedEdit:
    """A trained adapter and how it came about.

    Attributes:
        peft_model: The model with the trained adapter, not merged.
        requests: The edits with their old answers and narratives.
        narrative_source: Per edit: request, file, model, template or none.
        teacher: Stage 2's teacher; `none` without stage 2.
        traces: Per edit, what sampling gave; empty without stage 1.
        questions: Per edit, stage 2's questions that need the fact; empty without them.
        losses: Per optimiser step, the stage's own loss (`bootstrap`, `internalise`) and the preservation term as it
            entered (`bootstrap_preservation`, `internalise_preservation`).
        trained_prompts: Every user prompt of both stages' training sets and of the preserved questions.
        leads: Where the teachers lead, with `distill_prompts: leads`.
        taken_back: How many steps the trust region took back; None without one.
        rows: Per edit, its prompts and what the edited model should say to them, for later edits to rehearse.
    """

    peft_model: PeftModel
    requests: list[EditRequest]
    narrative_source: list[str]
    teacher: TeacherChoice
    traces: list[TraceReport] = field(default_factory=list)
    questions: list[QuestionReport] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    trained_prompts: list[str] = field(default_factory=list)
    leads: Leads | None = None
    taken_back: int | None = None
    rows: list[list[TrainedRow]] = field(default_factory=list)

    def add(self, stage: str, losses: StepLosses, prompts: list[str]) -> None:
        """Record what a stage was trained on, and its losses."""
        self.losses.update(losses.named(stage))
        self.trained_prompts = list(dict.fromkeys([*self.trained_prompts, *prompts]))


@dataclass(frozen=True)
class _Run:
    """What every step of one call needs."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    hparams: CausalEditHyperParams
    role: str
    progress: ProgressSink
    tally: EditTally


@dataclass(frozen=True)
class _Lessons:
    """What one edit is taught by: its request, its traces, its prompts of two hops and questions that need it."""

    request: EditRequest
    traces: list[Trace]
    compositions: list[Composition]
    questions: list[WantedAnswer]


def train_adapter(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: CausalEditHyperParams,
    *,
    progress: ProgressSink,
    tally: EditTally,
    after_stage_1: Callable[[PeftModel], None] | None = None,
    sequence: EditSequence | None = None,
) -> TrainedEdit:
    """Both stages on a fresh adapter around the model.

    Args:
        model: The plain network, without gradients.
        tokenizer: As from `prepare_tokenizer`.
        edits: The edits to train together.
        tally: Receives seconds and tokens.
        after_stage_1: Called with the adapted model between the stages.
        sequence: What this edit and the kept ones before it have in common; None for an independent edit.

    Returns:
        The adapter, and what led to it. The base weights are not written; the caller removes the adapter
        after an exception.
    """
    role = hparams.context_role
    if role == "system" and not supports_system_role(tokenizer):
        logger.warning(
            "the chat template takes no system message: the privileged context goes before the user's prompt"
        )
        role = "user"
    run = _Run(model, tokenizer, hparams, role, progress, tally)
    with tally.timed("narrative"):
        resolved = resolve_edits(
            model,
            tokenizer,
            edits,
            causal=hparams.editing_mode == "causal",
            narrative_file=hparams.narrative_file,
            max_new_tokens=hparams.narrative_max_new_tokens,
            count=tally.tokens,
        )
    resolved = agreed(resolved, model.device)
    requests = [item.request for item in resolved]
    with tally.timed("preserve"):
        preservation = build_preservation(
            model, tokenizer, requests, hparams, count=tally.tokens, sequence=sequence,
            reason_cues=reasoning_cues(hparams.editing_mode == "causal"), first_layer=hparams.first_layer,
        )  # fmt: skip
    held_out = None
    if 2 in hparams.stages and hparams.distill_trust_kl is not None and preservation is not None:
        held_out = preservation.hold_out(HELD_OUT)
        if held_out is None:
            logger.warning("of %d preserved questions none can be kept aside: no trust region", len(preservation))
    teacher = TeacherChoice("none", None)
    if 2 in hparams.stages:
        with tally.timed("teacher"):
            teacher = choose_teacher(model, tokenizer, requests, hparams, context_role=role, count=tally.tokens)
    with tally.timed("compositions"):
        compositions = compose(
            model, tokenizer, requests,
            onward=hparams.compositions_onward, leading=hparams.compositions_leading, count=tally.tokens,
        )  # fmt: skip
    with tally.timed("questions"):
        questions, asked = needing_questions(
            model, tokenizer, requests, hparams, context_role=role, progress=progress, count=tally.tokens
        )
    traces, reports = _traces(run, requests) if _needs_stage_1(hparams, teacher) else ([[] for _ in requests], [])
    # what was sampled, or read off a close call, must be the same in all processes
    teacher, compositions, questions, asked, traces, reports = agreed(
        (teacher, compositions, questions, asked, traces, reports), model.device
    )
    lessons = [_Lessons(*item) for item in zip(requests, traces, compositions, questions, strict=True)]

    peft_model = add_adapter(model, hparams)
    sources: list[str] = [item.narrative_source for item in resolved]
    own_rows = [_rows_to_rehearse(run, lesson) for lesson in lessons]
    trained = TrainedEdit(peft_model, requests, sources, teacher, reports, asked, rows=own_rows)
    if reports:
        _stage_1(run, trained, lessons, preservation)
        if after_stage_1 is not None:
            after_stage_1(peft_model)
    if 2 in hparams.stages:
        _stage_2(run, trained, lessons, preservation, held_out)
    return trained


def _needs_stage_1(hparams: CausalEditHyperParams, teacher: TeacherChoice) -> bool:
    """Whether stage 1 runs: only where something starts from its adapter."""
    wanted = 2 not in hparams.stages or hparams.student_use_sft or teacher.name == "bootstrapped"
    return 1 in hparams.stages and wanted


def _traces(run: _Run, requests: list[EditRequest]) -> tuple[list[list[Trace]], list[TraceReport]]:
    """The kept traces of each edit, and what sampling gave."""
    found: list[list[Trace]] = []
    reports: list[TraceReport] = []
    run.progress.start("stage 1: traces", None)
    sampling = trace_engine(run.model, run.tokenizer, requests, run.hparams, context_role=run.role)
    with run.tally.timed("traces"), sampling as engine:
        for request in requests:
            traces, report = collect_traces(
                run.model,
                run.tokenizer,
                request,
                run.hparams,
                context_role=run.role,
                progress=run.progress,
                count=run.tally.tokens,
                engine=engine,
            )
            reports.append(report)
            found.append(traces)
    run.progress.finish()
    return found, reports


def _rows_to_rehearse(run: _Run, lesson: _Lessons) -> list[TrainedRow]:
    """An edit's own prompts, as far as the fact alone answers them, in the forms in which the stages ask them."""
    if not run.hparams.rehearse_edits:
        return []
    wanted = wanted_answers(
        lesson.request, lesson.traces, run.hparams, (), reasons_asked=run.hparams.bootstrap_reason_prompts
    )
    pairs = [(answer.prompt, answer.completion) for answer in wanted]
    raw = raw_pairs(lesson.request, run.hparams)
    rows = answer_rows(run.tokenizer, pairs, [lesson.request], run.hparams)
    rows += text_rows(run.tokenizer, raw, ends=False)
    return rows_of_pairs([*pairs, *raw], rows)


def _stage_1(run: _Run, trained: TrainedEdit, lessons: list[_Lessons], preservation: PreservationSet | None) -> None:
    pairs = [
        pair
        for lesson in lessons
        for pair in training_pairs(lesson.request, lesson.traces, run.hparams, lesson.compositions)
    ]
    raw = [pair for lesson in lessons for pair in raw_pairs(lesson.request, run.hparams)]
    rows = answer_rows(run.tokenizer, pairs, trained.requests, run.hparams)
    rows += text_rows(run.tokenizer, raw, ends=False)
    with run.tally.timed("bootstrap"):
        losses = run_bootstrap(
            trained.peft_model, run.tokenizer, rows, trained.requests, run.hparams,
            preservation=preservation if 1 in run.hparams.preserve_stages else None,
            progress=run.progress, count=run.tally.tokens,
        )  # fmt: skip
    held = preserved_questions(preservation) if 1 in run.hparams.preserve_stages else []
    trained.add("bootstrap", losses, [*(prompt for prompt, _ in (*pairs, *raw)), *held])


def _stage_2(
    run: _Run,
    trained: TrainedEdit,
    lessons: list[_Lessons],
    preservation: PreservationSet | None,
    held_out: PreservationSet | None,
) -> None:
    hparams, peft_model = run.hparams, trained.peft_model
    chooses = hparams.distill_prompts == "leads"
    snapshot = bool(trained.traces) and (
        trained.teacher.name == "bootstrapped" or (chooses and hparams.teacher != "base")
    )
    if snapshot:
        add_teacher_snapshot(peft_model)
    if trained.traces and not hparams.student_use_sft:
        _restart_student(peft_model, hparams)
    with run.tally.timed("leads"):
        teachers = {"base": ["base"], "bootstrapped": ["bootstrapped"]}.get(hparams.teacher, ["base", "bootstrapped"])
        study = _study(run, trained, lessons, [name for name in teachers if name == "base" or snapshot])
        study, trained.leads = agreed((study, trained.leads), run.model.device)
    trust = TrustRegion(peft_model, held_out, hparams.distill_trust_kl or 0.0) if held_out is not None else None
    with run.tally.timed("internalise"):
        losses = run_internalisation(
            peft_model, run.tokenizer, study, len(trained.requests), hparams,
            teacher=trained.teacher.name, context_role=run.role,
            preservation=preservation if 2 in hparams.preserve_stages else None,
            progress=run.progress, count=run.tally.tokens,
            subjects=[request.subject for request in trained.requests],
            callbacks=[trust] if trust else [],
        )  # fmt: skip
    trained.taken_back = trust.taken_back if trust else None
    held = preserved_questions(preservation) if 2 in hparams.preserve_stages else []
    trained.add("internalise", losses, [*(p.text for p in study), *held] if losses.own else [])
    if TEACHER_ADAPTER in peft_model.peft_config:
        peft_model.delete_adapter(TEACHER_ADAPTER)


def _study(run: _Run, trained: TrainedEdit, lessons: list[_Lessons], teachers: list[str]) -> list[StudyPrompt]:
    """Stage 2's prompts: all of them, or those on which a teacher leads."""
    hparams, causal = run.hparams, run.hparams.editing_mode == "causal"
    if hparams.distill_prompts == "leads":
        wanted = [
            (lesson.request, answer)
            for lesson in lessons
            for answer in (
                *wanted_answers(
                    lesson.request, lesson.traces, hparams, lesson.compositions, reasons_asked=hparams.prompt_reasons
                ),
                *lesson.questions,
            )
        ]
        study, trained.leads = led_prompts(
            trained.peft_model, run.tokenizer, wanted,
            causal=causal, context_role=run.role, teachers=teachers, min_lead=hparams.distill_min_lead,
        )  # fmt: skip
        if not study:
            logger.warning(
                "stage 2 is left out: on no prompt does a teacher lead the student by `distill_min_lead`, %g nats a "
                "token",
                hparams.distill_min_lead,
            )
        return study
    asked = [
        (text, with_knowledge(lesson.request, knowledge, causal=causal))
        for lesson in lessons
        for text, knowledge in (
            *(
                (prompt.text, "")
                for prompt in all_prompts(lesson.request, hparams, reasons_asked=hparams.prompt_reasons)
            ),
            *((composition.prompt, composition.knowledge) for composition in lesson.compositions),
            *((question.prompt, "") for question in lesson.questions),
        )
    ]
    # CAKE data may be asked as questions too
    return [StudyPrompt(text, context, trained.teacher.name) for text, context in dict.fromkeys(asked)]


def _restart_student(peft_model: PeftModel, hparams: CausalEditHyperParams) -> None:
    """Restart the student from the base model (`student_use_sft: false`): its B matrices go back to zero."""
    torch.manual_seed(hparams.seed)
    for module in peft_model.modules():
        if hasattr(module, "reset_lora_parameters") and "default" in getattr(module, "lora_A", {}):
            reset: Any = module.reset_lora_parameters
            reset("default", init_lora_weights=True)
