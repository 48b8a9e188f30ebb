"""Causal attention, whole rows or inside pieces: tokens of many documents stand in one row, and none sees a token of another
piece. One call per piece is the interface, and the reference for any kernel."""

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

    def attend(self, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor) -> Tensor:
        """Causal attention inside each piece."""
        return attend_in_pieces(q_BTHD, k_BTKD, v_BTKD, self)


def attend(q_BSHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, pieces: Pieces | None = None) -> Tensor:
    """Causal attention, scale 1/√D, H query heads over K groups, inside `pieces` if there are any. Fewer queries than keys are
    the last positions."""
    if pieces is not None:
        return pieces.attend(q_BSHD, k_BTKD, v_BTKD)
    q, k, v = (t.transpose(1, 2) for t in (q_BSHD, k_BTKD, v_BTKD))
    S, T, grouped = q.shape[2], k.shape[2], q.shape[1] != k.shape[1]
    seen = None if S == T else torch.ones(S, T, dtype=torch.bool, device=q.device).tril(T - S)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=grouped)
    return y.transpose(1, 2)


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
