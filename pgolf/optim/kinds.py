"""The closed choices of the optimiser, apart from its numbers and its tensors, so that both can use them."""

from enum import Enum


class Coefficients(Enum):
    """The polynomials of Muon's iteration: one quintic for every step, or Polar Express's own for each."""

    QUINTIC = "quintic"
    POLAR_EXPRESS = "polar_express"
