"""Methods that kill their process, or leave something behind; in a module, so that other processes can import them."""

from __future__ import annotations

import os
import signal

import torch

from causaledit.models.edited import WeightsEdit

DEADLY = "Egypt"


def edit(model, tokenizer, edits, hparams, call):
    """Change nothing; die at the deadly subject."""
    if any(request.subject == DEADLY for request in edits):
        os.kill(os.getpid(), signal.SIGKILL)
    return WeightsEdit(model, {})


def careless(model, tokenizer, edits, hparams, call):
    """Change a weight, and say nothing of it."""
    with torch.no_grad():
        next(model.parameters()).add_(0.5)
    return WeightsEdit(model, {})


def hooked(model, tokenizer, edits, hparams, call):
    """Leave a hook behind, when the edit is undone too."""

    class Hooked(WeightsEdit):
        def settle(self):
            self.plain.register_forward_hook(lambda *_: None)

    return Hooked(model, {})
