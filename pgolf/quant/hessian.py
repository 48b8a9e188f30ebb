"""Hessians H = XᵀX of every linear layer's inputs, gathered by forward hooks on calibration text. Layers that read the
same tensor (q, k, v) share one matrix; a layer visited several times adds up its visits; a head that is tied to the
embedding reads the final hidden states, which is exactly what quantising the embedding needs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pgolf.errors import UserError
from pgolf.machine.world import World
from pgolf.model.transformer import Linear, TiedHead


class Hessians(dict[str, Tensor]):
    """H by parameter name, per position, from `sequences` sequences (`positions` tokens) over all ranks."""

    def __init__(self, matrices: dict[str, Tensor], sequences: int, positions: int):
        super().__init__(matrices)
        self.sequences, self.positions = sequences, positions


@dataclass
class _Gatherer:
    """Forward pre-hooks write here: sums by leader, and who follows which leader."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    leader: dict[str, str] = field(default_factory=dict)
    last: tuple[Tensor, str] | None = None

    def hook(self, name: str) -> Callable:
        def see(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if self.last is not None and self.last[0] is args[0]:
                self._follow(name, self.last[1])
                return
            X = args[0].detach().flatten(0, -2).float()
            if name not in self.sums:
                self.sums[name] = torch.zeros(X.shape[1], X.shape[1], device=X.device)
            self._follow(name, name)
            self.sums[name].addmm_(X.mT, X)
            self.last = (args[0], name)

        return see

    def _follow(self, name: str, leader: str) -> None:
        known = self.leader.setdefault(name, leader)  # not inside the assert, which python -O would take away
        assert known == leader, name

    def reset(self) -> None:
        self.last = None
        for H in self.sums.values():
            H.zero_()


@torch.no_grad()
def collect_hessians(
    model: nn.Module,
    batches: Iterable[Tensor],
    world: World,
    enough: Callable[[], bool] = lambda: False,
) -> Hessians:
    """Run this rank's share of `batches`, each ids_BT, through the *eager* model and reduce once over ranks.

    `enough()` is asked before every batch and may cut the share short (a deadline). A first probe on two tokens fixes
    which layers share, so that a rank without any batch still takes part in the reduction.
    """
    gather, count = _Gatherer(), torch.zeros(2, dtype=torch.float64, device=world.device)
    handles = [m.register_forward_pre_hook(gather.hook(name)) for name, m in linear_layers(model).items()]
    try:
        model(torch.zeros(1, 2, dtype=torch.long, device=world.device))
        gather.reset()
        for ids in batches:
            if enough():
                break
            model(ids.to(world.device))
            gather.last = None
            count += torch.tensor([ids.shape[0], ids.numel()], dtype=torch.float64, device=world.device)
    finally:
        for handle in handles:
            handle.remove()
    world.sum_(count, *gather.sums.values())
    return _averaged(gather, *(int(n) for n in count.tolist()))


def _averaged(gather: _Gatherer, sequences: int, positions: int) -> Hessians:
    if not sequences:
        raise UserError("no calibration sequence was run: the deadline left no time, or there is no calibration text")
    for H in gather.sums.values():
        H.div_(positions)
    return Hessians({name: gather.sums[lead] for name, lead in gather.leader.items()}, sequences, positions)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers by the name of the parameter they multiply with; a tied head goes by the embedding's."""
    names = {id(p): name for name, p in model.named_parameters()}
    layers = {names[id(m.weight)]: m for m in model.modules() if isinstance(m, Linear)}
    heads = {names[id(model.embedding.weight)]: m for m in model.modules() if isinstance(m, TiedHead)}
    return layers | heads
