"""Statistics: against scipy's tests and against figures worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from pgolf.results import stats
from pgolf.results.stats import Sample, sample
from pgolf.stages.views import digits

PR606 = [1.11550587, 1.11628915, 1.11666477]
values = st.lists(st.floats(1.0, 1.3).map(lambda x: round(x, 8)), min_size=2, max_size=8)


def test_mean_and_std_by_hand():
    assert stats.mean([1, 2, 6]) == 3.0
    assert stats.std([1, 2, 3]) == 1.0
    assert stats.std([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx(math.sqrt(32 / 7))
    assert stats.std([1.0]) is None


def test_published_seeds_give_the_published_mean_and_std():
    found = sample(PR606)
    assert round(found.mean, 4) == 1.1162
    assert round(found.std, 4) == 0.0006


@given(values, values)
def test_welch_agrees_with_scipy(a, b):
    a, b = sample(a), sample(b)
    found = stats.welch(a, b)
    if found.t is None:
        assert a.std == b.std == 0
        return
    expected = scipy_stats.ttest_ind_from_stats(a.mean, a.std, a.n, b.mean, b.std, b.n, equal_var=False)
    assert found.t == pytest.approx(expected.statistic, rel=1e-9, abs=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)


def test_interval_agrees_with_scipy():
    other = [1.1170, 1.1176, 1.1176, 1.1181]
    found = stats.welch(sample(PR606), sample(other))
    expected = scipy_stats.ttest_ind(PR606, other, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (found.t, found.df, found.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_welch_by_hand():
    found = stats.welch(sample([1, 2, 3]), sample([4, 5, 6]))
    assert (found.difference, found.df) == (-3, pytest.approx(4))
    assert found.t == pytest.approx(-3 / math.sqrt(2 / 3))
    assert found.p == pytest.approx(0.0213, abs=1e-4)


def test_one_sample_agrees_with_scipy():
    expected = scipy_stats.ttest_1samp(PR606, 1.12)
    found = stats.one_sample(sample(PR606), 1.12)
    assert (found.t, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    less = scipy_stats.ttest_1samp(PR606, 1.12, alternative="less")
    assert stats.below(found) == pytest.approx(less.pvalue)


@pytest.mark.parametrize(("n", "margin"), [(3, 0.00241), (5, 0.00101)])
def test_margin_that_median_seed_noise_asks_for(n, margin):
    """One-sided, one-sample, std .0006: 3 seeds need .0024 bpb, 5 seeds .0010."""
    enough = stats.below(stats.one_sample(Sample(n, 1.1 - margin - 1e-5, 0.0006), 1.1))
    short = stats.below(stats.one_sample(Sample(n, 1.1 - margin + 1e-4, 0.0006), 1.1))
    assert enough < 0.01 < short


def test_nothing_varies_means_no_test():
    found = stats.welch(Sample(2, 1.1, 0.0), Sample(2, 1.2, 0.0))
    assert found.p is None
    assert (found.low, found.high) == (found.difference, found.difference)


@given(st.floats(1e-4, 0.02), st.floats(1e-4, 2e-3), st.floats(1e-4, 2e-3))
def test_seeds_needed_is_the_smallest_number_that_passes(difference, std_a, std_b):
    n = stats.seeds_needed(difference, std_a, std_b)

    def p(k):
        return stats.welch(Sample(k, 1 + difference, std_a), Sample(k, 1, std_b)).p

    if n is None:
        assert p(stats.MOST_SEEDS) >= 0.01
    else:
        assert p(n) < 0.01 * (1 + 1e-9)
        assert n == 2 or p(n - 1) >= 0.01 * (1 - 1e-9)


def test_seeds_needed_by_example():
    assert stats.seeds_needed(0.0010, 0.0006, 0.0006) == 7
    assert stats.seeds_needed(0.0100, 0.0006, 0.0006) == 2
    assert stats.seeds_needed(0.0, 0.0006, 0.0006) is None
    assert stats.seeds_needed(-0.01, 0.0, 0.0) == 2


def test_nats_per_bpb_is_a_constant_of_the_stream():
    tokens, size = 62_021_632, 151_080_000
    loss = 1.9
    bpb = loss / math.log(2) * tokens / size
    assert stats.nats_per_bpb(loss, bpb) == pytest.approx(math.log(2) * size / tokens)
    assert stats.nats_per_bpb(1.88347869, 1.11550587) == pytest.approx(1.6885, abs=1e-4)


def test_claim_decides_per_token_in_nats():
    """.004 bpb on SP1024 is .0068 nats per token: over the bar there, under it in the other two readings."""
    ours, baseline = Sample(5, 1.1160, 0.0002), Sample(3, 1.1200, 0.0002)
    found = stats.claim(ours, baseline, 1.6885)
    assert [r.unit for r in found.readings] == ["nats per token", "bits per byte", "nats per byte"]
    assert [r.met for r in found.readings] == [True, False, False]
    assert [round(r.bar, 5) for r in found.readings] == [0.00296, 0.005, 0.00721]
    assert found.readings[0].gain == pytest.approx(0.004 * 1.6885)
    assert found.met


def test_claim_needs_both_tests_where_the_baseline_has_seeds():
    ours = Sample(3, 1.1160, 0.00005)
    assert stats.claim(ours, Sample(1, 1.1200, None), 1.6885).met
    assert not stats.claim(ours, Sample(2, 1.1200, 0.0010), 1.6885).met


def test_one_result_claims_nothing():
    assert not stats.claim(Sample(1, 0.9, None), Sample(1, 1.2, None), 1.6885).met


def test_one_spelling():
    assert digits(1.1) == "1.10000000"
    assert digits(stats.rounded(1.123456785)) == digits(1.123456785)
