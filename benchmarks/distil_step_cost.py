"""What a step of StoryDistill costs against the same step of plain supervised training.

    python benchmarks/distil_step_cost.py --data FILE --hparams smollm2-135m-instruct [--steps 6] [--rounds 3]

One case's rows are trained with the file's loss (KL to stored targets beside cross-entropy, the story kept as often as
`context_dropout` says) and with cross-entropy alone on the same rows without stories, in turns; both with the
preservation term, and both without. Seconds of a step: the fastest round's. Storing the targets is given apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark
from training_steps import fastest, seconds_per_step

from causaledit.facts.requests import requests_from_data
from causaledit.methods.shared.preservation import build_preservation
from causaledit.methods.shared.questions import QuestionPool
from causaledit.methods.story_distill.distil import run_distillation
from causaledit.methods.story_distill.hparams import StoryDistillHyperParams
from causaledit.methods.story_distill.prompts import teacher_context
from causaledit.methods.story_distill.targets import rows_of, teacher_logits, written_targets
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.loading import load_model
from causaledit.support.costs import TokenCount
from causaledit.support.files import load_json
from causaledit.support.progress import SilentProgress


def measured(model, tokenizer, rows, preservation, teacher, hparams) -> float:
    """Train a fresh adapter."""
    return seconds_per_step(model, hparams, lambda adapted: run_distillation(
        adapted, tokenizer, rows, teacher, 1, hparams,
        preservation=preservation, progress=SilentProgress(), count=TokenCount(),
    ))  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MQuAKE-format JSON with narratives")
    parser.add_argument("--hparams", required=True, help="YAML file or bundled name")
    parser.add_argument("--device", help="instead of the hparams' device")
    parser.add_argument("--steps", type=positive, default=6)
    parser.add_argument("--rounds", type=positive, default=3)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)

    hparams = StoryDistillHyperParams.from_hparams(args.hparams)
    hparams = dataclasses.replace(hparams, max_steps=args.steps, target_source="given")
    plain = dataclasses.replace(hparams, kl_weight=0.0, answer_weight=1.0, context_dropout=1.0)
    model, tokenizer = load_model(hparams.model_name, device=args.device or hparams.device, dtype=hparams.dtype)
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    model.requires_grad_(False)
    [request, *_] = requests = requests_from_data(load_json(args.data, "--data")[0]["requested_rewrite"])[:1]
    context = teacher_context(request, state_answer=hparams.state_answer)
    questions, _ = QuestionPool(hparams, requests, single_hop=hparams.single_hop_questions).of(request)
    targets, _ = written_targets(0, request, questions, hparams)
    rows = rows_of(tokenizer, targets, [context], hparams.max_sequence_tokens)
    began = time.perf_counter()
    teacher = teacher_logits(model, rows)
    print(f"{len(rows)} rows; storing their targets: {time.perf_counter() - began:.2f} s")
    held = build_preservation(model, tokenizer, requests, hparams, count=TokenCount())
    for preservation in (None, held) if held is not None else (None,):
        train = functools.partial(measured, model, tokenizer, rows, preservation)
        best = fastest(
            args.rounds,
            {"distil": functools.partial(train, teacher, hparams), "plain": functools.partial(train, None, plain)},
        )
        print(
            f"{'with' if preservation else 'without'} preservation: distillation {best['distil']:.3f} s a step, plain "
            f"{best['plain']:.3f} s, ratio {best['distil'] / best['plain']:.2f}"
        )


if __name__ == "__main__":
    run_benchmark(main)
