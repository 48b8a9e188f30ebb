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
    """`ranks` processes on each node (null: one per GPU, else 1) of `threads` CPU threads each (null: the cores, shared out).

    Of several `nodes` this is number `node_rank`; they meet at `rendezvous`, HOST:PORT of node 0, within `rendezvous_seconds`.
    What runs is `settled`: every null of ranks and threads, and AUTO, answered by what the machine has.
    `micro_batch_tokens` is the most one rank takes through the model at once (null: its whole share of the batch);
    `compile` hands the model to torch.compile; `kernels` says which parts of it are fused.
    """

    ranks: int | None
    device: Device
    threads: int | None
    micro_batch_tokens: int | None
    compile: bool
    kernels: Kernels = added({TARGET: "pgolf.machine.kernels.PlainKernels"})
    nodes: int = added(1)
    node_rank: int = added(0)
    rendezvous: str | None = added(None)
    rendezvous_seconds: float = added(600.0)

    def __post_init__(self) -> None:
        need(self.ranks is None or 1 <= self.ranks <= 1024, "machine.ranks", self.ranks, "1 to 1024, or null")
        need(self.threads is None or self.threads >= 1, "machine.threads", self.threads, "at least 1, or null")
        micro = self.micro_batch_tokens
        need(micro is None or micro >= 1, "machine.micro_batch_tokens", micro, "at least 1, or null")
        need(1 <= self.nodes <= 1024, "machine.nodes", self.nodes, "1 to 1024")
        allowed = f"0 to {self.nodes - 1}, one of machine.nodes={self.nodes}"
        need(0 <= self.node_rank < self.nodes, "machine.node_rank", self.node_rank, allowed)
        allowed = f"HOST:PORT of node 0, where machine.nodes={self.nodes} meet"
        need(self.nodes == 1 or _is_address(self.rendezvous), "machine.rendezvous", self.rendezvous, allowed)
        seconds = self.rendezvous_seconds
        need(seconds > 0, "machine.rendezvous_seconds", seconds, "more than 0")

    def settled(self, cores: int, gpus: int) -> "Machine":
        """The same on a machine of so many cores and GPUs: what is left open (null, AUTO) is answered, for all stages."""
        on_gpu = self.device is Device.CUDA or (self.device is Device.AUTO and gpus >= max(1, self.ranks or 1))
        ranks = self.ranks or (max(1, gpus) if on_gpu else 1)
        threads = self.threads or max(1, cores // ranks)
        return replace(self, ranks=ranks, device=Device.CUDA if on_gpu else Device.CPU, threads=threads)

    def require_gpus(self, gpus: int, besides: str = "") -> None:
        """Refuse to start here what a plan may be made for anywhere: ranks on more than `gpus` GPUs."""
        if self.on_gpu and self.ranks > gpus:
            allowed = f"needs a GPU for every rank, and this machine has {gpus}{besides}"
            raise ConfigError("machine.ranks", self.ranks, allowed)

    @property
    def on_gpu(self) -> bool:
        """Whether ranks compute on GPUs."""
        return self.device is Device.CUDA

    @property
    def world_size(self) -> int:
        """The number of ranks that will be started, on all nodes."""
        return self.nodes * self.ranks


def _is_address(text: str | None) -> bool:
    host, _, port = (text or "").rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536
