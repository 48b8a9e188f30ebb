"""Low-rank adapters per document: every document of a batch has its own, starts from nothing and learns from itself alone.

The model stays as it was packed. A row of the batch goes through its own adapters, so documents cannot reach each other, and
the ranks share nothing but the count of what was scored. Scoring a chunk keeps the graph of its loss; once the chunk is
committed, a step goes back through it: one forward scores and teaches, and nothing is learnt from that was not scored."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.errors import ConfigError
from pgolf.eval.learner import Learner, Shape, any_shape
from pgolf.files.receipts import Receipt
from pgolf.machine.world import World
from pgolf.model.layers import Linear
from pgolf.model.weights import copies, distance
from pgolf.ttt.documents import DocumentBatch, DocumentPlan

if TYPE_CHECKING:
    from pgolf.eval.ledger import ChunkScorer
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
        self.chunk_loss: Tensor | None = None
        return len(range(world.rank, plan.slots, world.size))

    def compile(self, rows: int, one_shape: bool) -> None:
        torch._dynamo.config.recompile_limit = MOST_GRAPHS
        self.network = any_shape(torch.compile(self.network, dynamic=False, fullgraph=True))

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

    def loss(self, x_BT: Tensor, y_BT: Tensor, last: int) -> Tensor:
        return -self.network(x_BT, last).gather(-1, y_BT[:, -last:, None]).squeeze(-1)

    def score(self, scorer: "ChunkScorer") -> None:
        """Score the chunk and keep the loss of the documents that go on, the mean over each one's chunk, summed."""
        go_on = self.plan.rows(scorer.chunk, self.world.rank, self.world.size, goes_on=True).rows
        for batch, x_BT, y_BT in scorer.batches():
            targets_BS1 = y_BT[:, -batch.last :, None]
            with torch.set_grad_enabled(go_on > 0):
                log_p_BSV = self.network(x_BT, batch.last)
                if go_on:
                    self.chunk_loss = -log_p_BSV[:go_on].gather(-1, targets_BS1[:go_on]).squeeze(-1).mean(1).sum()
            mixed_BSV = self.mixed(log_p_BSV.detach(), x_BT)
            scorer.record_nll(batch, -mixed_BSV.gather(-1, targets_BS1).squeeze(-1))

    def shapes(self) -> Iterator[Shape]:
        for chunk in range(self.plan.chunks):
            batch = self.plan.rows(chunk, self.world.rank, self.world.size)
            if self.plan.rows(chunk, self.world.rank, self.world.size, goes_on=True).rows:
                yield batch.rows, batch.length, batch.last

    def adapt(self, text: "CommittedText", chunk: int) -> float:
        if self.spec.mixer is not None:
            self.mixer.learn(self, text, chunk)
        self.chunk = chunk + 1
        if self.plan.ends_group(chunk):
            self.end_group(text, chunk)
            return 0.0
        squared = torch.zeros((), dtype=torch.float64, device=self.world.device)
        batch = self.plan.rows(chunk, self.world.rank, self.world.size, goes_on=True)
        if self.chunk_loss is not None:
            living = [p.detach()[: batch.rows] for p in self.adapters.parameters()]  # slots of finished documents drift
            before = copies(living)
            self.step(text, batch, self.chunk_loss)
            self.chunk_loss = None
            squared += distance(before, living) ** 2
        self.world.sum_(squared)
        self.steps += 1
        self.moved += (moved := squared.sqrt().item())
        return moved

    @abstractmethod
    def step(self, text: "CommittedText", batch: DocumentBatch, loss: Tensor) -> None:
        """Learn from the documents of a committed chunk that go on; `loss` is theirs, of the forward that scored them."""

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
        yield from super().shapes()
        for chunk in range(self.plan.chunks if self.spec.epochs > 1 else 0):
            batch = self.plan.rows(chunk, self.world.rank, self.world.size, goes_on=True)
            if batch.rows:
                yield batch.rows, batch.length, batch.last

    def step(self, text: "CommittedText", batch: DocumentBatch, loss: Tensor) -> None:
        """`epochs` steps of every slot on the chunk that was just scored; a slot's gradient is clipped by its own norm."""
        for epoch in range(self.spec.epochs):
            if epoch:
                x_BT, y_BT = text.rows(batch.starts, batch.ends, batch.length)
                loss = self.loss(x_BT, y_BT, batch.last).mean(1).sum()
            self.adapters.zero_grad()
            loss.backward()
            clip_by_slot([p.grad for p in self.adapters.parameters()], self.spec.clip)
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
    norms_PS = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads])
    scale_S = (limit / (norms_PS.norm(dim=0) + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(scale_S.view(-1, *[1] * (g.dim() - 1)))
