"""Score-first test-time training: gradient steps on a chunk whose score is already in the ledger.

Every rank takes its part of each batch and gradients are summed over ranks, so the ranks stay equal to the bit and their
number does not change the result beyond the order of additions."""

import copy
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pgolf.errors import ConfigError
from pgolf.eval.learner import Learner, Shape
from pgolf.eval.windows import SlidingPlan
from pgolf.files.receipts import Receipt
from pgolf.machine.share import share
from pgolf.machine.world import World
from pgolf.model.weights import copies, distance
from pgolf.ttt.parts import GradientScale

if TYPE_CHECKING:
    from pgolf.eval.text import CommittedText
    from pgolf.model.transformer import Transformer
    from pgolf.ttt import ScoreFirst


# What the options that only change numbers on the way did, so that one which is on and does nothing is seen.
EFFECTS = {
    "ttt.gradient_scale": "largest distance of a tensor's factor from 1",
    "ttt.byte_weighted": "largest distance of a target's weight from 1",
    "ttt.temperature": "mean nats a token by which it changed the first sequence",
}


class ScoreFirstLearner(Learner):
    """Trains `model` in place; scores with it, or with the Polyak average of it."""

    def __init__(self, spec: "ScoreFirst", model: "Transformer", world: World, plan: SlidingPlan):
        self.spec, self.model, self.world, self.plan = spec, model, world, plan
        self.trained = trained_parameters(spec, model)
        self.optimizer = spec.optimizer.build(list(self.trained.values()))
        self.scorer = model if spec.polyak is None else copy.deepcopy(model)
        self.averages = [p for name, p in self.scorer.named_parameters() if name in self.trained]
        if spec.mixer is not None:
            self.mixer, self.whole = spec.mixer.build(model.spec.vocab_size, plan, world.device), False
        self.moved: list[float] = []
        on = {
            "ttt.gradient_scale": spec.gradient_scale is not GradientScale.NONE,
            "ttt.byte_weighted": spec.byte_weighted,
            "ttt.temperature": spec.temperature is not None,
        }
        self.effects = {part: torch.zeros((), device=world.device) for part in on if on[part]}

    def compile(self, rows: int, one_shape: bool) -> None:
        if self.spec.mixer is not None:
            self.mixer.compile()
        super().compile(rows, one_shape)

    def log_p(self, x_BT: Tensor, last: int) -> Tensor:
        log_p_BSV = self.network(x_BT, last)
        return log_p_BSV if self.spec.mixer is None else self.mixer.mixed(log_p_BSV, x_BT)

    def network(self, x_BT: Tensor, last: int) -> Tensor:
        """ln p of the network alone, (B, last, V)."""
        logits_BSV = self.scorer.logits(x_BT, last=last)
        if self.spec.temperature is not None:
            logits_BSV = logits_BSV / self.spec.temperature.of(logits_BSV)
        return logits_BSV.log_softmax(-1)

    def adapt(self, text: "CommittedText", chunk: int) -> float:
        if self.spec.mixer is not None:
            self.mixer.learn(self, text, chunk)
        if self.spec.temperature is not None and chunk == 0:
            self._record_temperature(text)
        before = copies(self.trained.values())
        steps = list(self._steps())
        for step, (lo, hi) in enumerate(steps):
            self._set_rate(chunk, step / len(steps))
            self._step(text, chunk * self.plan.chunk, lo, hi)
        self.moved.append(distance(before, list(self.trained.values())))
        return self.moved[-1]

    @torch.no_grad()
    def _record_temperature(self, text: "CommittedText") -> None:
        x_BT, y_BT = text.sequences(0, 1, self.spec.sequence_length)
        plain_BTV = self.scorer.logits(x_BT, last=x_BT.shape[1]).log_softmax(-1)
        change_BTV = self.network(x_BT, self.spec.sequence_length) - plain_BTV
        self._acted("ttt.temperature", change_BTV.gather(-1, y_BT[..., None]).abs().mean())

    def _acted(self, part: str, size: Tensor) -> None:
        """Keep the largest size of what an option did; equal on all ranks, which see the same batch."""
        self.effects[part] = torch.maximum(self.effects[part], size)

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Sequences [lo, hi) of the chunk for each step, epoch after epoch."""
        n, size = self.plan.chunk // self.spec.sequence_length, self.spec.batch_sequences
        for _ in range(self.spec.epochs):
            yield from ((lo, min(lo + size, n)) for lo in range(0, n, size))

    def _set_rate(self, chunk: int, done: float) -> None:
        lr = self.spec.optimizer.lr * cosine(chunk / max(self.plan.chunks - 1, 1), 0.0)
        if self.spec.within_chunk_floor is not None:
            lr *= cosine(done, self.spec.within_chunk_floor)
        self.optimizer.lr = lr

    def _step(self, text: "CommittedText", first: int, lo: int, hi: int) -> None:
        """One optimiser step on sequences [lo, hi) of the chunk that begins at target `first`."""
        params, T = list(self.trained.values()), self.spec.sequence_length
        for p in params:
            p.grad = torch.zeros_like(p)
        share_N = self._shares(text, first + lo * T, (hi - lo) * T)
        mine, end = share(lo, hi, self.world.rank, self.world.size)
        for at in range(mine, end, self.spec.micro_sequences):
            x_BT, y_BT = text.sequences(first + at * T, min(self.spec.micro_sequences, end - at), T)
            begin = (at - lo) * T
            (self.loss(x_BT, y_BT, T).flatten() * share_N[begin : begin + x_BT.numel()]).sum().backward()
        self._update(params)

    def shapes(self) -> set[Shape]:
        T, micro = self.spec.sequence_length, self.spec.micro_sequences
        parts = [share(lo, hi, self.world.rank, self.world.size) for lo, hi in self._steps()]
        return {(min(micro, end - at), T, T) for mine, end in parts for at in range(mine, end, micro)}

    def _shares(self, text: "CommittedText", first: int, count: int) -> Tensor:
        """How much each of a step's `count` targets weighs in its mean loss, (count,) float32."""
        weights = torch.ones(count, device=self.world.device)
        if self.spec.byte_weighted:
            weights = torch.from_numpy(byte_weights(text.bytes(first, first + count))).to(self.world.device)
            self._acted("ttt.byte_weighted", (weights - 1).abs().max())
        return weights / count

    def _update(self, params: list[Tensor]) -> None:
        """Sum the gradients over ranks, scale and clip them, and step."""
        grads = [p.grad for p in params]
        self.world.sum_(*grads)
        if self.spec.gradient_scale is not GradientScale.NONE:
            self._acted("ttt.gradient_scale", scale_by_snr(grads, self.spec.gradient_scale.value))
        torch.nn.utils.clip_grad_norm_(params, self.spec.clip)
        self.optimizer.step()
        self._average(params)

    @torch.no_grad()
    def _average(self, params: list[Tensor]) -> None:
        if self.spec.polyak is not None:
            torch._foreach_lerp_(self.averages, params, 1 - self.spec.polyak)

    def state(self) -> dict[str, Tensor]:
        # The optimiser's buffers are left out: no score reads them, and they change only in `adapt`.
        mixer = {} if self.spec.mixer is None else self.mixer.state()
        if self.scorer is self.model:
            return self.model.state_dict() | mixer
        both = (("model", self.model), ("scorer", self.scorer))
        return {f"{who}.{k}": v for who, m in both for k, v in m.state_dict().items()} | mixer

    def receipts(self) -> tuple[Receipt, ...]:
        total = sum(self.moved)
        what = f"moved {len(self.trained)} tensors over {len(self.moved)} chunks (sum of L2 distances)"
        found = [Receipt("ttt", what, total, total > 0)]
        if self.spec.polyak is not None:
            apart = distance(self.averages, list(self.trained.values()))
            found.append(
                Receipt("ttt.polyak", "kept the scoring weights apart from the trained ones (L2)", apart, apart > 0)
            )
        found += [Receipt(part, EFFECTS[part], size.item(), size.item() > 0) for part, size in self.effects.items()]
        if self.spec.mixer is not None:
            found.append(self.mixer.receipt())
        return tuple(found)


def trained_parameters(spec: "ScoreFirst", model: "Transformer") -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name; all others are frozen, so that no gradient is computed for them."""
    everything = dict(model.named_parameters())
    names = trained_names(spec, model)
    for name, p in everything.items():
        p.requires_grad_(name in names)
    return {name: everything[name] for name in names}


def trained_names(spec: "ScoreFirst", model: "Transformer") -> list[str]:
    """The names of the parameters that learn; ConfigError if there are none."""
    everything = [name for name, _ in model.named_parameters()]
    names = spec.trained.names(everything, len(model.blocks))
    if not names:
        kinds = dict.fromkeys(re.sub(r"^blocks\.\d+", "blocks.N", name) for name in everything)
        raise ConfigError("ttt.trained", spec.trained, f"must choose some of: {', '.join(kinds)}")
    return names


def cosine(done: float, floor: float) -> float:
    """floor + (1 − floor) · ½ (1 + cos π·done): 1 at the start, `floor` at the end."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def scale_by_snr(grads: list[Tensor], power: int) -> Tensor:
    """g ← g · clip((mean |g| / std g)^power, 0.3, 3), tensor by tensor (PR 639); a single number has no spread and stays.
    Returns the factor farthest from 1, as its distance.

    Two equal entries have no noise and are scaled by 3; [1, −1] has mean |g| = std and stays."""
    farthest = torch.zeros((), device=grads[0].device)
    for g in (g for g in grads if g.numel() > 1):
        factor = ((g.abs().mean() / (g.std(correction=0) + 1e-12)) ** power).clamp(0.3, 3.0)
        farthest = torch.maximum(farthest, (factor - 1).abs())
        g.mul_(factor)
    return farthest


def byte_weights(target_bytes: np.ndarray) -> np.ndarray:
    """Weights of a byte-weighted loss: bytes over their mean, so that the scale of the loss stays. [1, 3] gives [0.5, 1.5]."""
    return (target_bytes / max(target_bytes.mean(), 1e-12)).astype(np.float32)
