"""dev_bpb: bits per byte of the held-out slice of training text, measured by all ranks together."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from pgolf.data.caseops import MARKERS
from pgolf.data.corpus import TrainingText

if TYPE_CHECKING:
    from pgolf.machine.world import World


class Dev:
    """The slice as whole windows of the training length, and the bytes of their targets."""

    def __init__(self, text: TrainingText):
        from pgolf.data.bytes import byte_table, load_tokenizer, token_bytes

        tokens, length = text.dev(), text.sequence_length
        count = (len(tokens) - 1) // length
        sp, table = load_tokenizer(text.tokenizer), byte_table(text.tokenizer)
        table.base[[i for i in range(table.vocabulary) if sp.id_to_piece(i) in MARKERS]] = 0  # no text of the original
        self.bytes = int(token_bytes(tokens, table)[1 : count * length + 1].sum())
        self.windows = np.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)])

    @torch.no_grad()
    def bpb(self, model: torch.nn.Module, world: "World", micro_sequences: int) -> float:
        """Σ nats / ln 2 / bytes, the same on every rank; `model.nll(inputs, targets)` gives nats per token."""
        training = model.training
        model.eval()
        nats = torch.zeros((), dtype=torch.float64, device=world.device)
        mine = self.windows[world.rank :: world.size]
        for i in range(0, len(mine), micro_sequences):
            ids = torch.from_numpy(mine[i : i + micro_sequences]).to(world.device).long()
            nats += model.nll(ids[:, :-1], ids[:, 1:]).double().sum()
        model.train(training)
        world.sum_(nats)
        return nats.item() / math.log(2) / self.bytes
