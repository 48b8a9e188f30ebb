"""Codecs: what goes in comes out, floats and integers; sizes near entropy; a damaged stream is an ArtifactError."""

import doctest
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.codec import Brotli, Codec, Lzma, Range, RangeRows, Zstd, decode, ranged, rows, streams
from pgolf.errors import ArtifactError, ConfigError
from pgolf.files.frozen import thaw

CONF = Path(__file__).parent.parent / "conf" / "codec"
FAST = [
    Zstd(level=3, shuffle=True),
    Zstd(level=3, shuffle=False),
    Brotli(quality=4, shuffle=True),
    Brotli(quality=4, shuffle=False),
    Lzma(preset=1, extreme=False, shuffle=True),
    Range(),
    RangeRows(small=Zstd(level=3, shuffle=True), small_below=0),
]
BOMB = bytes(50_000_000)


def symbols(c: int, sigma: float, n: int = 300_000) -> np.ndarray:
    return np.clip(np.round(np.random.default_rng(0).normal(0, sigma, n)), -c, c).astype(np.int8)


@pytest.mark.parametrize("module", [streams, ranged, rows])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("codec", FAST, ids=lambda c: c.name)
@settings(max_examples=60)
@given(st.binary(max_size=400), st.sampled_from([1, 2, 4]))
def test_round_trip(codec, raw, itemsize):
    raw = raw[: len(raw) // itemsize * itemsize]
    data = codec.encode(raw, itemsize)
    assert data == codec.encode(raw, itemsize)
    assert codec.decode(data, len(raw), itemsize) == raw


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_options_reach_the_entropy_of_symbols_and_squeeze_floats(path):
    codec = thaw(yaml.safe_load(path.read_text()), Codec)
    q = symbols(31, 6.0)
    p = np.bincount(q.astype(int) + 31) / q.size
    bits = -(p[p > 0] * np.log2(p[p > 0])).sum()
    data = codec.encode(q.tobytes(), 1)
    assert decode(codec.name, data, q.size, 1) == q.tobytes()
    assert 1 <= len(data) * 8 / q.size / bits <= codec.over_entropy + 0.01
    halves = np.random.default_rng(1).normal(0, 0.02, 20_000).astype("<f2").tobytes()
    assert codec.decode(codec.encode(halves, 2), len(halves), 2) == halves
    assert len(codec.encode(halves, 2)) < 0.93 * len(halves)


def test_range_coder_costs_next_to_nothing_over_entropy():
    q = symbols(15, 15 / 4)
    p = np.bincount(q.astype(int) + 15) / q.size
    bits = -(p[p > 0] * np.log2(p[p > 0])).sum()
    assert len(Range().encode(q.tobytes(), 1)) * 8 / q.size / bits < 1.001


ROWS = RangeRows(small=Brotli(quality=4, shuffle=True), small_below=100)


@settings(max_examples=150)
@given(st.binary(max_size=600), st.sampled_from([1, 2, 4]), st.integers(0, 40), st.booleans())
def test_rows_of_any_length_survive(raw, itemsize, columns, like):
    raw = raw[: len(raw) // itemsize * itemsize] * (4 if like else 1)
    data = ROWS.encode(raw, itemsize, columns)
    assert ROWS.decode(data, len(raw), itemsize) == raw
    assert data == ROWS.encode(raw, itemsize, columns)


@pytest.mark.parametrize("kind", ["spread rows", "spread columns", "like rows"])
def test_rows_that_differ_or_resemble_cost_less_than_their_common_histogram(kind):
    rng = np.random.default_rng(0)
    q = rng.normal(0, 1, (256, 192)) * np.where(np.arange(256) % 2, 2, 12)[:, None]
    if kind == "spread columns":
        q = q.T
    if kind == "like rows":
        q = rng.normal(0, 20, 192) + rng.normal(0, 2, (256, 192))
    raw = q.round().clip(-127, 127).astype(np.int8)
    plain, grouped = Range().encode(raw.tobytes(), 1), ROWS.encode(raw.tobytes(), 1, raw.shape[1])
    assert len(grouped) < 0.93 * len(plain)
    assert ROWS.decode(grouped, raw.size, 1) == raw.tobytes()


def test_rows_that_are_all_alike_cost_what_one_histogram_does():
    q = symbols(31, 6.0)
    plain, grouped = Range().encode(q.tobytes(), 1), ROWS.encode(q.tobytes(), 1, 300)
    assert len(grouped) < 1.001 * len(plain)


def test_short_streams_may_go_another_way():
    assert [type(c).__name__ for c in ROWS.candidates(100)] == ["RangeRows", "Brotli"]
    assert [type(c).__name__ for c in ROWS.candidates(101)] == ["RangeRows"]


@pytest.mark.parametrize("codec", FAST, ids=lambda c: c.name)
def test_a_bomb_does_not_go_off(codec):
    """50 MB of zeros in a few bytes, announced as 1000: refused after 1001 bytes."""
    with pytest.raises(ArtifactError):
        codec.decode(codec.encode(BOMB, 1), 1000, 1)


@pytest.mark.parametrize("codec", FAST, ids=lambda c: c.name)
def test_too_little_is_refused(codec):
    with pytest.raises(ArtifactError, match=r"raw length|data"):
        codec.decode(codec.encode(b"abcd" * 100, 1), 401, 1)


@pytest.mark.parametrize("codec", FAST, ids=lambda c: c.name)
def test_damaged_streams_never_crash(codec):
    """Without the container's checksum a flipped byte may go unseen, but it may only raise ArtifactError."""
    raw = symbols(15, 4.0, 500).tobytes()
    data, rng = codec.encode(raw, 1), np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        with suppress(ArtifactError):
            assert len(codec.decode(bytes(broken[: rng.integers(len(data) + 1)]), len(raw), 1)) == len(raw)


def test_unknown_methods_are_refused():
    for name in ("gzip", "zstd+twice", "zstd+shuffle+shuffle", "", "+shuffle", "zstd+"):
        with pytest.raises(ArtifactError, match="codec"):
            decode(name, b"", 0, 1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Zstd(level=23, shuffle=True),
        lambda: Brotli(quality=12, shuffle=True),
        lambda: Lzma(preset=10, extreme=True, shuffle=True),
        lambda: RangeRows(small=Range(), small_below=-1),
    ],
)
def test_settings_out_of_range(build):
    with pytest.raises(ConfigError, match="codec"):
        build()
