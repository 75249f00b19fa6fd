"""What a sharded model does and refuses, as one of two processes: torchrun sharded_in_processes.py MODEL OUT GPT2."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from conftest import EGYPT, fast_hparams

from causaledit.errors import CausalEditError
from causaledit.methods.causal_edit.apply import apply_causal_edit_to_model
from causaledit.models.generation import generate_texts
from causaledit.models.loading import load_model
from causaledit.models.sharded import reshard
from causaledit.support.progress import SilentProgress
from causaledit.support.seeding import seeded

PROMPT = "What is the capital of Egypt?"


def refusal(model: Any, tokenizer: Any, options: dict[str, Any] | None = None, **changes: Any) -> str:
    """What an edit is refused with."""
    hparams = fast_hparams(model, tokenizer, **{"merge_adapter": False, **changes})
    try:
        apply_causal_edit_to_model(model, tokenizer, [EGYPT], hparams, progress=SilentProgress(), **(options or {}))
    except (CausalEditError, KeyboardInterrupt) as error:
        return str(error)
    return ""


def stop(*_: Any) -> None:
    """End an edit between its stages."""
    raise KeyboardInterrupt("between the stages")


if __name__ == "__main__":
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    model, tokenizer = load_model(sys.argv[1], device="cpu")
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])

    def logits() -> torch.Tensor:
        """The model's, behind a prompt."""
        with torch.no_grad():
            return model(input_ids=ids).logits

    before, modules = logits(), [name for name, _ in model.named_modules()]
    refused = {
        "merged": refusal(model, tokenizer, merge_adapter=True),
        "copied": refusal(model, tokenizer, {"copy": True}),
        "vllm": refusal(model, tokenizer, distill_use_vllm=True),
        "stopped": refusal(model, tokenizer, {"after_stage_1": stop}, bootstrap_max_steps=1),
    }
    try:
        load_model(sys.argv[3], device="cpu")
    except CausalEditError as error:
        refused["without layers"] = str(error)
    reshard(model)
    found = {
        "held": sum(p.to_local().numel() for p in model.parameters()),
        "whole": sum(p.numel() for p in model.parameters()),
        "refused": refused,
        "as_before": torch.equal(logits(), before) and modules == [name for name, _ in model.named_modules()],
        "trainable": sum(p.requires_grad for p in model.parameters()),
    }
    torch.save(before, Path(sys.argv[2]) / f"logits{rank}.pt")

    def disturb(module: Any, inputs: Any, states: torch.Tensor) -> torch.Tensor:
        """What the second process computes is another thing."""
        return states + rank * torch.randn(states.shape, generator=torch.Generator().manual_seed(0))

    model.model.norm.register_forward_hook(disturb)
    with seeded(0):  # as an edit is
        found["said"] = generate_texts(model, tokenizer, [PROMPT] * 2, max_new_tokens=12, temperature=1.0, compact=True)
    (Path(sys.argv[2]) / f"found{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
