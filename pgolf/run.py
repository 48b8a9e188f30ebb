"""`python -m pgolf.run`: the one entry point, and the only file that knows Hydra's runtime.

Words become checked jobs before anything starts; then Hydra makes the run folders and calls `task` for each.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pgolf.config.completion import BASH
from pgolf.config.compose import beside_or_inside, job, register_experiments, rehearse, short_words
from pgolf.config.help import help_text
from pgolf.errors import UserError
from pgolf.machine.outlet import outlet, say
from pgolf.machine.server import start_importing
from pgolf.show.console import open_console

if TYPE_CHECKING:
    from pgolf.config.compose import Job
    from pgolf.recipe import Recipe


class Failed(CompactHydraException):
    """A job of a sweep that did not finish; Hydra shows the message and not our stack."""


@hydra.main(config_path=str(beside_or_inside("conf")), config_name="config", version_base="1.3")
def task(cfg: DictConfig) -> float:
    """One run, in the folder that Hydra made for it. The value is val_bpb, for sweepers to minimise."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    this = job(cfg, OmegaConf.to_container(hydra_config.overrides.task, resolve=False))
    console = open_console()
    with console.live():
        console.progress("start", 0.0, "importing torch")
        from pgolf.machine.launch import RankError
        from pgolf.pipeline import run
        from pgolf.submission import gather
    try:
        return run(this, folder, console)
    except (UserError, RankError, OSError) as wrong:
        _stop(f"pgolf: {wrong}\nThis run did not finish; what there is lies in {folder}", hydra_config.mode)
    finally:
        if hydra_config.mode == RunMode.MULTIRUN:
            gather(Path(hydra_config.sweep.dir).absolute(), this.recipe.logger)
        outlet().drain()


def _stop(message: str, mode: RunMode) -> NoReturn:
    """Say why and nothing else, with exit code 1; a sweep hears of it through Hydra, which goes on with the next job."""
    if mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise Failed(message)
    say(message)
    sys.exit(1)


def main() -> None:
    """Check the words, then hand over to Hydra; a user's mistake is one message and exit code 2."""
    register_experiments()
    sys.argv[1:] = [short_words(a) for a in sys.argv[1:]]
    args = get_args_parser().parse_args()
    if args.help:
        return print(help_text(args.overrides))
    if args.shell_completion and args.overrides == ["install=bash"]:
        return print(BASH)
    try:
        if not (args.hydra_help or args.cfg or args.info or args.shell_completion):
            rehearsed = rehearse(args.overrides, sweep=args.multirun)
            for one in {one.arm_sha256: one for one in rehearsed if not one.source}.values():
                _check_model(one)
            if any(one.config["dry"] for one in rehearsed):
                return _show_plans(rehearsed)
            if not _elsewhere(args.overrides):
                _require([one.recipe for one in rehearsed])
                start_importing()
        task()
    except UserError as wrong:
        sys.exit(_refused(wrong))
    except KeyboardInterrupt as stop:
        say(f"\ninterrupted{f': {stop}' if str(stop) else ''}")
        sys.exit(130)


def _check_model(one: "Job") -> None:
    """What is learnt in evaluation, and how weights are stored, suit the model."""
    from pgolf.export.code import script

    recipe = one.recipe
    recipe.ttt.check_model(recipe.model)
    recipe.quant.check_model(recipe.model, lambda: recipe.limits.artifact_bytes - script(one.config).size)


def _elsewhere(overrides: list[str]) -> bool:
    """Whether a launcher takes the jobs to other machines, which then look for themselves what is there."""
    return any(word.startswith("hydra/launcher=") for word in overrides)


def _require(recipes: list["Recipe"]) -> None:
    """GPUs and text that are asked for are here and suit."""
    for machine in dict.fromkeys(recipe.machine for recipe in recipes):
        machine.require_devices()
    corpora = {data: data.require() for data in dict.fromkeys(recipe.data for recipe in recipes)}
    for recipe in recipes:
        if corpus := corpora[recipe.data]:
            recipe.require_text(corpus)


def _show_plans(rehearsed: list) -> None:
    from pgolf.config.plan import plans
    from pgolf.export.code import script

    print(plans(rehearsed, lambda job: script(job.config).size))


def _refused(wrong: UserError) -> int:
    say(f"pgolf: {wrong}")
    return 2


def leave() -> NoReturn:
    """End this process now: taking down an interpreter that has imported torch takes a second, for nothing."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
    if "torch" in sys.modules:
        leave()
