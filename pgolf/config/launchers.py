"""Launchers of Hydra's that are extras of pgolf's."""

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pgolf.errors import ConfigError, UserError

if TYPE_CHECKING:
    from pgolf.limits import Limits

LAUNCHERS = {
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit": ("slurm", "hydra_submitit_launcher"),
    "joblib": ("joblib", "hydra_joblib_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
}  # by the beginning of a launcher's name: pgolf's extra, and the plugin that it installs

BESIDE_MINUTES = 5  # that a job has for what is on no clock: starting, warming up, the record


def require_launcher(overrides: list[str]) -> None:
    """Refuse a launcher that is an extra of pgolf's and not installed, with the line that installs it."""
    for word in overrides:
        group, _, name = word.partition("=")
        for start, (extra, plugin) in LAUNCHERS.items():
            if group == "hydra/launcher" and name.startswith(start) and not _installed(plugin):
                raise UserError(f"{word}: this launcher is not installed: pip install 'pgolf[{extra}]'")


def _installed(plugin: str) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None


def work_in(home: str) -> None:
    """Go where the words of a sweep were typed, from where relative paths are meant, though a launcher's worker may start
    elsewhere."""
    try:
        os.chdir(home)
    except OSError as wrong:
        raise UserError(
            f"{home}: {wrong.strerror}, and there the words of this sweep were typed; workers need the same file system"
        ) from None


def require_job_time(launcher: Mapping[str, Any], limits: "Limits") -> None:
    """Refuse clocks that a launcher's jobs are too short for. With steps instead of a clock only that of evaluation is known."""
    given = launcher.get("timeout_min")
    training = 0.0 if limits.train_steps is not None else limits.train_seconds
    least = math.ceil((training + limits.eval_seconds) / 60) + BESIDE_MINUTES
    if given is not None and given < least:
        clocks = f"{training:g} s of training and {limits.eval_seconds:g} s of evaluation"
        raise ConfigError(
            "hydra.launcher.timeout_min",
            given,
            f"is too short for a job with {clocks}, and {BESIDE_MINUTES} min beside them; must be at least {least}",
        )
