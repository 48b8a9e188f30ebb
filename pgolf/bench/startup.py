"""How long the command line takes to answer --help, --cfg job or a mistake (target: 0.3 s), and to take its first step (8 s).

Answers are compared with a Python that imports torch, which is what they must do without, with one that imports Hydra, and with
one in which Hydra composes the default configuration, as it must before a value can be wrong. The first step is that of the
default run, its text and its export cached; the run is then stopped.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pgolf.bench.contest import Contest, DisagreementError, Setting, row
from pgolf.bench.scaling import SMALL
from pgolf.config.places import beside_or_inside

COMPOSE = """
import sys
from hydra import compose, initialize_config_dir
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    print(compose("config"))
"""
RUN = (sys.executable, "-m", "pgolf.run")
WAYS = {
    "import torch": ((sys.executable, "-c", "import torch"), 0, ""),
    "import hydra": ((sys.executable, "-c", "import hydra, omegaconf"), 0, ""),
    "hydra composes": ((sys.executable, "-c", COMPOSE, str(beside_or_inside("conf"))), 0, "_target_"),
    "--help": ((*RUN, "--help"), 0, "train, quantise, pack"),
    "--cfg job": ((*RUN, "--cfg", "job"), 0, "quant:"),
    "a mistake": ((*RUN, "quant.bits=five"), 2, "quant.bits"),
}


def contests(setting: Setting) -> "Iterator[Contest | FirstStep]":
    """Whole commands, from the prompt to their answer; and the default run, from the prompt to its first step."""
    yield Contest("from the prompt to the answer", {way: command(args) for way, (args, _, _) in WAYS.items()}, check)
    yield FirstStep(setting.pick(SMALL, (), ()))


def command(args: tuple[str, ...]) -> Callable[[], subprocess.CompletedProcess]:
    """A way that runs a command and keeps what it printed."""
    return lambda: subprocess.run(args, capture_output=True, text=True)


def check(made: dict[str, subprocess.CompletedProcess]) -> str:
    """Every command printed its answer and ended with its exit code. Raises DisagreementError."""
    for way, (_, code, printed) in WAYS.items():
        done = made[way]
        if done.returncode != code or printed not in done.stdout + done.stderr:
            raise DisagreementError(f"{way}: exit {done.returncode}, said {(done.stdout + done.stderr)[:200]!r}")
    return "every command gives its answer and its exit code"


@dataclass(frozen=True)
class FirstStep:
    """The default run with `words` until its first step has been taken, and of that until ranks are there, and warm."""

    words: tuple[str, ...]

    def run(self, setting: Setting) -> list[dict[str, Any]]:
        """One turn that fills the caches, then `repeats`. Raises DisagreementError with what a run said that took no step."""
        self.turn()
        turns = [self.turn() for _ in range(setting.repeats)]
        parts = {"to ranks": "stage", "to the clock": "ready", "to the first step": "step"}
        name, check = "from the prompt to the first step", "every run took its first step, and was stopped"
        spent = {way: [turn[event] for turn in turns] for way, event in parts.items()}
        first = median(spent["to the first step"])
        return [row(name, way, times, first / median(times), "", check) for way, times in spent.items()]

    def turn(self) -> dict[str, float]:
        """Seconds from the prompt to the first of each kind of event."""
        with tempfile.TemporaryDirectory() as folder:
            began, path = time.time(), Path(folder) / "run/events.jsonl"
            words = (*self.words, f"hydra.run.dir={folder}/run", "logger=none")
            with subprocess.Popen(
                (*RUN, *words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as running:
                seen: dict[str, float] = {}
                while "step" not in seen and running.poll() is None:
                    time.sleep(0.02)
                    with suppress(FileNotFoundError):
                        lines = path.read_text().splitlines(keepends=True)
                        told = [json.loads(line) for line in lines if line.endswith("\n")]
                        seen = {event["event"]: event["time"] - began for event in reversed(told)}
                running.terminate()
                said = running.communicate()[1]
        if "step" not in seen:
            raise DisagreementError(f"{' '.join(words)}: exit {running.returncode}, said {said[-200:]!r}")
        return seen
