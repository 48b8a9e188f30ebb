"""Sweeps elsewhere: Hydra's own launchers, with our ranks inside each job."""

import json
import os
import re
from importlib.util import find_spec

import pytest
import yaml
from hydra import compose, initialize_config_dir

from pgolf.config import launchers
from pgolf.config.compose import beside_or_inside, rehearse
from pgolf.errors import ConfigError, UserError
from tests.command import TINY, environment, only, record, run

LAUNCHERS = {"slurm8": ("slurm", "submitit"), "joblib1": ("joblib", "joblib"), "ray8": ("ray", "ray")}


def needs(name: str) -> pytest.MarkDecorator:
    extra, plugin = LAUNCHERS[name]
    there = find_spec("hydra_plugins") and find_spec(f"hydra_plugins.hydra_{plugin}_launcher")
    return pytest.mark.skipif(not there, reason=f"the extra `{extra}` is not installed")


def launcher(name: str):
    with initialize_config_dir(str(beside_or_inside("conf")), version_base="1.3"):
        return compose("config", overrides=[f"hydra/launcher={name}"], return_hydra_config=True).hydra.launcher


@needs("slurm8")
def test_a_slurm_job_is_one_task_on_a_node_of_8_gpus():
    found = launcher("slurm8")
    assert (found.tasks_per_node, found.gpus_per_node, found.nodes) == (1, 8, 1)


@needs("slurm8")
@pytest.mark.parametrize(
    ("words", "least"),
    [
        (["hydra/launcher=slurm8", "limits=long"], 255),
        (["hydra/launcher=slurm8", "hydra.launcher.timeout_min=24", "limits=record"], 25),
        (["hydra/launcher=slurm_cpu", "seed=one", "limits.eval_seconds=60,3600"], 66),
        (["hydra/launcher=submitit_local", "limits.train_steps=9", "limits.eval_seconds=3540"], 64),
    ],
)
def test_clocks_that_a_job_has_no_time_for_are_refused_before_anything_is_submitted(words, least):
    with pytest.raises(
        ConfigError, match=rf"^hydra\.launcher\.timeout_min=\d+: is too short .* must be at least {least}$"
    ):
        rehearse(words, sweep=True)
    rehearse([*words, f"hydra.launcher.timeout_min={least}"], sweep=True)


@needs("slurm8")
@pytest.mark.parametrize("name", ["slurm8", "slurm_cpu"])
def test_slurm_may_queue_a_job_again(name):
    assert launcher(name).additional_parameters == {"requeue": True}


@pytest.mark.slow
@needs("slurm8")
def test_a_cluster_that_is_not_there_is_two_lines_and_the_words_that_go_on(tmp_path):
    words = ("-m", "seed=5", "hydra/launcher=slurm_cpu", "hydra.sweep.dir=sweep", *TINY)
    done = run(tmp_path, *words, code=1, PATH="/nowhere")
    assert re.search(
        r"^pgolf: the launcher gave up: .*\nJobs .* hydra\.sweep\.dir=\S+/sweep start what is left$", done.stderr, re.M
    )
    assert "Traceback" not in done.stderr


@needs("joblib1")
def test_joblib_starts_one_run_at_a_time():
    assert launcher("joblib1").n_jobs == 1


@needs("ray8")
def test_a_ray_job_has_a_node_of_8_gpus_or_a_cpu_and_a_process_of_its_own():
    assert launcher("ray8").ray.remote == {"num_gpus": 8, "max_calls": 1}
    assert launcher("ray_cpu").ray.remote == {"num_cpus": 1, "num_gpus": 0, "max_calls": 1}


@pytest.mark.parametrize("name", ["ray8", "ray_cpu"])
def test_ray_sizes_no_object_store_since_it_may_join_a_cluster(name):
    option = yaml.safe_load((beside_or_inside("conf") / f"hydra/launcher/{name}.yaml").read_text())
    assert name == "ray_cpu" or option["ray"]["init"]["object_store_memory"] is None
    assert name == "ray8" or option["defaults"] == ["ray8", "_self_"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_is_not_there_is_told_with_the_line_that_installs_it(name, monkeypatch):
    monkeypatch.setattr(launchers, "find_spec", lambda module: None)
    with pytest.raises(
        UserError, match=rf"{name}: this launcher is not installed: pip install 'pgolf\[{LAUNCHERS[name][0]}\]'"
    ):
        rehearse([f"hydra/launcher={name}"], sweep=True)


ELSEWHERE = """
import os
from hydra._internal.core_plugins import basic_launcher

class ElsewhereLauncher(basic_launcher.BasicLauncher):
    def launch(self, *args, **kwargs):
        here, run = os.getcwd(), basic_launcher.run_job

        def elsewhere(*given, **named):
            os.chdir(os.path.dirname(__file__))
            return run(*given, **named)

        basic_launcher.run_job = elsewhere
        try:
            return super().launch(*args, **kwargs)
        finally:
            os.chdir(here)
"""
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            ("hydra/launcher=submitit_local", "machine.ranks=2"), marks=[SLOW, needs("slurm8")], id="submitit_local"
        ),
        pytest.param(("hydra/launcher=joblib1",), marks=[SLOW, needs("joblib1")], id="joblib1"),
        pytest.param(("hydra.launcher._target_=hydra_plugins.elsewhere.ElsewhereLauncher",), id="elsewhere"),
    ],
)
def test_a_launcher_runs_a_sweep(tmp_path, words):
    """`elsewhere`: its worker is in another folder, as Ray's are."""
    place = tmp_path / "it's here, a=b"
    (place / "hydra_plugins").mkdir(parents=True)
    (place / "hydra_plugins/elsewhere.py").write_text(ELSEWHERE)
    (place / "cache").symlink_to(environment()["PGOLF_CACHE"])
    words = (*words, "hydra.sweep.dir=sweep", "limits.train_steps=2", "data.cache=cache", *TINY)
    run(place, "-m", "seed=5", *words, PYTHONPATH=os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))
    made = record(only(place, "sweep/*_seed5"))
    assert (made["status"], made["ranks"]) == ("complete", 2 if "machine.ranks=2" in words else 1)
    (arm,) = json.loads((place / "sweep/summary.json").read_text())["arms"]
    assert arm["submission"]["written"], arm["submission"]
    assert (place / "sweep/report.html").exists()
    assert {path.name for path in (place / "hydra_plugins").iterdir()} <= {"elsewhere.py", "__pycache__"}


def test_a_worker_that_does_not_see_the_folder_of_the_words_says_so():
    with pytest.raises(UserError, match=r"^/nowhere/at/all: No such file .* there the words of this sweep were typed"):
        launchers.work_in("/nowhere/at/all")
