"""The whole network: embeddings, a U-Net of blocks in looped or plain order, a capped head, and the loss per token."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.model.blocks import Block, Shared
from pgolf.model.kinds import Role, Skips
from pgolf.model.layers import (
    Linear,
    ScaledTable,
    Smear,
    Table,
    bigram_slots,
    projection,
    rms_norm,
    rotary_base,
    rotary_tables,
)
from pgolf.model.loss import capped
from pgolf.model.pieces import Pieces
from pgolf.model.product import head_product

if TYPE_CHECKING:
    from pgolf.model import GPT


class TiedHead(nn.Module):
    """Scores against the rows of the embedding. A module of its own so that hooks see its inputs."""

    def forward(self, h_BTE: Tensor, weight_VE: Tensor) -> Tensor:
        return head_product(h_BTE, weight_VE)


class Transformer(nn.Module):
    """Built by `GPT.build`. Parameters are float32; the stream runs in `dtype`.

    `looping` says whether the recurrent segment runs; it is off until `set_looping(True)`.
    """

    def __init__(self, spec: "GPT", dtype: torch.dtype):
        super().__init__()
        self.spec, self.dtype, self.looping = spec, dtype, False
        self.embedding = Table(spec.vocab_size, spec.embed_width)
        if (bigram := spec.bigram) is not None:
            self.bigram = ScaledTable(bigram.slots, bigram.dim, spec.embed_width, bigram.scale)
        self.window_smear = spec.window_smear and spec.window_smear.build()
        self.embed_proj = projection(spec.embed_width, spec.width)
        if spec.smear:
            self.smear = Smear(spec.width)
        if (extra := spec.value_embedding) is not None:
            self.value_embedding = ScaledTable(spec.vocab_size, extra.dim, spec.kv_width, extra.scale)
        self.lanes = spec.lanes and spec.lanes.build(spec.layers)
        self.loss = spec.loss.build()
        self.blocks = nn.ModuleList(Block(spec, i) for i in range(spec.layers))
        if spec.skips is not Skips.NONE:
            self.skip_weights = nn.Parameter(torch.ones(spec.skip_slots, spec.width))
        if spec.skips is Skips.GATED:
            self.skip_gates = nn.Parameter(torch.zeros(spec.skip_slots, spec.width))
        self.head_proj = projection(spec.width, spec.embed_width)
        self.head = TiedHead() if spec.tied else Linear(spec.embed_width, spec.vocab_size)

    def set_looping(self, on: bool) -> None:
        """Switch depth recurrence; without a loop in the spec both orders are the same."""
        self.looping = on

    def forward(self, ids_BT: Tensor, pieces: Pieces | None = None) -> Tensor:
        """Logits (B, T, V) after the softcap, float32; with `pieces`, attention stays inside them."""
        return capped(self._scored(ids_BT, pieces, None), self.spec.softcap)

    def logits(self, ids_BT: Tensor, *, last: int) -> Tensor:
        """Logits of the last positions, (B, last, V), without the work that only earlier positions need."""
        return capped(self._scored(ids_BT, None, last), self.spec.softcap)

    def nll(
        self, ids_BT: Tensor, targets_BT: Tensor, pieces: Pieces | None = None, *, last: int | None = None
    ) -> Tensor:
        """Nats per target, float32, (B, T), with attention inside `pieces` if there are any; or those of the last positions,
        (B, last), without pieces."""
        scores = self._scored(ids_BT, pieces, last)
        targets = targets_BT[:, -scores.shape[1] :]
        return self.loss(scores.flatten(0, 1), targets.flatten(), self.spec.softcap).view(targets.shape)

    def _scored(self, ids_BT: Tensor, pieces: Pieces | None, last: int | None) -> Tensor:
        """Scores before the softcap, (B, T, V) or of the `last` positions.

        The last block's queries, output and MLP and the head start at a multiple of 16 positions: matrix kernels
        treat odd remainders differently, and so on a CPU the bits are those of the full pass (T a multiple of 16).
        """
        if last is None:
            return self._scores(self._stream(ids_BT, None, pieces))
        T = ids_BT.shape[1]
        assert pieces is None
        assert 1 <= last <= T, f"{last} of {T} positions"
        start = (T - last) // 16 * 16
        return self._scores(self._stream(ids_BT, T - start if start else None, None))[:, -last:]

    def _embedded(self, ids_BT: Tensor) -> Tensor:
        x = self.embedding(ids_BT, self.dtype)
        if self.window_smear:
            x = self.window_smear(x, ids_BT)
        if self.spec.bigram is not None:
            x = x + self.bigram(bigram_slots(ids_BT, self.spec.bigram.slots), self.dtype)
        x_BTC = self.embed_proj(rms_norm(x))
        return self.smear(x_BTC) if self.spec.smear else x_BTC

    def _shared(self, ids_BT: Tensor, x0_BTC: Tensor, pieces: Pieces | None) -> Shared:
        spec, T = self.spec, ids_BT.shape[1]
        seen = T if pieces is None else pieces.longest  # what attention spans at most
        rotary = values = None
        if spec.rope_dims:
            base = rotary_base(spec.rope_base, spec.rope_dims, seen, spec.rope_train_len)
            rotary = rotary_tables(T, spec.rope_dims, base, ids_BT.device)
        if spec.value_embedding is not None:
            values = self.value_embedding(ids_BT, self.dtype).unflatten(-1, (spec.kv_heads, -1))
        return Shared(x0_BTC, rotary, values, pieces)

    def _stream(self, ids_BT: Tensor, last: int | None, pieces: Pieces | None) -> Tensor:
        """Through the blocks: the first half's outputs are stacked, and the second half takes them up, latest first."""
        x = self._embedded(ids_BT)
        shared = self._shared(ids_BT, x, pieces)
        order = self.spec.order(self.looping)
        encoders, stack = len(order) // 2, []
        for turn, index in enumerate(order):
            if self.lanes and index == self.lanes.first:
                return self.lanes(self, x, shared, stack, turn - encoders, last)
            if turn >= encoders and stack:
                x = self.with_skip(x, stack.pop(), turn - encoders)
            x = self.blocks[index](x, shared, last if turn == len(order) - 1 else None)
            if turn < encoders and self.spec.skips is not Skips.NONE:
                stack.append(x)
        return x

    def with_skip(self, x: Tensor, skip: Tensor, slot: int) -> Tensor:
        """The stream with an encoder block's output, by the weights of that pair."""
        weight = self.skip_weights[slot].to(x.dtype)
        if self.spec.skips is Skips.PLAIN:
            return x + weight * skip
        return torch.lerp(weight * skip, x, self.skip_gates[slot].sigmoid().to(x.dtype))

    def _scores(self, x_BTC: Tensor) -> Tensor:
        """E h, before the softcap."""
        h_BTE = self.head_proj(rms_norm(x_BTC))
        return self.head(h_BTE, self.embedding.weight) if self.spec.tied else self.head(h_BTE)

    def roles(self) -> dict[str, Role]:
        """What every parameter is to the optimiser, by name."""
        kinds = {Linear: Role.MATRIX, Table: Role.EMBEDDING}
        found = {}
        for path, module in self.named_modules():
            role = Role.EMBEDDING if path == "head" else kinds.get(type(module), Role.SCALAR)
            found |= {f"{path}.{name}".lstrip("."): role for name, _ in module.named_parameters(recurse=False)}
        return found

    def sections(self) -> dict[str, str]:
        """Every parameter's group for quantisation: 'attention', 'mlp', 'embedding' (with its projections) or 'control'."""
        return {name: section(name, role) for name, role in self.roles().items()}


def section(name: str, role: Role) -> str:
    """The part of the artifact that a parameter is counted under: control, attention, mlp or embedding."""
    if role is Role.SCALAR:
        return "control"
    places = {"attn": "attention", "mlp": "mlp"}
    return next((places[part] for part in name.split(".") if part in places), "embedding")
