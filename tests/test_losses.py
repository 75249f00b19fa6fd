"""The pure loss functions against values worked out by hand or by torch's own KL."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn.functional import kl_div

from causaledit.methods.causal_edit import losses
from causaledit.methods.shared.preservation import bucketed_kl

V = 6


def log_of(*probabilities):
    """Logits `(1, 1, V)` of a distribution given by its (positive) weights."""
    return torch.tensor([[list(probabilities)]], dtype=torch.float64).log()


def full_kl(p_logits, q_logits):
    return kl_div(q_logits.log_softmax(-1), p_logits.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


# ---- union support and token divergence ------------------------------------------------------------
def test_union_counts_an_overlap_once():
    # top-2 of the teacher are tokens 0 and 1, of the student 1 and 2: the union has three tokens, not four
    teacher, student = log_of(50, 30, 10, 5, 3, 2), log_of(5, 40, 45, 4, 3, 3)
    indices, duplicate = losses.union_support(teacher, student, top_k=2)
    counted = indices[~duplicate].tolist()
    assert sorted(counted) == [0, 1, 2]
    assert indices.shape == duplicate.shape == (1, 1, 4)


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "reverse"])
def test_divergence_is_the_kl_on_the_renormalised_union(forward):
    teacher, student = log_of(50, 30, 10, 5, 3, 2), log_of(5, 40, 45, 4, 3, 3)
    t, s = [50 / 90, 30 / 90, 10 / 90], [5 / 90, 40 / 90, 45 / 90]  # tokens 0, 1, 2, renormalised
    p, q = (t, s) if forward else (s, t)
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = losses.token_divergence(teacher, student, top_k=2, forward=forward)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_divergence_of_disjoint_supports():
    # top-1 sets {0} and {1}: both sides live on two tokens, none of them twice
    teacher, student = log_of(90, 10, 1, 1, 1, 1), log_of(20, 80, 1, 1, 1, 1)
    expected = 0.9 * math.log(0.9 / 0.2) + 0.1 * math.log(0.1 / 0.8)
    assert losses.token_divergence(teacher, student, top_k=1).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("top_k", [V, V + 100], ids=["k=V", "k above V"])
def test_divergence_over_the_whole_vocabulary_is_the_full_kl(top_k):
    teacher, student = random_logits(3, 4, V, seed=1), random_logits(3, 4, V, seed=2)
    forward = losses.token_divergence(teacher, student, top_k=top_k)
    reverse = losses.token_divergence(teacher, student, top_k=top_k, forward=False)
    torch.testing.assert_close(forward, full_kl(teacher, student), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reverse, full_kl(student, teacher), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(forward, reverse)


def test_temperature_divides_both_sides():
    teacher, student = random_logits(2, 3, V, seed=3), random_logits(2, 3, V, seed=4)
    warm = losses.token_divergence(teacher, student, top_k=V, temperature=2.5)
    torch.testing.assert_close(warm, full_kl(teacher / 2.5, student / 2.5), atol=1e-5, rtol=1e-5)


def test_equal_sides_have_no_divergence_and_no_gradient():
    logits = random_logits(2, 3, 40, seed=5)
    student = logits.clone().requires_grad_()
    value = losses.token_divergence(logits, student, top_k=4)
    value.sum().backward()
    assert value.abs().max() < 1e-6
    assert student.grad.abs().max() < 1e-6


def test_gradient_reaches_the_student_alone_and_is_that_of_the_kl():
    # the teacher is scored without a graph; its logits must not need one, and the student's gradient is exact
    teacher, student = random_logits(2, 3, V, seed=6), random_logits(2, 3, V, seed=7).requires_grad_()
    losses.token_divergence(teacher, student, top_k=V).sum().backward()
    torch.testing.assert_close(student.grad, student.detach().softmax(-1) - teacher.softmax(-1), atol=1e-5, rtol=1e-5)
    assert teacher.grad is None


def test_no_gradient_outside_the_support():
    teacher, student = log_of(50, 30, 10, 5, 3, 2).float(), log_of(5, 40, 45, 4, 3, 3).float().requires_grad_()
    losses.token_divergence(teacher, student, top_k=2).sum().backward()
    assert student.grad[0, 0, 3:].tolist() == [0, 0, 0]
    assert student.grad[0, 0, :3].abs().min() > 0
    assert torch.isfinite(student.grad).all()  # the masked duplicate must not leave nan behind


# ---- sequence scores and weights -------------------------------------------------------------------
def test_sequence_log_probability_is_the_masked_mean():
    logits = log_of(1, 1, 2, 4, 4, 4).repeat(2, 3, 1)  # p = 1/16, 1/16, 1/8, 1/4, 1/4, 1/4
    tokens = torch.tensor([[0, 2, 3], [3, 4, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    found = losses.sequence_log_probability(logits, tokens, mask)
    expected = [-(4 + 3 + 2) * math.log(2) / 3, -2 * math.log(2)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_sequence_log_probability_of_an_empty_completion_is_zero():
    found = losses.sequence_log_probability(random_logits(1, 2, V), torch.zeros(1, 2, dtype=int), torch.zeros(1, 2))
    assert found.tolist() == [0.0]


def test_weights_are_a_softmax_within_each_group():
    scores = torch.tensor([-1.0, -2.0, -0.5, -3.0, -3.0, -3.0])
    weights = losses.sequence_weights(scores, group_size=3)
    total = sum(math.exp(x) for x in (-1, -2, -0.5))
    assert weights.tolist() == pytest.approx([*(math.exp(x) / total for x in (-1, -2, -0.5)), *[1 / 3] * 3])


def test_dropped_rollouts_get_nothing_and_the_rest_still_sums_to_one():
    scores = torch.tensor([-1.0, -2.0, 5.0, -1.0, -1.0, -1.0])
    keep = torch.tensor([True, True, False, False, False, False])
    weights = losses.sequence_weights(scores, group_size=3, keep=keep)
    first = math.exp(-1) / (math.exp(-1) + math.exp(-2))
    # the best score of group one is dropped, group two is dropped as a whole: zeros, and no nan from an empty softmax
    assert weights.tolist() == pytest.approx([first, 1 - first, 0, 0, 0, 0])


def test_scores_that_fill_no_whole_group_are_refused():
    with pytest.raises(ValueError, match="5 scores cannot be split into groups of 3"):
        losses.sequence_weights(torch.zeros(5), group_size=3)


# ---- repetition filter -----------------------------------------------------------------------------
def keeps(row, *, ngram=3, window=48, threshold=0.15, mask=None):
    tokens = torch.tensor([row])
    return losses.repetition_keep(
        tokens,
        torch.ones_like(tokens) if mask is None else torch.tensor([mask]),
        ngram=ngram,
        window=window,
        threshold=threshold,
    ).item()


def with_repeats(grams, repeats):
    """A row of `grams` bigrams of which exactly so many repeat an earlier one: 0 1 2 … 0 0 0."""
    distinct = grams - repeats
    return [*range(distinct), 0] if repeats == 0 else [*range(distinct), *[distinct - 1] * (repeats + 1)]


@pytest.mark.parametrize(("repeats", "kept"), [(1, True), (2, True), (3, False)], ids=["below", "at", "above"])
def test_filter_drops_only_above_the_threshold(repeats, kept):
    row = with_repeats(10, repeats)
    grams = list(itertools.pairwise(row))
    assert (len(grams), len(grams) - len(set(grams))) == (10, repeats)  # the row is what the case says
    assert keeps(row, ngram=2, threshold=0.2) is kept


def test_filter_looks_at_the_window_alone():
    early, late = [7] * 30 + list(range(100, 148)), list(range(100, 148)) + [7] * 30
    assert keeps(early)  # the loop lies before the last 48 tokens
    assert not keeps(late)
    assert not keeps(early, window=78)


def test_filter_does_not_count_padding():
    row = [*range(20), *[0] * 30]
    assert not keeps(row)
    assert keeps(row, mask=[1] * 20 + [0] * 30)


def test_filter_keeps_what_is_shorter_than_one_ngram():
    assert keeps([5, 5])
    assert keeps([5, 5, 5], mask=[0, 0, 0])


# ---- reduction -------------------------------------------------------------------------------------
def test_weighted_mean_is_the_papers_formula():
    values = torch.tensor([[1.0, 2.0, 100.0], [3.0, 5.0, 7.0]])
    weights = torch.tensor([0.25, 0.75])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    expected = (0.25 * (1 + 2) + 0.75 * (3 + 5 + 7)) / (0.25 * 2 + 0.75 * 3)
    assert losses.weighted_token_mean(values, weights, mask).item() == pytest.approx(expected)


def test_weighted_mean_of_nothing_is_zero_and_still_has_a_graph():
    values = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = losses.weighted_token_mean(values, torch.zeros(1), torch.ones(1, 2))
    loss.backward()
    assert loss.item() == 0
    assert values.grad.tolist() == [[0, 0]]


# ---- the preservation term's KL --------------------------------------------------------------------
def reference(logits, k):
    top = logits.log_softmax(-1).topk(k, dim=-1)
    return top.values, top.indices


def test_bucketed_kl_over_the_whole_vocabulary_is_the_full_kl():
    base, model = random_logits(5, 20, seed=8), random_logits(5, 20, seed=9)
    found = bucketed_kl(*reference(base, 20), model)
    torch.testing.assert_close(found, full_kl(base, model), atol=1e-4, rtol=1e-4)


def test_bucketed_kl_worked_out_by_hand():
    base, model = log_of(40, 30, 10, 10, 5, 5)[0], log_of(10, 20, 10, 20, 20, 20)[0]
    expected = 0.4 * math.log(0.4 / 0.1) + 0.3 * math.log(0.3 / 0.2) + 0.3 * math.log(0.3 / 0.7)
    assert bucketed_kl(*reference(base, 2), model).item() == pytest.approx(expected, abs=1e-5)


def test_bucketed_kl_is_a_lower_bound_that_grows_with_k():
    base, model = random_logits(50, 30, seed=10), random_logits(50, 30, seed=11)
    coarse, fine = (bucketed_kl(*reference(base, k), model) for k in (3, 15))
    full = full_kl(base, model)
    assert (coarse <= fine + 1e-5).all()
    assert (fine <= full + 1e-5).all()
    assert (coarse >= -1e-5).all()
    assert (full - coarse).max() > 1e-3  # the bound is not the thing itself


def test_bucketed_kl_of_the_reference_itself_is_zero():
    logits = random_logits(4, 25, seed=12).requires_grad_()
    value = bucketed_kl(*reference(logits.detach(), 8), logits)
    value.sum().backward()
    assert value.abs().max() < 1e-5
    assert logits.grad.abs().max() < 1e-5
