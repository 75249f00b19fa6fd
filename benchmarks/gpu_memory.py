# ruff: noqa: E402  (the checkout is importable from the third line on)
"""Time and memory of one CausalEdit edit, stage by stage, beside what `causaledit plan` predicts.

    python benchmarks/gpu_memory.py                                   # random Llama-3.1-8B on a GPU, bfloat16
    python benchmarks/gpu_memory.py --model smollm2-135m-instruct     # the real small model, on any device
    python benchmarks/gpu_memory.py --tiny                            # a network of two layers, to try the script
    python benchmarks/gpu_memory.py --model smollm2-135m-instruct --method ROME   # a whole edit of another method

A folder with a config.json and no weights (`benchmarks/configurations/`) gets random ones, made on the device; memory
and time do not depend on their values. The tokenizer is that of `--tokenizer` or of the model's folder, else the
embedded model's where its files are in the cache, else one made on the spot: all their ids are in every vocabulary.
Each stage is run by itself with a few steps on texts of known length, so that prediction and measurement are about the
same work. Prints one JSON line a stage: `measured` is the device's highest allocation (on a CPU: resident memory above
that of the loaded model), `predicted` the plan's.

Another method's edit is measured as a whole. On a CPU it is done twice: `first` is what the first edit of the process
took, which also loads code and makes objects and buffers that every later one finds; `measured` is the second's. It is
handed a copy of the tokenizer, which each edit makes for itself: `tokenizer` is what making one takes, in host memory
whatever the model and the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from arguments import positive, run_benchmark
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from causaledit.errors import ModelError
from causaledit.facts.requests import requests_from_data
from causaledit.methods.cake.apply import rows_of
from causaledit.methods.cake.data import texts_of
from causaledit.methods.call import edit_in_place
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit import traces as T
from causaledit.methods.causal_edit.bootstrap import all_prompts, collect_traces, run_bootstrap, score_traces
from causaledit.methods.causal_edit.footprint import SCORED_TOGETHER, footprint
from causaledit.methods.causal_edit.hparams import WITHOUT_ALL_PROMPTS, CausalEditHyperParams
from causaledit.methods.causal_edit.internalise import InternalisationTrainer, add_teacher_snapshot, run_internalisation
from causaledit.methods.causal_edit.leads import StudyPrompt
from causaledit.methods.footprint import Lengths, Planner
from causaledit.methods.memory_plan import plan_edit
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.finetune.rows import target_rows
from causaledit.methods.shared.preservation import build_preservation
from causaledit.methods.shared.supervised import completion_rows
from causaledit.models.adapters import add_adapter
from causaledit.models.batches import is_out_of_memory
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.edited import deliver_adapter
from causaledit.models.embedded import EMBEDDED_MODELS, ensure_embedded_model
from causaledit.models.loading import load_model, resolve_device
from causaledit.support.costs import TokenCount, peak_rss_mb, reset_peak_rss
from causaledit.support.files import load_json
from causaledit.support.progress import SilentProgress
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Callable

LLAMA = ROOT / "benchmarks" / "configurations" / "llama3.1-8b-instruct"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# ---- model and tokenizer ---------------------------------------------------------------------------
def tiny_config() -> LlamaConfig:
    """Two layers."""
    return LlamaConfig(
        vocab_size=4096, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192,
    )  # fmt: skip


def random_model(config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A network with random weights, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def spare_tokenizer(text: str) -> Any:
    """A byte-level BPE with a chat template, for a machine without any tokenizer's files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<|im_start|>", "<|im_end|>", "<|pad|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator([text], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>")
    made.chat_template = CHATML
    return made


def load(args: argparse.Namespace, text: str) -> tuple[Any, Any, Any]:
    """The model, its tokenizer and its configuration."""
    device = resolve_device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if args.model in EMBEDDED_MODELS:
        model, tokenizer = load_model(args.model, device=device)
        return model, tokenizer, model.config
    config = tiny_config() if args.tiny else AutoConfig.from_pretrained(args.model)
    if any(Path(args.model).glob("*.safetensors")) and not args.tiny:
        model, tokenizer = load_model(args.model, device=device)
        return model, tokenizer, model.config
    tokenizer = None
    for folder in (args.tokenizer, args.model, None):
        try:
            folder = folder or ensure_embedded_model("smollm2-135m-instruct")
            tokenizer = AutoTokenizer.from_pretrained(folder)
            break
        except (OSError, ValueError, ModelError, KeyError):
            continue
    if tokenizer is None or args.tiny:
        tokenizer = spare_tokenizer(text)
    return random_model(config, device, dtype), tokenizer, config


# ---- measuring -------------------------------------------------------------------------------------
class Meter:
    """Seconds and highest memory of blocks of work, above what the loaded model takes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.gpu = device.type == "cuda"
        self._clean()
        self.base = torch.cuda.memory_allocated() if self.gpu else self._peak()

    def _clean(self) -> None:
        gc.collect()
        if self.gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak_rss()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.gpu else round(peak_rss_mb() * 2**20)

    def run(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Do the work; `result` is what it gave."""
        self._clean()
        began, found = time.perf_counter(), {}
        try:
            found["result"] = work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found["out_of_memory"] = True
        if self.gpu:
            torch.cuda.synchronize()
            found["reserved"] = torch.cuda.max_memory_reserved()
        return {**found, "seconds": time.perf_counter() - began, "measured": self._peak() - self.base}


class Rollouts:
    """Stands around the trainer's generation, and measures it apart from the passes after it."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.seconds, self.highest, self.calls = meter, 0.0, 0, 0

    def __enter__(self) -> Rollouts:
        original = InternalisationTrainer._generate
        outer = self

        def generate(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            outer.before = max(getattr(outer, "before", 0), outer.meter._peak() - outer.meter.base)
            done = outer.meter.run(lambda: original(trainer, *args, **kwargs))
            outer.seconds += done["seconds"]
            outer.highest, outer.calls = max(outer.highest, done["measured"]), outer.calls + 1
            outer.meter._clean()
            if "result" not in done:
                raise torch.OutOfMemoryError("out of memory in the rollouts")
            return done["result"]

        self._patch = mock.patch.object(InternalisationTrainer, "_generate", generate)
        self._patch.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._patch.stop()


# ---- the edit --------------------------------------------------------------------------------------
def padded_text(tokenizer: Any, tokens: int) -> str:
    """A text of so many tokens."""
    words = ["the", "wells", "ran", "dry", "and", "parliament", "moved", "every", "ministry", "to", "the", "coast"]
    ids: list[int] = []
    text = ""
    while len(ids) < tokens:
        text += " " + words[len(text.split()) % len(words)]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text


def settings(args: argparse.Namespace, *, checkpointing: bool, device: torch.device) -> CausalEditHyperParams:
    """The hyper-parameters of the plan and of the run: the file's, with a few steps."""
    hparams = CausalEditHyperParams.from_hparams(args.hparams)
    rows = args.candidates or hparams.bootstrap_sample_batch_size
    return dataclasses.replace(
        hparams,
        device=str(device),
        gradient_checkpointing=checkpointing,
        bootstrap_reasons="sampled",  # the sampling is measured, whatever the file takes its reasons from
        bootstrap_traces=1,
        bootstrap_candidates_per_trace=rows,
        bootstrap_sample_batch_size=rows,
        bootstrap_early_stop=False,
        bootstrap_max_new_tokens=args.trace_new or hparams.bootstrap_max_new_tokens,
        bootstrap_all_prompts=False,
        **WITHOUT_ALL_PROMPTS,
        bootstrap_max_steps=args.steps,
        bootstrap_stop_loss=0.0,
        distill_max_steps=args.steps,
        distill_max_new_tokens=args.rollout_new or hparams.distill_max_new_tokens,
        optimizer="adamw_torch",
        lora_layers=None if args.tiny else hparams.lora_layers,
    )


def measure(args: argparse.Namespace, model: Any, tokenizer: Any, config: Any, request: Any, variant: str) -> None:
    """One edit, stage by stage."""
    hparams = settings(args, checkpointing=variant == "gradient_checkpointing", device=model.device)
    prepared = prepare_tokenizer(tokenizer, None, model=model)

    def tokens(text: str) -> int:
        return len(prepared(text, add_special_tokens=False)["input_ids"])

    prompts = [tokens(render(prepared, user(prompt.text))) for prompt in all_prompts(request, hparams)]
    context = P.privileged_context(request, causal=True)
    teacher = render(
        prepared, P.teacher_messages(P.trace_instruction(request, list(T.CAUSAL_LABELS)), context, role="user")
    )
    trace = T.stated_trace(padded_text(prepared, max(8, args.trace_tokens - 60)), request, causal=True)
    lengths = Lengths(
        prompt=max(prompts), context=tokens(teacher), answer=tokens(trace.answer_line), trace=tokens(trace.text) + 1
    )
    planner = Planner(config, hparams, lengths, gpu=model.device.type == "cuda", dtype=model.dtype)
    began = time.perf_counter()
    stages = {stage.stage: stage for stage in footprint(planner)}
    parameters = planner.parameters()
    # on a CPU, resident memory is counted above that of the loaded model
    predicted = {name: stage.total(parameters) - (0 if planner.gpu else parameters) for name, stage in stages.items()}
    print(json.dumps({
        "variant": variant, "device": torch.cuda.get_device_name() if planner.gpu else "cpu", "model": args.model,
        "dtype": str(model.dtype), "lengths": dataclasses.asdict(lengths), "parameters": parameters,
        "plan_seconds": round(time.perf_counter() - began, 1), "torch": torch.__version__,
    }), flush=True)  # fmt: skip
    meter = Meter(model.device)
    if planner.gpu:
        meter.base = 0

    def show(stage: str, done: dict[str, Any], **further: Any) -> None:
        done.pop("result", None)
        known = predicted.get(stage)
        ratio = done["measured"] / known if known and not done.get("out_of_memory") else None
        line = {"variant": variant, "stage": stage, **done, "predicted": known, "ratio": ratio and round(ratio, 3)}
        print(json.dumps({**line, "seconds": round(done["seconds"], 2), **further}), flush=True)

    count, quiet = TokenCount(), SilentProgress()
    preservation = None
    if hparams.preserve_weight:
        done = meter.run(lambda: build_preservation(model, prepared, [request], hparams, count=count))
        preservation = done.get("result")
        show("preserve", done)
    rows = hparams.bootstrap_sample_batch_size
    done = meter.run(
        lambda: collect_traces(
            model, prepared, request, hparams, context_role="user", progress=quiet, count=count
        )
    )  # fmt: skip
    scored = meter.run(lambda: score_traces(model, prepared, request, [trace] * SCORED_TOGETHER, causal=True))
    sampling = done["seconds"]
    done["measured"] = max(done["measured"], scored["measured"])
    done["seconds"] += scored["seconds"]
    show("traces", done, sampling_seconds=round(sampling, 2), rows=rows, new_tokens=hparams.bootstrap_max_new_tokens)

    adapted = add_adapter(model, hparams)
    pairs = [(P.trace_prompt(request, causal=True), trace.text)] * hparams.bootstrap_batch_size
    done = meter.run(
        lambda: run_bootstrap(
            adapted, prepared, completion_rows(prepared, pairs), [request], hparams,
            preservation=preservation, progress=quiet, count=count,
        )
    )  # fmt: skip
    show("bootstrap", done, steps=args.steps)
    if hparams.teacher == "bootstrapped":
        add_teacher_snapshot(adapted)
    name = "base" if hparams.teacher == "auto" else hparams.teacher
    study = [StudyPrompt(prompt.text, context, name) for prompt in all_prompts(request, hparams)]
    with Rollouts(meter) as rollouts:
        done = meter.run(
            lambda: run_internalisation(
                adapted, prepared, study, 1, hparams, teacher=name,
                context_role="user", preservation=preservation, progress=quiet, count=count,
            )
        )  # fmt: skip
    done["measured"] = max(done["measured"], getattr(rollouts, "before", 0))
    done["seconds"] -= rollouts.seconds
    rows = hparams.distill_batch_size * hparams.distill_gradient_accumulation_steps
    show("rollouts", {"seconds": rollouts.seconds, "measured": rollouts.highest}, calls=rollouts.calls, rows=rows)
    show("internalise", done, steps=args.steps)
    if "teacher" in adapted.peft_config:
        adapted.delete_adapter("teacher")
    edited = {}
    done = meter.run(lambda: edited.update(it=deliver_adapter(adapted, model, merge=True)))
    edited["it"].undo()
    show("merge", done)


def preserved(hparams: Any) -> int:
    """How many of an edit's trained prompts, the last ones, are preserved questions."""
    return hparams.preserve_prompts if getattr(hparams, "preserve_weight", 0) else 0


def lengths_of(name: str, tokenizer: Any, request: Any, hparams: Any, report: Any) -> Lengths:
    """The longest texts of an edit that was carried out."""

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    pair = zip(*(tokens(render(tokenizer, user(word))) for word in ("a", "b")), strict=True)
    opening = sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], pair))
    teacher = (request.narrative or "", f"{request.ground_truth} {request.target_new}", request.question_form)
    context = len(tokens(render(tokenizer, user("\n\n".join(teacher)))))
    if name == "CaKE":
        texts = [
            (row["input_ids"], sum(row["completion_mask"]))
            for row in rows_of(tokenizer, texts_of(request, hparams), hparams)
        ]
        rows = [(len(ids) - answer, answer) for ids, answer in texts]
    elif name in ("FT", "ICE", "LoRA"):
        made = target_rows(tokenizer, request, hparams.prompt_forms, **hparams.answers)
        rows = [(len(row.prompt), len(row.target)) for row in made]
    else:
        bare = hasattr(hparams, "fact_token")
        own = report.trained_prompts[: -preserved(hparams) or None]
        asked = [text if bare else render(tokenizer, user(text)) for text in own]
        rows = [(len(tokens(text)), len(tokens(f" {request.target_new}"))) for text in asked]
    prompt, answer = (max(column) for column in zip(*rows, strict=True))
    return Lengths(prompt=prompt, opening=opening, context=context, answer=answer)


def measure_whole(args: argparse.Namespace, model: Any, tokenizer: Any, request: Any) -> None:
    """One edit of any method, beside the highest of its planned stages."""
    method = METHODS[args.method]
    hparams = method.load_hparams().from_hparams(args.hparams)
    hparams.model_name, hparams.device = (model, tokenizer), str(model.device)
    few = {
        "steps": 3,
        "max_steps": 3,
        "proximal_steps": 3,
        "v_num_grad_steps": 3,
        "mom2_max_tokens": 4000,
        "mom2_ridge": 1e-3,
    }
    longest = {"context_dropout": 0.0}  # every row reads the story
    for name, value in {**few, **longest, "stats_cache": False}.items():
        if isinstance(getattr(hparams, name, None), int | float) or name == "mom2_max_tokens":
            setattr(hparams, name, value)  # the same passes, fewer of them
    reports: list[Any] = []

    def edit() -> None:
        reports.append(method.load_report()())
        edit_in_place(
            method, model, tokenizer, [request], hparams, report=reports[-1], progress=SilentProgress()
        ).undo()

    beside: dict[str, Any] = {}
    if model.device.type == "cuda":
        method.load_edit()
        prepared = prepare_tokenizer(tokenizer, None, model=model)
    else:  # the first edit of a process also loads code, and makes objects and buffers, that later ones find
        beside["first"] = Meter(model.device).run(edit)["measured"]
        copied = Meter(model.device).run(lambda: prepare_tokenizer(tokenizer, None, model=model))
        prepared = copied["result"]
        beside["tokenizer"] = copied["measured"]
    # the copy that each edit makes of it is no tensor: it is measured apart, as where stages are measured
    tokenizer.__deepcopy__ = lambda _: prepared
    meter = Meter(model.device)
    if meter.gpu:
        meter.base = 0
    done = meter.run(edit)
    done.pop("result", None)
    report = reports[-1]
    lengths = lengths_of(method.name, prepared, request, hparams, report)
    plan = plan_edit(method, hparams, lengths=lengths, gpu=meter.gpu)
    stages = {stage.stage: stage for stage in plan.stages}
    if "preserve" in stages:  # its questions come last, and are shorter than many a method's texts
        asked = [render(prepared, user(text)) for text in report.trained_prompts[-preserved(hparams) :]]
        longest = max(len(prepared(text, add_special_tokens=False)["input_ids"]) for text in asked)
        kept = plan_edit(method, hparams, lengths=dataclasses.replace(lengths, prompt=longest), gpu=meter.gpu)
        stages["preserve"] = kept.stages[0]
    highest = max(stages.values(), key=lambda stage: stage.total(0))
    predicted = highest.total(plan.parameters if meter.gpu else 0)
    print(json.dumps({
        "method": args.method, "stage": highest.stage, "lengths": dataclasses.asdict(lengths), **beside, **done,
        "predicted": predicted, "ratio": round(done["measured"] / predicted, 3),
    }), flush=True)  # fmt: skip


def main() -> None:
    """Parse, load, measure each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(LLAMA), help="folder, or smollm2-135m-instruct")
    parser.add_argument("--tokenizer", help="folder of a tokenizer")
    parser.add_argument("--hparams", help="file or bundled name; by default that of the model's name")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="a network of two layers")
    parser.add_argument("--variants", default="plain,gradient_checkpointing")
    parser.add_argument("--method", default="CausalEdit", help="another one is measured as a whole, not by stages")
    parser.add_argument("--steps", type=positive, default=2, help="optimiser steps of each stage")
    parser.add_argument("--trace-tokens", type=positive, default=320, help="length of a trace that stage 1 trains on")
    parser.add_argument("--trace-new", type=positive, help="length of sampled traces, instead of the file's")
    parser.add_argument(
        "--rollout-new", type=positive, help="length of rollouts, instead of the file's; longer ones may end before it"
    )
    parser.add_argument("--candidates", type=positive, help="candidates sampled at a time, instead of the file's")
    args = parser.parse_args()
    args.hparams = args.hparams or ("smollm2-135m-instruct" if args.tiny else Path(args.model).name)
    case = load_json(ROOT / "data" / "causaledit-mini.json", "data")[0]
    request = requests_from_data(case["requested_rewrite"])[0]
    request = dataclasses.replace(request, ground_truth=request.ground_truth or "it")
    model, tokenizer, config = load(args, json.dumps(case))
    model.requires_grad_(False)
    with torch.no_grad():  # weights of a file are in memory once they have been read
        model(torch.zeros(1, 8, dtype=torch.long, device=model.device))
    if args.method != "CausalEdit":
        measure_whole(args, model, tokenizer, request)
        return
    for variant in args.variants.split(","):
        with seeded(42):
            measure(args, model, tokenizer, config, request, variant)


if __name__ == "__main__":
    run_benchmark(main)
