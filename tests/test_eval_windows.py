"""The closed-form window plan against a plain list of windows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.errors import ConfigError
from pgolf.eval import Chunked, Sliding
from pgolf.eval.windows import SlidingPlan
from pgolf.machine.share import share


@st.composite
def plans(draw) -> SlidingPlan:
    context = draw(st.integers(1, 40))
    return SlidingPlan(draw(st.integers(1, 400)), context, draw(st.integers(1, context)), draw(st.integers(1, 500)))


def listed(plan: SlidingPlan) -> list[tuple[int, range]]:
    """(start, scored targets) of every window, the slow way."""
    N, T, stride = plan.targets, plan.context, plan.stride
    windows = [(0, range(0, min(T, N)))]
    start = stride
    while start + T - stride < N:
        windows.append((start, range(start + T - stride, min(start + T, N))))
        start += stride
    return windows


@given(plans())
def test_the_plan_is_the_list(plan):
    windows = listed(plan)
    assert plan.count == len(windows)
    assert [plan.first(k) for k in range(plan.count + 1)] == [w[0] for _, w in windows] + [plan.targets]
    for chunk in range(plan.chunks):
        mine = [k for k, (_, scored) in enumerate(windows) if scored[0] // plan.chunk == chunk]
        lo, hi = plan.windows_of(chunk)
        assert list(range(lo, hi)) == mine
        assert plan.spans(chunk)[0][1] >= min((chunk + 1) * plan.chunk, plan.targets)


@settings(max_examples=200)
@given(plans(), st.integers(1, 9), st.integers(1, 40))
def test_each_target_is_scored_once_whatever_the_ranks_and_batches(plan, size, batch_windows):
    scored = []
    for chunk in range(plan.chunks):
        for rank in range(size):
            for batch in plan.batches(chunk, rank, size, batch_windows):
                assert 0 < batch.hi - batch.lo <= batch_windows
                positions = (batch.hi - batch.lo) * batch.last
                # Only the text's very end may be cut off, so scores and targets line up without a mask.
                assert batch.end - batch.first == positions or batch.end == plan.targets
                assert batch.end - batch.first <= positions
                start = batch.lo * plan.stride + plan.context - batch.last
                assert start == batch.first
                scored += range(batch.first, batch.end)
    assert scored == list(range(plan.targets))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9))
def test_shares_are_contiguous_and_even(lo, n, size):
    parts = [share(lo, lo + n, rank, size) for rank in range(size)]
    assert [i for a, b in parts for i in range(a, b)] == list(range(lo, lo + n))
    assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1


def test_a_record_sized_plan_is_counted_not_listed():
    plan = SlidingPlan(62_021_632, 2048, 32, 131_072)
    assert (plan.count, plan.chunks) == (1 + (62_021_632 - 2048) // 32, 474)
    assert sum(hi - lo for lo, hi in map(plan.windows_of, range(plan.chunks))) == plan.count


def test_chunked_is_a_stride_of_one_context():
    assert Chunked(context=8, batch_windows=2).plan(30, 10) == Sliding(context=8, stride=8, batch_windows=2).plan(
        30, 10
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(stride=65), r"eval.stride=65: must be between 1 and eval.context \(64\)"),
        (dict(stride=0), "eval.stride=0"),
        (dict(context=1, stride=1), "eval.context=1: must be at least 2"),
        (dict(batch_windows=0), "eval.batch_windows=0"),
    ],
)
def test_impossible_windows_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Sliding(**dict(context=64, stride=16, batch_windows=4) | changes)
