"""Nudge's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causaledit.methods.hyperparams import BaseHyperParams, setting


@dataclass
class NudgeHyperParams(BaseHyperParams):
    """Which weight is nudged, and how far."""

    ALG_NAME: ClassVar[str] = "Nudge"

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    weight: str = setting("model.layers.1.mlp.down_proj.weight", "Name of the parameter.")
    steps: int = setting(10, "Steps of gradient descent.")
    learning_rate: float = setting(0.5, "Step size.")
