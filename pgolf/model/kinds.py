"""The closed choices of a model, apart from its numbers and its torch modules, so that both can use them."""

from enum import Enum


class Skips(Enum):
    """How a decoder block takes up its encoder block's output: not at all, added, or blended by a learned gate."""

    NONE = "none"
    PLAIN = "plain"
    GATED = "gated"


class Role(Enum):
    """What a parameter is to an optimiser: a matrix (Muon), a lookup table or head (Adam), or vectors and scalars (Adam)."""

    MATRIX = "matrix"
    EMBEDDING = "embedding"
    SCALAR = "scalar"
