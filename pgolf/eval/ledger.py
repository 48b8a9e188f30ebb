"""The ledger: it owns the evaluation loop, hands each chunk out once, commits its score, and only then lets a learner adapt.

A learner sees windows to score and, afterwards, a `CommittedText` that ends at the last committed target. A `LedgerError`, with
chunk and target, stops a target scored twice or not at all, adaptation before scoring, and reading ahead."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pgolf.eval.text import CommittedText, LedgerError, Text
from pgolf.eval.windows import Batch, Plan
from pgolf.files.receipts import Receipt
from pgolf.machine.world import World

if TYPE_CHECKING:
    from pgolf.eval.learner import Learner

OnNll = Callable[[int, torch.Tensor], None]


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands: `done` of `total` targets after `seconds`, at the `bpb` of the `committed` chunks."""

    chunk: int
    chunks: int
    done: int
    total: int
    committed: int
    bpb: float
    seconds: float

    @property
    def expected(self) -> float:
        """Seconds the whole evaluation will take at the rate measured so far."""
        return self.seconds * self.total / self.done if self.done else math.inf


@dataclass(frozen=True)
class TraceRow:
    """One phase of one chunk: `sha` fingerprints the parameters as the phase began, `moved` is how far adapting took them."""

    chunk: int
    phase: str
    sha: str
    bpb: float
    seconds: float
    moved: float


@dataclass(frozen=True)
class Score:
    """`val_loss` in nats per token, `val_bpb` in bits per byte, and what proves them."""

    val_loss: float
    val_bpb: float
    tokens: int
    bytes: int
    visits: tuple[int, int]
    """The fewest and the most times that any target was scored, as counted over all ranks: (1, 1)."""
    trace: tuple[TraceRow, ...]
    receipts: tuple[Receipt, ...]
    seconds: float


class ChunkScorer:
    """One chunk's windows (this rank's share), each to be scored once. Sums stay on the device until the commit."""

    def __init__(self, ledger: "Ledger", chunk: int):
        self.chunk, self.spans = chunk, ledger.plan.spans(chunk)
        self.nats = torch.zeros((), dtype=torch.float64, device=ledger.world.device)
        self.scored = 0
        self._ledger = ledger

    def batches(self) -> Iterator[tuple[Batch, torch.Tensor, torch.Tensor]]:
        """(batch, inputs (B, T), targets (B, T)) of every batch of windows."""
        ledger = self._ledger
        for batch in ledger.plan.batches(self.chunk, ledger.world.rank, ledger.world.size, ledger.batch_windows):
            both_BT = ledger.plan.windows(ledger.text.tokens, batch)
            yield batch, both_BT[:, :-1], both_BT[:, 1:]

    def record_nll(self, batch: Batch, nll_BS: torch.Tensor) -> None:
        """Enter `nll_BS`, the nats of a batch's scored positions, (B, batch.last). Raises LedgerError."""
        expected = (batch.rows, batch.last)
        if tuple(nll_BS.shape) != expected:
            raise LedgerError(
                "mistake 8", f"chunk {self.chunk}: {tuple(nll_BS.shape)} scores given for {expected} positions"
            )
        nll = batch.scored(nll_BS.detach())
        self._ledger.visit(self, batch)
        self.nats += nll.double().sum()
        at = 0
        for first, end in batch.spans():
            self._ledger.on_nll(first, nll[at : at + end - first])
            at += end - first


class Ledger:
    """`progress` is called for every batch and chunk, `on_nll` with (first target, nats) of a batch."""

    def __init__(
        self,
        world: World,
        text: Text,
        plan: Plan,
        batch_windows: int,
        progress: Callable[[Progress], None] = lambda _: None,
        on_nll: OnNll = lambda first, nll: None,
    ):
        if plan.targets != text.targets:
            raise LedgerError("mistake 7", f"a plan for {plan.targets} of the text's {text.targets} targets")
        self.world, self.text, self.plan, self.batch_windows = world, text, plan, batch_windows
        self.progress, self.on_nll = progress, on_nll
        self.committed = CommittedText(text)
        self.visits = np.zeros(text.targets, np.uint8)
        self.open = np.zeros(text.targets, bool)  # the targets of the chunk that is being scored
        self.nats, self.bytes, self.done, self.scored = 0.0, 0, 0, 0  # of the committed chunks, and how many they are
        self.trace: list[TraceRow] = []
        self._began = time.monotonic()

    def run(self, learner: "Learner") -> Score:
        """Score every chunk and let `learner` adapt after each but the last. Raises LedgerError."""
        for chunk in range(self.plan.chunks):
            self._score(learner, chunk)  # first the score …
            if chunk + 1 < self.plan.chunks:
                self._adapt(learner, chunk)  # … then, and only then, the adaptation step
        return self._result(learner)

    def _score(self, learner: "Learner", chunk: int) -> None:
        began, sha = time.monotonic(), fingerprint(learner.state(), self.world)
        scorer = ChunkScorer(self, chunk)
        self._mark(self.open, scorer, True)
        learner.score(scorer)
        self._mark(self.open, scorer, False)
        if fingerprint(learner.state(), self.world) != sha:
            raise LedgerError("C3", f"chunk {chunk}: parameters changed while it was being scored")
        self._commit(scorer)
        self.trace.append(TraceRow(chunk, "score", sha, self.bpb, time.monotonic() - began, 0.0))
        self._report(chunk, self.done)

    @staticmethod
    def _mark(targets: np.ndarray, scorer: ChunkScorer, value: int) -> None:
        for first, end in scorer.spans:
            targets[first:end] = value

    def _adapt(self, learner: "Learner", chunk: int) -> None:
        began, sha = time.monotonic(), self.trace[-1].sha
        moved = learner.adapt(self.committed, chunk)
        self.trace.append(TraceRow(chunk, "adapt", sha, self.bpb, time.monotonic() - began, moved))

    def visit(self, scorer: ChunkScorer, batch: Batch) -> None:
        """Count the targets of a batch as scored. Raises LedgerError for one that is not open or was scored before."""
        for first, end in batch.spans():
            visits = self.visits[first:end]
            if visits.any():
                again = first + int(np.argmax(visits))
                raise LedgerError("C4", f"chunk {scorer.chunk}: target {again} is scored a second time")
            if not self.open[first:end].all():
                raise LedgerError("C3", f"chunk {scorer.chunk}: targets [{first}, {end}) are not part of it")
            visits += 1
            scorer.scored += end - first
        self._report(scorer.chunk, min(self.done + scorer.scored * self.world.size, self.plan.targets))

    def _commit(self, scorer: ChunkScorer) -> None:
        """Add the chunk's sums over ranks, after seeing that each of its targets was scored exactly once among them."""
        targets = np.concatenate([np.arange(first, end) for first, end in scorer.spans])
        visits = torch.from_numpy(self.visits[targets]).to(self.world.device)
        if len(visits):
            self.world.sum_(scorer.nats, visits)
        wrong = (visits != 1).nonzero()
        if len(wrong):
            at, times = targets[int(wrong[0])], int(visits[wrong[0]])
            raise LedgerError("mistake 8", f"chunk {scorer.chunk}: target {at} was scored {times} times, not once")
        nats = scorer.nats.item()
        if not math.isfinite(nats):
            raise LedgerError("C2", f"chunk {scorer.chunk}: the sum of its scores is {nats}")
        self.visits[targets] = visits.cpu()
        self.committed.admit(self.text, scorer.spans)
        self.nats += nats
        self.bytes += self.text.bytes_in(scorer.spans)
        self.done += len(targets)
        self.scored += 1

    @property
    def bpb(self) -> float:
        """Bits per byte of the committed chunks; NaN before the first."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan

    def _report(self, chunk: int, done: int) -> None:
        elapsed = time.monotonic() - self._began
        self.progress(Progress(chunk, self.plan.chunks, done, self.plan.targets, self.scored, self.bpb, elapsed))

    def _result(self, learner: "Learner") -> Score:
        if self.done != self.text.targets:
            raise LedgerError("mistake 7", f"{self.done} of {self.text.targets} targets were scored")
        seconds, trace, receipts = time.monotonic() - self._began, tuple(self.trace), learner.receipts()
        visits = int(self.visits.min()), int(self.visits.max())
        return Score(self.nats / self.done, self.bpb, self.done, self.bytes, visits, trace, receipts, seconds)


_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(state: Mapping[str, torch.Tensor], world: World) -> str:
    """16 hex digits of the SHA-256 over names, sizes and bits of tensors, those of all ranks added.

    Of tensors on a GPU `mixed` is taken: to bring 130 MB to the host before every chunk would take minutes of an evaluation. On a
    CPU the SHA-256 of all bits is seven times as fast as that."""
    bits = [t.detach().reshape(-1).view(_INTEGER[t.element_size()]) for t in state.values()]
    sha = hashlib.sha256(repr([(name, len(b)) for name, b in zip(state, bits, strict=True)]).encode())
    if on_gpu := [mixed(b.long()) for b in bits if b.is_cuda]:
        sha.update(torch.stack(on_gpu).cpu().numpy())
    for b in bits:
        if not b.is_cuda:
            sha.update(b.numpy())
    total = torch.from_numpy(np.frombuffer(sha.digest(), np.int64)[:1].copy()).to(world.device)
    world.sum_(total)
    return f"{total.item() % 2**64:016x}"


def mixed(bits: torch.Tensor) -> torch.Tensor:
    """Σ mix(bits_j + (2j + 1) · odd), modulo 2^64: a change of one element changes it, and so does a swap of two."""
    places = torch.arange(len(bits), device=bits.device) * 2 + 1
    spread = (bits + places * 5**27) * 3**39
    return (spread ^ (spread >> 32)).sum()
