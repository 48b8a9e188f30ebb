"""Low-rank adapters per document: every document of a batch has its own, starts from nothing and learns from itself alone.

The model stays as it was packed. A row of the batch goes through its own adapters, so documents cannot reach each other, and
the ranks share nothing but the count of what was scored."""

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.errors import ConfigError
from pgolf.eval.learner import Learner
from pgolf.files.receipts import Receipt
from pgolf.machine.world import World
from pgolf.model.layers import Linear
from pgolf.ttt.documents import DocumentPlan

if TYPE_CHECKING:
    from pgolf.eval.text import CommittedText
    from pgolf.model.transformer import Transformer
    from pgolf.ttt import LoraScoreFirst


class Adapter(nn.Module):
    """For slot s: x ↦ scale · (x A_sᵀ) B_sᵀ. B starts as zeros, so a fresh adapter changes nothing."""

    def __init__(self, slots: int, inputs: int, outputs: int, spec: "LoraScoreFirst", device: torch.device):
        super().__init__()
        self.scale = spec.alpha / spec.rank
        self.A = nn.Parameter(torch.empty(slots, spec.rank, inputs, device=device))
        self.B = nn.Parameter(torch.empty(slots, outputs, spec.rank, device=device))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Fresh: B zeros, A uniform in ±1/√inputs and the same for every slot, so that a document's place does not matter."""
        fresh = (torch.rand(self.A.shape[1:], generator=generator) * 2 - 1) * self.A.shape[2] ** -0.5
        self.A.copy_(fresh)
        self.B.zero_()

    def forward(self, x_BTI: Tensor) -> Tensor:
        rows = x_BTI.shape[0]
        A, B = (p[:rows].to(x_BTI.dtype) for p in (self.A, self.B))
        return self.scale * torch.bmm(torch.bmm(x_BTI, A.mT), B.mT)


class LoraLearner(Learner):
    """Rows of every batch are the longest-lived documents of the group, so row i always belongs to slot i."""

    def __init__(self, spec: "LoraScoreFirst", model: "Transformer", world: World, plan: DocumentPlan):
        self.spec, self.model, self.world, self.plan = spec, model.requires_grad_(False), world, plan
        slots = len(range(world.rank, plan.slots, world.size))
        self.adapters = nn.ModuleDict(attached(spec, model, slots, world.device))
        if spec.mixer is not None:
            self.mixer = spec.mixer.build(model.spec.vocab_size, plan, world.device)
        self.steps, self.moved = 0, 0.0
        self._fresh()

    def _fresh(self) -> None:
        generator = torch.Generator().manual_seed(self.spec.seed)
        for adapter in self.adapters.values():
            adapter.reset(generator)
        self.optimizer = self.spec.optimizer.build(list(self.adapters.parameters()))

    def log_p(self, x_BT: Tensor, last: int) -> Tensor:
        log_p_BSV = self.model.logits(x_BT, last=last).log_softmax(-1)
        return log_p_BSV if self.spec.mixer is None else self.mixer.mixed(log_p_BSV, x_BT)

    def adapt(self, text: "CommittedText", chunk: int) -> float:
        if self.spec.mixer is not None:
            self.mixer.learn(self, text, chunk)
        if self.plan.ends_group(chunk):
            self._fresh()
            return 0.0
        moved = torch.zeros((), dtype=torch.float64, device=self.world.device)
        batch = self.plan.rows(chunk, self.world.rank, self.world.size, goes_on=True)
        if batch.rows:
            x_BT, y_BT = text.rows(batch.starts, batch.ends, batch.length)
            living = [p.detach()[: batch.rows] for p in self.adapters.parameters()]  # slots of finished documents drift
            before = [p.clone() for p in living]
            for _ in range(self.spec.epochs):
                self._step(x_BT, y_BT, batch.last)
            moved += sum((a - b).double().square().sum() for a, b in zip(living, before, strict=True))
        self.world.sum_(moved)
        self.steps += 1
        self.moved += (distance := moved.sqrt().item())
        return distance

    def _step(self, x_BT: Tensor, y_BT: Tensor, last: int) -> None:
        """One step of every slot on the chunk that was just scored; a slot's gradient is clipped by its own norm."""
        params = list(self.adapters.parameters())
        self.optimizer.zero_grad()
        self.loss(x_BT, y_BT, last).mean(1).sum().backward()
        clip_by_slot([p.grad for p in params], self.spec.clip)
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        mixer = {} if self.spec.mixer is None else self.mixer.state()
        return self.model.state_dict() | {f"adapters.{k}": v for k, v in self.adapters.state_dict().items()} | mixer

    def receipts(self) -> tuple[Receipt, ...]:
        what = f"moved {len(self.adapters)} adapters in {self.steps} steps (sum of L2 distances)"
        mixer = () if self.spec.mixer is None else (self.mixer.receipt(),)
        return (Receipt("ttt", what, self.moved, self.moved > 0), *mixer)


def attached(spec: "LoraScoreFirst", model: "Transformer", slots: int, device: torch.device) -> dict[str, Adapter]:
    """An adapter on every layer that `spec.layers` names, its output added by a hook."""
    adapters = {}
    for name, (module, (outputs, inputs)) in adapted(spec, model).items():
        adapter = adapters[name.replace(".", "_")] = Adapter(slots, inputs, outputs, spec, device)
        module.register_forward_hook(lambda _, inputs, out, adapter=adapter: out + adapter(inputs[0]))
    return adapters


def adapted(spec: "LoraScoreFirst", model: "Transformer") -> dict[str, tuple[nn.Module, tuple[int, int]]]:
    """The layers that `spec.layers` names, each with its (outputs, inputs); ConfigError if one of them names none."""
    linear = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            linear[name] = module, tuple(module.weight.shape)
        elif name == "head" and model.spec.tied:
            linear[name] = module, (model.spec.vocab_size, model.spec.embed_width)
    for word in spec.layers:
        if not any(name.endswith(word) for name in linear):
            kinds = dict.fromkeys(re.sub(r"^blocks\.\d+\.", "", name) for name in linear)
            raise ConfigError("ttt.layers", list(spec.layers), f"{word!r} ends no layer's name: {', '.join(kinds)}")
    return {name: layer for name, layer in linear.items() if name.endswith(tuple(spec.layers))}


@torch.no_grad()
def clip_by_slot(grads: list[Tensor], limit: float) -> None:
    """Scale each slot's gradients (first dimension) down to a norm of `limit` over all tensors together."""
    squares_S = sum(g.square().flatten(1).sum(1) for g in grads)
    scale_S = (limit / (squares_S.sqrt() + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(scale_S.view(-1, *[1] * (g.dim() - 1)))
