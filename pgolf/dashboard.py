"""`python -m pgolf.dashboard entity=NAME [project=pgolf]`: save the W&B dashboard that fits what `logger=wandb` logs.

`python -m pgolf.dashboard spec` prints it as JSON instead, which needs neither a key nor the extra `dashboard`.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pgolf.config.command import Result, StatusLines, command
from pgolf.errors import UserError
from pgolf.logger.key import has_key

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "pgolf"
OURS = {"entity": ("WANDB_ENTITY", ""), "project": ("WANDB_PROJECT", "pgolf")}  # variable, and what holds without it
STEPS, SECONDS = ("step", "steps"), ("seconds", "seconds on the stage's clock")


@dataclass(frozen=True)
class Panel:
    """Histories `y` over `x`, or, without an x, one bar of a summary's value for each arm, over its seeds."""

    title: str
    y: str
    x: str | None = None


def sections() -> dict[str, list[Panel]]:
    """The dashboard: results first, then curves over both axes, then what they cost."""
    return {
        "Results": [
            Panel("val_bpb by arm", "final/val_bpb"),
            Panel("dev_bpb after packing, by arm", "final/dev_bpb_quantized"),
            Panel("artifact bytes by arm", "final/artifact_bytes"),
            Panel("training seconds by arm", "final/train_seconds"),
            Panel("evaluation seconds by arm", "final/eval_seconds"),
        ],
        "Training": [
            Panel(f"{what} over {text}", y, x)
            for what, y in (("loss", "train/loss"), ("dev_bpb", "dev/bpb"))
            for x, text in (STEPS, SECONDS)
        ],
        "Evaluation": [
            Panel("val_bpb so far", "eval/val_bpb", "seconds"),
            Panel("val_bpb by chunk", "eval/val_bpb", "chunk"),
        ],
        "Schedule and speed": [
            Panel(f"{what} over steps", f"train/{key}", "step")
            for what, key in (("lr multiplier", "lr"), ("momentum", "momentum"), ("tokens/s", "tokens_per_second"))
        ],
    }


def spec() -> dict[str, Any]:
    """The dashboard as plain values."""
    return {"name": NAME, "sections": [{"name": n, "panels": [asdict(p) for p in ps]} for n, ps in sections().items()]}


def workspace(entity: str, project: str) -> "Workspace":
    """The same for W&B's client."""
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise UserError("the dashboard needs a package that is not here: pip install 'pgolf[dashboard]'") from None

    def drawn(panel: Panel) -> Any:
        if panel.x is None:
            y = reports.SummaryMetric(panel.y)
            return reports.BarPlot(
                title=panel.title, metrics=[y], groupby="group", groupby_aggfunc="mean", groupby_rangefunc="minmax"
            )
        return reports.LinePlot(title=panel.title, x=panel.x, y=[panel.y])

    made = [workspaces.Section(name=n, panels=[drawn(p) for p in ps], is_open=True) for n, ps in sections().items()]
    return workspaces.Workspace(entity=entity, project=project, name=NAME, sections=made)


def settings(args: Sequence[str]) -> dict[str, str]:
    """entity and project from `key=value` arguments, or from W&B's own variables. Raises UserError."""
    ours = {key: os.environ.get(variable) or usual for key, (variable, usual) in OURS.items()}
    for word in args:
        key, _, value = word.partition("=")
        if key not in OURS or not value:
            raise UserError(f"{word!r}: must be entity=NAME, project=NAME, or the one word spec")
        ours[key] = value
    if not ours["entity"]:
        raise UserError(
            "entity=NAME is missing, and so is WANDB_ENTITY: the user or team on W&B that the dashboard is for"
        )
    return ours


@command(__doc__)
def main(args: Sequence[str], say: StatusLines) -> Result:
    """Create the dashboard, or give its specification."""
    if args == ["spec"]:
        return Result("pgolf.dashboard.spec/1", {"dashboard": spec()}, json.dumps(spec(), indent=2))
    ours = settings(args)
    if not has_key():
        raise UserError("there is no key for W&B; wandb login")
    url = workspace(**ours).save().url
    return Result("pgolf.dashboard/1", {"url": url}, url)


if __name__ == "__main__":
    sys.exit(main())
