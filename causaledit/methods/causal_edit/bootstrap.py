"""Stage 1, causal bootstrapping: sample traces open-book, keep the best, fine-tune closed-book.

arXiv 2605.28303, stage 1: sample → reject → score by exp(mean log p(answer line | closed-book prompt,
trace)) → keep the best of each group → SFT on (closed-book prompt → trace + answer line). Ours, and off by
default: another score, a check of the cause, and reasons from the narrative's own sentences (docs/method.md).
"""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.facts.relations import RelationBank
from causaledit.facts.text import capitalised
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit import traces as T
from causaledit.methods.causal_edit.reasons import cause_sentences, explains
from causaledit.methods.shared.contrast import begin_in_contrast
from causaledit.methods.shared.stopping import FactStop
from causaledit.methods.shared.supervised import Schedule, completion_rows, run_supervised
from causaledit.methods.shared.trainers import WatchCallback
from causaledit.models.batches import context_and_completion
from causaledit.models.chat import render, user
from causaledit.models.generation import sample_continuations
from causaledit.models.scoring import mean_log_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.shared.compositions import Composition
    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.methods.shared.trainers import StepLosses
    from causaledit.models.vllm_engine import VLLMEngine
    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)

TWO_HOPS = "two hops"


@dataclass
class TraceReport:
    """What sampling gave for one edit."""

    sampled: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    fallback: bool = False


def collect_traces(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    hparams: CausalEditHyperParams,
    *,
    context_role: str,
    progress: ProgressSink,
    count: TokenCount,
    engine: VLLMEngine | None = None,
) -> tuple[list[T.Trace], TraceReport]:
    """Sample open-book traces of one edit and keep the best of each group.

    Args:
        model: The network without an adapter (the open-book teacher).
        tokenizer: As from `prepare_tokenizer`.
        request: The edit, with old answer and narrative.
        context_role: Message that carries the privileged context.
        engine: Samples in the model's stead, with its weights.

    Returns:
        At most `bootstrap_traces` traces, best first, and a report. Where every candidate is rejected,
        one trace made of the narrative's own words (the report says so). Fewer than `bootstrap_min_traces` are
        pointed out.
    """
    causal = hparams.editing_mode == "causal"
    report = TraceReport()
    passed: list[T.Trace] = []
    if samples_traces(hparams):
        passed += _sampled_traces(
            model, tokenizer, request, hparams, report,
            context_role=context_role, progress=progress, count=count, engine=engine,
        )  # fmt: skip
    if hparams.bootstrap_reasons != "sampled" and causal:
        stated = [T.stated_trace(sentence, request, causal=True) for sentence in cause_sentences(request)]
        passed += _passing(stated, passed, request, hparams, report)

    if not passed:
        logger.warning(
            "no usable trace among %d candidates for %r (%s): the narrative's own words are used",
            report.sampled, request.subject, report.rejected,
        )  # fmt: skip
        report.fallback, report.kept = True, 1
        carrying = cause_sentences(request)[:1] if causal and hparams.bootstrap_require_cause else []
        fallback = [T.stated_trace(sentence, request, causal=True) for sentence in carrying]
        return fallback or [T.fallback_trace(request, causal=causal)], report

    scores = score_traces(model, tokenizer, request, passed, causal=causal, gain=hparams.bootstrap_score == "gain")
    kept = best_of_groups(scores, hparams.bootstrap_traces)
    report.kept, report.scores = len(kept), [scores[i] for i in kept]
    if len(kept) < hparams.bootstrap_min_traces:
        logger.warning(
            "only %d different traces for %r, `bootstrap_min_traces` is %d (%d candidates sampled, rejected: %s): "
            "the edit may be learnt by its wording alone",
            len(kept), request.subject, hparams.bootstrap_min_traces, report.sampled, report.rejected,
        )  # fmt: skip
    return [passed[i] for i in kept], report


def samples_traces(hparams: CausalEditHyperParams) -> bool:
    """Whether stage 1 samples traces; where not, the reasons are the narrative's own sentences."""
    return hparams.bootstrap_reasons != "narrative" or hparams.editing_mode != "causal"


def teacher_prompt(
    tokenizer: PreTrainedTokenizerBase, request: EditRequest, hparams: CausalEditHyperParams, *, context_role: str
) -> str:
    """The rendered open-book prompt of which an edit's traces are continuations."""
    causal = hparams.editing_mode == "causal"
    context = P.privileged_context(request, causal=causal)
    if hparams.bootstrap_guided:
        asked, opening = (
            P.CUES["explain"][0].format(form=request.question_form),
            T.guided_prefill(request, causal=causal),
        )
    else:
        asked, opening = P.trace_instruction(request, list(_labels(hparams))), ""
    return render(tokenizer, P.teacher_messages(asked, context, role=context_role), prefill=opening)


def _labels(hparams: CausalEditHyperParams) -> tuple[str, ...]:
    return T.CAUSAL_LABELS if hparams.editing_mode == "causal" else T.NONCAUSAL_LABELS


def _sampled_traces(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    hparams: CausalEditHyperParams,
    report: TraceReport,
    *,
    context_role: str,
    progress: ProgressSink,
    count: TokenCount,
    engine: VLLMEngine | None,
) -> list[T.Trace]:
    """The different candidates that pass the checks, in the order in which they were sampled."""
    causal, labels = hparams.editing_mode == "causal", _labels(hparams)
    prompt = teacher_prompt(tokenizer, request, hparams, context_role=context_role)
    budget = hparams.bootstrap_traces * hparams.bootstrap_candidates_per_trace
    wanted = math.ceil(hparams.bootstrap_oversample * hparams.bootstrap_traces)
    passed: list[T.Trace] = []
    while report.sampled < budget and not (hparams.bootstrap_early_stop and len(passed) >= wanted):
        n = min(hparams.bootstrap_sample_batch_size, budget - report.sampled)
        before = count.generated
        texts = sample_continuations(
            model,
            tokenizer,
            prompt,
            n,
            max_new_tokens=hparams.bootstrap_max_new_tokens,
            temperature=hparams.bootstrap_temperature,
            top_p=hparams.bootstrap_top_p,
            count=count,
            engine=engine,
        )
        report.sampled += n
        found = [
            T.guided_trace(text, request, causal=causal) if hparams.bootstrap_guided else T.parse_trace(text, labels)
            for text in texts
        ]
        passed += _passing(found, passed, request, hparams, report)
        progress.advance(tokens=count.generated - before)
    return passed


def _passing(
    found: Sequence[T.Trace | None],
    passed: Sequence[T.Trace],
    request: EditRequest,
    hparams: CausalEditHyperParams,
    report: TraceReport,
) -> list[T.Trace]:
    """Those of the candidates that pass the checks and are none of those that passed before; counts the others."""
    causal = hparams.editing_mode == "causal"
    new: list[T.Trace] = []
    for trace in found:
        reason = T.reject_reason(trace, request)
        if reason is None and trace is not None and hparams.bootstrap_require_cause and causal:
            reason = None if explains(trace.reason, request) else "no cause"
        if reason is not None:
            report.rejected[reason] = report.rejected.get(reason, 0) + 1
        elif trace is not None and trace not in passed and trace not in new:
            new.append(trace)
    return new


def best_of_groups(scores: list[float], groups: int) -> list[int]:
    """Split candidates into `groups` groups in sampling order and keep the best of each.

    Returns:
        Their indices, best first; at most `groups`, fewer where there are fewer candidates.
    """
    groups = min(groups, len(scores))
    best = [max(range(g, len(scores), groups), key=lambda i: scores[i]) for g in range(groups)]
    return sorted(best, key=lambda i: -scores[i])


def score_traces(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    traces: list[T.Trace],
    *,
    causal: bool,
    gain: bool = False,
    batch_size: int = 16,
) -> list[float]:
    """How far each trace carries the answer alone.

    Args:
        gain: False: exp(mean log p(answer-line tokens | closed-book prompt, trace)), the paper's, in (0, 1]. True: how
            much the reason adds to the mean log-probability of the answer's own tokens, in nats a token. The
            word "Answer" is then no part of it, nor are the parts of a trace that state the answer.

    Returns:
        One score per trace.
    """
    prompt = render(tokenizer, user(P.trace_prompt(request, causal=causal)))

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    if not gain:
        contexts = [ids(prompt + trace.thinking) for trace in traces]
        lines = [ids(trace.answer_line) for trace in traces]
        return [math.exp(x) for x in mean_log_probabilities(model, contexts, lines, batch_size=batch_size)]
    lead = ids("Answer:")
    line = ids(f"Answer: {request.target_new}")
    shared = next((i for i, (a, b) in enumerate(zip(lead, line, strict=False)) if a != b), len(lead))
    bare = [trace.with_reason_alone(reason) for trace in traces for reason in (trace.reason, "")]
    contexts = [ids(prompt + text) + line[:shared] for text in bare]
    found = mean_log_probabilities(model, contexts, [line[shared:]] * len(contexts), batch_size=batch_size)
    return [with_reason - without for with_reason, without in zip(found[::2], found[1::2], strict=True)]


@dataclass(frozen=True)
class WantedAnswer:
    """A closed-book prompt of an edit, and what the edited model should say to it.

    Attributes:
        prompt: The user message.
        kind: Its cue's kind, or `two hops`.
        completion: The answer.
        knowledge: For two hops, the hop that is no edit, as a sentence.
    """

    prompt: str
    kind: str
    completion: str
    knowledge: str = ""


def wanted_answers(
    request: EditRequest,
    traces: list[T.Trace],
    hparams: CausalEditHyperParams,
    compositions: Sequence[Composition],
    *,
    reasons_asked: int = 0,
) -> list[WantedAnswer]:
    """What the edited model should say to every prompt of an edit.

    Direct cues get the new fact, the others the new fact and a kept reason (`bootstrap_explanation`); those that ask
    what changed, and why, come `bootstrap_explain_repeats` times, each time with the next reason.

    Args:
        reasons_asked: As for `all_prompts`.
    """
    usable = traces or [T.fallback_trace(request, causal=hparams.editing_mode == "causal")]
    reasons = itertools.cycle([capitalised(trace.reason) for trace in usable])
    full = hparams.bootstrap_explanation == "full"
    answers: list[WantedAnswer] = []
    for prompt in all_prompts(request, hparams, reasons_asked=reasons_asked):
        if prompt.kind == "direct":
            answers += [
                WantedAnswer(prompt.text, "direct", T.direct_answer(request))
            ] * hparams.bootstrap_direct_repeats
        elif prompt.kind not in ("trace", "learn"):  # a learning question has an answer of its own
            for _ in range(hparams.bootstrap_explain_repeats if prompt.kind == "explain" else 1):
                answer = T.reasoned_answer(request, next(reasons), full=full)
                answers.append(WantedAnswer(prompt.text, prompt.kind, answer))
    return [*answers, *(WantedAnswer(c.prompt, TWO_HOPS, c.completion, c.knowledge) for c in compositions)]


def training_pairs(
    request: EditRequest,
    traces: list[T.Trace],
    hparams: CausalEditHyperParams,
    compositions: Sequence[Composition] = (),
) -> list[tuple[str, str]]:
    """(closed-book prompt, completion) pairs of one edit.

    The paper's are (stage-1 prompt → trace). With `bootstrap_all_prompts` every stage-2 prompt form joins (see
    `wanted_answers`), with `bootstrap_reason_prompts` further ones that ask for the reason, and
    `bootstrap_compositions` of the prompts of two hops, every second of them step by step with
    `bootstrap_composed_cues`.
    """
    causal = hparams.editing_mode == "causal"
    whole = traces[: hparams.bootstrap_trace_rows] if hparams.bootstrap_all_prompts else traces
    pairs = [(P.trace_prompt(request, causal=causal), trace.text) for trace in whole]
    composed = compositions[: hparams.bootstrap_compositions]
    if hparams.bootstrap_composed_cues:
        composed = P.with_cues(composed)
    answers = wanted_answers(request, traces, hparams, composed, reasons_asked=hparams.bootstrap_reason_prompts)
    return pairs + [
        (answer.prompt, answer.completion)
        for answer in answers
        if hparams.bootstrap_all_prompts or answer.kind == TWO_HOPS
    ]


def answer_rows(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    requests: Sequence[EditRequest],
    hparams: CausalEditHyperParams,
) -> list[dict[str, Any]]:
    """The pairs as rows of trl's SFTTrainer; what follows the bare new fact is taught where `bootstrap_direct_ends`."""
    direct = () if hparams.bootstrap_direct_ends else {T.direct_answer(request) for request in requests}
    return completion_rows(tokenizer, pairs, open_ended=direct)


def raw_pairs(request: EditRequest, hparams: CausalEditHyperParams) -> list[tuple[str, str]]:
    """(text, continuation) pairs of one edit that go without the chat template (`bootstrap_raw_prompts`)."""
    texts = (request.cloze, f"Question: {request.cloze} Answer:")
    return [(text, request.target_new) for _ in range(hparams.bootstrap_raw_prompts) for text in texts]


def all_prompts(
    request: EditRequest, hparams: CausalEditHyperParams, *, reasons_asked: int = 0
) -> list[P.StudentPrompt]:
    """Every closed-book prompt of an edit that the hyper-parameters ask for.

    Args:
        reasons_asked: How many of the further wordings that ask for the reason are among them, where there is one.
    """
    causal, n = hparams.editing_mode == "causal", hparams.prompt_paraphrases
    prompts = P.student_prompts(
        request,
        causal=causal,
        cake_data=hparams.distill_cake_data,
        paraphrases=RelationBank.bundled().paraphrases(request, n) if n else (),
    )
    return prompts + (P.reason_prompts(request, reasons_asked) if causal else [])


def run_bootstrap(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, Any]],
    requests: Sequence[EditRequest],
    hparams: CausalEditHyperParams,
    *,
    preservation: PreservationSet | None,
    progress: ProgressSink,
    count: TokenCount,
    callbacks: Sequence[TrainerCallback] = (),
) -> StepLosses:
    """Fine-tune the adapter on (closed-book prompt → completion), completion tokens only.

    Args:
        model: The model with a trainable adapter.
        rows: Of `training_pairs` and `raw_pairs`, of all edits of the batch.
        requests: The edits they stand for.
        preservation: The preservation term, if any.
        callbacks: Further callbacks of the trainer.

    Returns:
        The losses of every optimiser step. `bootstrap_stop_loss` looks at the stage's own alone.
    """
    limit = hparams.bootstrap_step_limit(len(requests))
    per_epoch = math.ceil(len(rows) / hparams.bootstrap_batch_size)
    steps = per_epoch * hparams.bootstrap_epochs if limit is None else min(limit, per_epoch * hparams.bootstrap_epochs)
    watch = WatchCallback(
        progress,
        tokens=lambda: count.trained,
        stop_loss=hparams.bootstrap_stop_loss,
        patience=hparams.bootstrap_stop_patience,
    )
    stops = []
    if hparams.bootstrap_stop_log_probability is not None:
        direct = [
            (prompt.text, T.direct_answer(request))
            for request in requests
            for prompt in all_prompts(request, hparams)
            if prompt.kind == "direct"
        ]
        asked = answer_rows(tokenizer, direct, requests, hparams)
        stops = [FactStop(model, asked, hparams.bootstrap_stop_log_probability)]
    progress.start("stage 1: bootstrap", steps)
    parted = [context_and_completion(row) for row in rows]
    begin_in_contrast(model, tokenizer, parted, requests, hparams, preservation=preservation, count=count)
    return run_supervised(
        model,
        tokenizer,
        rows,
        Schedule(
            steps=steps,
            batch_size=hparams.bootstrap_batch_size,
            learning_rate=hparams.bootstrap_learning_rate,
            kind="cosine",
            warmup_steps=math.ceil(steps * hparams.bootstrap_warmup_ratio),
            max_grad_norm=hparams.bootstrap_max_grad_norm,
        ),
        hparams,
        watch=watch,
        stage="bootstrap",
        subjects=[request.subject for request in requests],
        callbacks=[*stops, *callbacks],
        mean_by_sequence=hparams.bootstrap_loss_mean == "sequence",
        most_tokens=hparams.bootstrap_micro_batch_tokens,
        preservation=preservation,
        count=count,
    )
