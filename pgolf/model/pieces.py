"""Causal attention, whole rows or inside pieces: tokens of many documents stand in one row, and none sees a token of another
piece. One call per piece is the interface, and the reference for any kernel; where that is in a graph it is one call under a
mask, whose memory goes with the square of the tokens: machine.kernels has a kernel for GPUs."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pieces:
    """Where pieces begin in the B·T tokens of a batch laid end to end: `bounds` (E,) int32 ascending from 0 to B·T, which its
    last entries may repeat. No piece is longer than `longest`."""

    bounds: Tensor
    longest: int

    @classmethod
    def of(cls, bounds: np.ndarray, longest: int, device: torch.device) -> "Pieces":
        """On `device`, without waiting for it. The number of bounds changes from batch to batch: one graph serves them all."""
        there = torch.from_numpy(bounds)
        if device.type == "cuda":
            there = there.pin_memory().to(device, non_blocking=True)
        torch._dynamo.maybe_mark_dynamic(there, 0)
        return cls(there, longest)

    def attend(self, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor) -> Tensor:
        """Causal attention inside each piece, scale 1/√D, H query heads over K groups. (B, T, H, D) as `q`."""
        inside = attend_masked if torch.compiler.is_compiling() else attend_in_pieces
        return inside(q_BTHD, k_BTKD, v_BTKD, self)


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
    """`Pieces.attend`, a call per piece. (B, T, H, D)."""
    q, k, v = (t.flatten(0, 1).transpose(0, 1) for t in (q_BTHD, k_BTKD, v_BTKD))
    grouped = q.shape[0] != k.shape[0]
    parts = [
        F.scaled_dot_product_attention(q[:, a:b], k[:, a:b], v[:, a:b], is_causal=True, enable_gqa=grouped)
        for a, b in pairwise(pieces.bounds.tolist())
        if a < b
    ]
    return torch.cat(parts, dim=1).transpose(0, 1).view(q_BTHD.shape)


def attend_masked(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, pieces: Pieces) -> Tensor:
    """The same as one call under a mask (B·T, B·T), without reading a bound on the host."""
    q, k, v = (t.flatten(0, 1).transpose(0, 1)[None] for t in (q_BTHD, k_BTKD, v_BTKD))
    at = torch.arange(q.shape[2], device=q.device)
    piece = torch.bucketize(at, pieces.bounds, right=True)
    seen = (piece[:, None] == piece) & (at[:, None] >= at)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=q.shape[1] != k.shape[1])
    return y[0].transpose(0, 1).view(q_BTHD.shape)
