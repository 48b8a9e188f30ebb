"""How large a model will be, from shapes alone: the entropy of Gaussian weights under a row-scale policy. Standard
library only, because the plan of a run is printed before torch is loaded."""

import math
from collections.abc import Iterable
from itertools import pairwise
from statistics import NormalDist

GAUSS = NormalDist()
FLOAT_BITS = {
    16: 13.7,
    32: 22.4,
}  # what a codec leaves of Gaussian fp16, of fp32 around 1: signs and mantissas are noise
CLIPS = tuple(2 * 1.1**i for i in range(30))  # 2 to 32 standard deviations
COARSEST = 4.0  # steps in standard deviations, where nearly every symbol is 0
INDEX_BYTES = 28  # per tensor: its row of the compressed index and its frames
FILE_BYTES = 600  # header, index head, the model's own description


def levels(bits: int) -> int:
    """c, the largest symbol: the range is symmetric.

    >>> levels(5)
    15
    """
    return 2 ** (bits - 1) - 1


def elements(shape: tuple[int, ...]) -> int:
    """Number of values of a shape."""
    return math.prod(shape)


def columns(shape: tuple[int, ...]) -> int:
    """Elements per row, where the first dimension counts rows."""
    return math.prod(shape[1:])


def last_layers(names: Iterable[str], count: int) -> set[str]:
    """Those of `names` that belong to the last `count` blocks.

    >>> sorted(last_layers(["embedding.weight", "blocks.0.mlp.up.weight", "blocks.10.mlp.up.weight"], 1))
    ['blocks.10.mlp.up.weight']
    """
    layer = {name: int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
    return {name for name, i in layer.items() if i > max(layer.values()) - count}


def quantile_sigmas(quantile: float, n: int) -> float:
    """The expected `quantile` of |w| in a row of n unit Gaussians, by Blom's order statistics, in σ.

    >>> round(quantile_sigmas(1.0, 512), 1)                 # the largest of 512
    3.2
    """
    x = quantile * (n - 1)
    low, high = (_order_statistic(i, n) for i in (math.floor(x), math.ceil(x)))
    return low + (x - math.floor(x)) * (high - low)


def _order_statistic(i: int, n: int) -> float:
    """The expected i-th smallest (from 0) of n absolute unit Gaussians."""
    return GAUSS.inv_cdf(0.5 + 0.5 * (i + 0.625) / (n + 0.25))


def coarsest(steered: Iterable[tuple[float, int]]) -> float:
    """The factor on every k of (k, c) from which on each step, k/c, is at least `COARSEST` standard deviations.

    >>> coarsest([(8.0, 31), (15.5, 31)])
    15.5
    """
    return max(COARSEST * c / k for k, c in steered)


def clip_error(k: float, c: int, n: int) -> float:
    """Mean squared error of a row of n unit Gaussians in steps of k/c clipped at ±k: granular, k²/12c², and overload."""
    over = 0.0
    for i in range(n - 1, -1, -1):
        if (z := _order_statistic(i, n)) <= k:
            break
        over += (z - k) ** 2
    return (k / c) ** 2 / 12 + over / n


def gaussian_bits(k: float, c: int, thinned: bool = False) -> float:
    """Entropy in bits of a unit Gaussian in steps of k/c, clipped to ±c; 2.047 + log2(c/k) where steps are fine. `thinned`: ±1
    have become 0.

    >>> abs(gaussian_bits(4.0, 127) - (2.047 + math.log2(127 / 4))) < 0.002
    True
    """
    edges = [0.0, *(GAUSS.cdf((i - c - 0.5) * k / c) for i in range(1, 2 * c + 1)), 1.0]
    if thinned:
        edges = [edge for i, edge in enumerate(edges) if i not in (c, c + 1)]
    return -sum(p * math.log2(p) for p in (b - a for a, b in pairwise(edges)) if p > 0)


def integer_bytes(shape: tuple[int, ...], bits: int, sigmas: float, thinned: bool = False) -> float:
    """Symbols at their entropy, which never exceeds log2(2c + 1), and an fp16 step per row."""
    return elements(shape) * gaussian_bits(sigmas, levels(bits), thinned) / 8 + shape[0] * 2


def float_bytes(shape: tuple[int, ...], bits: int) -> float:
    """Bytes of a float tensor after compression, by the bits of its kind."""
    return elements(shape) * FLOAT_BITS[bits] / 8


def file_bytes(tensors: Iterable[float]) -> int:
    """The tensors with index and header.

    >>> file_bytes([1000.0, 1000.0])
    2656
    """
    sizes = list(tensors)
    return math.ceil(sum(sizes) + INDEX_BYTES * len(sizes) + FILE_BYTES)
