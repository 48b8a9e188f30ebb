"""Several nodes: they meet, compute what one does, and say which of them is at fault. Here all are processes of this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from pgolf.config.compose import rehearse
from pgolf.config.identity import computed
from pgolf.errors import ConfigError, RankError, RefusedError, UserError
from pgolf.files.events import Events
from pgolf.machine import Device, Machine, nodes
from pgolf.machine.kernels import PlainKernels
from pgolf.machine.launch import launch
from pgolf.machine.nodes import ANSWER, gathered
from pgolf.machine.world import World
from tests.command import TINY, command, environment, record, run
from tests.processes import until
from tests.ranks import free_port
from tests.test_machine import fail_on_one, total

WORDS = "0123456789abcdef"  # a config_sha256
ROOT = Path(__file__).resolve().parent.parent
NODE_1 = f"""
import sys
from pgolf.machine.launch import follow_node_0
from tests.test_nodes import node

if __name__ == "__main__":
    try:
        follow_node_0(node(1, int(sys.argv[1])), "{WORDS}")
    except RuntimeError as wrong:
        sys.exit(f"{{type(wrong).__name__}}: {{wrong}}")
"""


def node(rank: int, port: int, **changed) -> Machine:
    fields = {
        "ranks": 1,
        "device": Device.CPU,
        "threads": 1,
        "micro_batch_tokens": None,
        "compile": False,
        "kernels": PlainKernels(),
        "nodes": 2,
        "node_rank": rank,
        "rendezvous": f"127.0.0.1:{port}",
        "rendezvous_seconds": 300.0,
    }
    return Machine(**fields | changed)


def sleep_on_one(world: World, folder: Path, events: Events) -> dict:
    if world.rank == 1:
        (folder / "sleeps").touch()
        time.sleep(600)
    world.barrier()
    return {}


@pytest.fixture
def other(tmp_path):
    """Starts node 1, whose port is the first argument; ended with the test."""
    script, started = tmp_path / "node1.py", []
    script.write_text(NODE_1)

    def start(port: int) -> subprocess.Popen:
        one = subprocess.Popen(
            [sys.executable, str(script), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_two_nodes_of_one_rank_are_two_ranks_and_an_error_names_its_node(tmp_path, other):
    port, folder = free_port(), tmp_path / "run"
    folder.mkdir()
    one = other(port)
    with gathered(node(0, port), WORDS) as both:
        for start in (10, 20):
            got = launch(total, start, machine=node(0, port), folder=folder, nodes=both)
            assert got["result"] == {"sum": [2.0 * start + 1, 2.0], "counts": 1, "agreed": 7.0}
    assert (one.communicate(), one.returncode) == (("", ""), 0)
    one = other(port := free_port())
    short = r"(node 1: )?data\.shard=3: is short"  # as the shared folder of logs says, or node 1 itself, whichever is seen first
    with pytest.raises((UserError, RankError), match=f"^{short}$"), gathered(node(0, port), WORDS) as both:
        launch(fail_on_one, machine=node(0, port), folder=folder, nodes=both)
    shown, said = one.communicate()
    assert (shown, bool(re.fullmatch(f"RankError: node 0 has failed: {short}\n", said))) == ("", True), said


@pytest.mark.slow
def test_a_node_that_dies_is_named(tmp_path, other, monkeypatch):
    monkeypatch.setattr(nodes, "SILENT_SECONDS", 3.0)
    port, one = free_port(), None
    one = other(port)

    def kill() -> None:
        until((tmp_path / "sleeps").exists, "the stage has not begun")
        one.send_signal(signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(RankError, match=r"^node 1 is gone"), gathered(node(0, port), WORDS) as both:
        launch(sleep_on_one, tmp_path, machine=node(0, port), folder=tmp_path, nodes=both)


def test_a_node_that_never_comes_is_named():
    port = free_port()
    with (
        pytest.raises(RefusedError, match=rf"node 1 did not come to 127\.0\.0\.1:{port} within .*seconds=0\.5; start"),
        gathered(node(0, port, rendezvous_seconds=0.5), WORDS),
    ):
        pass
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}: node 0 did not answer there within .*seconds=0\.5"):
        nodes.follow(node(1, port, rendezvous_seconds=0.5), WORDS, lambda order, meeting: None)


def as_node_1(port: int, meet) -> None:
    def work() -> None:
        until(lambda: reached(port), "node 0 does not listen")
        meet(TCPStore("127.0.0.1", port, wait_for_workers=False, timeout=ANSWER))

    threading.Thread(target=work, daemon=True).start()


def reached(port: int) -> bool:
    import socket

    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_a_node_with_other_words_is_refused():
    port = free_port()
    as_node_1(
        port, lambda store: (store.set("node 1", "machine.nodes=3, config_sha256 beef"), store.set("bye of 1", ""))
    )
    with (
        pytest.raises(RefusedError, match=r"other words .*=3, config_sha256 beef; here"),
        gathered(node(0, port), WORDS),
    ):
        pass


def test_a_node_that_sees_no_folder_or_has_other_ranks_says_so(tmp_path):
    here = nodes.Order(nodes.OneNode().meet("a", tmp_path, []), tmp_path, 1, [])
    assert nodes._refusal(here, node(1, 1)) == ""
    assert "machine.ranks=2, and node 0 has 1" in nodes._refusal(here, node(1, 1, ranks=2))
    away = nodes.Order(here.meeting, tmp_path / "away", 1, [])
    assert "must be on a file system that all nodes share" in nodes._refusal(away, node(1, 1))


def test_an_address_that_is_taken_is_refused():
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RefusedError, match="node 0 cannot listen there"), gathered(node(0, port), WORDS):
            pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["machine.node_rank=1"], "machine.node_rank=1: must be 0 to 0, one of machine.nodes=1"),
        (["machine.nodes=2", "machine.node_rank=2"], "machine.node_rank=2: must be 0 to 1"),
        (["machine.nodes=2", "machine.node_rank=-1"], "machine.node_rank=-1: must be 0 to 1"),
        (["machine.nodes=0"], "machine.nodes=0: must be 1 to 1024"),
        (["machine.nodes=2"], "machine.rendezvous=None: must be HOST:PORT of node 0"),
        (["machine.nodes=2", "machine.rendezvous=localhost"], "machine.rendezvous='localhost': must be HOST:PORT"),
        (["machine.nodes=2", "machine.rendezvous=localhost:99999"], "machine.rendezvous='localhost:99999': must be"),
        (["machine.nodes=2", "machine.rendezvous=:29500"], "machine.rendezvous=':29500': must be HOST:PORT"),
        (["machine.rendezvous_seconds=0"], "machine.rendezvous_seconds=0.0: must be more than 0"),
    ],
)
def test_wrong_words_are_refused_at_the_door(words, said):
    with pytest.raises(ConfigError) as wrong:
        rehearse(words, sweep=False)
    assert said in str(wrong.value)


def test_a_sweep_over_several_nodes_is_refused(tmp_path):
    done = run(tmp_path, "-m", "seed=1,2", "machine.nodes=2", "machine.rendezvous=localhost:29500", code=2)
    assert "pgolf: machine.nodes: several nodes make one run" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_ranks_are_those_of_a_node_and_the_result_does_not_tell():
    words = ["machine.ranks=2", "machine.nodes=2", "machine.rendezvous=localhost:29500", "machine.device=CPU"]
    two, one = (rehearse(some, sweep=False)[0] for some in (words, ["machine.device=CPU"]))
    assert (two.recipe.machine.world_size, two.recipe.machine.ranks) == (4, 2)
    assert computed(two.config) == computed(one.config)
    assert (two.arm_sha256, two.config_sha256) == (one.arm_sha256, one.config_sha256)


@pytest.mark.slow
def test_a_run_on_two_nodes_is_that_of_one_and_only_node_0_shows(tmp_path):
    words = ("limits.train_steps=4", "machine.device=CPU", *TINY)
    run(tmp_path, *words, "machine.ranks=2", "hydra.run.dir=one")
    both = (*words, "machine.ranks=1", "machine.nodes=2", f"machine.rendezvous=127.0.0.1:{free_port()}")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    node_1 = subprocess.Popen(
        command(*both, "machine.node_rank=1"), cwd=folder, stdout=-1, stderr=-1, text=True, env=environment()
    )
    run(tmp_path, *both, "machine.node_rank=0", "hydra.run.dir=two")
    assert node_1.communicate() == ("", "")
    assert node_1.returncode == 0
    assert list(folder.iterdir()) == []
    one, two = (record(tmp_path / name) for name in ("one", "two"))
    for section, key in (("train", "train_loss"), ("artifact", "sha256"), ("evaluate", "val_bpb")):
        assert one[section][key] == two[section][key]
    losses = [
        [e["loss"] for e in map(json.loads, (tmp_path / name / "events.jsonl").open()) if e["event"] == "step"]
        for name in ("one", "two")
    ]
    assert losses[0] == losses[1]
    assert (two["ranks"], two["status"]) == (2, "complete")
    assert not (tmp_path / "two/ranks").exists()
