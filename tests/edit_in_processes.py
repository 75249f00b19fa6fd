"""One CausalEdit edit of a tiny model as one of several processes; each writes its losses, weights and adapter.

accelerate launch --num_processes N edit_in_processes.py OUT_FOLDER BATCH ACCUMULATION [MODEL_FOLDER]

With a model's folder its adapter is not merged, and what each process holds of the model is written too.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from conftest import EGYPT, fast_hparams, make_llama, make_tokenizer

from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.models.loading import load_model
from causaledit.models.sharded import reshard
from causaledit.support.progress import SilentProgress

if __name__ == "__main__":
    folder, batch, accumulation, *path = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
    torch.set_num_threads(1)
    model, tokenizer = load_model(path[0], device="cpu") if path else (make_llama(), make_tokenizer())
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
        preserve_weight=0.5,
        preserve_prompts=4,
        preserve_batch_size=8,  # all of them: with accumulation one process would go on to the next ones
        preserve_max_new_tokens=2,
        merge_adapter=not path,
    )  # fmt: skip
    report = EditReport()
    edited, _ = apply_causal_edit_to_model(
        model, tokenizer, [EGYPT], hparams, progress=SilentProgress(), report=report
    )  # fmt: skip
    rank = os.environ.get("RANK", "0")
    if path:
        reshard(model)
        held = sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters())
        print("HELD", rank, held, sum(p.numel() for p in model.parameters()))
        edited.save_pretrained(folder / f"adapter{rank}")
        torch.save({n: m.get_delta_weight("default").detach() for n, m in edited.named_modules() if hasattr(m, "get_delta_weight")}, folder / f"weights{rank}.pt")
    else:
        torch.save({n: p.detach() for n, p in edited.named_parameters()}, folder / f"weights{rank}.pt")
    (folder / f"losses{rank}.json").write_text(json.dumps(report.losses))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
