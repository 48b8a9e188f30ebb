"""A sweep before and between its jobs: its plan is agreed, and what is complete or at work is not started again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pgolf.config.compose import Job
from pgolf.config.identity import job_folder
from pgolf.errors import UserError
from pgolf.files import read_json, write_json
from pgolf.files.leftovers import clear
from pgolf.files.names import RECORD
from pgolf.machine.lock import HeldError, locked
from pgolf.machine.outlet import say
from pgolf.results.attempts import before, owned, require_same
from pgolf.results.plan import PLAN, agreed
from pgolf.results.runfolder import Run, read_runs
from pgolf.results.summary import job_folders
from pgolf.stages.views import final_line

LOCK, FAILED = ".plan.lock", ".failed.json"


def to_run(folder: Path, jobs: list[Job], program: Callable[[Job], str]) -> list[Job]:
    """The jobs of the sweep in `folder` that are to be started, once its plan holds them all.

    `program` gives the sha256 of a job's code. UserError if the folder holds a sweep of other code or numbers.
    """
    arms = arms_of(jobs, program)
    with locked(folder / LOCK, f"the plan of {folder}", wait=True):
        for name in (PLAN, FAILED):
            clear(folder, name)
        done = [run for run in _runs(folder) if run.complete]
        agreed(folder, arms, len(done))
        failed = {run.folder.name: run.record["finished"] for run in _runs(folder) if run.status == "failed"}
        write_json(folder / FAILED, failed)
    return [job for job in jobs if _is_to_run(place_of(folder, job), job)]


def place_of(folder: Path, job: Job) -> Path:
    """The folder of a job in the sweep `folder`."""
    return folder / job_folder(job.arm_sha256, job.recipe.seed.value)


def arms_of(jobs: list[Job], program: Callable[[Job], str]) -> list[dict[str, Any]]:
    """The jobs of a sweep by arm, in order, with the seeds of each and the hash of its code: what plan.json holds."""
    arms: dict[str, dict] = {}
    for job in jobs:
        if job.arm_sha256 not in arms:
            named = {"arm": job.arm, "arm_sha256": job.arm_sha256, "program_sha256": program(job)}
            arms[job.arm_sha256] = named | {"seeds": []}
        arms[job.arm_sha256]["seeds"].append(job.recipe.seed.value)
    return list(arms.values())


def _is_to_run(place: Path, job: Job) -> bool:
    """Whether a job is neither complete nor at work; what it is otherwise is said."""
    if not (place / RECORD).exists():
        return True
    try:
        with owned(place):
            found = before(place)
    except HeldError as busy:
        say(f"left alone: {busy}")
        return False
    if not found.run.complete:
        return True
    require_same(found.run, job)
    say(f"complete already: {final_line(found.run.record, place)}", 1)
    return False


def require_go(folder: Path, stop_after: int | None) -> None:
    """UserError if so many jobs have failed since the sweep was called that no other may start."""
    if stop_after is None:
        return
    known = read_json(folder / FAILED) if (folder / FAILED).exists() else {}
    new = [run.folder.name for run in _runs(folder) if run.status == "failed" and _is_new(run, known)]
    if len(new) >= stop_after:
        raise UserError(f"not started: {', '.join(new)} failed, and stop_after={stop_after}")


def _is_new(run: Run, known: dict[str, str]) -> bool:
    return known.get(run.folder.name) != run.record["finished"]


def _runs(folder: Path) -> Iterator[Run]:
    """The jobs of a sweep whose records can be read."""
    for place in job_folders(folder) if folder.is_dir() else []:
        try:
            yield read_runs([place], patient=False)[0]
        except UserError:
            continue
