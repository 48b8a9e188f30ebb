"""The small pieces: a linear layer that casts at use, RMS norm, rotary tables, smear, and the two extra embeddings.

Every parameter is a float32 master; arithmetic runs in the dtype of the activations. The order of roundings is that of
the published scripts, to the bit: a deep, looped stack at high query gain amplifies a fused multiply-add a thousandfold.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """`x ↦ x Wᵀ` without bias. `fake_quant` sees the float32 master; quantisation-aware training replaces it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.fake_quant: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.fake_quant(self.weight).to(x.dtype))


class Table(nn.Module):
    """Rows of `dim`, looked up by index and cast to `dtype`."""

    def __init__(self, rows: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, dim))

    def forward(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        return F.embedding(index, self.weight).to(dtype)


def projection(inputs: int, outputs: int) -> nn.Module:
    """A linear layer between different widths, nothing between equal ones."""
    return nn.Identity() if inputs == outputs else Linear(inputs, outputs)


def rms_norm(x: Tensor, gain: float = 1.0) -> Tensor:
    """`gain · x / √(mean x² + ε)` over the last axis, statistics and ε those of float32.

    `rms_norm([3, 4])` = `[3, 4] / √12.5` = `[0.8485, 1.1314]`. Written out: three times faster on a CPU, forward and
    backward, than `F.rms_norm`, with the same bits.
    """
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps)
    return (normed if gain == 1.0 else normed * gain).to(x.dtype)


def rotary_base(base: float, dims: int, length: int, train_len: int) -> float:
    """RoPE's base, stretched for texts longer than `train_len` (NTK-aware scaling): base · (T / train_len)^(d / (d − 2)).

    `rotary_base(1e4, 16, 2048, 1024)` = 1e4 · 2^(16/14) = 22,082.
    """
    return base * (length / train_len) ** (dims / (dims - 2)) if length > train_len else base


def rotary_tables(length: int, dims: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of t · base^(−2j / dims), each (length, 1, dims / 2), float32 (RoFormer, arXiv 2104.09864)."""
    inverse = 1.0 / base ** (torch.arange(0, dims, 2, dtype=torch.float32, device=device) / dims)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), inverse)[:, None, :]
    return angles.cos(), angles.sin()


def rotate(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first 2n of D dimensions, half-split pairs (j, j + n), by the tables (T, 1, n); the others pass."""
    n = cos.shape[-1]
    cos, sin = cos.to(x_BTHD.dtype), sin.to(x_BTHD.dtype)
    a, b, rest = x_BTHD.split([n, n, x_BTHD.shape[-1] - 2 * n], dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin, rest], dim=-1)


def normed_heads(x_BTHD: Tensor, rotary: tuple[Tensor, Tensor] | None, gain_H: Tensor | None) -> Tensor:
    """RMS norm of each head, RoPE by the last T rows of the tables, times the head's gain; None: without. x = [3, 4] and a gain
    of 2 give [6, 8] / √12.5 = [1.697, 2.263]."""
    x_BTHD = rms_norm(x_BTHD)
    if rotary is not None:
        x_BTHD = rotate(x_BTHD, *(table[-x_BTHD.shape[1] :] for table in rotary))
    return x_BTHD if gain_H is None else x_BTHD * gain_H[:, None].to(x_BTHD.dtype)


def exclusive_self_attention(y_BTHD: Tensor, v_BTKD: Tensor) -> Tensor:
    """Exclusive self-attention: take from each head's output its component along the position's own value.

    y ← y − (y · v̂) v̂, v̂ = v / ‖v‖, query heads grouped over their key-value head. y = [1, 2], v = [0, 3] gives [1, 0].
    """
    B, T, K, D = v_BTKD.shape
    y_BTKGD, v_BTK1D = y_BTHD.view(B, T, K, -1, D), F.normalize(v_BTKD, dim=-1).unsqueeze(3)
    along = (y_BTKGD * v_BTK1D).sum(-1, keepdim=True)
    return (y_BTKGD - along * v_BTK1D).flatten(2, 3)


def gated_heads(y_BTHD: Tensor, v_BTKD: Tensor | None, gate_BTH: Tensor | None) -> Tensor:
    """Exclusive self-attention by the values, then each head's output times its gate; None: without."""
    if v_BTKD is not None:
        y_BTHD = exclusive_self_attention(y_BTHD, v_BTKD)
    return y_BTHD if gate_BTH is None else y_BTHD * gate_BTH[..., None]


class Smear(nn.Module):
    """Blend every position with the one before: (1 − g) x_t + g x_{t−1}, g = sigmoid(gate), x_{−1} = 0."""

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTC: Tensor) -> Tensor:
        g = self.gate.sigmoid().to(x_BTC.dtype)
        return (1 - g) * x_BTC + F.pad(g * x_BTC[:, :-1], (0, 0, 1, 0))


def bigram_slots(ids_BT: Tensor, slots: int) -> Tensor:
    """Hash of (token, token before): (36313 · cur XOR 27191 · prev) mod (slots − 1) in int32; position 0 has the last slot."""
    ids = ids_BT.to(torch.int32)
    hashed = torch.bitwise_xor(36313 * ids[:, 1:], 27191 * ids[:, :-1]) % (slots - 1)
    return F.pad(hashed, (1, 0), value=slots - 1)


class ScaledTable(nn.Module):
    """A narrow table, projected to `width`, times one learned number."""

    def __init__(self, rows: int, dim: int, width: int, scale: float):
        super().__init__()
        self.table = Table(rows, dim)
        self.proj = projection(dim, width)
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float32))

    def forward(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.table(index, dtype)) * self.scale.to(dtype)
