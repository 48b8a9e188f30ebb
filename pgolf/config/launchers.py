"""Launchers of Hydra's that are extras of pgolf's."""

from importlib.util import find_spec

from pgolf.errors import UserError

LAUNCHERS = {
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit": ("slurm", "hydra_submitit_launcher"),
    "joblib": ("joblib", "hydra_joblib_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
}  # by the beginning of a launcher's name: pgolf's extra, and the plugin that it installs


def require_launcher(overrides: list[str]) -> None:
    """Refuse a launcher that is an extra of pgolf's and not installed, with the line that installs it."""
    for word in overrides:
        group, _, name = word.partition("=")
        for start, (extra, plugin) in LAUNCHERS.items():
            if group == "hydra/launcher" and name.startswith(start) and not _installed(plugin):
                raise UserError(f"{word}: this launcher is not installed: pip install 'pgolf[{extra}]'")


def _installed(plugin: str) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None
