"""Temperatures that see the current logits only, so that a score stays causal and its distribution normalised."""

import math

from torch import Tensor


def entropy_temperature(logits_BSV: Tensor, value: float) -> Tensor:
    """T = 1 − (1 − value) (1 − H / ln V), (B, S, 1), H the entropy in nats of softmax(logits) (PR 606).

    A certain prediction (H = 0) gets `value`, a uniform one (H = ln V) gets 1."""
    log_p = logits_BSV.log_softmax(-1)
    H = -(log_p.exp() * log_p).sum(-1, keepdim=True)
    return 1 - (1 - value) * (1 - H / math.log(logits_BSV.shape[-1]))
