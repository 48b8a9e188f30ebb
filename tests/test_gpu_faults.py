"""What goes wrong on GPUs, by doubles of what torch says there: one message each, and a record that is complete."""

import os
import time

import pytest

from pgolf import pipeline
from pgolf.config.compose import rehearse
from pgolf.config.gpu_faults import gpu_fault
from pgolf.errors import RankError, UserError
from pgolf.export.code import Script
from pgolf.files import read_json
from pgolf.files.events import Events
from pgolf.machine.faults import _hung
from pgolf.machine.launch import launch
from pgolf.machine.world import World
from pgolf.show.console import QuietConsole
from tests.command import TINY, environment
from tests.test_machine import machine
from tests.test_memory import recipe

OUT_OF_MEMORY = (
    "rank 0 failed.\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of"
    " 79.10 GiB of which 1.19 MiB is free. {}Including non-PyTorch memory, this process has 9.16 GiB memory in use."
)
WATCHDOG = (
    "[rank1]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE, NumelIn=4, NumelOut=4,"
    " Timeout(ms)=600000) ran for 600029 milliseconds before timing out.\n"
)
FAULTS = {
    "training": (
        OUT_OF_MEMORY,
        "train",
        ("micro_batch_tokens=2048", "2,048 tokens fit; the largest", "may hold memory"),
    ),
    "judging": (OUT_OF_MEMORY, "evaluate", ("while judging", "eval.batch_windows=", "trained=RUN judges")),
    "busy": ("CUDA error: all CUDA-capable devices are busy or unavailable", "train", ("has it for itself",)),
    "no CUDA": (
        "AssertionError: Torch not compiled with CUDA enabled",
        "train",
        ("not compiled with", "machine.device=CPU"),
    ),
    "driver": ("RuntimeError: The NVIDIA driver on your system is too old", "evaluate", ("is too old", "pgolf.doctor")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_is_one_message_that_says_what_to_do(fault):
    said, stage, words = FAULTS[fault]
    told = str(gpu_fault(recipe(), said.replace("{}", ""), stage))
    assert all(word in told for word in words), told
    assert "\n" not in told


def test_who_shares_the_gpu_is_named():
    others = "Process 77 has 60.00 GiB memory in use. Process 78 has 9.90 GiB memory in use. "
    for stage in ("train", "evaluate"):
        told = str(gpu_fault(recipe(), OUT_OF_MEMORY.replace("{}", others), stage))
        assert "The GPU is shared: process 77 holds 60.00 GiB, process 78 holds 9.90 GiB." in told


def test_what_is_no_gpus_fault_stays_what_it_is():
    assert gpu_fault(recipe(), "ZeroDivisionError: an honest bug", "train") is None


def test_a_run_out_of_memory_leaves_a_complete_record(tmp_path, monkeypatch):
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    monkeypatch.setattr(pipeline, "exported", lambda job, corpus, console: Script(b"# the exported file"))

    def killed(*args, **kwargs):
        raise RankError(OUT_OF_MEMORY.replace("{}", ""))

    monkeypatch.setattr(pipeline, "launch", killed)
    (job,) = rehearse([*TINY, "limits.train_steps=4", "logger=none"], sweep=False)
    with pytest.raises(UserError, match=r"out of memory with machine\.micro_batch_tokens=.*tokens fit"):
        pipeline.run(job, tmp_path, QuietConsole())
    kept = read_json(tmp_path / "record.json")
    assert kept["status"] == "failed"
    assert kept["finished"]
    assert "a GPU ran out of memory" in kept["error"]
    assert kept["log_sha256"]


def abort_as_the_watchdog_does(world: World, events: Events) -> dict:
    if world.rank == 1:
        os.write(2, WATCHDOG.encode())
        os.abort()
    time.sleep(60)


def test_a_rank_that_hangs_in_nccl_is_named_with_the_collective(tmp_path):
    with pytest.raises(RankError, match=r"rank 1 .*did not come to allreduce within 600 s: another one hangs"):
        launch(abort_as_the_watchdog_does, machine=machine(2), folder=tmp_path)


def test_the_collective_is_read_in_what_ranks_said(tmp_path):
    log = tmp_path / "stderr.log"
    log.write_text(WATCHDOG)
    assert _hung([log]) == ", because a rank did not come to allreduce within 600 s: another one hangs"
    log.write_text("nothing of the kind")
    assert _hung([log]) == ""
