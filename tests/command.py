"""`python -m pgolf.run` as a person would type it, on a corpus that is built once per machine."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# A model of a few thousand weights and a few steps: seconds, and every part of the line on.
TINY = (
    "model.layers=2",
    "model.width=32",
    "model.embed_width=32",
    "model.heads=2",
    "model.kv_heads=1",
    "model.mlp_hidden=48",
    "model.rope_dims=8",
    "model.xsa_layers=1",
    "model.value_embedding.layers=[1]",
    "model.bigram.slots=64",
    "data.batch_tokens=1024",
    "data.sequence_length=128",
    "data.dev_tokens=4096",
    "data.dev_checks=1",
    "data.val_fraction=0.0025",
    "eval.context=128",
    "eval.stride=64",
    "schedule.warmup_steps=1",
    "quant.keep_below=256",
    "quant.solver.calibration_sequences=8",
    "machine.threads=1",
    "limits.train_seconds=900",  # whatever else the machine does; not 600, by which a record's run is known
    "limits.eval_seconds=900",
)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pgolf.run", *words]


def start(folder: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(*words), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def run(folder: Path, *words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess:
    """Run to the end, with these variables besides, and check the exit code."""
    env = environment() | variables
    done = subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, env=env, timeout=1200)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def environment() -> dict[str, str]:
    """Ours, with a corpus cache that all tests share and no person uses."""
    cache = Path(tempfile.gettempdir()) / f"pgolf-tests-{os.getuid()}"
    return {k: v for k, v in os.environ.items() if not k.startswith("HYDRA_")} | {"PGOLF_CACHE": str(cache)}


def only(folder: Path, pattern: str) -> Path:
    """The one path that matches."""
    found = sorted(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def record(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text())
