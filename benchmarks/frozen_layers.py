"""What it saves that rows which come again are not read once more through the layers below the adapter.

    python benchmarks/frozen_layers.py --data FILE --hparams smollm2-135m-instruct [--layers 0:30,8:24,17:29]
        [--steps 12] [--rounds 3]

One case's texts are trained on as CaKE's file says, its preservation term included, with the adapter in each of the
ranges of layers; with what is kept of the layers below, and with every row read whole, in turns. Seconds of a step: the
fastest round's.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark
from training_steps import fastest, seconds_per_step

from causaledit.facts.requests import requests_from_data
from causaledit.methods.cake.apply import rows_of
from causaledit.methods.cake.data import texts_of
from causaledit.methods.cake.hparams import CaKEHyperParams
from causaledit.methods.shared.preservation import build_preservation
from causaledit.methods.shared.supervised import Schedule, SupervisedTrainer, run_supervised
from causaledit.methods.shared.trainers import WatchCallback
from causaledit.models.adapters import check_adapter
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.loading import load_model
from causaledit.support.costs import TokenCount
from causaledit.support.files import load_json
from causaledit.support.progress import SilentProgress


class Whole(SupervisedTrainer):
    """Every row through every layer at every step."""

    below = None


def layers(text: str) -> list[list[int]]:
    """`8:24,17:29` → the two ranges."""
    found = [part.split(":") for part in text.split(",")]
    if not all(len(bounds) == 2 and all(bound.isdecimal() for bound in bounds) for bounds in found):
        raise argparse.ArgumentTypeError(f"takes ranges [first, end) such as 8:24,17:29, got {text!r}")
    return [[int(bound) for bound in bounds] for bounds in found]


def measured(model, tokenizer, rows, hparams, held, trainer: type[SupervisedTrainer]) -> float:
    """Train a fresh adapter."""
    schedule = Schedule(hparams.max_steps, hparams.train_batch_size, hparams.learning_rate, "linear", 0, 1.0)
    return seconds_per_step(model, hparams, lambda adapted: run_supervised(
        adapted, tokenizer, rows, schedule, hparams,
        watch=WatchCallback(SilentProgress(), tokens=lambda: 0), stage="train", trainer=trainer,
        mean_by_sequence=True, most_tokens=hparams.micro_batch_tokens, preservation=held, count=TokenCount(),
    ))  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MQuAKE-format JSON with narratives")
    parser.add_argument("--hparams", required=True, help="CaKE's YAML file or bundled name")
    parser.add_argument("--device", help="instead of the hparams' device")
    parser.add_argument("--layers", type=layers, default=layers("0:30,8:24,17:29"), help="ranges [first, end)")
    parser.add_argument("--steps", type=positive, default=12)
    parser.add_argument("--rounds", type=positive, default=3)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)

    hparams = dataclasses.replace(CaKEHyperParams.from_hparams(args.hparams), max_steps=args.steps)
    everywhere = [dataclasses.replace(hparams, lora_layers=bounds) for bounds in args.layers]
    model, tokenizer = load_model(hparams.model_name, device=args.device or hparams.device, dtype=hparams.dtype)
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    model.requires_grad_(False)
    [request, *_] = requests_from_data(load_json(args.data, "--data")[0]["requested_rewrite"])
    for settings in everywhere:
        check_adapter(model, settings, merged=False)
    for bounds, settings in zip(args.layers, everywhere, strict=True):
        rows = rows_of(tokenizer, texts_of(request, settings), settings)
        held = build_preservation(
            model, tokenizer, [request], settings, count=TokenCount(), first_layer=settings.first_layer
        )
        train = functools.partial(measured, model, tokenizer, rows, settings, held)
        ways = {"kept": functools.partial(train, SupervisedTrainer), "whole": functools.partial(train, Whole)}
        kept, whole = fastest(args.rounds, ways).values()
        print(f"layers {bounds[0]} to {bounds[1] - 1}: {kept:.3f} s a step, read whole {whole:.3f} s", end=", ")
        print(f"ratio {kept / whole:.2f}")


if __name__ == "__main__":
    run_benchmark(main)
