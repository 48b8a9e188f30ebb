"""The sweeper of pgolf, where alone Hydra looks for plugins. It scans this file whenever it starts: nothing is imported early."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf, open_dict

from pgolf.errors import UserError
from pgolf.machine.outlet import say

if TYPE_CHECKING:
    from pgolf.config.compose import Job


class PgolfSweeper(BasicSweeper):
    """Hydra's basic sweeper for a folder with a plan: launchers get only the jobs that are to run, whichever launcher it is.

    A job's folder is called by what it computes, `<arm sha8>_seed<N>`, so that the same words find it again.
    """

    def sweep(self, arguments: list[str]) -> None:
        """Agree on the plan, launch what is to run, and gather. Ends the process with exit code 2 for another sweep's folder."""
        from pgolf.config.identity import job_folder
        from pgolf.results.sweep import to_run

        folder = Path(self.config.hydra.sweep.dir).absolute()
        try:
            jobs = self._jobs(arguments)
            todo = to_run(folder, jobs, lambda job: weigh_program(job.config))
            OmegaConf.save(self.config, folder / "multirun.yaml")
        except (UserError, OSError) as wrong:
            say(f"pgolf: {wrong}")
            sys.exit(2)
        escaped = str(folder).replace("'", r"\'")
        place = f"hydra.sweep.dir='{escaped}'"  # absolute: a launcher's worker may start elsewhere
        words = [
            [*job.overrides, place, f"hydra.sweep.subdir={job_folder(job.arm_sha256, job.recipe.seed.value)}"]
            for job in todo
        ]
        returned = []
        for batch in self.split_overrides_to_chunks(words, self.max_batch_size) if words else ():
            try:
                returned += self.launcher.launch(batch, initial_job_idx=len(returned))
            except Exception as wrong:  # a launcher's own: jobs return what ended them
                _gathered(folder, jobs[0])
                _stop_for(wrong, folder)
        if not words and not _gathered(folder, jobs[0]):
            sys.exit(1)
        _raise_the_last([one for one in returned if one.status == JobStatus.FAILED])

    def _jobs(self, arguments: list[str]) -> "list[Job]":
        """What the words of the sweep ask for."""
        from pgolf.config.compose import distinct, job

        loader = self.hydra_context.config_loader
        if any(word.startswith("hydra.sweep.subdir=") for word in self.config.hydra.overrides.hydra):
            raise UserError(
                "hydra.sweep.subdir: jobs of a sweep are called by what they compute; say hydra.sweep.dir=FOLDER"
            )
        words = OverridesParser.create(loader).parse_overrides([*self._parse_config(), *arguments])
        jobs = []
        for overrides in self.split_arguments(words, None)[0]:
            config = loader.load_sweep_config(self.config, list(overrides))
            choices = dict(config.hydra.runtime.choices)
            with open_dict(config):
                del config["hydra"]
            jobs.append(job(config, overrides, choices))
        return distinct(jobs)


def _gathered(folder: Path, job: "Job") -> bool:
    """Whether the results of a sweep could be gathered; a full disk or what jobs left behind may forbid it, in a message."""
    from pgolf.submission import gather

    try:
        gather(folder, job.recipe.logger)
    except (UserError, OSError) as wrong:
        say(f"pgolf: {wrong}")
        return False
    return True


def _stop_for(wrong: Exception, folder: Path) -> NoReturn:
    """End for what a launcher raised, as submitit does for a job that was cancelled; jobs elsewhere may go on."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise wrong
    said = (str(wrong).strip() or type(wrong).__name__).splitlines()[0]
    say(
        f"pgolf: the launcher gave up: {said}\n"
        f"Jobs that it has started may still be at work. The same words with hydra.sweep.dir={folder} start what is left"
    )
    sys.exit(1)


def _raise_the_last(failed: list[JobReturn]) -> None:
    """Say what every failed job ended with: Hydra shows no more than the one that is raised."""
    for one in failed[:-1]:
        try:
            _ = one.return_value
        except Exception as wrong:
            say(str(wrong))
    for one in failed[-1:]:
        _ = one.return_value


def weigh_program(config: dict) -> str:
    """The sha256 of the file that this config exports, without the names of texts, which may not be built yet."""
    from pgolf.export.code import script

    return script(config).section()["sha256"]
