"""Calibration sequences from three sources: windows of the training text, text that the model writes itself, noise. Each
yields this rank's share; which sequences there are does not depend on the number of ranks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pgolf.machine.world import World

if TYPE_CHECKING:
    from pgolf.data.windows import Windows

FEWEST = 16  # tokens that a self-generated sequence has even where time is up


@dataclass(frozen=True)
class CalibrationContext:
    """What a source has to work with: `count` sequences in all, `batch` at a time, everything drawn from `seed`."""

    model: nn.Module
    windows: "Windows"
    world: World
    count: int
    batch: int
    seed: int

    def shares(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """This rank's part of `rows`, a batch at a time."""
        mine = rows[self.world.rank :: self.world.size]
        return (mine[i : i + self.batch] for i in range(0, len(mine), self.batch))


def training_windows(context: CalibrationContext) -> Iterator[Tensor]:
    """`count` different windows of the training text."""
    positions = context.windows.sample(context.count, np.random.default_rng(context.seed))
    return (_ids(context, context.windows.gather(share)[:, :-1]) for share in context.shares(positions))


def random_ids(context: CalibrationContext) -> Iterator[Tensor]:
    """Tokens drawn uniformly from the vocabulary."""
    rng = np.random.default_rng(context.seed)
    ids = rng.integers(
        context.model.spec.vocab_size, size=(context.count, context.windows.sequence_length), dtype=np.int64
    )
    return (_ids(context, share) for share in context.shares(ids))


def self_generated(
    context: CalibrationContext, length: int, temperature: float, late: Callable[[], bool]
) -> Iterator[Tensor]:
    """Sequences sampled from the model. Where time runs out they end early."""
    samples = np.random.default_rng(context.seed).random((context.count, length), dtype=np.float32)
    for share in context.shares(samples):
        samples_BT = torch.from_numpy(np.ascontiguousarray(share)).to(context.world.device)
        yield sampled(context.model, samples_BT, temperature, late)


@torch.no_grad()
def sampled(
    model: nn.Module, samples_BT: Tensor, temperature: float, late: Callable[[], bool] = lambda: False
) -> Tensor:
    """ids (B, T), one token after another: the first uniform, then p(next | all before) at `temperature`, each token where
    its uniform number of `samples` falls in the cumulated p. The whole prefix is read anew for every token: short models of
    short texts do not repay a cache.
    """
    vocab_size = model.spec.vocab_size
    ids_BT = (samples_BT[:, :1] * vocab_size).long().clamp_max(vocab_size - 1)
    while ids_BT.shape[1] < samples_BT.shape[1] and not (ids_BT.shape[1] >= FEWEST and late()):
        cumulated_BV = (model(ids_BT)[:, -1] / temperature).softmax(-1).cumsum(-1)
        luck_B1 = samples_BT[:, ids_BT.shape[1], None] * cumulated_BV[:, -1:]
        next_B1 = torch.searchsorted(cumulated_BV, luck_B1).clamp_max(vocab_size - 1)
        ids_BT = torch.cat([ids_BT, next_B1], 1)
    return ids_BT


def _ids(context: CalibrationContext, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows).to(context.world.device, non_blocking=True).long()
