"""A rank's share of a step's batch from 80 shards: 786,432 tokens over 8 ranks, gathered as uint16.

Compared with cutting every window out of a memory map and widening it at once, as the public scripts do.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pgolf.bench.contest import Contest, DisagreementError, Setting, seconds
from pgolf.data import TrainingText
from pgolf.data.shards import shard_bytes
from pgolf.data.windows import Windows

RANKS, LENGTH, HEADER = 8, 2048, 1024


def contests(setting: Setting) -> Iterator[Contest]:
    """Reading one rank's share of a global batch from shards."""
    shards, tokens, batch = setting.pick((4, 20_000, 64), (16, 10**6, 384), (80, 10**7, 384))
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), shards, tokens)
        text = TrainingText("bench", tuple(paths), (tokens,) * shards, 65536, LENGTH, LENGTH, "")
        yield gathering(text, batch // RANKS)


def written(folder: Path, shards: int, tokens: int) -> list[str]:
    """Shards of random tokens, in the page cache because they have just been written."""
    rng, paths = np.random.default_rng(0), []
    for i in range(shards):
        path = folder / f"train_{i:06}.bin"
        path.write_bytes(shard_bytes(rng.integers(0, 1024, tokens, dtype=np.uint16)))
        paths.append(str(path))
    return paths


def gathering(text: TrainingText, count: int) -> Contest:
    """Cutting and widening rows one at a time against gathering them at once."""
    windows = Windows.open(text)
    positions = windows.sample(count, np.random.default_rng(1))

    def cut_and_widened() -> torch.Tensor:
        rows = []
        for position in positions.tolist():
            shard, offset = position // text.counts[0], position % text.counts[0]
            mapped = np.memmap(text.paths[shard], "<u2", "r", HEADER, (text.counts[0],))
            rows.append(torch.from_numpy(mapped[offset : offset + LENGTH + 1].astype(np.int64)))
        return torch.stack(rows)

    def check(made: dict) -> str:
        cut, gathered = made.values()
        if not np.array_equal(cut.numpy(), gathered):
            raise DisagreementError("the windows differ")
        return f"the same {count} windows of {LENGTH + 1} tokens"

    source = np.zeros(count * (LENGTH + 1), np.uint16)
    return Contest(
        f"{count} windows a rank, {len(text.paths)} shards",
        {"cut and widened": cut_and_widened, "pgolf": lambda: windows.gather(positions)},
        check,
        min(seconds(source.copy, "cpu") for _ in range(9)),
    )
