"""Small learned gates: of attention heads, and of what a token takes over from the one before."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SparseGate(nn.Module):
    """σ(scale · G_h · n_t[0:dims]) for each head (B, S, H), by which its output is multiplied: a half everywhere at first."""

    def __init__(self, heads: int, dims: int, scale: float):
        super().__init__()
        self.dims, self.scale = dims, scale
        self.weight = nn.Parameter(torch.zeros(heads, dims))

    def forward(self, n_BSC: Tensor) -> Tensor:
        g_BSH = F.linear(n_BSC[..., : self.dims], self.weight.to(n_BSC.dtype))
        return (self.scale * g_BSH).sigmoid()


class SmearGate(nn.Module):
    """e'_t = e_t + λ · σ(w · e_t[0:dims]) · e_{t−1}, and e_t where the token is `bos` or the row's first; w and λ at first 0."""

    def __init__(self, dims: int, bos: int | None):
        super().__init__()
        self.dims, self.bos = dims, bos
        self.weight = nn.Parameter(torch.zeros(1, dims))
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, e_BTE: Tensor, ids_BT: Tensor) -> Tensor:
        here_BSE = e_BTE[:, 1:]
        gate_BS1 = F.linear(here_BSE[..., : self.dims], self.weight.to(e_BTE.dtype)).sigmoid()
        gate_BS1 = self.scale.to(e_BTE.dtype) * gate_BS1
        if self.bos is not None:
            gate_BS1 = gate_BS1 * (ids_BT[:, 1:, None] != self.bos).to(e_BTE.dtype)
        return torch.cat([e_BTE[:, :1], here_BSE + gate_BS1 * e_BTE[:, :-1]], dim=1)
