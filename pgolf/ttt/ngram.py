"""Token n-gram tilt: the token that followed the same tokens before gets more probability, in closed form (pull request 2135).

A hint comes from tables of committed text and from the own earlier tokens of its row, never from the token that came. The
tables are fed a whole chunk at a time, slot by slot, equally on all ranks, so hints do not depend on their number.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pgolf.files.receipts import Receipt
from pgolf.ttt.mixer import Mixing

if TYPE_CHECKING:
    from pgolf.eval.learner import Learner
    from pgolf.eval.text import CommittedText
    from pgolf.eval.windows import Plan
    from pgolf.ttt.parts import Ngram

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
COUNT = 2**24 - 1


def tilted(log_p_BSV: Tensor, hint_BS: Tensor, bonus_BS: Tensor) -> Tensor:
    """ln p'(v) = ln p(v) + β[v = h] − ln Z, Z = 1 + p(h) (e^β − 1), (B, S, V): a distribution again, whatever h and β.

    >>> tilted(torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[1]]), torch.tensor([[3.0]]).log()).exp()
    tensor([[[0.2500, 0.7500]]])
    """
    at = hint_BS[..., None]
    log_z = torch.log1p(log_p_BSV.gather(-1, at).exp() * torch.expm1(bonus_BS)[..., None])
    return (log_p_BSV - log_z).scatter_add(-1, at, bonus_BS[..., None])


def hints(tokens: np.ndarray, order: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Hints and gates of each target of a stream in its own order, (targets,) each: the token that came most often after the
    `order` − 1 tokens before, where that is at least `threshold` of the times they came; else 0 and False.

    As in the published script, the first target stands in place of the token before it.

    >>> found, gates = hints(np.array([1, 5, 6, 7, 5, 6, 7]), order=3, threshold=0.8)
    >>> found.tolist(), gates.tolist()
    ([0, 0, 0, 0, 0, 7], [False, False, False, False, False, True])
    """
    seeded = np.concatenate([tokens[1:2], tokens[1:]]).astype(np.int64)
    stream = Contexts(np.concatenate([np.full(order - 2, -1), seeded])[None], order)
    found, gates = stream.spread(*Tables(1).seen(stream).gated(threshold))
    return found[0], gates[0]


@dataclass(frozen=True)
class Leaders:
    """What followed some contexts: how often anything, how often the leading token, and which that is. Each (N,) int64."""

    total: np.ndarray
    best: np.ndarray
    token: np.ndarray

    @classmethod
    def unpacked(cls, values: np.ndarray) -> "Leaders":
        """From what a table holds: 24 bits of total, 24 of best, 16 of token."""
        v = values.astype(np.int64)
        return cls(v >> 40 & COUNT, v >> 16 & COUNT, v & 0xFFFF)

    def packed(self) -> np.ndarray:
        """For a table; counts end at 2^24 − 1."""
        return np.minimum(self.total, COUNT) << 40 | np.minimum(self.best, COUNT) << 16 | self.token

    def gated(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """The leading tokens, and where they have at least `threshold` of all, in float32; elsewhere 0 and False."""
        share = self.best.astype(np.float32) / np.maximum(self.total, 1).astype(np.float32)
        gates = (self.total >= 1) & (share >= np.float32(threshold))
        return np.where(gates, self.token, 0), gates


class Contexts:
    """The whole contexts in `rows` (R, order − 2 + S + 1) of tokens, −1 where there is none: what comes before each of S targets.

    `keys` and `targets` (N,), `groups` that differ between rows, and `at`, their places among all R · S targets. The first
    `passed_R` targets of each row are left out."""

    def __init__(self, rows_RW: np.ndarray, order: int, passed_R: np.ndarray | int = 0):
        self.shape = (len(rows_RW), rows_RW.shape[1] - order + 1)
        S = self.shape[1]
        whole = (rows_RW[:, :S] >= 0) & (rows_RW[:, order - 1 :] >= 0)  # what is missing is at the ends
        whole &= np.arange(S) >= np.reshape(passed_R, (-1, 1))
        keys = polynomials((rows_RW + 1).astype(np.uint64), order - 1)[:, :S]
        self.at = np.flatnonzero(whole)
        self.keys = np.maximum(mixed(keys.ravel()[self.at]), np.uint64(1))
        self.targets = rows_RW[:, order - 1 :].ravel()[self.at]
        self.groups = self.keys + (self.at // self.shape[1]).astype(np.uint64) * _MIX

    def pairs(self, which: np.ndarray | slice) -> np.ndarray:
        """Keys of contexts with their targets."""
        return np.maximum(mixed(self.keys[which] + self.targets[which].astype(np.uint64) * _MIX), np.uint64(1))

    def spread(self, hints_N: np.ndarray, gates_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hints and gates of all targets, (R, S): none where the context is not whole."""
        hints, gates = np.zeros(self.shape, np.int64), np.zeros(self.shape, bool)
        hints.flat[self.at], gates.flat[self.at] = hints_N, gates_N
        return hints, gates


def polynomials(tokens_RW: np.ndarray, length: int) -> np.ndarray:
    """Σ_i t_i · odd^(length − 1 − i), modulo 2^64, of each run of `length`, (R, W − length + 1); by halves, in log steps."""
    if length == 1:
        return tokens_RW
    half = length // 2
    halves = polynomials(tokens_RW, half)
    both = halves[:, :-half] * _ODD**half + halves[:, half:]
    return both if length % 2 == 0 else both[:, :-1] * _ODD + tokens_RW[:, length - 1 :]


def mixed(keys: np.ndarray) -> np.ndarray:
    """64 bits that all depend on all 64 of each key (the finaliser of splitmix64)."""
    keys = (keys ^ (keys >> np.uint64(30))) * _MIX
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


class Groups:
    """The members of groups of more than one: `order` (M,), group by group, and where each `begins`."""

    def __init__(self, groups_N: np.ndarray):
        order = np.argsort(groups_N)  # a stable one takes twice as long, and few are in a group of more than one
        begins = firsts(groups_N[order])
        many = ~(begins & np.append(begins[1:], True))
        self.begins = begins[many]
        number = np.cumsum(self.begins)
        self.order = np.sort(number << 32 | order[many]) & 0xFFFFFFFF


def firsts(sorted_N: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before. 3 3 5: True False True."""
    begins = np.ones(len(sorted_N), bool)
    np.not_equal(sorted_N[1:], sorted_N[:-1], out=begins[1:])
    return begins


def places(begins: np.ndarray) -> np.ndarray:
    """Of each member in its group, from 0. True False True: 0 1 0."""
    n = np.arange(len(begins))
    return n - np.maximum.accumulate(np.where(begins, n, 0))


def running(base: Leaders, groups: Groups, came_N: np.ndarray, targets_N: np.ndarray) -> tuple[Leaders, np.ndarray]:
    """The leaders before each target where the members of a group see each other in order, on top of `base`; and how often each
    pair has come then, the target itself included. `came_N`: how often it came in the tables.

    The lead changes only to a token that came strictly more often: a running maximum of the pairs' counts, group by group."""
    order, begins, came_N = groups.order, groups.begins, came_N + 1
    if not len(order):
        return base, came_N
    targets, best, n, number = targets_N[order], base.best[order], np.arange(len(order)), np.cumsum(begins)
    pairs = number * 65536 + targets
    equal = np.argsort(pairs, kind="stable")
    came_N[order[equal]] += places(firsts(pairs[equal]))
    came = came_N[order]
    above = number << 32  # keeps the groups' running maxima apart
    before = np.maximum.accumulate(np.maximum(best, np.where(begins, 0, np.roll(came, 1))) + above) - above
    leads = np.roll(came > before, 1)  # the member before took the lead
    taken = np.maximum.accumulate(
        np.where(begins, 2 * n, np.where(leads, 2 * n - 1, 0))
    )  # odd: by a member, else by `base`
    found = Leaders(base.total.copy(), base.best.copy(), base.token.copy())
    found.total[order] += places(begins)
    found.best[order] = before
    found.token[order] = np.where(taken % 2 == 1, targets[taken // 2], base.token[order][taken // 2])
    return found, came_N


class Table:
    """A 64-bit value to each 64-bit key, in `slots` places (a power of two), by open addressing with linear probing."""

    def __init__(self, slots: int):
        self.keys, self.values = np.zeros(slots, np.uint64), np.zeros(slots, np.uint64)
        self.shift, self.mask, self.room = np.uint64(65 - slots.bit_length()), slots - 1, slots * 3 // 4

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Where each key is or, if it is not there, where it would stand: an empty place, of value 0."""
        places = ((keys * _ODD) >> self.shift).astype(np.int64)
        held = self.keys[places]
        searching = np.flatnonzero((held != keys) & (held != 0))
        while len(searching):
            places[searching] = at = (places[searching] + 1) & self.mask
            held = self.keys[at]
            searching = searching[(held != keys[searching]) & (held != 0)]
        return places

    def write(self, keys: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
        """Set the values of keys that `find` has placed; the last of equal keys counts.

        When three quarters of the places are taken, new keys are left out."""
        new = np.flatnonzero(self.keys[places] == 0)
        new, left_out = new[: self.room], new[self.room :]
        self.room -= len(new)  # equal new keys count one by one
        while len(new):
            self.keys[places[new]] = keys[new]
            new = new[self.keys[places[new]] != keys[new]]  # another one took the place
            places[new] = self.find(keys[new])
        if len(left_out):
            places, values = np.delete(places, left_out), np.delete(values, left_out)
        self.values[places] = values


class Tables:
    """What followed each context of the text so far, in `slots` places for contexts and as many for their pairs with a token."""

    def __init__(self, slots: int):
        self.contexts, self.pairs = Table(slots), Table(slots)
        self.digest = np.zeros(2, np.uint64)  # of all that was fed, in its order: how much, and a sum of mixed bits

    def seen(self, at: Contexts) -> Leaders:
        """What a row may see before each of its targets: the tables, and its own earlier tokens."""
        groups, came = Groups(at.groups), np.zeros(len(at.keys), np.int64)
        pairs = at.pairs(groups.order)
        came[groups.order] = self.pairs.values[self.pairs.find(pairs)]
        return running(Leaders.unpacked(self.contexts.values[self.contexts.find(at.keys)]), groups, came, at.targets)[0]

    def feed(self, at: Contexts) -> Leaders:
        """Count all targets, row by row; what each row had seen before."""
        pairs = at.pairs(slice(None))
        context_places, pair_places = self.contexts.find(at.keys), self.pairs.find(pairs)
        base, came = Leaders.unpacked(self.contexts.values[context_places]), self.pairs.values[pair_places]
        came_before = came.astype(np.int64)
        before, came = running(base, Groups(at.keys), came_before, at.targets)
        leads = came > before.best
        best, token = np.where(leads, came, before.best), np.where(leads, at.targets, before.token)
        self.contexts.write(at.keys, context_places, Leaders(before.total + 1, best, token).packed())
        self.pairs.write(pairs, pair_places, came)
        order = self.digest[0] + np.arange(len(pairs), dtype=np.uint64)
        self.digest += np.array([len(pairs), mixed(pairs + order * _ODD).sum()], np.uint64)
        return running(base, Groups(at.groups), came_before, at.targets)[0]


class NgramTilt(Mixing):
    """The tables on the host, and the tilt of the learner's distributions by what they say; equal on all ranks."""

    def __init__(self, spec: "Ngram", plan: "Plan", device: torch.device):
        self.spec, self.plan, self.device = spec, plan, device
        self.tables = Tables(min(spec.slots, 1 << (2 * plan.targets).bit_length()))
        self.counted, self.gated, self.hit = 0, 0, 0

    def compile(self) -> None:
        self.hinted = torch.compiler.disable(self.hinted)

    def hinted(self, x_BT: Tensor, last: int, passed_B: np.ndarray | int) -> tuple[Tensor, Tensor]:
        """The hint after each of the last positions, (B, last) int64, and β where its gate is open, else 0."""
        tail = x_BT[:, -(last + self.spec.order - 2) :].cpu().numpy()
        missing = last + self.spec.order - 2 - tail.shape[1]
        rows = np.pad(tail, ((0, 0), (missing, 1)), constant_values=((0, 0), (-1, 0)))  # the last target: any token
        at = Contexts(rows, self.spec.order, passed_B)
        hints, gates = at.spread(*self.tables.seen(at).gated(self.spec.threshold))
        both = torch.from_numpy(np.stack([hints, gates])).to(self.device)
        return both[0], both[1] * self.spec.beta

    def mixed(self, log_p_BSV: Tensor, x_BT: Tensor, passed_B: np.ndarray | int = 0) -> Tensor:
        hint_BS, bonus_BS = self.hinted(x_BT, log_p_BSV.shape[1], passed_B)
        return tilted(log_p_BSV, hint_BS, bonus_BS)

    def learn(self, learner: "Learner", text: "CommittedText", chunk: int) -> None:
        spans = self.plan.spans(chunk)
        at = Contexts(text.span_tokens(spans, self.plan.seen_from(chunk), self.spec.order - 2), self.spec.order)
        hints, gates = self.tables.feed(at).gated(self.spec.threshold)
        self.counted += sum(end - first for first, end in spans)
        self.gated += int(gates.sum())
        self.hit += int((gates & (hints == at.targets)).sum())

    def state(self) -> dict[str, Tensor]:
        return {"mixer.digest": torch.from_numpy(self.tables.digest.view(np.int64).copy()).to(self.device)}

    def receipt(self) -> Receipt:
        share = self.gated / max(self.counted, 1)
        what = f"hints at {share:.2%} of {self.counted:,} committed targets, {self.hit / max(self.gated, 1):.2%} of them right"
        return Receipt("ttt.mixer", what, share, self.gated > 0)
