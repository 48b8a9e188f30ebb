"""Named results to hold a claim against: rows of the public leaderboard, shipped with the package in baselines.yaml."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def baselines() -> dict[str, dict[str, Any]]:
    """Name to row, each in the shape of a public submission.json."""
    return yaml.safe_load(files("pgolf.results").joinpath("baselines.yaml").read_text(encoding="utf-8"))
