"""A model's parts in the form of kernels, each beside the plain form that it replaces and is held against."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor

from pgolf.model.activation import LeakyReluSquared
from pgolf.model.attention import Causal
from pgolf.model.pieces import Pieces, attend

if TYPE_CHECKING:
    from pgolf.model.transformer import Transformer


def replace_parts(model: "Transformer", kernels: ModuleType) -> list[str]:
    """Put `kernels` into the model; what was replaced."""
    spec, found = model.spec, []
    if spec.softcap is not None:
        model.loss = kernels.capped_nll
        found.append("softcap + cross entropy")
    if isinstance(spec.activation, LeakyReluSquared):
        activation = partial(kernels.leaky_relu_squared, slope=spec.activation.slope)
        for block in model.blocks:
            block.mlp.activation = activation
        found.append("leaky_relu²")
    if spec.rope_dims:
        for block in model.blocks:
            block.attn.normed = partial(normed_by, kernels.normed_heads)  # no module: models are copied
        found.append("norm + RoPE + gain")
    if spec.xsa_layers:
        for block in model.blocks[-spec.xsa_layers :]:
            block.attn.gated = kernels.exclusive_heads
        found.append("exclusive self-attention + gate")
    if isinstance(spec.attention, Causal):
        for block in model.blocks:
            block.attn.attend = attend_varlen
        found.append("attention inside documents")
    return found


def normed_by(
    kernel: Callable[..., Tensor], x_BTHD: Tensor, rotary: tuple[Tensor, Tensor], gain_H: Tensor | None
) -> Tensor:
    """`normed_heads`, with a kernel that takes tables of x's own length."""
    cos, sin = (table[-x_BTHD.shape[1] :] for table in rotary)
    return kernel(x_BTHD, cos, sin, gain_H)


def attend_varlen(q_BSHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, pieces: Pieces | None = None) -> Tensor:
    """`attend`, with one call of torch's attention over variable lengths for all pieces."""
    if pieces is None:
        return attend(q_BSHD, k_BTKD, v_BTKD)
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (t.flatten(0, 1) for t in (q_BSHD, k_BTKD, v_BTKD))
    call: Callable[..., Tensor] = partial(varlen_attn, window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1])
    return call(q, k, v, pieces.bounds, pieces.bounds, pieces.longest, pieces.longest).view(q_BSHD.shape)
