"""The doctor: findings as they are, what to do where they are bad, and the exit code."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pgolf import doctor
from pgolf.config.compose import rehearse
from pgolf.doctor import Finding, place, probe, software
from pgolf.logger.key import has_key
from pgolf.machine import Device, Machine
from pgolf.machine.kernels import PlainKernels
from pgolf.machine.world import World
from tests import programs
from tests.command import TINY, environment
from tests.processes import PATIENCE
from tests.ranks import ONE_NODE

CPU = Machine(
    ranks=2, device=Device.CPU, threads=1, micro_batch_tokens=None, compile=False, kernels=PlainKernels(), **ONE_NODE
)
GPU = replace(CPU, device=Device.CUDA)
COMPILED = replace(CPU, compile=True)


@pytest.mark.slow
def test_this_machine_is_ready_and_its_speed_is_measured():
    command = [sys.executable, "-m", "pgolf.doctor", *TINY, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    value = programs.said(done.stdout, "pgolf.doctor", 0)
    found = {finding["what"]: finding["found"] for finding in value["findings"]}
    assert list(found) == [
        *("python", "torch", "GPUs", "attention", "compiler", "cores", "memory", "/dev/shm"),
        *("disk, data", "disk, runs", "W&B", "Slurm", "corpus", "speed", "val_bpb"),
    ]
    assert (value["ready"], value["words"]) == (True, list(TINY))
    assert "tokens/s on 1 rank(s): about" in found["speed"]
    assert "steps in limits.train_seconds=900" in found["speed"]
    assert found["val_bpb"] == "not predicted: only the default has a measured curve"
    lines = [line for line in done.stderr.splitlines() if line.startswith("ok ")]
    assert [line[5:].startswith(what) for line, what in zip(lines, found, strict=True)] == [True] * len(found)


def test_what_is_bad_says_what_to_do_and_is_told_by_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "findings", lambda words: iter([Finding("a", "well"), Finding("b", "ill", False, "cure it")])
    )
    assert doctor.main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok   a            well", "BAD  b            ill", f"{' ' * 18}→ cure it", "not ready: b: cure it",
    ]  # fmt: skip
    assert doctor.main(["--quiet"]) == 1
    assert capsys.readouterr().out == "not ready: b: cure it\n"
    assert doctor.main(["--json"]) == 1
    told = capsys.readouterr()
    value = programs.said(told.out, "pgolf.doctor", 1)
    assert value["findings"][1] == {"what": "b", "found": "ill", "ok": False, "do": "cure it"}
    assert told.err.startswith("ok   a")


def test_words_that_do_not_compose_are_one_message(capsys):
    assert doctor.main(["quant.bits=9"]) == 2
    assert capsys.readouterr().err.startswith("pgolf: quant.bits=9: must be between 2 and 8")
    assert doctor.main(["quant.bits=9", "--json"]) == 2
    assert programs.refused(capsys.readouterr().out, 2).startswith("quant.bits=9: must be between 2 and 8")


def test_an_old_python_is_bad(monkeypatch):
    assert software.python().ok
    monkeypatch.setattr(software, "PYTHONS", ((3, 99), (3, 99)))
    assert not software.python().ok
    assert "Python 3.99" in software.python().do


@pytest.mark.parametrize(
    ("built", "driver", "ok"),
    [("12.8", "13.0", True), ("12.8", "12.4", True), ("13.0", "12.8", False), (None, "12.8", True), ("12.8", "", True)],
)
def test_the_cuda_of_torch_is_held_against_that_of_the_driver(monkeypatch, built, driver, ok):
    printed = ["| NVIDIA-SMI 570.1  Driver Version: 570.1  " + (f"CUDA Version: {driver} |" if driver else "|")]
    monkeypatch.setattr(software, "printed_by", lambda *command: printed)
    monkeypatch.setattr("torch.version.cuda", built)
    finding = software.torch_itself()
    assert finding.ok == ok
    assert bool(finding.do) != ok


@pytest.mark.parametrize(
    ("machine", "present", "seen", "ok", "word"),
    [
        (CPU, 0, 0, True, "none; 2 rank(s) on the CPU"),
        (GPU, 2, 2, True, "2 (card); 2 rank(s) on the GPU"),
        (GPU, 1, 1, False, "machine.ranks=1"),
        (GPU, 0, 0, False, "machine.device=cpu"),
        (CPU, 2, 0, False, "torch is built for the CPU alone"),
        (CPU, 0, 1, False, "machine.device=cuda machine.ranks=1"),
    ],
)
def test_gpus_are_those_of_the_driver_of_torch_and_of_the_words(monkeypatch, machine, present, seen, ok, word):
    monkeypatch.setattr(software, "gpus_present", lambda: present)
    monkeypatch.setattr(software, "seen_by_torch", lambda: seen)
    monkeypatch.setattr("pgolf.machine.hardware.torch_build", lambda: "")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda i: "card")
    finding = software.gpus(machine)
    assert finding.ok == ok
    assert word in f"{finding.found} {finding.do}"


def test_a_compiler_is_asked_for_where_compile_is_on(monkeypatch):
    assert "there" in software.compiler(CPU).found or not shutil.which("g++")
    monkeypatch.setattr(software, "compiler_missing", lambda on_gpu: "a C++ compiler")
    assert software.compiler(CPU).ok
    bad = software.compiler(COMPILED)
    assert (bad.ok, "machine.compile=false" in bad.do) == (False, True)
    monkeypatch.setattr(software, "compiler_missing", lambda on_gpu: "")
    monkeypatch.setattr(software, "compilers", lambda on_gpu: ["g++"])
    monkeypatch.setattr(software, "printed_by", lambda *command: ["g++ 1.0"])
    assert software.compiler(COMPILED) == Finding("compiler", "g++: g++ 1.0")


def test_wandb_is_asked_as_the_words_say(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    online, offline, none = (
        rehearse(words, sweep=False)[0].recipe.logger
        for words in (["logger=wandb", "logger.mode=online"], ["logger=both"], [])
    )
    monkeypatch.setattr(software, "has_key", lambda: False)
    bad = software.wandb(online)
    assert (bad.ok, "wandb login" in bad.do) == (False, True)
    assert software.wandb(offline).ok
    assert "offline, project pgolf" in software.wandb(offline).found
    monkeypatch.setattr(software, "has_key", lambda: True)
    assert software.wandb(online).ok
    monkeypatch.setenv("WANDB_RUN_ID", "x")
    assert "WANDB_RUN_ID" in software.wandb(none).do


def test_cores_are_held_against_threads_quota_and_load(monkeypatch):
    monkeypatch.setattr(place, "usable_cores", lambda: 2)
    monkeypatch.setattr(place, "affinity", lambda: 4)
    monkeypatch.setattr(place, "quota", lambda: 2.5)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    finding = place.cores(CPU)
    assert (finding.do, "affinity 4" in finding.found, "quota 2.5" in finding.found) == ("", True, True)
    assert "machine.threads=1" in place.cores(replace(CPU, threads=4)).do
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    assert "other programs" in place.cores(CPU).do


def test_memory_is_held_against_what_the_recipe_needs(monkeypatch):
    recipe = rehearse([*TINY], sweep=False)[0].recipe
    needed = place.memory_needed(recipe)
    assert place.MEMORY < needed < place.memory_needed(rehearse([*TINY, "machine.ranks=2"], sweep=False)[0].recipe)
    assert place.memory(1).ok
    monkeypatch.setattr(place, "memory_limit", lambda: needed - 1)
    assert not place.memory(needed).ok
    assert "control group" in place.memory(needed).found
    monkeypatch.setattr(place, "memory_limit", lambda: needed)
    assert place.memory(needed).ok


def test_shared_memory_is_what_nccl_wants(monkeypatch, tmp_path):
    monkeypatch.setattr(place, "free_bytes", lambda folder: 64 << 20)
    assert place.shared_memory(CPU, tmp_path).ok
    bad = place.shared_memory(GPU, tmp_path)
    assert (bad.ok, "--shm-size" in bad.do) == (False, True)
    assert place.shared_memory(CPU, tmp_path / "none").ok
    monkeypatch.setattr(place, "free_bytes", lambda folder: 2 << 30)
    assert place.shared_memory(GPU, tmp_path).ok


def test_disks_are_held_against_data_checkpoints_and_artifacts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["data=fineweb_sp1024", f"data.folder={tmp_path}/shards", "machine.ranks=1", "checkpoint=timed"]
    (job,) = rehearse(words, sweep=False)
    monkeypatch.setattr(place, "free_bytes", lambda folder: 10 << 30)
    data, runs = place.disks(job)
    assert (data.ok, "PGOLF_CACHE" in data.do, "data 15" in data.found) == (False, True, True), "81 shards of 200 MB"
    assert (runs.ok, "checkpoints" in runs.found, "artifact 0.0" in runs.found) == (True, True, True)
    monkeypatch.setattr(place, "free_bytes", lambda folder: 20 << 30)
    assert place.disks(job)[0].ok
    monkeypatch.setattr(place, "free_bytes", lambda folder: 50 << 20)
    assert [finding.ok for finding in place.disks(job)] == [False, False]
    assert "hydra.run.dir" in place.disks(job)[1].do


def test_a_slurm_job_is_held_against_clocks_memory_and_gpus(monkeypatch):
    recipe = rehearse(["limits.train_seconds=600", "limits.eval_seconds=600", "machine.ranks=1"], sweep=False)[0].recipe

    def slurm(ranks: int = 1, **given: object) -> Finding:
        env = {f"SLURM_{name}": str(value) for name, value in given.items()}
        there = SimpleNamespace(limits=recipe.limits, machine=replace(GPU, ranks=ranks))
        return place.slurm(there, 2 << 30, env)

    monkeypatch.setattr(place, "printed_by", lambda *command: [])
    assert slurm() == Finding("Slurm", "not inside a job")
    now = int(time.time())
    well = slurm(2, JOB_ID=7, JOB_END_TIME=now + 3600, MEM_PER_NODE=4096, GPUS_ON_NODE=2)
    assert (well.ok, well.do) == (True, "")
    assert "4.0 GiB, 2 GPU(s)" in well.found
    short = slurm(2, JOB_ID=7, JOB_END_TIME=now + 1200, MEM_PER_CPU=512, CPUS_ON_NODE=2, GPUS_ON_NODE=1)
    assert (short.ok, short.do.startswith("sbatch --time=22 or more")) == (False, True)
    assert "--mem=2048M or more" in short.do
    assert "--gpus-per-node=2" in short.do
    monkeypatch.setattr(place, "printed_by", lambda *command: ["5:00"])
    assert not slurm(JOB_ID=7).ok
    monkeypatch.setattr(place, "printed_by", lambda *command: ["UNLIMITED"])
    assert slurm(JOB_ID=7).ok


def test_a_corpus_that_is_not_there_says_how_to_get_it(tmp_path):
    recipe = rehearse(["data=fineweb_sp1024", f"data.folder={tmp_path}"], sweep=False)[0].recipe
    corpus, finding = probe.text(recipe)
    assert corpus is None
    assert not finding.ok
    assert "python -m pgolf.data fineweb_sp1024" in finding.found


def test_a_steps_time_leaves_out_the_first():
    class Ticking:
        """The first step takes 100 s, the others 1."""

        now, steps, world = 0.0, 0, World.alone()

        def step(self, progress):
            self.now += 100.0 if self.steps == 0 else 1.0
            self.steps += 1
            return self

        def item(self):
            return 0.0

    trainer = Ticking()
    assert probe.step_seconds(trainer, 5.0, lambda: trainer.now) == 1.0
    assert trainer.steps == 6


def test_steps_and_score_of_the_default_are_foretold(monkeypatch):
    words = ["limits.train_seconds=60", "machine.ranks=1"]
    (job,) = rehearse(words, sweep=False)
    monkeypatch.setattr(probe, "probed", lambda *given: probe.Probe(0.15, 0.5, 8.0))
    rate, score = probe.speed(job, None)
    steps = int((60 - 8.0 - job.recipe.data.dev_checks * 0.5) / 0.15)
    assert rate.ok
    assert f"about {steps} steps in limits.train_seconds=60, of which 8 s" in rate.found
    assert f"about {probe.predicted_bpb(steps):.3f} by the default's curve" in score.found
    (other,) = rehearse([*words, "quant.bits=5"], sweep=False)
    assert "only the default" in probe.speed(other, None)[1].found
    monkeypatch.setattr(probe, "probed", lambda *given: probe.Probe(10.0, 0.5, 8.0))
    rate, score = probe.speed(job, None)
    assert (rate.ok, "limits.train_seconds" in rate.do, "85 to 1722" in score.found) == (False, True, True)
    nodes = ["machine.nodes=2", "machine.rendezvous=localhost:1234", "machine.node_rank=0"]
    (two,) = rehearse([*words, *nodes], sweep=False)
    assert "machine.nodes=1 measures" in probe.speed(two, None)[0].found
    (many,) = rehearse([*words, "limits.train_steps=100"], sweep=False)
    slow, _ = probe.speed(many, None)
    assert (slow.ok, "100 steps take about 1,000 s" in slow.found) == (False, True)


@pytest.mark.parametrize(("steps", "bpb"), [(303, 1.4804), (336, 1.4483), (340, 1.4554), (391, 1.4200)])
def test_the_curve_goes_through_the_runs_that_it_is_from(steps, bpb):
    assert probe.predicted_bpb(steps) == pytest.approx(bpb, rel=0.005)


@pytest.mark.parametrize(("steps", "bpb"), [(85, 1.7637), (194, 1.5570), (904, 1.2525), (1722, 1.1818)])
def test_it_is_no_further_from_those_at_its_ends_than_the_log_says(steps, bpb):
    assert probe.predicted_bpb(steps) == pytest.approx(bpb, rel=0.016)


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [("a", "machine api.wandb.ai login user password x", True), ("b", "machine example.org login u password x", False)],
)
def test_a_key_is_found_where_wandb_login_puts_it(monkeypatch, tmp_path, name, line, expected):
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / name))
    assert not has_key()
    (tmp_path / name).write_text(line + "\n")
    assert has_key() == expected
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_key()
