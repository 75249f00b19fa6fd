"""A method whose edit of one subject kills its process; in a module, so that other processes can import it."""

from __future__ import annotations

import os
import signal

from causaledit.models.edited import WeightsEdit

DEADLY = "Egypt"


def edit(model, tokenizer, edits, hparams, call):
    """Change nothing; die at the deadly subject."""
    if any(request.subject == DEADLY for request in edits):
        os.kill(os.getpid(), signal.SIGKILL)
    return WeightsEdit(model, {})
