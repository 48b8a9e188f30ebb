"""The state of a training by name, whatever the number of ranks: tensors for a checkpoint, and the numbers beside them.

Weights, AdamW's moments and averages are the same on every rank; of Muon's momentum and CROWN-Q's moments each rank has those of
its own matrices. By name all of them find their place again, on as many ranks as there are then.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgolf.data.packed import Rewarm
from pgolf.optim.optimizer import MuonAdamWOptimizer, Optimizer
from pgolf.qat.fake import Installed
from pgolf.stages.train import Trainer

Named = dict[str, Tensor]


def tensors_of(trainer: Trainer) -> Named:
    """Copies, on the host, of all that changes in a step and that this rank has."""
    found: Named = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    found |= _optimizer_tensors(trainer.optimizer)
    found |= _flat("average", trainer.averager.state_dict())[0]
    found |= _qat_tensors(trainer)
    found["random.host"] = torch.get_rng_state()
    if trainer.world.device.type == "cuda":
        found["random.device"] = torch.cuda.get_rng_state(trainer.world.device)
    return {name: value.detach().cpu().clone() for name, value in found.items()}


def numbers_of(trainer: Trainer) -> dict[str, Any]:
    """All that is no tensor; null for a loss that there is not yet."""
    qat = trainer.qat
    return {
        "loss": None if math.isnan(trainer.loss) else trainer.loss,
        "checks": trainer.checks.made,
        "loader": trainer.loader.state_dict(),
        "average": _flat("average", trainer.averager.state_dict())[1],
        "optimizer": {}
        if isinstance(trainer.optimizer, MuonAdamWOptimizer)
        else _flat("optimizer", trainer.optimizer.state_dict())[1],
        "rewarm": {key: getattr(trainer.rewarm, key) for key in ("last", "changed")}
        if isinstance(trainer.rewarm, Rewarm)
        else {},
        "qat": {key: _plain(getattr(qat, key)) for key in ("steps_on", "began", "change")}
        if isinstance(qat, Installed)
        else {},
    }


def _plain(value: Any) -> Any:
    """The number that a scalar tensor holds, or the value itself."""
    return value.item() if isinstance(value, Tensor) else value


def put_back(trainer: Trainer, tensors: Named, numbers: dict[str, Any]) -> None:
    """Make `trainer`, just built, go on where the one of `tensors_of` and `numbers_of` was."""
    trainer.model.load_state_dict(_under(tensors, "model."))
    _optimizer_back(trainer, tensors, numbers["optimizer"])
    state = trainer.averager.state_dict()
    trainer.averager.load_state_dict(_filled("average", state, tensors | numbers["average"]))
    trainer.loader.load_state_dict(numbers["loader"])
    _qat_back(trainer, tensors, numbers["qat"])
    for key, value in numbers["rewarm"].items():
        setattr(trainer.rewarm, key, value)
    trainer.loss = math.nan if numbers["loss"] is None else numbers["loss"]
    trainer.checks.made = numbers["checks"]
    torch.set_rng_state(tensors["random.host"])
    if trainer.world.device.type == "cuda" and "random.device" in tensors:
        torch.cuda.set_rng_state(tensors["random.device"], trainer.world.device)


def read_tensors(checkpoint: Path) -> Named:
    """Every tensor of a checkpoint, on the host."""
    import torch.distributed.checkpoint as dcp

    kept = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    found = {name: torch.empty(meta.size, dtype=meta.properties.dtype) for name, meta in kept.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(found, checkpoint_id=checkpoint, no_dist=True)
    return found


def _optimizer_tensors(optimizer: Optimizer) -> Named:
    """By the names of weights where they are known; of other optimisers what their `state_dict` holds."""
    if not isinstance(optimizer, MuonAdamWOptimizer):
        return _flat("optimizer", optimizer.state_dict())[0]
    found: Named = {}
    for stack in optimizer.stacks:
        names = stack.names[stack.first : stack.first + stack.share]
        found |= {f"momentum.{name}": value for name, value in zip(names, stack.momentum, strict=False)}
    return found | {f"adam.{name}": tensor for name, tensor in _adam_state(optimizer).items()}


def _adam_state(optimizer: MuonAdamWOptimizer) -> Named:
    """AdamW's moments m and v and its number of steps t, themselves, under the names of their weights."""
    names = {weight: name for name, weight in optimizer.others.items()}
    return {
        f"{names[weight]}.{key}": tensor
        for _, adam in optimizer.adams
        for weight, m, v in zip(adam.weights, adam.m, adam.v, strict=True)
        for key, tensor in (("m", m), ("v", v), ("t", adam.t))
    }


def _optimizer_back(trainer: Trainer, tensors: Named, numbers: dict[str, Any]) -> None:
    optimizer = trainer.optimizer
    if not isinstance(optimizer, MuonAdamWOptimizer):
        return optimizer.load_state_dict(_filled("optimizer", optimizer.state_dict(), tensors | numbers))
    for stack in optimizer.stacks:
        names = stack.names[stack.first : stack.first + stack.share]
        for name, momentum in zip(names, stack.momentum, strict=False):
            momentum.copy_(tensors[f"momentum.{name}"])
    for name, tensor in _adam_state(optimizer).items():
        tensor.copy_(tensors[f"adam.{name}"])


def _qat_tensors(trainer: Trainer) -> Named:
    """Row steps of the fake quantisers and, of CROWN-Q, the moments of the weights that this rank owns."""
    if not isinstance(trainer.qat, Installed):
        return {}
    found = {f"qat.scale.{i}": fake.scale for i, fake in enumerate(trainer.qat.layers.fakes.values())}
    if penalty := trainer.qat.penalty:
        names = {weight: name for name, weight in trainer.model.named_parameters()}
        found |= {f"qat.moment.{names[weight]}": moment for weight, moment in penalty.moments.items()}
        found |= {"qat.squares": penalty.squares} if trainer.world.main else {}
    return found


def _qat_back(trainer: Trainer, tensors: Named, numbers: dict[str, Any]) -> None:
    qat = trainer.qat
    if not isinstance(qat, Installed):
        return
    qat.reset()
    for key, value in numbers.items():
        setattr(qat, key, torch.tensor(value) if key == "change" and value is not None else value)
    for i, fake in enumerate(qat.layers.fakes.values()):
        fake.scale.copy_(tensors[f"qat.scale.{i}"])
    if qat.penalty:
        device = trainer.world.device
        moments = _under(tensors, "qat.moment.")
        qat.penalty.moments = {w: moments[n].to(device) for n, w in trainer.model.named_parameters() if n in moments}
        qat.penalty.squares = tensors["qat.squares"].to(device)


def _under(tensors: Named, start: str) -> Named:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _flat(name: str, value: Any) -> tuple[Named, dict[str, Any]]:
    """Tensors and other values of nested dicts and lists, by dotted name."""
    if isinstance(value, Tensor):
        return {name: value}, {}
    if not isinstance(value, dict | list):
        return {}, {name: value}
    tensors: Named = {}
    others: dict[str, Any] = {}
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        more, rest = _flat(f"{name}.{key}", inner)
        tensors |= more
        others |= rest
    return tensors, others


def _filled(name: str, like: Any, by_name: dict[str, Any]) -> Any:
    """Nested as `like`, with the values that `_flat` named."""
    if isinstance(like, dict):
        return {key: _filled(f"{name}.{key}", inner, by_name) for key, inner in like.items()}
    if isinstance(like, list):
        return [_filled(f"{name}.{i}", inner, by_name) for i, inner in enumerate(like)]
    return by_name[name]
