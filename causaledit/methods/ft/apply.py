"""FT as a host calls it: AdamW on chosen weights, target tokens only, until the loss is low."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.call import host_call
from causaledit.methods.ft import METHOD
from causaledit.methods.ft.objectives import last_position_losses
from causaledit.methods.shared.finetune.descent import train
from causaledit.methods.shared.finetune.rows import (
    check_window,
    prompt_texts,
    target_batches,
    target_losses,
    target_rows,
)
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.edited import WeightsEdit
from causaledit.models.layout import select_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.ft.hparams import FTHyperParams
    from causaledit.models.edited import Edited


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: FTHyperParams,
    call: Call,
) -> Edited:
    """Minimise −log p(new answer | prompt) over chosen weights W, with ‖W − W₀‖∞ ≤ ε where ε is given.

    Source: the fine-tuning baselines FT and FT+L of ROME (arXiv 2202.05262, section 3.1 and appendix E.1). All target
    tokens are trained on, each after those before it, or with `prompt_last` at the prompt's last position.
    """
    names = select_weights(model, hparams.layers, hparams.modules)
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    at_once = hparams.objective_optimization == "prompt_last"  # an answer would begin with the token that ends it too
    answers = hparams.answers
    if at_once:
        answers["ends"] = False
    rows = [row for request in edits for row in target_rows(tokenizer, request, hparams.prompt_forms, **answers)]
    check_window(model, rows)
    call.report.trained_prompts = prompt_texts(edits, hparams.prompt_forms)
    losses = last_position_losses if at_once else target_losses
    originals, tally = call.rewriting(model, names), call.report.tally
    with tally.timed("train"):
        train(
            [model.get_parameter(name) for name in names],
            lambda _: target_batches(model, rows, hparams.micro_batch_size, tally.tokens, losses),
            hparams,
            call,
            norm_constraint=hparams.norm_constraint,
        )
    return WeightsEdit(model, originals)


apply_ft_to_model = host_call(METHOD)
