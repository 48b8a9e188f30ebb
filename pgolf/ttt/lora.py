"""Low-rank adapters per document: every document of a batch has its own, starts from nothing and learns from itself alone.

The model stays as it was packed. A row of the batch goes through its own adapters, so documents cannot reach each other, and
the ranks share nothing but the count of what was scored."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.errors import ConfigError
from pgolf.eval.learner import Learner, Shape
from pgolf.files.receipts import Receipt
from pgolf.machine.world import World
from pgolf.model.layers import Linear
from pgolf.ttt.documents import DocumentBatch, DocumentPlan

if TYPE_CHECKING:
    from pgolf.eval.text import CommittedText
    from pgolf.model.transformer import Transformer
    from pgolf.ttt.by_document import ByDocument, LoraScoreFirst


class Adapter(nn.Module):
    """For slot s: x ↦ scale · (x A_sᵀ) B_sᵀ. B starts as zeros, so a fresh adapter changes nothing."""

    def __init__(self, slots: int, inputs: int, outputs: int, spec: "ByDocument", device: torch.device):
        super().__init__()
        self.scale = spec.alpha / spec.rank
        self.A = nn.Parameter(torch.empty(slots, spec.rank, inputs, device=device))
        self.B = nn.Parameter(torch.empty(slots, outputs, spec.rank, device=device))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Fresh: B zeros, A uniform in ±1/√inputs and the same for every slot, so that a document's place does not matter."""
        self.A.copy_(init_weights(*self.A.shape[1:], generator))
        self.B.zero_()

    def forward(self, x_BTI: Tensor) -> Tensor:
        rows = x_BTI.shape[0]
        A, B = (p[:rows].to(x_BTI.dtype) for p in (self.A, self.B))
        return self.scale * torch.bmm(torch.bmm(x_BTI, A.mT), B.mT)


def init_weights(rank: int, inputs: int, generator: torch.Generator) -> Tensor:
    """A fresh A, (rank, inputs): uniform in ±1/√inputs."""
    return (torch.rand(rank, inputs, generator=generator) * 2 - 1) * inputs**-0.5


# Of one function; torch gives up at 8. There is one for each length of a chunk, times 8: one row or several, windows of the chunk
# alone or longer ones, with and without gradients.
MOST_GRAPHS = 64


class DocumentLearner(Learner, ABC):
    """Adapters for the documents of a group: row i of every batch belongs to slot i, since those of a document that goes on come
    first. The mixer's tables, where there is one, are all that documents share."""

    spec: "ByDocument"
    plan: DocumentPlan
    world: World
    adapters: nn.Module

    def begin(self, spec: "ByDocument", model: "Transformer", world: World, plan: DocumentPlan) -> int:
        """Freeze the model; how many slots this rank has."""
        self.spec, self.model, self.world, self.plan = spec, model.requires_grad_(False), world, plan
        if spec.mixer is not None:
            self.mixer, self.whole = spec.mixer.build(model.spec.vocab_size, plan, world.device), False
        self.chunk, self.steps, self.moved = 0, 0, 0.0
        return len(range(world.rank, plan.slots, world.size))

    def compile(self, rows: int, one_shape: bool) -> None:
        torch._dynamo.config.recompile_limit = MOST_GRAPHS
        self.compile_network(rows, one_shape)

    def compile_network(self, rows: int, one_shape: bool) -> None:
        """What `compile` does for graphs of this learner."""
        super().compile(rows, one_shape)

    def network(self, x_BT: Tensor, last: int) -> Tensor:
        """ln p of the network with its adapters, (B, last, V)."""
        return self.model.logits(x_BT, last=last).log_softmax(-1)

    def log_p(self, x_BT: Tensor, last: int) -> Tensor:
        return self.mixed(self.network(x_BT, last), x_BT)

    def mixed(self, log_p_BSV: Tensor, x_BT: Tensor) -> Tensor:
        """With the mixer's say, for the rows of the chunk that is being scored."""
        if self.spec.mixer is None:
            return log_p_BSV
        batch = self.plan.rows(self.chunk, self.world.rank, self.world.size)
        warming_up = batch.rows != len(x_BT)  # with zeros, which are of no chunk
        return self.mixer.mixed(log_p_BSV, x_BT, 0 if warming_up else batch.passed)

    def adapt(self, text: "CommittedText", chunk: int) -> float:
        if self.spec.mixer is not None:
            self.mixer.learn(self, text, chunk)
        self.chunk = chunk + 1
        if self.plan.ends_group(chunk):
            self.end_group(text, chunk)
            return 0.0
        moved = torch.zeros((), dtype=torch.float64, device=self.world.device)
        batch = self.plan.rows(chunk, self.world.rank, self.world.size, goes_on=True)
        if batch.rows:
            living = [p.detach()[: batch.rows] for p in self.adapters.parameters()]  # slots of finished documents drift
            before = [p.clone() for p in living]
            self.step(text, batch)
            moved += sum((a - b).double().square().sum() for a, b in zip(living, before, strict=True))
        self.world.sum_(moved)
        self.steps += 1
        self.moved += (distance := moved.sqrt().item())
        return distance

    @abstractmethod
    def step(self, text: "CommittedText", batch: DocumentBatch) -> None:
        """Learn from the documents of a committed chunk that go on."""

    @abstractmethod
    def end_group(self, text: "CommittedText", chunk: int) -> None:
        """Make the adapters ready for the documents of the next group."""

    def state(self) -> dict[str, Tensor]:
        mixer = {} if self.spec.mixer is None else self.mixer.state()
        return self.model.state_dict() | {f"adapters.{k}": v for k, v in self.adapters.state_dict().items()} | mixer

    def receipts(self) -> tuple[Receipt, ...]:
        what = (
            f"moved {len(list(self.adapters.parameters())) // 2} adapters in {self.steps} steps (sum of L2 distances)"
        )
        mixer = () if self.spec.mixer is None else (self.mixer.receipt(),)
        return (Receipt("ttt", what, self.moved, self.moved > 0), *mixer)


class LoraLearner(DocumentLearner):
    """Adapters on layers by name, fresh for every document."""

    def __init__(self, spec: "LoraScoreFirst", model: "Transformer", world: World, plan: DocumentPlan):
        slots = self.begin(spec, model, world, plan)
        self.adapters = nn.ModuleDict(attached(spec, model, slots, world.device))
        self._fresh()

    def _fresh(self) -> None:
        generator = torch.Generator().manual_seed(self.spec.seed)
        for adapter in self.adapters.values():
            adapter.reset(generator)
        self.optimizer = self.spec.optimizer.build(list(self.adapters.parameters()))

    def end_group(self, text: "CommittedText", chunk: int) -> None:
        self._fresh()

    def shapes(self) -> Iterator[Shape]:
        for chunk in range(self.plan.chunks):
            batch = self.plan.rows(chunk, self.world.rank, self.world.size, goes_on=True)
            if batch.rows:
                yield batch.rows, batch.length, batch.last

    def step(self, text: "CommittedText", batch: DocumentBatch) -> None:
        """`epochs` steps of every slot on the chunk that was just scored; a slot's gradient is clipped by its own norm."""
        params = list(self.adapters.parameters())
        x_BT, y_BT = text.rows(batch.starts, batch.ends, batch.length)
        for _ in range(self.spec.epochs):
            self.optimizer.zero_grad()
            self.loss(x_BT, y_BT, batch.last).mean(1).sum().backward()
            clip_by_slot([p.grad for p in params], self.spec.clip)
            self.optimizer.step()


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
