"""How long the command line takes to answer: --help, --cfg job, a mistake in the configuration. The target is 0.3 s.

Compared with a Python that imports Hydra and with one that imports torch, which is what the answers must do without.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator

from pgolf.bench.contest import Contest, DisagreementError, Setting

RUN = (sys.executable, "-m", "pgolf.run")
WAYS = {
    "import torch": ((sys.executable, "-c", "import torch"), 0, ""),
    "import hydra": ((sys.executable, "-c", "import hydra, omegaconf"), 0, ""),
    "--help": ((*RUN, "--help"), 0, "train, quantise, pack"),
    "--cfg job": ((*RUN, "--cfg", "job"), 0, "quant:"),
    "a mistake": ((*RUN, "quant.bits=five"), 2, "quant.bits"),
}


def contests(setting: Setting) -> Iterator[Contest]:
    """Whole commands, from the prompt to their answer."""
    yield Contest("from the prompt to the answer", {way: command(args) for way, (args, _, _) in WAYS.items()}, check)


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
