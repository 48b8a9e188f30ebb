"""First values of the weights, from one generator: the same seed gives the same bits on every device."""

from typing import TYPE_CHECKING

import torch
from torch import Generator, nn

from pgolf.model.layers import Linear
from pgolf.model.transformer import Transformer

if TYPE_CHECKING:
    from pgolf.model import GPT


def init_model(spec: "GPT", seed: int, device: str) -> Transformer:
    """Initialise on the CPU, so that devices agree, then move. Accelerators compute in bfloat16, the CPU in float32."""
    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    model = Transformer(spec, dtype)
    initialise(model, torch.Generator().manual_seed(seed))
    return model.to(device)


@torch.no_grad()
def initialise(model: Transformer, generator: Generator) -> None:
    """Orthogonal linears; what writes to the stream or the logits begins at zero; tables are small or zero.

    The projections of the extra embeddings are orthogonal, times 1/√(2 layers).
    """
    spec = model.spec
    silent = {model.head} | {layer for block in model.blocks for layer in (block.attn.out, block.mlp.down)}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            init_weights(module, module in silent, generator)
            if name.endswith(".proj"):
                module.weight.mul_((2 * spec.layers) ** -0.5)
    nn.init.normal_(model.embedding.weight, std=spec.embed_std, generator=generator)
    if spec.bigram is not None:
        nn.init.zeros_(model.bigram.table.weight)
    if spec.value_embedding is not None:
        nn.init.normal_(model.value_embedding.table.weight, std=spec.value_embedding.std, generator=generator)


def init_weights(layer: Linear, silent: bool, generator: Generator) -> None:
    """Zeros where the layer is to be `silent` at first, else an orthogonal matrix, in place."""
    if silent:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.orthogonal_(layer.weight, generator=generator)
