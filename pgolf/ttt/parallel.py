"""Adapters in the form of the record stack: beside each place of a block, one set per visit, one step a chunk."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pgolf.files.receipts import Receipt
from pgolf.machine.share import share
from pgolf.machine.world import World
from pgolf.model.pieces import Pieces
from pgolf.model.weights import copies, distance
from pgolf.optim.first_order import SGD
from pgolf.ttt.documents import DocumentBatch, DocumentPlan
from pgolf.ttt.lora import Adapter, DocumentLearner
from pgolf.ttt.score_first import cosine

if TYPE_CHECKING:
    from pgolf.eval.text import CommittedText
    from pgolf.model.transformer import Transformer
    from pgolf.ttt.by_document import GlobalSGD, ParallelLora


class Visits(nn.Module):
    """An adapter for every place of every visit of a block, and one at the head, each added to the output of its place by a hook.

    `q`, `k`, `v` and `o` read the attention's input, `mlp` that of the MLP, `head` the final state; all act before the block's
    own scales and the softcap. While `on` is False they add nothing."""

    def __init__(self, spec: "ParallelLora", model: "Transformer", slots: int, device: torch.device):
        super().__init__()
        gpt, self.on, self.turn = model.spec, True, -1
        sizes = {"q": gpt.width, "k": gpt.kv_width, "v": gpt.kv_width, "o": gpt.width, "mlp": gpt.width}
        visits = len(gpt.order(model.looping))
        for place, outputs in sizes.items():
            if place in spec.places:
                adapters = (Adapter(slots, gpt.width, outputs, spec, device) for _ in range(visits))
                self.add_module(place, nn.ModuleList(adapters))
        if "head" in spec.places:
            self.head = Adapter(slots, gpt.embed_width, gpt.vocab_size, spec, device)
            model.head.register_forward_hook(self._at_head)
        model.embedding.register_forward_pre_hook(self._first)
        for block in model.blocks:
            block.attn.register_forward_pre_hook(self._next)
            parts = {"q": block.attn.q, "k": block.attn.k, "v": block.attn.v, "o": block.attn, "mlp": block.mlp}
            for place in sizes.keys() & spec.places:
                parts[place].register_forward_hook(self._at(place))

    def _first(self, *_: object) -> None:
        """A forward pass begins."""
        self.turn = -1

    def _next(self, *_: object) -> None:
        """A block is visited, its attention first."""
        self.turn += 1

    def _at(self, place: str):
        adapters = self.get_submodule(place)

        def add(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return out + adapters[self.turn](inputs[0][:, -out.shape[1] :]) if self.on else out

        return add

    def _at_head(self, _: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out + self.head(inputs[0]) if self.on else out

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Fresh adapters in every slot."""
        generator = torch.Generator().manual_seed(seed)
        for adapter in self.modules():
            if isinstance(adapter, Adapter):
                adapter.reset(generator)

    @torch.no_grad()
    def keep_inputs(self) -> None:
        """B zeros again, A as it is."""
        for adapter in self.modules():
            if isinstance(adapter, Adapter):
                adapter.B.zero_()


class ParallelLoraLearner(DocumentLearner):
    """A step on every chunk that is not its document's last; between groups of documents the adapters are made fresh."""

    spec: "ParallelLora"

    def __init__(self, spec: "ParallelLora", model: "Transformer", world: World, plan: DocumentPlan):
        slots = self.begin(spec, model, world, plan)
        self.adapters = Visits(spec, model, slots, world.device)
        self.phases: list[float] = []  # how far each moved the model
        self._fresh(warm=False)

    def _fresh(self, warm: bool) -> None:
        if warm:
            self.adapters.keep_inputs()
        else:
            self.adapters.reset(self.spec.seed)
        self.optimizer = self.spec.optimizer.build(list(self.adapters.parameters()))

    def step(self, text: "CommittedText", batch: DocumentBatch, loss: Tensor) -> None:
        self.adapters.zero_grad()
        loss.backward()
        self.optimizer.step()

    def end_group(self, text: "CommittedText", chunk: int) -> None:
        group = self.plan.place(chunk)[0]
        before, scored = self.plan.edges[group : group + 2]
        due = [n for n in self.spec.phases.after if before < n <= scored] if self.spec.phases else []
        if due:
            self.phases.append(self._phase(text, scored, max(due), self.spec.phases))
        self._fresh(warm=self.spec.warm and not due and scored - before == self.plan.side)

    def _phase(self, text: "CommittedText", scored: int, used: int, spec: "GlobalSGD") -> float:
        """SGD of the whole model on the `used` shortest of the `scored` documents; how far it moved."""
        starts, lengths = (a[:scored][::-1][:used] for a in (self.plan.starts, self.plan.targets_in))
        packed = Packed(text, starts, lengths, self.plan.targets)
        params = list(self.model.parameters())
        before = copies(params)
        self.adapters.on = False
        self.model.requires_grad_(True)
        optimizer = SGD(params, spec.lr, spec.momentum)
        last = -(-packed.targets // spec.chunk_tokens) - 1  # the chunk that is not whole is left out
        for i in range(last):
            optimizer.lr = spec.lr * cosine(i / last, 0.0)
            self._descend(packed, i * spec.chunk_tokens, spec, params)
            optimizer.step()
        self.model.zero_grad()
        self.model.requires_grad_(False)
        self.adapters.on = True
        return distance(before, params)

    def _descend(self, packed: "Packed", first: int, spec: "GlobalSGD", params: list[Tensor]) -> None:
        """Gradients of the mean loss of a chunk, as many whole contexts as it holds, summed over ranks and clipped."""
        longest = self.plan.context
        count = spec.chunk_tokens // longest * longest
        for p in params:
            p.grad = torch.zeros_like(p)
        edges = packed.edges(first, first + count, longest)
        mine, end = share(0, len(edges) - 1, self.world.rank, self.world.size)
        if end > mine:
            lead = min(mine, 1)
            x_1T, y_1T, pieces = packed.row(edges[mine : end + 1], longest, lead)
            (self.model.nll(x_1T, y_1T, pieces)[:, lead:].sum() / count).backward()
        self.world.sum_(*(p.grad for p in params))
        torch.nn.utils.clip_grad_norm_(params, spec.clip)

    def receipts(self) -> tuple[Receipt, ...]:
        found = super().receipts()
        if self.spec.phases is None:
            return found
        what = f"{len(self.phases)} phases of SGD moved the model (sum of L2 distances)"
        return (*found, Receipt("ttt.phases", what, sum(self.phases), sum(self.phases) > 0))


class Packed:
    """Committed documents end to end, each with the token that closes it, where the text of `targets` has one."""

    def __init__(self, text: "CommittedText", starts: np.ndarray, lengths: np.ndarray, targets: int):
        both = [text.sequences(int(first), 1, int(n)) for first, n in zip(starts, lengths, strict=True)]
        self.tokens = torch.cat([part for x_1T, y_1T in both for part in (x_1T[0], y_1T[0, -1:])])
        begins = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
        closing = (begins + lengths)[starts + lengths < targets]
        self.opens = np.union1d(begins, closing)  # the closing token opens a document, here one of itself alone

    @property
    def targets(self) -> int:
        """How many there are."""
        return len(self.tokens) - 1

    def edges(self, first: int, end: int, longest: int) -> list[int]:
        """Where the pieces of [first, end) begin, and `end`: at `first`, where documents open, and every `longest` later."""
        inside = self.opens[(self.opens > first) & (self.opens < end)].tolist()
        return [*(at for a, b in pairwise([first, *inside, end]) for at in range(a, b, longest)), end]

    def row(self, edges: list[int], longest: int, lead: int) -> tuple[Tensor, Tensor, Pieces]:
        """Inputs and targets (1, T) of pieces with these edges, after `lead` tokens (0 or 1) that are a piece of their own: what
        reads the token before then reads the same on whichever rank a chunk's piece is."""
        begin = edges[0] - lead
        flat = self.tokens[begin : edges[-1] + 1]
        bounds = [*range(lead), *(at - begin for at in edges)]
        pieces = Pieces(torch.tensor(bounds, dtype=torch.int32, device=flat.device), longest)
        return flat[None, :-1], flat[None, 1:], pieces
