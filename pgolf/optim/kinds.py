"""The closed choices of the optimiser, apart from its numbers and its tensors, so that both can use them."""

from enum import Enum


class Coefficients(Enum):
    """The polynomials of Muon's iteration: one quintic for every step, or Polar Express's own for each, the paper's or those of
    pull request 1344, of which there are five."""

    QUINTIC = "quintic"
    POLAR_EXPRESS = "polar_express"
    POLAR_EXPRESS_PR1344 = "polar_express_pr1344"
