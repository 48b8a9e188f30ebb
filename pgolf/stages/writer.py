"""Writes checkpoints beside the training: the state is copied between two steps, and goes to disk while the next ones run."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from pgolf.errors import UserError
from pgolf.files.checkpoints import made_whole
from pgolf.files.names import CHECKPOINTS
from pgolf.machine.world import World


class Writer:
    """One checkpoint at a time, under `folder`/checkpoints. One that cannot be written is said and costs the run nothing."""

    def __init__(self, folder: Path, world: World, say: Callable[[str], None]):
        self.place, self.world, self.say = folder / CHECKPOINTS, world, say
        self._running: Future | None = None
        self._finishing: threading.Thread | None = None
        self._written = False
        if world.main and self.place.exists():
            for left in self.place.glob(".step*"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)

    def begin(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Start to write this rank's part; `tensors` are copies, those of equal name on several ranks are equal."""
        self.wait()
        made = self.place / f".step{facts['step']:08d}"
        if self.world.main:
            made.mkdir(parents=True, exist_ok=True)
        self.world.barrier()
        alone = self.world.size == 1
        group = None if alone else dist.new_group(backend="gloo")
        self._written = False
        self._running = dcp.async_save(tensors, checkpoint_id=made, process_group=group, no_dist=alone)
        self._finishing = threading.Thread(target=self._finish, args=(made, facts), daemon=True, name="checkpoint")
        self._finishing.start()

    def wait(self) -> bool:
        """Until what was begun is on disk. Returns whether it is."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = self._running = None
        return self._written

    def _finish(self, made: Path, facts: dict[str, Any]) -> None:
        try:
            self._running.result()
            if self.world.main:
                made_whole(made, facts)
            self._written = True
        except (OSError, UserError, RuntimeError, dcp.CheckpointException) as wrong:
            self.say(f"the checkpoint of step {facts['step']} was not written: {type(wrong).__name__}: {wrong}")
