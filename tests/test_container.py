"""What a maintainer does with a submission: judge it again in a bare container, from its folder, an artifact and the text."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests import container
from tests.bare import bare_environment
from tests.command import TINY, only, record, run
from tests.test_export import NEEDED, texts_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(container.refusal()), reason=container.refusal() or "it can be had"),
]
BARE = """
import os, shutil, socket
found = [name for name in ("git", "gcc", "cc", "c++", "nvcc", "sh", "python") if shutil.which(name)]
found += [name for name in ("HOME", "USER", "PGOLF_CACHE") if name in os.environ]
found += [path for path in ("/etc/passwd", "/usr/bin", "/bin", "/sys") if os.path.exists(path)]
found += [name for _, name in socket.if_nameindex() if name != "lo"]
print(found, len([name for name in os.listdir("/proc") if name.isdigit()]), sorted(os.listdir(".")))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    return bare_environment(tmp_path_factory.mktemp("bare"), NEEDED)


@pytest.fixture(scope="module", params=[1, 2])
def sweep(request, tmp_path_factory) -> Path:
    """A sweep of one seed, on one rank and on two."""
    place = tmp_path_factory.mktemp("sweep")
    words = ("limits.train_steps=2", "seed.value=7", f"machine.ranks={request.param}", "hydra.sweep.dir=sweep")
    run(place, "-m", *TINY, *words)
    return place / "sweep"


def commands_of(readme: str) -> list[str]:
    """What the README of a submission says to type without pgolf."""
    return [line for line in readme.splitlines() if re.match(r"SEED=\d+ torchrun", line)]


def test_a_submission_is_judged_again_by_the_words_of_its_readme(sweep, python, tmp_path):
    handed = Path(shutil.copytree(only(sweep, "submission/*"), tmp_path / "handed"))
    made = only(sweep, "*_seed7")
    texts = Path(texts_of(handed / "train_gpt.py"))
    shutil.copy(made / "artifact.pgolf", handed)
    before = {path.name: path.read_bytes() for path in handed.iterdir()}
    view = (tmp_path / "view", [*container.python_parts(python), handed, texts], handed)
    view[0].mkdir()
    looked = container.inside(*view, python, "-c", BARE)
    assert looked.stdout == f"[] 1 {sorted(before)}\n", looked.stderr
    kept, (_, typed) = record(made), commands_of((handed / "README.md").read_text())
    seed, _, *words = shlex.split(typed)
    done = container.inside(
        *view, python, "-m", "torch.distributed.run", *words, SEED=seed.removeprefix("SEED="), DATA_PATH=str(texts)
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == f"val_bpb={kept['evaluate']['val_bpb']:.8f} artifact_sha256={kept['artifact']['sha256']}"
    assert {path.name: path.read_bytes() for path in handed.iterdir()} == before, "a judge leaves nothing"
