"""Sweeps over a cluster: Hydra's own launchers, with our ranks inside each job."""

import json
from importlib.util import find_spec

import pytest
from hydra import compose, initialize_config_dir

from pgolf.compose import beside_or_inside
from tests.command import TINY, only, record, run

pytestmark = pytest.mark.skipif(
    not find_spec("hydra_plugins.hydra_submitit_launcher"), reason="the extra `slurm` is not installed"
)


def test_a_slurm_job_is_one_task_on_a_node_of_8_gpus():
    with initialize_config_dir(str(beside_or_inside("conf")), version_base="1.3"):
        launcher = compose("config", overrides=["hydra/launcher=slurm8"], return_hydra_config=True).hydra.launcher
    assert (launcher.tasks_per_node, launcher.gpus_per_node, launcher.nodes) == (1, 8, 1)


def test_submitits_local_executor_runs_a_sweep(tmp_path):
    words = ("hydra/launcher=submitit_local", "machine.ranks=2", "hydra.sweep.dir=sweep", "limits.train_steps=2", *TINY)
    run(tmp_path, "-m", "seed=5", *words)
    made = record(only(tmp_path, "sweep/0_seed5"))
    assert (made["status"], made["ranks"]) == ("complete", 2)
    (arm,) = json.loads((tmp_path / "sweep/summary.json").read_text())["arms"]
    assert arm["submission"]["written"], arm["submission"]
    assert (tmp_path / "sweep/report.html").exists()
