"""Several nodes as one machine. Node 0 runs the pipeline; the others meet it at an address, and start ranks when it does.

What they share is a key-value store of torch's at `machine.rendezvous`, in the process of node 0. For each stage it holds an
order (a stage, its arguments, a folder), the others' answers to it, and how node 0 ended. Orders are pickled: who can reach
the store can run code as this user, as with any process group of torch's. The run's folder and the texts must be on a file
system that all nodes share.
"""

import pickle
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from pgolf.errors import RankError, RefusedError, UserError
from pgolf.machine import Machine
from pgolf.machine.liveness import beating
from pgolf.machine.signals import StoppedError

POLL_SECONDS = 0.1
FAREWELL_SECONDS = 10.0  # that node 0 keeps the store for the others to read how it ended
BEAT_SECONDS = 1.0
SILENT_SECONDS = 10.0  # without a beat, after which a node is gone
GONE = "is gone, and said nothing: its process was ended, or its network"
FAULT_SECONDS = 30.0  # that node 0 waits to hear why it has lost ranks of others
ANSWER = timedelta(seconds=30)  # that the store has for one answer
END = "end"  # the key of how node 0 has ended: one of these words, and what else there is to say
COMPLETE, FAILED, STOPPED = "complete", "failed", "stopped"


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of one stage meet: torch's name for the way, the address, and what else it is told."""

    run_id: str
    backend: str
    endpoint: str
    configs: dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What every node is to start: `work` (a stage and its arguments, or the words of a program) with the run's `folder`."""

    meeting: Meeting
    folder: Path
    ranks: int
    work: Any


class Nodes(ABC):
    """The nodes of a run, as the process knows them that runs the pipeline."""

    @abstractmethod
    def meet(self, run_id: str, folder: Path, work: Any) -> Meeting:
        """Have `work` started on the other nodes, and say where its ranks meet. UserError if one of them cannot."""

    @abstractmethod
    def lost(self) -> str:
        """Which other node has failed or is gone by now; empty if none."""

    @abstractmethod
    def fault(self) -> str:
        """What has happened on another node, once ranks of this one have lost ranks of others; empty if nothing is known."""


class OneNode(Nodes):
    """This machine alone."""

    def meet(self, run_id: str, folder: Path, work: Any) -> Meeting:
        return Meeting(run_id, "c10d", "localhost:0", {})

    def lost(self) -> str:
        return ""

    def fault(self) -> str:
        return ""


class FirstNode(Nodes):
    """Node 0, which has the store, and which the others follow."""

    def __init__(self, machine: Machine, store: TCPStore):
        self.machine, self.store, self.orders = machine, store, 0
        self._stages: list[TCPStore] = []  # torch's agents meet in these, and a late one must not find them closed
        self._beats: dict[int, tuple[int, float]] = {}

    def meet(self, run_id: str, folder: Path, work: Any) -> Meeting:
        configs = {"timeout": max(1, int(self.machine.rendezvous_seconds))}
        host, port = self.machine.rendezvous.rpartition(":")[0], _free_port()
        self._stages.append(_listening(address(self.machine)[0], port))
        meeting = Meeting(run_id, "static", f"{host}:{port}", configs)
        order = Order(meeting, folder.absolute(), self.machine.ranks, work)
        self.store.set(f"order {self.orders}", pickle.dumps(order))
        for node in range(1, self.machine.nodes):
            if refusal := self._wait(f"answer {self.orders} of {node}", node):
                raise RefusedError(f"node {node}: {refusal}")
        self.orders += 1
        return replace(meeting, configs=configs | {"rank": 0})

    def gather(self, words: str) -> None:
        """Wait for all nodes. RefusedError for one that does not come, or that was given other words."""
        for node in range(1, self.machine.nodes):
            theirs = self._wait(f"node {node}", node)
            if theirs != words:
                raise RefusedError(
                    f"machine.node_rank={node}: that node was given other words ({theirs}; here {words}); all nodes take"
                    " the same but for machine.node_rank"
                )

    def _wait(self, key: str, node: int) -> str:
        late = time.monotonic() + self.machine.rendezvous_seconds
        while not self.store.check([key]):
            if self.store.check([f"node {node}"]) and self._silent(node):
                raise RankError(f"node {node} {GONE}")
            if time.monotonic() > late:
                raise RefusedError(
                    f"machine.nodes={self.machine.nodes}: node {node} did not come to {self.machine.rendezvous} within"
                    f" machine.rendezvous_seconds={self.machine.rendezvous_seconds:g}; start the same words there with"
                    f" machine.node_rank={node}, and see that it reaches this address"
                )
            time.sleep(POLL_SECONDS)
        return self.store.get(key).decode()

    def fault(self) -> str:
        late = time.monotonic() + FAULT_SECONDS
        while not (lost := self.lost()) and time.monotonic() < late:
            time.sleep(POLL_SECONDS)
        return lost

    def lost(self) -> str:
        for node in range(1, self.machine.nodes):
            if self.store.check([f"fault of {node}"]):
                return f"node {node}: {self.store.get(f'fault of {node}').decode()}"
            if self._silent(node):
                return f"node {node} {GONE}"
        return ""

    def _silent(self, node: int) -> bool:
        """Whether a node has not beaten for so long, since this was first asked, that it is gone."""
        beat, now = self.store.add(f"beat of {node}", 0), time.monotonic()
        if self._beats.setdefault(node, (beat, now))[0] != beat:
            self._beats[node] = beat, now
        return now - self._beats[node][1] > SILENT_SECONDS

    def end(self, how: str) -> None:
        """Tell the others how this run ended, and give them time to read it."""
        self.store.set(END, how.encode())
        late = time.monotonic() + FAREWELL_SECONDS
        for node in range(1, self.machine.nodes):
            while self.store.check([f"node {node}"]) and not self.store.check([f"bye of {node}"]):
                if time.monotonic() > late:
                    return
                time.sleep(POLL_SECONDS)


@contextmanager
def gathered(machine: Machine, config_sha256: str) -> Iterator[Nodes]:
    """The nodes of a run, all there while the context lasts; the others hear how it ends.

    RefusedError if the address cannot be opened, if a node does not come in time, or if it has other words.
    """
    if machine.nodes == 1:
        yield OneNode()
        return
    first = FirstNode(machine, _opened(machine))
    try:
        first.gather(_words(machine, config_sha256))
        yield first
    except StoppedError as stop:
        first.end(f"{STOPPED} {stop}")
        raise
    except BaseException as wrong:
        first.end(f"{FAILED} {wrong}")
        raise
    first.end(COMPLETE)


def _words(machine: Machine, config_sha256: str) -> str:
    return f"machine.nodes={machine.nodes}, config_sha256 {config_sha256[:12]}"


def _opened(machine: Machine) -> TCPStore:
    try:
        return _listening(*address(machine))
    except RuntimeError as wrong:
        raise RefusedError(
            f"machine.rendezvous={machine.rendezvous}: node 0 cannot listen there: {_first_line(wrong)}"
        ) from None


def _listening(host: str, port: int) -> TCPStore:
    """A store of this process's, which others of its own may share."""
    return TCPStore(host, port, is_master=True, wait_for_workers=False, multi_tenant=True, timeout=ANSWER)


def address(machine: Machine) -> tuple[str, int]:
    """Host and port of node 0."""
    host, _, port = machine.rendezvous.rpartition(":")
    return host.strip("[]"), int(port)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


def _first_line(wrong: object) -> str:
    return str(wrong).strip().partition("\n")[0]


def follow(machine: Machine, config_sha256: str, obey: Callable[[Order, Meeting], None]) -> None:
    """Be another node than 0: meet it, and `obey` its orders until it has ended.

    UserError if it cannot be met, or has this node already; RankError if it is gone or has failed; StoppedError if it was
    stopped, or this process.
    """
    node, store = machine.node_rank, _met(machine)
    try:
        if store.add(f"claims of {node}", 1) > 1:
            raise UserError(f"machine.node_rank={node}: another process is this node already")
        store.set(f"node {node}", _words(machine, config_sha256))
        with beating(lambda count: _beat(store, node), BEAT_SECONDS):
            ended = _followed(store, machine, obey)
        store.set(f"bye of {node}", b"")
    except KeyboardInterrupt as stop:
        with suppress(RuntimeError):
            store.set(f"fault of {node}", str(stop) or "interrupted")
        raise
    except RuntimeError as wrong:
        if isinstance(wrong, RankError | RefusedError):
            raise
        raise RankError(f"node 0 at {machine.rendezvous} is gone: {_first_line(wrong)}") from None
    kind, _, said = ended.partition(" ")
    if kind == FAILED:
        raise RankError(f"node 0 has failed: {said}")
    if kind == STOPPED:
        raise StoppedError(signal.SIGTERM, f"node 0 was {said}")


def _beat(store: TCPStore, node: int) -> None:
    with suppress(RuntimeError):
        store.add(f"beat of {node}", 1)


def _met(machine: Machine) -> TCPStore:
    """The store, once node 0 has opened it."""
    late = time.monotonic() + machine.rendezvous_seconds
    while True:
        try:
            with socket.create_connection(address(machine), timeout=5):
                break
        except OSError as wrong:
            if time.monotonic() > late:
                raise UserError(
                    f"machine.rendezvous={machine.rendezvous}: node 0 did not answer there within"
                    f" machine.rendezvous_seconds={machine.rendezvous_seconds:g}: {wrong.strerror or wrong}"
                ) from None
            time.sleep(POLL_SECONDS)
    try:
        return TCPStore(*address(machine), wait_for_workers=False, timeout=ANSWER)
    except RuntimeError as wrong:
        raise UserError(f"machine.rendezvous={machine.rendezvous}: is not node 0: {_first_line(wrong)}") from None


def _followed(store: TCPStore, machine: Machine, obey: Callable[[Order, Meeting], None]) -> str:
    """Obey every order, and return how node 0 has ended."""
    count = 0
    while not store.check([END]):
        if store.check([f"order {count}"]):
            _obeyed(store, count, machine, obey)
            count += 1
        time.sleep(POLL_SECONDS)
    return store.get(END).decode()


def _obeyed(store: TCPStore, count: int, machine: Machine, obey: Callable[[Order, Meeting], None]) -> None:
    """Start what an order says, or answer why that cannot be done here. Node 0 says what becomes of the run."""
    node, order = machine.node_rank, pickle.loads(store.get(f"order {count}"))
    refusal = _refusal(order, machine)
    store.set(f"answer {count} of {node}", refusal)
    if refusal:
        return
    meeting = replace(order.meeting, configs=order.meeting.configs | {"rank": node})
    try:
        obey(order, meeting)
    except (UserError, RankError, RefusedError, OSError) as wrong:
        store.set(f"fault of {node}", _first_line(wrong))


def _refusal(order: Order, machine: Machine) -> str:
    if not order.folder.is_dir():
        return f"{order.folder} is not there; the folder of a run must be on a file system that all nodes share"
    if order.ranks != machine.ranks:
        return f"machine.ranks={machine.ranks}, and node 0 has {order.ranks}; all nodes take as many"
    return ""
