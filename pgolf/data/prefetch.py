"""The next batches, read while the present one is being learnt from: page faults and copies leave the step's path."""

import queue
import threading
from types import TracebackType

import numpy as np
import torch

from pgolf.data.loaders import Batches

POLL_SECONDS = 0.05  # how soon a stopped reader notices


class Prefetched:
    """A rank's `rows` of each global batch, uint16, at most `depth` ahead. Use as a context manager, or `close()` it.

    The state is that of the last batch handed out, not of the last one read, so restoring it loses and repeats nothing.
    With `pin` the tensors are page-locked, for copies that do not wait.
    """

    def __init__(self, batches: Batches, rows: np.ndarray, depth: int = 2, pin: bool = False):
        self._batches, self._rows, self._depth, self._pin = batches, rows, depth, pin
        self._start()

    def next(self) -> torch.Tensor:
        """(len(rows), T+1) uint16, on the host."""
        tokens, state = self._queue.get()
        if isinstance(tokens, Exception):
            self._queue.put((tokens, None))  # whoever asks again is told again
            raise tokens
        self._state = state
        return tokens

    @property
    def epoch(self) -> int:
        """How often the text has been read to its end."""
        return self._state["epoch"]

    def state_dict(self) -> dict:
        """Where the loader stood before the batch that is next given out."""
        return self._state

    def load_state_dict(self, state: dict) -> None:
        """Continue from a `state_dict`; what was read ahead is dropped."""
        self.close()
        self._batches.load_state_dict(state)
        self._start()

    def close(self) -> None:
        """Stop reading; what was read ahead is forgotten, as the state never counted it."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        self._state = self._batches.state_dict()
        self._queue: queue.Queue = queue.Queue(self._depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="prefetch", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                item = self._one()
            except Exception as error:
                item = error, None
            self._put(item)
            if item[1] is None:
                return

    def _one(self) -> tuple[torch.Tensor, dict]:
        positions = self._batches.next()[self._rows]
        shape = len(positions), self._batches.windows.sequence_length + 1
        tokens = torch.empty(shape, dtype=torch.uint16, pin_memory=self._pin)
        self._batches.gather(positions, tokens.numpy())
        return tokens, self._batches.state_dict()

    def _put(self, item: tuple) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
