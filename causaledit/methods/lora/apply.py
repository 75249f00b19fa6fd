"""LoRA as a host calls it: an adapter trained on target tokens, then merged."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from causaledit.methods.call import host_call
from causaledit.methods.lora import METHOD
from causaledit.methods.lora.adapter import adapter_config, adaptive_training
from causaledit.methods.shared.contrast import begin_in_contrast
from causaledit.methods.shared.delivery import deliver
from causaledit.methods.shared.finetune.descent import train
from causaledit.methods.shared.finetune.rows import check_window, prompt_texts, target_batches, target_rows, texts_of
from causaledit.methods.shared.preservation import build_preservation, preserved_questions
from causaledit.methods.shared.rehearsal import TrainedRow, remember
from causaledit.methods.shared.trainers import PRESERVATION
from causaledit.models.adapters import add_adapter, check_adapter
from causaledit.models.chat import prepare_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.lora.hparams import LoRAHyperParams
    from causaledit.models.edited import Edited


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: LoRAHyperParams,
    call: Call,
) -> Edited:
    """Minimise −log p(new answer | prompt) over a low-rank update ΔW = (α/r)·B·A (LoRA, arXiv 2106.09685, eq. 3).

    With `lora_type: adalora` the update is P·Λ·Q with a budget of rank (AdaLoRA, arXiv 2303.10512); see `adapter`.
    """
    config = adapter_config(model, hparams)
    check_adapter(model, hparams, config, merged=hparams.merge_adapter or call.sequence is not None)
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    by_edit = [target_rows(tokenizer, request, hparams.prompt_forms, **hparams.answers) for request in edits]
    rows = [row for found in by_edit for row in found]
    check_window(model, rows)
    call.report.trained_prompts = prompt_texts(edits, hparams.prompt_forms)
    tally = call.report.tally
    with tally.timed("preserve"):
        preservation = build_preservation(model, tokenizer, edits, hparams, count=tally.tokens, sequence=call.sequence)
    call.report.trained_prompts += preserved_questions(preservation)
    with tally.timed("train"):
        peft_model = add_adapter(model, hparams, config)
        begin_in_contrast(peft_model, tokenizer, rows, edits, hparams, preservation=preservation, count=tally.tokens)
        peft_model.train()  # dropout
        further = adaptive_training(peft_model)
        if preservation is not None:
            held = {PRESERVATION: functools.partial(preservation.next_loss, peft_model)}
            further["penalties"] = further.get("penalties", {}) | held
        train(
            [p for p in peft_model.parameters() if p.requires_grad],
            lambda _: target_batches(peft_model, rows, hparams.micro_batch_size, tally.tokens),
            hparams,
            call,
            **further,
        )
    edited = deliver(peft_model, model, tokenizer, edits, hparams, call)
    trained = [
        [TrainedRow(text, *row) for text, row in zip(texts_of(request, hparams.prompt_forms), found, strict=True)]
        for request, found in zip(edits, by_edit, strict=True)
    ]
    remember(call.sequence, hparams, edits, trained)
    return edited


apply_lora_to_model = host_call(METHOD)
