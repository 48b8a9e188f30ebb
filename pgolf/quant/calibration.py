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
class Room:
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


def training_windows(room: Room) -> Iterator[Tensor]:
    """`count` different windows of the training text."""
    positions = room.windows.sample(room.count, np.random.default_rng(room.seed))
    return (_ids(room, room.windows.gather(share)[:, :-1]) for share in room.shares(positions))


def random_ids(room: Room) -> Iterator[Tensor]:
    """Tokens drawn uniformly from the vocabulary."""
    rng = np.random.default_rng(room.seed)
    ids = rng.integers(room.model.spec.vocab_size, size=(room.count, room.windows.sequence_length), dtype=np.int64)
    return (_ids(room, share) for share in room.shares(ids))


def self_generated(room: Room, length: int, temperature: float, late: Callable[[], bool]) -> Iterator[Tensor]:
    """Sequences sampled from the model. Where time runs out they end early."""
    luck = np.random.default_rng(room.seed).random((room.count, length), dtype=np.float32)
    for share in room.shares(luck):
        luck_BT = torch.from_numpy(np.ascontiguousarray(share)).to(room.world.device)
        yield sampled(room.model, luck_BT, temperature, late)


@torch.no_grad()
def sampled(model: nn.Module, luck_BT: Tensor, temperature: float, late: Callable[[], bool] = lambda: False) -> Tensor:
    """ids (B, T), one token after another: the first uniform, then p(next | all before) at `temperature`, each token where
    its uniform number of `luck` falls in the cumulated p. The whole prefix is read anew for every token: short models of
    short texts do not repay a cache.
    """
    vocab_size = model.spec.vocab_size
    ids_BT = (luck_BT[:, :1] * vocab_size).long().clamp_max(vocab_size - 1)
    while ids_BT.shape[1] < luck_BT.shape[1] and not (ids_BT.shape[1] >= FEWEST and late()):
        cumulated_BV = (model(ids_BT)[:, -1] / temperature).softmax(-1).cumsum(-1)
        luck_B1 = luck_BT[:, ids_BT.shape[1], None] * cumulated_BV[:, -1:]
        next_B1 = torch.searchsorted(cumulated_BV, luck_B1).clamp_max(vocab_size - 1)
        ids_BT = torch.cat([ids_BT, next_B1], 1)
    return ids_BT


def _ids(room: Room, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows).to(room.world.device, non_blocking=True).long()
