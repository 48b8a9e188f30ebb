"""Two lanes: in the last blocks attention and MLP read streams of their own, and both write to both (pull request 1529)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.model.layers import rms_norm

if TYPE_CHECKING:
    from pgolf.model.blocks import Block, Shared
    from pgolf.model.transformer import Transformer


class Pair(nn.Module):
    """Weights of both lanes for every block, of which those from `first` on are used: `residual` (L, lane), what a lane keeps of
    itself, and `post` (L, source, lane), what it takes from attention (source 0) and MLP (source 1)."""

    def __init__(self, layers: int, first: int, residual: float):
        super().__init__()
        self.first = first
        self.residual = nn.Parameter(torch.full((layers, 2), residual))
        self.post = nn.Parameter(torch.ones(layers, 2, 2))

    def forward(
        self, net: "Transformer", x_BTC: Tensor, shared: "Shared", skips: list[Tensor], slot: int, last: int | None
    ) -> Tensor:
        """The stream after the last block, at the `last` positions (None: all). Both lanes begin as x; the encoder's `skips` that
        are left, latest last, go to lane 0 alone, from skip `slot` on."""
        lanes = x_BTC, x_BTC
        for i, block in enumerate(net.blocks[self.first :], self.first):
            if skips:
                lanes = net.with_skip(lanes[0], skips.pop(), slot + i - self.first), lanes[1]
            lanes = self._block(lanes, block, i, shared, last if i == len(net.blocks) - 1 else None)
        return 0.5 * (lanes[0] + lanes[1])

    def _block(
        self, lanes: tuple[Tensor, Tensor], block: "Block", i: int, shared: "Shared", last: int | None
    ) -> tuple[Tensor, Tensor]:
        """lane_l ← ρ_l lane_l + π_{0,l} a + π_{1,l} m, with a from lane 0 (mixed with x0) and m from lane 1. Unlike in a block of
        one lane, what is kept is the lane itself and not the mixture."""
        dtype = lanes[0].dtype
        a_BSC = block.attn_scale.to(dtype) * block.attn(
            rms_norm(block.mixed(lanes[0], shared), block.norm_gain), shared, last
        )
        if last is not None:
            lanes = lanes[0][:, -last:], lanes[1][:, -last:]
        m_BSC = block.mlp_scale.to(dtype) * block.mlp(rms_norm(lanes[1], block.norm_gain))
        keep, (from_a, from_m) = self.residual[i].to(dtype), self.post[i].to(dtype)
        first, second = (keep[j] * lanes[j] + from_a[j] * a_BSC + from_m[j] * m_BSC for j in (0, 1))
        return first, second
