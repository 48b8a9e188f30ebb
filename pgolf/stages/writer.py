"""Writes checkpoints beside the training: the state is copied between two steps, and goes to disk while the next ones run."""

import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pgolf.errors import UserError
from pgolf.files.checkpoints import made_whole
from pgolf.files.names import CHECKPOINTS
from pgolf.machine.world import World

ALONE = "torch.distributed is disabled"  # begins what DCP warns of where there is one rank


class Writer:
    """One checkpoint at a time, under `folder`/checkpoints. One that cannot be written is said and costs the run nothing."""

    def __init__(self, folder: Path, world: World, say: Callable[[str], None]):
        self.place, self.world, self.say = folder / CHECKPOINTS, world, say
        self._thread: threading.Thread | None = None
        self._written = False
        if world.main and self.place.exists():
            for left in self.place.glob(".step*"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)

    def begin(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Start to write this rank's part; `tensors` are copies, those of equal name on several ranks are equal."""
        self.wait()
        self._written = False
        made = self.place / f".step{facts['step']:08d}"
        if not self.world.agree(float(self._has_place(made))):
            return
        group = None if self.world.size == 1 else dist.new_group(backend="gloo")
        warnings.filterwarnings("ignore", message=ALONE)
        self._thread = threading.Thread(
            target=self._write, args=(made, tensors, facts, group), daemon=True, name="checkpoint"
        )
        self._thread.start()

    def wait(self) -> bool:
        """Until what was begun is on disk. Returns whether it is."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._written

    def _has_place(self, made: Path) -> bool:
        """Make the folder to write to, on rank 0."""
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as wrong:
            self.say(f"the checkpoint {made} was not written: {wrong.strerror}")
            return False
        return True

    def _write(
        self, made: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any], group: dist.ProcessGroup | None
    ) -> None:
        import torch.distributed.checkpoint as dcp

        try:
            dcp.save(tensors, checkpoint_id=made, process_group=group, no_dist=group is None)
            if self.world.main:
                made_whole(made, facts)
            self._written = True
        except (OSError, UserError, RuntimeError, dcp.CheckpointException) as wrong:
            self.say(f"the checkpoint {made} was not written: {type(wrong).__name__}: {wrong}")
            if self.world.main:
                shutil.rmtree(made, ignore_errors=True)
