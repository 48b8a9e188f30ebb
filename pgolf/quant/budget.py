"""Filling a budget of bytes: a variable that makes the file smaller, a cheap guess of the size from the entropy of symbols, and
a few real encodings that put the guess right. The variable is a factor on the row steps (`fit_step`)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.files.receipts import Receipt
from pgolf.quant import estimate
from pgolf.quant.apply import Quantized, planned
from pgolf.quant.rows import as_rows, inverse
from pgolf.quant.scales import StdScale

if TYPE_CHECKING:
    from pgolf.quant import Pack
    from pgolf.quant.fits import Fitted

SAMPLE = 2**14  # symbols of a tensor that its entropy is guessed from
HALVINGS = 24


@dataclass(frozen=True)
class Trial:
    """One real encoding: the value of the variable and the file it gave."""

    variable: float
    quantized: Quantized
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of the encoding."""
        return len(self.data)


@dataclass(frozen=True)
class Search:
    """The lowest value in [low, high] whose file has at most a budget of bytes and hardly less; files shrink as it rises.

    `guess` predicts the size but for the `rest`; every encoding corrects that, and two of them correct the slope.
    `within` and `encodings` are those of `Fit`.
    """

    encode: Callable[[float], Trial]
    guess: Callable[[float], float]
    low: float
    high: float
    rest: float
    within: int
    encodings: int

    def best(self, budget: int) -> tuple[Trial, int]:
        """The trial that fits with least to spare (or the smallest, where none fits), and how many there were."""
        trials: list[Trial] = []
        low, high = self.low, self.high
        while len(trials) < self.encodings:
            none_fits = all(t.size > budget for t in trials)
            last_chance = none_fits and len(trials) == self.encodings - 1
            room = budget - (4 * self.within if last_chance else self.within // 2)
            trials.append(self.encode(self.variable(self.wanted(room, trials), low, high)))
            variable, size = trials[-1].variable, trials[-1].size
            if budget - self.within <= size <= budget or variable == (low if size <= budget else high):
                break
            low, high = (low, variable) if size <= budget else (variable, high)
        fitting = [t for t in trials if t.size <= budget]
        best = max(fitting, key=lambda t: t.size) if fitting else min(trials, key=lambda t: t.size)
        return best, len(trials)

    def wanted(self, room: float, trials: list[Trial]) -> float:
        """What the guess must come to, for a file of `room` bytes, by the trials so far."""
        if not trials:
            return room - self.rest
        last, slope = trials[-1], 1.0
        if len(trials) > 1 and last.size != trials[-2].size:
            slope = (self.guess(last.variable) - self.guess(trials[-2].variable)) / (last.size - trials[-2].size)
        return self.guess(last.variable) + min(max(slope, 0.5), 2.0) * (room - last.size)

    def variable(self, wanted: float, low: float, high: float) -> float:
        """Where the guess falls to `wanted`, by bisection; `low` where it never was above."""
        if self.guess(low) <= wanted:
            return low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.guess(middle) <= wanted else (middle, high)
        return high


def with_receipt(best: Trial, encodings: int, budget: int, what: str, value: float) -> tuple[Quantized, bytes]:
    """The result with the record's `fit` entry and a receipt."""
    out = best.quantized
    out.fit = {"target": budget, "reached": best.size, "what": what, "value": value, "encodings": encodings}
    text = f"{what}; {best.size:,} of {budget:,} bytes after {encodings} encodings"
    out.receipts.append(Receipt("quant.fit", text, value, alive=best.size <= budget))
    return out, best.data


def fit_step(
    quant: "Fitted", model: nn.Module, hessians: Mapping[str, Tensor], pack: "Pack", budget: int
) -> tuple[Quantized, bytes]:
    """One factor on every k, so that symbols everywhere lose the same fraction of a bit."""
    solver, (k, _) = quant.solver.build(), quant.steered[0]

    def encode(factor: float) -> Trial:
        out = quant.coarser(factor).quantize(model, hessians, solver)
        return Trial(factor, out, pack(out))

    guess = StepGuess.of(*planned(model, hessians, quant), model.sections(), quant)
    low = max(guess.finest(k), 1 / min(k for k, _ in quant.steered))
    high = max(low, estimate.coarsest(quant.steered))
    search = Search(encode, guess, low, high, guess.rest, quant.fit.within, quant.fit.encodings)
    best, encodings = search.best(budget)
    what, value = quant.coarser(best.variable).told_steps()
    what += " of least error, which leaves room" if best.variable == low else ""
    return with_receipt(best, encodings, budget, what, value)


@dataclass(frozen=True)
class StepGuess:
    """Bytes of all symbols at a factor on the steps, by plain rounding of a sample of every tensor. `rest` is all else.

    Of each sampled weight, all in one line: `y_i` its value in steps, `tensor_i` which tensor it is of, `c_i` the largest
    symbol there, `moves_i` 1 where the steps move and 0 where not. `size_t` are whole tensors' weights.
    """

    y_i: Tensor
    c_i: Tensor
    moves_i: Tensor
    tensor_i: Tensor
    size_t: Tensor
    rest: float

    @classmethod
    @torch.no_grad()
    def of(
        cls, weights: Mapping[str, Tensor], plan: Mapping[str, int], sections: Mapping[str, str], quant: "Fitted"
    ) -> "StepGuess":
        """Samples of the integer tensors of a plan, with their steps."""
        integers = [name for name, bits in plan.items() if bits <= 8]
        lines = [sample(weights[name], sections[name], plan[name], quant) for name in integers]
        count_t = torch.tensor([len(line) for line in lines])

        def spread(values: list[float]) -> Tensor:
            return torch.tensor(values).repeat_interleave(count_t).to(lines[0].device)

        moves = [float(isinstance(quant.scale_of(sections[name]), StdScale)) for name in integers]
        return cls(
            torch.cat(lines),
            spread([float(estimate.levels(plan[name])) for name in integers]),
            spread(moves),
            spread(list(range(len(integers)))),
            torch.tensor([weights[name].numel() for name in integers]).to(lines[0].device),
            estimate.file_bytes(
                2 * len(W) if plan[name] <= 8 else estimate.float_bytes(tuple(W.shape), plan[name])
                for name, W in weights.items()
            ),
        )

    def symbols(self, factor: float) -> Tensor:
        """The sampled symbols when all fitted steps are multiplied by `factor`."""
        return (self.y_i / factor**self.moves_i).round().clamp(-self.c_i, self.c_i)

    def __call__(self, factor: float) -> float:
        places_i = self.tensor_i * 256 + self.symbols(factor).long() + 128
        counts = torch.bincount(places_i, minlength=256 * len(self.size_t))
        return symbol_bytes(counts.view(-1, 256), self.size_t)

    def error(self, factor: float) -> float:
        """Squared error of plain rounding over the squared weights, mean of tensors."""
        left_i = self.y_i - factor**self.moves_i * self.symbols(factor)
        parts = (torch.bincount(self.tensor_i, x_i.square().double()) for x_i in (left_i, self.y_i))
        return (next(parts) / next(parts).clamp_min(1e-30)).mean().item()

    def finest(self, k: float) -> float:
        """The factor on `k` of least error: below it, clipping costs more than finer steps gain."""
        return min((clip / k for clip in estimate.CLIPS), key=self.error)


def sample(W: Tensor, section: str, bits: int, quant: "Fitted") -> Tensor:
    """Some rows of a tensor, evenly spaced, in steps and in one line."""
    W_rn = as_rows(W)
    W_rn = W_rn[:: max(1, W.numel() // SAMPLE)].float()
    return (W_rn * inverse(quant.steps(W_rn, section, bits))[:, None]).flatten()


def symbol_bytes(counts_ts: Tensor, size_t: Tensor) -> float:
    """Σ over tensors of their size times the entropy of their histogram, in bytes.

    >>> symbol_bytes(torch.tensor([[1, 1], [4, 0]]), torch.tensor([16, 100]))
    2.0
    """
    p_ts = counts_ts.double() / counts_ts.sum(1, keepdim=True)
    return -(torch.xlogy(p_ts, p_ts).sum(1) * size_t).sum().item() / math.log(2) / 8
