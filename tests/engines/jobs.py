"""The jobs of a sweep in the folder `sweep`, as their records tell."""

from pathlib import Path

from tests.command import record


def records(folder: Path) -> dict[Path, dict]:
    """What every job that has begun has recorded, by its folder."""
    return {path.parent: record(path.parent) for path in folder.glob("sweep/*_seed*/record.json")}


def at_work(folder: Path) -> list[Path]:
    """The folders of jobs that are running."""
    return [place for place, found in records(folder).items() if found["status"] == "running"]
