"""Where a run happens: how many ranks, on what, and how much of a batch one of them takes at a time.

The result does not depend on any of it: the global batch belongs to `data`, and a rank's share is accumulated.
"""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pgolf.errors import ConfigError, need
from pgolf.files.frozen import TARGET, added
from pgolf.machine.kernels import Kernels


class Device(Enum):
    """What the ranks compute on; AUTO takes GPUs when there are any."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


# Read when a library is loaded: threads that spin long while they wait make a step five times as long once anything else runs on
# the same cores, and tensors whose memory goes back to the system and is asked for again cost it a seventh in page faults.
RUNTIME = {"GOMP_SPINCOUNT": "3000", "MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def tune_runtime() -> None:
    """Set what the environment leaves open of OpenMP, for this process if torch is not imported yet and those it starts, and of
    the C library's memory, for those it starts."""
    for name, value in RUNTIME.items():
        os.environ.setdefault(name, value)


def gpus_present() -> int:
    """GPUs that this process may use, counted without touching CUDA (the parent of the ranks must not)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([v for v in visible.split(",") if v.strip() and v.strip() != "-1"])
    return len([p for p in Path("/dev").glob("nvidia*") if p.name[6:].isdigit()])


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`ranks` processes (null: one per GPU, else 1) of `threads` CPU threads each (null: the cores, shared out).

    `micro_batch_tokens` is the most one rank takes through the model at once (null: its whole share of the batch);
    `compile` hands the model to torch.compile; `kernels` says which parts of it are fused.
    """

    ranks: int | None
    device: Device
    threads: int | None
    micro_batch_tokens: int | None
    compile: bool
    kernels: Kernels = added({TARGET: "pgolf.machine.kernels.PlainKernels"})

    def __post_init__(self) -> None:
        need(self.ranks is None or 1 <= self.ranks <= 1024, "machine.ranks", self.ranks, "1 to 1024, or null")
        need(self.threads is None or self.threads >= 1, "machine.threads", self.threads, "at least 1, or null")
        micro = self.micro_batch_tokens
        need(micro is None or micro >= 1, "machine.micro_batch_tokens", micro, "at least 1, or null")

    def require_devices(self) -> None:
        """Refuse to start here what a plan may be made for anywhere: ranks on GPUs that this machine does not have."""
        present = gpus_present()
        if self.device is Device.CUDA and self.world_size > present:
            allowed = (
                f"needs a GPU for every rank, and this machine has {present}; scale=laptop runs any system without"
            )
            raise ConfigError("machine.ranks", self.world_size, allowed)

    @property
    def on_gpu(self) -> bool:
        """Whether ranks compute on GPUs."""
        return self.device is Device.CUDA or (self.device is Device.AUTO and gpus_present() >= max(1, self.ranks or 1))

    @property
    def world_size(self) -> int:
        """The number of ranks that will be started."""
        if self.ranks is not None:
            return self.ranks
        return max(1, gpus_present()) if self.device is not Device.CPU else 1

    @property
    def threads_per_rank(self) -> int:
        """CPU threads of each rank."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.world_size)
