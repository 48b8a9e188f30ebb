"""Where a run happens: how many ranks, on what, and how much of a batch one of them takes at a time.

The result does not depend on any of it: the global batch belongs to `data`, and a rank's share is accumulated.
"""

import os
from dataclasses import dataclass, replace
from enum import Enum

from pgolf.errors import ConfigError, need
from pgolf.files.frozen import TARGET, added
from pgolf.machine.kernels import Kernels


class Device(Enum):
    """What the ranks compute on; AUTO takes GPUs when there are any. Small letters do as well."""

    AUTO = auto = "auto"
    CPU = cpu = "cpu"
    CUDA = cuda = "cuda"


# Read when a library is loaded: threads that spin long while they wait make a step five times as long once anything else runs on
# the same cores, and tensors whose memory goes back to the system and is asked for again cost it a seventh in page faults.
RUNTIME = {"GOMP_SPINCOUNT": "3000", "MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def tune_runtime() -> None:
    """Set what the environment leaves open of OpenMP, for this process if torch is not imported yet and those it starts, and of
    the C library's memory, for those it starts."""
    for name, value in RUNTIME.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`ranks` processes (null: one per GPU, else 1) of `threads` CPU threads each (null: the cores, shared out).

    What runs is `settled`: every null of these, and AUTO, answered by what the machine has.
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

    def settled(self, cores: int, gpus: int) -> "Machine":
        """The same on a machine of so many cores and GPUs: what is left open (null, AUTO) is answered, for all stages."""
        on_gpu = self.device is Device.CUDA or (self.device is Device.AUTO and gpus >= max(1, self.ranks or 1))
        ranks = self.ranks or (max(1, gpus) if on_gpu else 1)
        threads = self.threads or max(1, cores // ranks)
        return replace(self, ranks=ranks, device=Device.CUDA if on_gpu else Device.CPU, threads=threads)

    def require_gpus(self, gpus: int, besides: str = "") -> None:
        """Refuse to start here what a plan may be made for anywhere: ranks on more than `gpus` GPUs."""
        if self.on_gpu and self.world_size > gpus:
            allowed = f"needs a GPU for every rank, and this machine has {gpus}{besides}"
            raise ConfigError("machine.ranks", self.world_size, allowed)

    @property
    def on_gpu(self) -> bool:
        """Whether ranks compute on GPUs."""
        return self.device is Device.CUDA

    @property
    def world_size(self) -> int:
        """The number of ranks that will be started."""
        return self.ranks

    @property
    def threads_per_rank(self) -> int:
        """CPU threads of each rank."""
        return self.threads
