"""Intervals and tests against figures worked out by hand or by their defining formula."""

from __future__ import annotations

import math
import random

import pytest

from causaledit.support.statistics import Mean, PairedTable, Rate, bootstrap_mean, mcnemar_exact, wilson


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (3, 10), (10, 10), (1, 57), (950, 1000)])
def test_wilson_is_its_formula(hits, total):
    z, p = 1.959963984540054, hits / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    low, high = wilson(hits, total)
    assert low == pytest.approx(max(0, centre - half), abs=1e-9)
    assert high == pytest.approx(min(1, centre + half), abs=1e-9)
    assert 0 <= low <= p <= high <= 1


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 1), (10, 10), (0, 8), (30, 12)])
def test_mcnemar_is_the_binomial_tail(b, c):
    n, k = b + c, min(b, c)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_bootstrap_is_seeded_and_near_the_normal_interval():
    rng = random.Random(3)
    values = [rng.random() for _ in range(400)]
    low, high = bootstrap_mean(values)
    assert (low, high) == bootstrap_mean(values)
    assert (low, high) != bootstrap_mean(values, seed=1)
    mean = sum(values) / 400
    half = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values) / 400 / 400)
    assert low == pytest.approx(mean - half, abs=0.004)
    assert high == pytest.approx(mean + half, abs=0.004)


def test_nothing_divides_by_zero():
    assert wilson(0, 0) is None
    assert bootstrap_mean([]) is None
    assert bootstrap_mean([0.4]) is None
    empty = {"rate": None, "hits": 0, "total": 0, "not_judged": 0, "interval": None}
    assert Rate.of([]).to_dict() == empty
    assert Rate.of([None, None]).to_dict() == {**empty, "not_judged": 2}
    assert Mean(()).to_dict()["rate"] is None
    assert PairedTable.of([]).to_dict()["p"] is None


def test_no_spread_is_not_certainty():
    assert bootstrap_mean([0.0] * 10) == wilson(0, 10)
    assert bootstrap_mean([1.0] * 10) == wilson(10, 10)
    assert bootstrap_mean([0.5] * 10) == (0.5, 0.5)


def test_rate_counts_none_apart():
    rate = Rate.of([True, None, False, True])
    assert (rate.hits, rate.total, rate.not_judged, rate.rate) == (2, 3, 1, pytest.approx(2 / 3))


def test_paired_table_knows_what_is_good():
    pairs = [(True, True), (True, False), (True, False), (False, True), (False, False), (None, True)]
    good = PairedTable.of(pairs)
    assert (good.both, good.only_this, good.only_other, good.neither, good.not_judged, good.n) == (1, 2, 1, 1, 1, 5)
    assert (good.repaired, good.harmed) == (2, 1)
    bad = PairedTable.of(pairs, yes_is_good=False)
    assert (bad.repaired, bad.harmed) == (1, 2)
    assert good.p == bad.p == mcnemar_exact(2, 1)
