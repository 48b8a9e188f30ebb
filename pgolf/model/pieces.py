"""Attention inside pieces: tokens of many documents stand in one row, and none sees a token of another piece.

This is the interface, and the reference for any kernel: one call of causal attention per piece.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pieces:
    """Where pieces begin in the B·T tokens of a batch laid end to end: `bounds` (E,) int32 ascending from 0 to B·T, which its
    last entries may repeat. No piece is longer than `longest`."""

    bounds: Tensor
    longest: int


def attend_in_pieces(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, pieces: Pieces) -> Tensor:
    """Causal attention inside each piece, scale 1/√D, H query heads over K groups. (B, T, H, D) as `q`."""
    q, k, v = (t.flatten(0, 1).transpose(0, 1) for t in (q_BTHD, k_BTKD, v_BTKD))
    grouped = q.shape[0] != k.shape[0]
    parts = [
        F.scaled_dot_product_attention(q[:, a:b], k[:, a:b], v[:, a:b], is_causal=True, enable_gqa=grouped)
        for a, b in pairwise(pieces.bounds.tolist())
        if a < b
    ]
    return torch.cat(parts, dim=1).transpose(0, 1).view(q_BTHD.shape)
