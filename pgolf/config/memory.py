"""What a step of a GPU recipe takes, from shapes: bytes on one rank, bytes between ranks, and the least time of its products.

Activations are counted, not estimated: one forward and backward pass of fake tensors, which have shapes and no values, for one
row. They are those of the eager step; a compiled one keeps less.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pgolf.model.kinds import Role

if TYPE_CHECKING:
    from pgolf.recipe import Recipe

GPU_BYTES = 80e9  # an H100
KEPT_FREE = 5e9  # for the CUDA context, workspaces, NCCL's buffers, what the allocator cannot use, and the next batches


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations have made and that still live, beside those `held` before: now, and at most."""

    def __init__(self, held: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank. Activations are `fixed` (weights cast for the products) and `row` for each row of a micro-batch."""

    weights: int
    optimizer: int
    averages: int
    fixed: int
    row: int

    def activations(self, rows: int) -> int:
        """The most that lives at once between a micro-batch's first layer and its last gradient."""
        return self.fixed + rows * self.row

    def peak(self, rows: int) -> int:
        """All together; gradients are fp32, as the weights are."""
        return 2 * self.weights + self.optimizer + self.averages + self.activations(rows)


def memory(recipe: "Recipe", length: int | None = None) -> Memory:
    """What a rank of `recipe` holds, from its shapes. Rows are data.sequence_length tokens, or `length`."""
    from pgolf.model.transformer import Transformer

    length = length or recipe.data.sequence_length
    with FakeTensorMode():
        model = Transformer(recipe.model, torch.bfloat16)
        model.set_looping(recipe.model.recurrent)
        with LiveBytes(model.parameters()) as averages:
            averager = recipe.average.build(model)
        averaged = averages.now
        del averager
        one = activations(model, 1, length)
    counts = {role: sum(p.numel() for n, p in model.named_parameters() if model.roles()[n] is role) for role in Role}
    matrices, others = counts[Role.MATRIX], counts[Role.EMBEDDING] + counts[Role.SCALAR]
    fixed = min(2 * matrices, one)
    optimizer = 4 * matrices // recipe.machine.world_size + 8 * others
    return Memory(4 * (matrices + others), optimizer, averaged, fixed, one - fixed)


def activations(model: torch.nn.Module, rows: int, length: int) -> int:
    """Peak bytes of a forward and backward pass of a model of fake tensors, beside its weights and gradients."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    both = torch.zeros(rows, length + 1, dtype=torch.int64)
    with LiveBytes([*model.parameters(), *(p.grad for p in model.parameters()), both]) as live:
        model.nll(both[:, :-1], both[:, 1:]).sum().backward()
    return live.most


def memory_text(recipe: "Recipe") -> str:
    """Bytes on one rank, whether the micro-batch fits, and if not, which would."""
    held, tokens = memory(recipe), recipe.data.sequence_length
    rows, parts = recipe.micro_sequences, recipe.rank_tokens // recipe.data.sequence_length
    sizes = {
        "weights": held.weights,
        "gradients": held.weights,
        "optimiser": held.optimizer,
        "averages": held.averages,
        "activations": held.activations(rows),
    }
    listed = ", ".join(f"{name} {_gb(size)}" for name, size in sizes.items())
    fitting = [n for n in range(1, parts + 1) if parts % n == 0 and held.peak(n) <= GPU_BYTES - KEPT_FREE]
    most = f"{fitting[-1] * tokens:,} tokens" if fitting else "not even one row"
    if rows in fitting:
        verdict = f"{rows * tokens:,} tokens fit; the largest that would: {most}"
    else:
        would = f"machine.micro_batch_tokens={fitting[-1] * tokens} would" if fitting else "not even one row would"
        verdict = f"{rows * tokens:,} tokens do NOT fit; {would}"
    return f"{listed}: {_gb(held.peak(rows))} of {_gb(int(GPU_BYTES - KEPT_FREE))} (eager): {verdict}"


def traffic_text(recipe: "Recipe") -> str:
    """Bytes that a rank sends in a step, per collective: a ring of R ranks moves (R − 1)/R of what is reduced or gathered."""
    model, ranks = recipe.model.outline(), recipe.machine.world_size
    roles = model.roles()
    matrices = sum(p.numel() for n, p in model.named_parameters() if roles[n] is Role.MATRIX)
    others = sum(p.numel() for p in model.parameters()) - matrices
    if ranks == 1:
        return "one rank: nothing travels"
    ring = (ranks - 1) / ranks
    parts = {
        "reduce-scatter of matrices, fp32": 4 * matrices * ring,
        "all-gather of updates, bf16": 2 * matrices * ring,
        "all-reduce of the others, fp32": 8 * others * ring,
    }
    return "; ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in parts.items()) + " a rank and step"


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
