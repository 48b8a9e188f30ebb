"""A sweep on a real Ray of two nodes on this machine, one of which is taken away in the middle."""

import json
from importlib.util import find_spec

import pytest

from tests.command import TINY, environment, run, start
from tests.engines.jobs import at_work, records
from tests.processes import until

THERE = find_spec("ray") and find_spec("hydra_plugins") and find_spec("hydra_plugins.hydra_ray_launcher")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not THERE, reason="Ray is not installed: pip install 'pgolf[ray]'"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
WORDS = (
    *("-m", "hydra/launcher=ray_cpu", "hydra.sweep.dir=sweep", "seed=three", "quant.embedding_bits=7,8"),
    *("ttt=none", "average=none", "limits.train_steps=200", "machine.device=CPU", *TINY),
)


@pytest.fixture
def cluster(monkeypatch):
    """One node, whose jobs find the corpus where the tests keep it."""
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    from ray.cluster_utils import Cluster

    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield two
    two.shutdown()


def test_a_sweep_survives_the_loss_of_a_node(tmp_path, cluster):
    lost = cluster.add_node(num_cpus=1)
    words = (*WORDS, f"hydra.launcher.ray.init.address='{cluster.address}'")
    sweep = start(tmp_path, *words)
    until(lambda: len(at_work(tmp_path)) == 2 or sweep.poll() is not None, "no two jobs are at work")
    assert sweep.poll() is None, sweep.communicate()
    cluster.remove_node(lost, allow_graceful=False)
    _, said = sweep.communicate()
    assert sweep.returncode == 0, said
    assert [found["status"] for found in records(tmp_path).values()] == ["complete"] * 6
    again = run(tmp_path, *words)
    assert again.stdout.count("complete already") == 6
    summary = json.loads((tmp_path / "sweep/summary.json").read_text())
    assert [len(arm["seeds"]) for arm in summary["arms"]] == [3, 3]
