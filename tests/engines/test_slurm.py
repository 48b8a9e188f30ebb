"""A sweep on a real Slurm of this machine: a job is cancelled, one is queued again, and the same words complete it."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.command import TINY, environment, record, run, start
from tests.engines.jobs import at_work, records
from tests.processes import until
from tests.ranks import free_port

SCRIPT = Path(__file__).parent / "slurm.sh"
LACKING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(LACKING), reason=f"Slurm is not installed: no {', '.join(LACKING)} (docs/clusters.md)"),
    pytest.mark.skipif(os.getuid() != 0, reason="Slurm's daemons are started as root"),
]
WORDS = (
    *("-m", "hydra/launcher=slurm_cpu", "hydra.sweep.dir=sweep", "seed=three", "quant.embedding_bits=7,8"),
    *("ttt=none", "average=none", "limits.train_steps=200", "checkpoint.every_seconds=1", "machine.device=CPU", *TINY),
)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster of two CPUs, in the environment of what is started here."""
    monkeypatch.setenv("SLURM_PORT", str(free_port()))
    subprocess.run([SCRIPT, "start", tmp_path / "slurm"], check=True, timeout=300)
    for name, value in re.findall(r"(\w+)=(\S+)", (tmp_path / "slurm/env").read_text()):
        monkeypatch.setenv(name, value.replace('"$PATH"', os.environ["PATH"]))
    yield
    subprocess.run([SCRIPT, "stop", tmp_path / "slurm"], check=True)


def slurm_of(folder: Path) -> str:
    """The Slurm job that runs in a job's folder."""
    return OmegaConf.load(folder / ".hydra/hydra.yaml").hydra.job.id


@pytest.mark.usefixtures("slurm")
def test_a_sweep_survives_a_cancelled_and_a_requeued_job(tmp_path):
    first = start(tmp_path, *WORDS)
    until(lambda: len(at_work(tmp_path)) == 2 or first.poll() is not None, "no two jobs are at work")
    assert first.poll() is None, first.communicate()
    cancelled, requeued = at_work(tmp_path)
    subprocess.run(["scancel", slurm_of(cancelled)], check=True)
    until(lambda: (requeued / "checkpoints").exists() or record(requeued)["train"], "there is nothing to go on from")
    subprocess.run(["scontrol", "requeue", slurm_of(requeued)], check=True)
    until(lambda: sum(r["status"] == "complete" for r in records(tmp_path).values()) == 5, "five are not complete")
    first.send_signal(signal.SIGINT)  # submitit would notice the cancelled job within ten minutes
    first.communicate()
    assert record(cancelled)["status"] != "complete"
    run(tmp_path, *WORDS)
    assert {found["status"] for found in records(tmp_path).values()} == {"complete"}
    summary = json.loads((tmp_path / "sweep/summary.json").read_text())
    assert [len(arm["seeds"]) for arm in summary["arms"]] == [3, 3]
    assert all(arm["submission"]["written"] for arm in summary["arms"])


@pytest.mark.usefixtures("slurm")
def test_sacct_says_what_submitit_asks(tmp_path):
    asked = ["sbatch", "--parsable", "--array=0-2", "--output=/dev/null", "--wrap", "sleep 1"]
    job = subprocess.run(asked, capture_output=True, text=True, check=True, env=environment()).stdout.strip()
    from submitit.slurm.slurm import SlurmInfoWatcher

    def states() -> dict[str, str]:
        shown = subprocess.run(
            ["sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", job, "-j", "999"],
            capture_output=True,
            check=True,
        )
        return {name: one["State"] for name, one in SlurmInfoWatcher(delay_s=1).read_info(shown.stdout).items()}

    until(lambda: states() == {f"{job}_{n}": "COMPLETED" for n in range(3)}, "sacct does not tell that they are done")
