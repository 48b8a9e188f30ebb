"""One transformer block: attention with grouped keys and values, an MLP, and how they join the stream."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.model.layers import Linear, gated_heads, normed_heads, rms_norm
from pgolf.model.pieces import Pieces

if TYPE_CHECKING:
    from pgolf.model import GPT

VALUE_RESIDUAL_INIT = (0.01, 0.99)


@dataclass
class Shared:
    """What the blocks of one forward pass have in common: the first stream, rotary tables, extra values, pieces of documents."""

    x0: Tensor
    rotary: tuple[Tensor, Tensor] | None
    embedded_values: Tensor | None
    pieces: Pieces | None
    first_values: Tensor | None = None


class Attention(nn.Module):
    """Causal attention of block `index`; queries and keys RMS-normed per head, then partly rotated, then gained."""

    def __init__(self, spec: "GPT", index: int):
        super().__init__()
        self.heads, self.kv_heads, self.attend = spec.heads, spec.kv_heads, spec.attention.build()
        self.normed, self.gated = normed_heads, gated_heads
        self.q = Linear(spec.width, spec.width)
        self.k = Linear(spec.width, spec.kv_width)
        self.v = Linear(spec.width, spec.kv_width)
        self.out = Linear(spec.width, spec.width)
        self.head_gate = spec.head_gate and spec.head_gate.build(spec.heads)
        self.q_gain = nn.Parameter(torch.full((spec.heads,), spec.qk_gain, dtype=torch.float32))
        self.xsa = index >= spec.layers - spec.xsa_layers
        extra = spec.value_embedding
        self.embedded_values = extra is not None and index in extra.layers
        if self.embedded_values:
            self.value_embedding_scale = nn.Parameter(torch.ones(1))
        self.keeps_values = spec.value_residual and index == 0
        self.blends_values = spec.value_residual and index > 0
        if self.blends_values:
            self.value_residual = nn.Parameter(torch.tensor(VALUE_RESIDUAL_INIT))

    def forward(self, n_BTC: Tensor, shared: Shared, last: int | None) -> Tensor:
        """Attention outputs at the `last` positions (None: all)."""
        n_BSC = n_BTC if last is None else n_BTC[:, -last:]
        q_BSHD = self.normed(self.q(n_BSC).unflatten(-1, (self.heads, -1)), shared.rotary, self.q_gain)
        k_BTKD = self.normed(self.k(n_BTC).unflatten(-1, (self.kv_heads, -1)), shared.rotary, None)
        v_BTKD = self._values(n_BTC, shared)
        y_BSHD = self.attend(q_BSHD, k_BTKD, v_BTKD, shared.pieces)
        v_BSKD = v_BTKD[:, -y_BSHD.shape[1] :] if self.xsa else None
        y_BSHD = self.gated(y_BSHD, v_BSKD, self.head_gate and self.head_gate(n_BSC))
        return self.out(y_BSHD.flatten(2))

    def _values(self, n_BTC: Tensor, shared: Shared) -> Tensor:
        """The layer's values, plus the shared embedding, blended with those of block 0 before any blending."""
        v_BTKD = self.v(n_BTC).unflatten(-1, (self.kv_heads, -1))
        if self.embedded_values:
            v_BTKD = v_BTKD + shared.embedded_values * self.value_embedding_scale.to(v_BTKD.dtype)
        if self.blends_values:
            first, mine = self.value_residual.to(v_BTKD.dtype)
            return first * shared.first_values + mine * v_BTKD
        if self.keeps_values and shared.first_values is None:
            shared.first_values = v_BTKD
        return v_BTKD


class MLP(nn.Module):
    """`down(f(up(n)))` with f and its input matrices from `model.activation`."""

    def __init__(self, spec: "GPT"):
        super().__init__()
        self.inputs, self.activation = spec.activation.inputs, spec.activation.build()
        for name in self.inputs:
            self.add_module(name, Linear(spec.width, spec.mlp_hidden))
        self.down = Linear(spec.mlp_hidden, spec.width)

    def forward(self, n_BTC: Tensor) -> Tensor:
        return self.down(self.activation(*(self.get_submodule(name)(n_BTC) for name in self.inputs)))


class Block(nn.Module):
    """Block `index` of the stack. Its place, not its turn, sets the LN scale and the parallel form."""

    def __init__(self, spec: "GPT", index: int):
        super().__init__()
        self.attn = Attention(spec, index)
        self.mlp = MLP(spec)
        self.attn_scale = nn.Parameter(torch.ones(spec.width))
        self.mlp_scale = nn.Parameter(torch.ones(spec.width))
        self.mixes = spec.resid_mix
        if self.mixes:
            self.resid_mix = nn.Parameter(torch.stack([torch.ones(spec.width), torch.zeros(spec.width)]))
        self.norm_gain = (index + 1) ** -0.5 if spec.ln_scale else 1.0
        self.parallel = spec.parallel_from is not None and index >= spec.parallel_from

    def mixed(self, x_BTC: Tensor, shared: Shared) -> Tensor:
        """The stream with some of the first stream, where the block mixes them."""
        if not self.mixes:
            return x_BTC
        mix, mix0 = self.resid_mix.to(x_BTC.dtype)
        return mix * x_BTC + mix0 * shared.x0

    def forward(self, x_BTC: Tensor, shared: Shared, last: int | None = None) -> Tensor:
        """The stream after this block, at the `last` positions (None: all)."""
        dtype = x_BTC.dtype
        x_BTC = self.mixed(x_BTC, shared)
        n_BTC = rms_norm(x_BTC, self.norm_gain)
        y_BSC = self.attn(n_BTC, shared, last)
        if last is not None:
            x_BTC, n_BTC = x_BTC[:, -last:], n_BTC[:, -last:]
        x_BTC = x_BTC + self.attn_scale.to(dtype) * y_BSC
        if not self.parallel:
            n_BTC = rms_norm(x_BTC, self.norm_gain)
        return x_BTC + self.mlp_scale.to(dtype) * self.mlp(n_BTC)
