"""The losses of stage 2 as pure tensor functions (arXiv 2605.28303, causal internalisation).

Shapes: B rollouts, T completion tokens, V vocabulary. Masks are 1 for tokens that count.
"""

from __future__ import annotations

import torch


def union_support(
    teacher_logits: torch.Tensor, student_logits: torch.Tensor, *, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the union of both sides' top-k tokens.

    Args:
        teacher_logits: `(B, T, V)`.
        student_logits: `(B, T, V)`.
        top_k: Size of each side's set (capped at V).

    Returns:
        `indices (B, T, 2k)`: the teacher's top-k, then the student's; `duplicate (B, T, 2k)`: True where a
        student's index is already among the teacher's and must not count twice.
    """
    k = min(top_k, teacher_logits.shape[-1])
    teacher_top = teacher_logits.topk(k, dim=-1).indices
    student_top = student_logits.topk(k, dim=-1).indices
    repeated = (student_top.unsqueeze(-1) == teacher_top.unsqueeze(-2)).any(-1)
    duplicate = torch.cat([torch.zeros_like(repeated), repeated], dim=-1)
    return torch.cat([teacher_top, student_top], dim=-1), duplicate


def token_divergence(
    teacher_logits: torch.Tensor,
    student_logits: torch.Tensor,
    *,
    top_k: int,
    forward: bool = True,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL per token over the union of both top-k sets, both sides renormalised on it.

    Args:
        teacher_logits: `(B, T, V)`, no gradient needed.
        student_logits: `(B, T, V)`.
        top_k: Size of each side's set (paper: 24).
        forward: KL(teacher‖student); False gives KL(student‖teacher), the ablation.
        temperature: Divides both logits (paper: 1).

    Returns:
        `(B, T)`, each entry at least 0 up to rounding.
    """
    indices, duplicate = union_support(teacher_logits, student_logits.detach(), top_k=top_k)

    def on_support(logits: torch.Tensor) -> torch.Tensor:
        chosen = (logits.gather(-1, indices).float() / temperature).masked_fill(duplicate, float("-inf"))
        return chosen.log_softmax(-1)

    teacher, student = on_support(teacher_logits), on_support(student_logits)
    p, q = (teacher, student) if forward else (student, teacher)
    difference = (p - q).masked_fill(duplicate, 0.0)  # -inf minus -inf is not a number
    return (p.exp() * difference).sum(-1)


def sequence_log_probability(logits: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean log-probability of each completion.

    Args:
        logits: `(B, T, V)`, row t predicts token t.
        tokens: `(B, T)`.
        mask: `(B, T)`.

    Returns:
        `(B,)`; 0 for a completion without tokens.
    """
    logits = logits.float()
    picked = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    return (picked * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def sequence_weights(scores: torch.Tensor, *, group_size: int, keep: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax of the teacher's scores within each prompt's group: plausible rollouts count more.

    Args:
        scores: `(B,)` mean log-probabilities under the teacher; rows of a group stand together.
        group_size: Rollouts per prompt (paper: 9); B is a multiple of it.
        keep: `(B,)` booleans; dropped rollouts get weight 0 and do not enter the softmax.

    Returns:
        `(B,)` weights; those of a group sum to 1 (to 0 where the whole group is dropped).
    """
    if scores.shape[0] % group_size:
        raise ValueError(f"{scores.shape[0]} scores cannot be split into groups of {group_size}.")
    grouped = scores.float().view(-1, group_size)
    if keep is not None:
        grouped = grouped.masked_fill(~keep.view(-1, group_size), float("-inf"))
    return grouped.softmax(-1).nan_to_num(0.0).view(-1)


def repetition_keep(
    tokens: torch.Tensor, mask: torch.Tensor, *, ngram: int, window: int, threshold: float
) -> torch.Tensor:
    """Which rollouts pass the repetition filter.

    A rollout is dropped when more than `threshold` of the n-grams in its last `window` tokens are
    repeats of an earlier one there.

    Args:
        tokens: `(B, T)` completion ids.
        mask: `(B, T)`.

    Returns:
        `(B,)` booleans.
    """
    keep = []
    for row, valid in zip(tokens.tolist(), mask.bool().tolist(), strict=True):
        tail = [token for token, counts in zip(row, valid, strict=True) if counts][-window:]
        grams = [tuple(tail[i : i + ngram]) for i in range(len(tail) - ngram + 1)]
        repeats = len(grams) - len(set(grams))
        keep.append(not grams or repeats / len(grams) <= threshold)
    return torch.tensor(keep, device=tokens.device)


def weighted_token_mean(values: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Σ(value·w·mask) / Σ(w·mask) over all tokens.

    Args:
        values: `(B, T)`.
        weights: `(B,)`.
        mask: `(B, T)`.

    Returns:
        A scalar; 0, still attached to the graph of `values`, where nothing counts.
    """
    share = weights.unsqueeze(-1) * mask
    return (values * share).sum() / share.sum().clamp(min=1e-8)
