"""A quantised tensor as it is stored, and the way back into a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.errors import UserError, nearest

if TYPE_CHECKING:
    from pgolf.quant.forms import Extra


@dataclass(frozen=True)
class QTensor:
    """value = symbol × its row's scale. `symbols` int8 in the weight's own shape, `scale` fp16 (rows,), `bits` 2–8.

    `extras` work on these values, one after another.
    """

    symbols: Tensor
    scale: Tensor
    bits: int
    extras: "tuple[Extra, ...]" = ()

    @property
    def shape(self) -> torch.Size:
        """Shape of the symbols."""
        return self.symbols.shape

    def dequantize(self) -> Tensor:
        """The fp32 weight."""
        W_rn = self.symbols.float().view(len(self.scale), -1) * self.scale.float()[:, None]
        for extra in self.extras:
            W_rn = extra.applied(W_rn, self)
        return W_rn.view(self.symbols.shape)


def dequantize(stored: QTensor | Tensor) -> Tensor:
    """A stored tensor as float32, or the float tensor as it is."""
    return stored.dequantize() if isinstance(stored, QTensor) else stored


@torch.no_grad()
def load_quantized(model: nn.Module, tensors: Mapping[str, QTensor | Tensor]) -> None:
    """Write the stored values into the parameters of `model`, in place; every parameter once, no other name, no resizing."""
    parameters = dict(model.named_parameters())
    for name in tensors.keys() - parameters.keys():
        raise UserError(f"the model has no parameter {name!r}.{nearest(name, parameters)}")
    for name in parameters.keys() - tensors.keys():
        raise UserError(f"nothing is stored for the model's parameter {name!r}")
    for name, stored in tensors.items():
        if stored.shape != parameters[name].shape:
            raise UserError(f"{name}: stored as {tuple(stored.shape)}, the model has {tuple(parameters[name].shape)}")
        parameters[name].copy_(dequantize(stored))
