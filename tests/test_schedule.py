"""Schedules: their shape, switch-on points, and that nothing but the clock enters."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgolf.errors import ConfigError
from pgolf.schedule import MomentumRamp, Progress, Schedule, Shape, WarmdownByFraction, WarmdownByIterations

GOLDEN = json.loads((Path(__file__).parent / "data" / "schedule.json").read_text())
LINEAR_3500 = WarmdownByIterations(iterations=3500, shape=Shape.LINEAR, floor=0.0)
SQRT_4000 = WarmdownByIterations(iterations=4000, shape=Shape.SQRT, floor=0.05)
FRACTION_072 = WarmdownByFraction(fraction=0.72, shape=Shape.LINEAR, floor=0.0)


def rows(**changes) -> Schedule:
    ramp = MomentumRamp(start=0.92, end=0.99, steps=1500)
    given = {"warmup_steps": 20, "warmdown": FRACTION_072, "ramp": ramp, "loop_at": 0.35, "qat_below": 0.5}
    return Schedule(**given | changes)


@given(
    st.sampled_from([LINEAR_3500, SQRT_4000, FRACTION_072]),
    st.integers(1, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 20_000),
)
def test_multiplier_stays_in_range_and_never_rises_at_a_steady_speed(warmdown, total, a, b):
    first, second = sorted((min(a, total), min(b, total)))
    early, late = (warmdown.multiplier(Progress(s, float(s), float(total))) for s in (max(first, 1), max(second, 1)))
    assert warmdown.floor <= late <= early <= 1


@given(st.integers(1, 5000), st.integers(1, 6000), st.floats(0.001, 10))
def test_a_clock_at_steady_speed_is_the_step_limited_run(total, step, step_seconds):
    step = min(step, total)
    by_steps = Progress(step, float(step), float(total))
    by_clock = Progress(step, step * step_seconds, total * step_seconds)
    for warmdown in (LINEAR_3500, SQRT_4000, FRACTION_072):
        assert warmdown.multiplier(by_clock) == pytest.approx(warmdown.multiplier(by_steps), rel=1e-6, abs=1e-6)


def test_edges():
    assert LINEAR_3500.multiplier(Progress(0, 0.0, 600.0)) == 1
    assert WarmdownByFraction(fraction=0.0, shape=Shape.LINEAR, floor=0.0).multiplier(Progress(9, 9.0, 10.0)) == 1
    assert SQRT_4000.multiplier(Progress(10, 12.0, 10.0)) == 0.05
    assert math.isclose(FRACTION_072.multiplier(Progress(64, 64.0, 100.0)), 0.5)


def test_momentum_ramp():
    ramp = MomentumRamp(start=0.92, end=0.99, steps=1500)
    assert [ramp.at(s) for s in (0, 1500, 9000)] == [0.92, 0.99, 0.99]
    assert ramp.at(750) == pytest.approx(0.955)
    assert MomentumRamp(start=0.5, end=0.95, steps=0).at(0) == 0.95


def test_switch_on_points():
    schedule = rows()
    assert [schedule.looping(Progress(s, s, 100)) for s in (0, 34, 35, 100)] == [False, False, True, True]
    assert [schedule.qat(Progress(s, s, 100)) for s in (0, 64, 65, 100)] == [False, False, True, True]
    off = rows(loop_at=None, qat_below=None)
    assert not off.looping(Progress(99, 99, 100))
    assert not off.qat(Progress(99, 99, 100))


def test_equal_progress_gives_equal_bits():
    for case in GOLDEN:
        progress = Progress(case["step"], case["elapsed_ms"] / 1000, 588.0)
        assert rows().lr(progress) == rows().lr(progress)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: WarmdownByIterations(iterations=0, shape=Shape.LINEAR, floor=0.0), "schedule.warmdown.iterations"),
        (lambda: WarmdownByFraction(fraction=1.5, shape=Shape.LINEAR, floor=0.0), "schedule.warmdown.fraction"),
        (lambda: WarmdownByFraction(fraction=0.5, shape=Shape.LINEAR, floor=-1.0), "schedule.warmdown.floor"),
        (lambda: MomentumRamp(start=0.9, end=1.0, steps=1), "schedule.ramp.end"),
        (lambda: rows(loop_at=2.0), "schedule.loop_at"),
        (lambda: rows(qat_below=0.0), "schedule.qat_below"),
        (lambda: rows(warmup_steps=-1), "schedule.warmup_steps"),
    ],
)
def test_bad_values_name_their_key(make, key):
    with pytest.raises(ConfigError) as wrong:
        make()
    assert wrong.value.key == key
