"""One CausalEdit edit of a tiny model as one of several processes; each writes its losses and a sum of its weights.

accelerate launch --num_processes N edit_in_processes.py OUT_FOLDER BATCH ACCUMULATION
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from conftest import EGYPT, fast_hparams, make_llama, make_tokenizer

from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.support.progress import SilentProgress

if __name__ == "__main__":
    folder, batch, accumulation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    model, tokenizer = make_llama(), make_tokenizer()
    hparams = fast_hparams(
        model, tokenizer,
        bootstrap_batch_size=batch,
        bootstrap_max_steps=3,  # of 14 rows: a fourth batch would be short, and two processes fill it up with others
        bootstrap_micro_batch_tokens=160,
        distill_batch_size=4,
        distill_gradient_accumulation_steps=accumulation,
        distill_steps_base=2,
        distill_top_p=1e-6,  # rollouts are the likeliest tokens, so that they do not hang on a process's generator
        distill_repetition_threshold=1.0,  # … and likeliest tokens repeat themselves
        lora_init="contrast",
        preserve_weight=0.5,
        preserve_prompts=4,
        preserve_batch_size=8,  # all of them: with accumulation one process would go on to the next ones
        preserve_max_new_tokens=2,
    )  # fmt: skip
    report = EditReport()
    edited, _ = apply_causal_edit_to_model(
        model, tokenizer, [EGYPT], hparams, progress=SilentProgress(), report=report
    )  # fmt: skip
    rank = os.environ.get("RANK", "0")
    torch.save({n: p.detach() for n, p in edited.named_parameters()}, folder / f"weights{rank}.pt")
    (folder / f"losses{rank}.json").write_text(json.dumps(report.losses))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
