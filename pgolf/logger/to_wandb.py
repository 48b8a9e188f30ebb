"""Events and records as Weights & Biases runs: one for each stage of a run, one for a sweep. Lives in the mirror's process."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb
import yaml

from pgolf.files import lookup
from pgolf.logger.key import has_key
from pgolf.logger.keys import AXES, SUMMARY, TABLES, history, table
from pgolf.logger.mirror import Target, read_or_none

if TYPE_CHECKING:
    from pgolf.logger import Wandb

FILES = ("artifact.pgolf", "config.yaml", "train.log", "record.json", "train_gpt.py", "report.html")
LONGEST = 128  # characters of a name or group


class ToWandb(Target):
    """Opens a W&B run when a stage begins, and closes it when the next does or the run ends."""

    def __init__(self, spec: "Wandb", folder: Path):
        self.spec, self.folder = spec, folder
        self.run: wandb.Run | None = None
        self.mode = spec.mode
        if spec.mode == "online" and not has_key():
            self._go_offline("there is no key for W&B (wandb login)")

    def _go_offline(self, why: str) -> None:
        self.mode = "offline"
        print(f"{why}: kept for later; wandb sync {self.folder}/wandb/offline-run-*", flush=True)

    def event(self, event: dict[str, Any]) -> None:
        if event["event"] == "stage":
            self._finish(0)
            self._begin(event["stage"])
        elif self.run is not None and (numbers := history(event)):
            self.run.log(numbers)

    def close(self) -> None:
        if summary := read_or_none(self.folder / "summary.json"):
            self._aggregate(summary)
        elif self.run is not None:
            self._keep_files()
            self._finish(0 if self._record().get("status") == "complete" else 1)

    def _record(self) -> dict:
        return read_or_none(self.folder / "record.json") or {}

    def _begin(self, stage: str) -> None:
        record = self._record()
        self.name = f"{record['name']}-seed{record['seed']}"
        group = f"{record['arm']}"
        if len(group) > LONGEST:
            group = f"{group[: LONGEST - 9]}-{record['arm_sha256'][:8]}"
        config = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
        self._open(name=self.name, group=group, job_type=stage, config=config)

    def _open(self, **options: Any) -> None:
        """`dir` is the run's folder, so that no two runs share one."""
        spec, patience = self.spec, self.spec.patience_seconds
        settings = wandb.Settings(console="off", silent=True, disable_git=True, init_timeout=patience)
        options |= {"project": spec.project, "entity": spec.entity, "dir": str(self.folder), "settings": settings}
        try:
            self.run = wandb.init(mode=self.mode, **options)
        except Exception as fault:  # whatever a service and its client may throw: nothing is lost by it
            if self.mode == "offline":
                raise
            self._go_offline(f"W&B cannot be reached ({fault})")
            self.run = wandb.init(mode=self.mode, **options)
        for name in dict.fromkeys(AXES.values()):
            self.run.define_metric(name)
        for names, axis in AXES.items():
            self.run.define_metric(names, step_metric=axis)

    def _finish(self, code: int) -> None:
        """End the open run. Its summary is set by name: W&B's own would be the last value logged."""
        if self.run is None:
            return
        record = self._record()
        for name, dotted in SUMMARY.items():
            if (value := lookup(record, dotted)) is not None:
                self.run.summary[name] = value
        self.run.finish(exit_code=code)
        self.run = None

    def _keep_files(self) -> None:
        record = self._record()
        self._table("tables/layers", lookup(record, "artifact.layers") or [])
        self._table("tables/receipts", record.get("receipts") or [])
        self._artifact(self.name, "model", [self.folder / name for name in FILES])

    def _aggregate(self, summary: dict) -> None:
        self._open(name=f"{self.folder.name}-aggregate", group=self.folder.name, job_type="aggregate")
        arms, ablation = summary["arms"], summary["ablation"]
        self._table("tables/arms", [arm | (arm["val_bpb"] or {}) for arm in arms])
        self._table("tables/seeds", [{"arm": arm["arm"], **row} for arm in arms for row in arm["seeds"]])
        rows = ablation["rows"] if ablation else []
        self._table("tables/ablation", [{"baseline": ablation["baseline"], **row} for row in rows])
        self.run.summary.update(aggregate_summary(arms))
        submitted = [p for p in sorted((self.folder / "submission").glob("*/*")) if p.is_file()]
        self._artifact(f"{self.folder.name}-submission", "submission", [self.folder / "summary.json", *submitted])
        self.run.finish(exit_code=0)

    def _table(self, name: str, rows: list[dict]) -> None:
        if rows:
            self.run.log({name: wandb.Table(columns=list(TABLES[name]), data=table(name, rows))})

    def _artifact(self, name: str, kind: str, paths: list[Path]) -> None:
        artifact = wandb.Artifact(name, type=kind)
        for path in paths:
            if path.exists():
                artifact.add_file(str(path), name=str(path.relative_to(self.folder)))
        self.run.log_artifact(artifact)


def aggregate_summary(arms: list[dict]) -> dict[str, Any]:
    """The arm with the lowest mean."""
    best = min(
        (arm for arm in arms if lookup(arm, "val_bpb.mean") is not None),
        key=lambda a: a["val_bpb"]["mean"],
        default=None,
    )
    if best is None:
        return {"final/arms": len(arms)}
    return {
        "final/val_bpb": best["val_bpb"]["mean"],
        "final/val_bpb_std": best["val_bpb"]["std"],
        "final/seeds": best["n"],
        "final/arm": best["arm"],
        "final/arms": len(arms),
    }
