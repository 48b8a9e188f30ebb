"""Fake quantisers in the layers of a model and the one switch that turns them all. The switch is a tensor: a compiled graph
reads it every time, where a Python flag would be folded into the first trace and never be looked at again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pgolf.errors import ConfigError
from pgolf.files.receipts import Receipt
from pgolf.model.layers import Linear
from pgolf.qat.crownq import Penalty
from pgolf.qat.round import soft_stairs, straight_through
from pgolf.quant import Quant
from pgolf.quant.estimate import levels


class Switch:
    """One flag and one α for all layers, on their device: turning them is two writes, however many layers there are."""

    def __init__(self, device: torch.device):
        self.on = torch.zeros((), dtype=torch.bool, device=device)
        self.alpha = torch.ones((), device=device)


class FakeQuant(nn.Module):
    """What every kind shares: the switch and the row steps, buffers that never reach a checkpoint."""

    on: Tensor
    alpha: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, section: str, bits: int, switch: Switch):
        super().__init__()
        self.section, self.bits, self.c = section, bits, levels(bits)
        self.register_buffer("on", switch.on, persistent=False)
        self.register_buffer("alpha", switch.alpha, persistent=False)
        self.register_buffer("scale", torch.zeros(len(weight), 1, device=weight.device), persistent=False)


class StraightThrough(FakeQuant):
    """W rounded to its steps, with the gradient of the identity, while `on`."""

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.on, straight_through(weight, self.scale, self.c), weight)


class SoftStairs(FakeQuant):
    """W on stairs of sharpness `alpha`, while `on`."""

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.on, soft_stairs(weight, self.scale, self.c, self.alpha), weight)


class Runtime(Protocol):
    """What training does with QAT: `update` before every optimiser step, `regularise` in it, `set(False)` before the export."""

    def update(self, on: bool, fraction: float, probe: Callable[[], Tensor]) -> None:
        """`on` is the schedule's word, `fraction` the share of the clock used up. `probe` is a forward pass (a loss); it
        runs twice, when QAT first comes on."""

    def regularise(self, weights: list[nn.Parameter], gradient_BMN: Tensor) -> None:
        """Add to the reduced gradient of some weights of one shape (the first B of them), in place."""

    def set(self, on: bool, alpha: float = 1.0) -> None:
        """Switch rounding on or off."""

    def reset(self) -> None:
        """As it was built."""

    def receipts(self) -> list[Receipt]:
        """Proof that it acted."""


class Idle:
    """No QAT: nothing to switch and nothing to prove."""

    def update(self, on: bool, fraction: float, probe: Callable[[], Tensor]) -> None:
        """Nothing to do."""
        pass

    def regularise(self, weights: list[nn.Parameter], gradient_BMN: Tensor) -> None:
        """Nothing to add."""
        pass

    def set(self, on: bool, alpha: float = 1.0) -> None:
        """Nothing to switch."""
        pass

    def reset(self) -> None:
        """Nothing to forget."""
        pass

    def receipts(self) -> list[Receipt]:
        """None: nothing was asked for."""
        return []


@dataclass(frozen=True)
class Layers:
    """The fake quantisers of a model by layer, and the switch that they share."""

    fakes: dict[Linear, FakeQuant]
    switch: Switch


class Installed:
    """QAT at work. α goes geometrically from the first of `alphas` at switch-on to the second at the end of the clock."""

    def __init__(self, layers: Layers, quant: Quant, every: int, alphas: tuple[float, float], penalty: Penalty | None):
        self.layers, self.quant, self.every, self.alphas, self.penalty = layers, quant, every, alphas, penalty
        self.reset()

    def reset(self) -> None:
        """As before the first step."""
        self.set(False)
        self.steps_on = 0
        self.began: float | None = None
        self.change: Tensor | None = None  # on the device: nothing waits for it in a step
        if self.penalty is not None:
            self.penalty.reset()

    def update(self, on: bool, fraction: float, probe: Callable[[], Tensor]) -> None:
        """Before each step: switch rounding on when it is due, and measure once what it changes."""
        if not on:
            self.set(False)
            return
        if self.began is None:
            self.began = fraction
        if self.steps_on % self.every == 0:
            self.refresh()
        if self.change is None:
            self.change = self._turned_on(probe)
        self.set(True, self._alpha(fraction))
        self.steps_on += 1

    def _turned_on(self, probe: Callable[[], Tensor]) -> Tensor:
        before = probe().detach().float().clone()
        self.set(True, self.alphas[0])
        return (probe().detach().float() - before).abs().mean()

    def _alpha(self, fraction: float) -> float:
        start, end = self.alphas
        done = (fraction - self.began) / (1 - self.began) if self.began < 1 else 1.0
        return start * (end / start) ** done

    def regularise(self, weights: list[nn.Parameter], gradient_BMN: Tensor) -> None:
        """Add the penalty's gradient, where there is one."""
        if self.on and self.penalty is not None:
            self.penalty.add_(weights, gradient_BMN)

    def set(self, on: bool, alpha: float = 1.0) -> None:
        """Switch rounding on or off in all layers, at sharpness `alpha`."""
        self.on = on
        self.layers.switch.on.fill_(on)
        self.layers.switch.alpha.fill_(alpha)

    @torch.no_grad()
    def refresh(self) -> None:
        """Row steps from the present weights, by the rule of the export."""
        for layer, fake in self.layers.fakes.items():
            fake.scale.copy_(self.quant.steps(layer.weight, fake.section, fake.bits)[:, None])

    def receipts(self) -> list[Receipt]:
        """Proof that it acted."""
        change = 0.0 if self.change is None else self.change.item()
        found = [
            Receipt("qat", "mean change of the forward pass at switch-on", change, alive=change > 0),
            Receipt("qat", "optimiser steps with rounding on", self.steps_on, alive=self.steps_on > 0),
        ]
        return found if self.penalty is None else [*found, self.penalty.receipt(self.steps_on)]


def install(model: nn.Module, quant: Quant, kind: type[FakeQuant]) -> Layers:
    """Put a `kind` into every linear layer whose weight `quant` stores as integers."""
    sections, found = model.sections(), {}
    switch = Switch(next(model.parameters()).device)
    plan = quant.plan({name: tuple(p.shape) for name, p in model.named_parameters()}, sections)
    for path, layer in model.named_modules():
        if not isinstance(layer, Linear):
            continue
        section, bits = sections[f"{path}.weight"], plan[f"{path}.weight"]
        if bits <= 8:
            layer.fake_quant = found[layer] = kind(layer.weight, section, bits, switch)
    if not found:
        raise ConfigError(
            "qat", kind.__name__, "there is nothing to anticipate: quant stores no linear layer as integers"
        )
    return Layers(found, switch)
