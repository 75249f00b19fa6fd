"""The in-context loss of ICE as pure tensor functions."""

from __future__ import annotations

import torch


def consistency_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over positions of KL(p(·|[c, q, x*], x<t) ‖ p(·|[q, x*], x<t)): L_ICE of arXiv 2406.11194, section 3.

    The in-context side is the target and gets no gradient.

    Args:
        student: `(positions, vocabulary)` logits without the context.
        teacher: `(positions, vocabulary)` logits behind the context.
    """
    goal = teacher.detach().log_softmax(-1)
    return torch.nn.functional.kl_div(student.log_softmax(-1), goal, log_target=True, reduction="batchmean")


def sampled_consistency_loss(student: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Mean over positions of −log p(x_t | [q, x*], x<t) for x sampled in context.

    Its expected gradient is that of `consistency_loss`: the in-context distribution's entropy does not
    depend on the weights that are trained (the algorithm of arXiv 2406.11194 maximises this likelihood).

    Args:
        student: `(positions, vocabulary)` logits without the context.
        tokens: `(positions,)` sampled token ids.
    """
    return torch.nn.functional.cross_entropy(student, tokens)
