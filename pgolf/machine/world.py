"""What one rank knows of the others. Every collective of pgolf goes through `World`; alone (size 1) each is the identity."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

# torch 2.13 renamed these two and deprecated the old names.
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@dataclass(frozen=True)
class World:
    """`rank` of `size`, computing on `device`. Tensors on the host travel by gloo, those on a GPU by NCCL.

    No process group is kept here: its last reference must go with `destroy_process_group`, which then waits for gloo's
    threads. One that outlives it into the interpreter's shutdown aborts a rank whose work is done.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls, device: str = "cpu") -> "World":
        """One rank of one, without a process group."""
        return cls(0, 1, torch.device(device))

    @property
    def main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum_(self, *tensors: torch.Tensor) -> None:
        """Add each tensor over all ranks, in place, as one collective per dtype (values are packed and unpacked)."""
        if self.size == 1:
            return
        for dtype in {t.dtype: None for t in tensors}:
            same = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in same])
            dist.all_reduce(flat)
            for t, part in zip(same, flat.split([t.numel() for t in same]), strict=True):
                t.copy_(part.view_as(t))

    def reduce_scatter(self, whole: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to sum `whole` over ranks; the call returned waits for this rank's equal share of its first dimension."""
        if self.size == 1:
            return lambda: whole
        share = whole.new_empty(whole.size(0) // self.size, *whole.shape[1:])
        return _waiting(reduce_scatter_single(share, whole.contiguous(), async_op=True), share)

    def all_gather(self, share: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to join every rank's `share` along the first dimension; the call returned waits for the whole."""
        if self.size == 1:
            return lambda: share
        whole = share.new_empty(share.size(0) * self.size, *share.shape[1:])
        return _waiting(all_gather_single(whole, share.contiguous(), async_op=True), whole)

    def agree(self, value: float) -> float:
        """Rank 0's `value`, on every rank. Host side only, so the accelerator is not made to wait."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(box, src=0)
        return box.item()

    def barrier(self) -> None:
        """Wait for every rank, on the host: the accelerator goes on."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))


def _waiting(work: dist.Work, result: torch.Tensor) -> Callable[[], torch.Tensor]:
    def wait() -> torch.Tensor:
        work.wait()
        return result

    return wait
