"""Sweep folders as runs leave them, in miniature: every number small, every file really there, all of it consistent."""

import hashlib
import json
import math
from pathlib import Path

import pgolf
from pgolf.stages.views import closing_lines, code_line, opening_lines

SCRIPT = b"print('train')\n"
LAPTOP = {"name": "stdlib", "tokens": 40_000, "bytes": 100_000, "train_seconds": 60.0, "eval_seconds": 60.0}
RECORD = {
    "name": "fineweb_sp1024",
    "tokens": 62_021_632,
    "bytes": 151_081_000,
    "train_seconds": 600.0,
    "eval_seconds": 600.0,
}
TOKENS, SIZE = LAPTOP["tokens"], LAPTOP["bytes"]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, value) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def make_run(sweep: Path, job: str, seed: int, val_bpb: float = 1.6, arm: str = "default", **changes) -> Path:
    """A complete run in `sweep/job`; `changes` are made to the record after its files were written."""
    folder = sweep / job
    folder.mkdir(parents=True)
    script, text = changes.pop("script", SCRIPT), changes.pop("text", LAPTOP)
    artifact = f"weights {seed}".encode()
    record = make_record(seed, val_bpb, arm, script, artifact, text)
    log = log_of(record)
    for name, data in (("train_gpt.py", script), ("artifact.pgolf", artifact), ("train.log", log)):
        (folder / name).write_bytes(data)
    write(folder / "record.json", record | {"log_sha256": sha(log)} | changes)
    return folder


def log_of(record: dict) -> bytes:
    """The log that a run with this record leaves."""
    lines = [*opening_lines(record), "step 1  loss 6.9", *closing_lines(record)]
    return "\n".join([*lines, f"{code_line('end', record)} status=complete lines={len(lines) + 1}", ""]).encode()


def make_record(seed: int, val_bpb: float, arm: str, script: bytes, artifact: bytes, text: dict = LAPTOP) -> dict:
    return {
        "pgolf": pgolf.__version__,
        "status": "complete",
        "error": None,
        "name": "laptop",
        "arm": arm,
        "arm_sha256": sha(arm.encode()),
        "config_sha256": sha(f"{arm} {seed}".encode()),
        "seed": seed,
        "started": "2026-05-01T10:00:00+00:00",
        "finished": "2026-05-01T10:02:00+00:00",
        "overrides": [*([] if arm == "default" else arm.split(",")), f"seed.value={seed}"],
        "limits": {
            "train_seconds": text["train_seconds"],
            "eval_seconds": text["eval_seconds"],
            "artifact_bytes": 16_000_000,
            "train_steps": None,
        },
        "environment": {
            "python": "3.11.9",
            "torch": "2.13.0+cpu",
            "platform": "Linux",
            "cpu": "x86_64",
            "cores": 2,
            "gpus": [],
            "packages": {"torch": "2.13.0+cpu", "numpy": "2.1.0"},
            "commit": None,
        },
        "ranks": 1,
        "code": {"sha256": sha(script), "bytes": len(script)},
        "trained_code": None,
        "data": {
            "name": text["name"],
            "manifest_sha256": "m" * 64,
            "train_tokens": 9,
            "val_tokens": text["tokens"] + 1,
            "val_bytes": text["bytes"],
        },
        "techniques": [{"group": "quant", "option": "Int6Gptq", "summary": "six bits | with error feedback"}],
        "train": {
            "steps": 100,
            "tokens": 204_800,
            "seconds": 59.5,
            "phases": {"steps": 50.0, "gptq": 9.5},
            "parameters": 1000,
            "train_loss": 2.5,
            "dev_bpb": {"raw": 1.71, "averaged": 1.7, "quantized": 1.705},
            "stopped_by": "clock",
        },
        "artifact": {
            "sha256": sha(artifact),
            "bytes": len(artifact),
            "groups": {"matrices": 8},
            "bits_per_weight": 6.01,
        },
        "evaluate": {
            "code_sha256": sha(script),
            "val_bpb": val_bpb,
            "val_loss": val_bpb * math.log(2) * text["bytes"] / text["tokens"],
            "tokens": text["tokens"],
            "bytes": text["bytes"],
            "seconds": 20.25,
            "phases": {"score": 15.0, "adapt": 5.25},
            "chunks": 2,
            "trace": [],
        },
        "reference": {"xz -9e": 1.73, "zstd -22": 1.81},
        "receipts": [{"part": "average", "what": "distance to the raw weights", "value": 0.125, "alive": True}],
        "notices": [],
        "verdict": "consistent",
    }


def died(sweep: Path, job: str, seed: int, status: str, error: str | None = None, arm: str = "default") -> Path:
    """A run that ended early: later sections are null."""
    early = dict.fromkeys(("train", "artifact", "evaluate", "finished", "log_sha256", "verdict"))
    return make_run(sweep, job, seed, arm=arm, status=status, error=error, **early)


def make_plan(sweep: Path, **seeds: list[int]) -> None:
    arms = [{"arm": a, "arm_sha256": sha(a.encode()), "seeds": s} for a, s in seeds.items()]
    write(sweep / "plan.json", {"arms": arms, "created": "2026-05-01T09:59:59+00:00"})


def edit(folder: Path, section: str | None, **changes) -> None:
    """Change a written record afterwards, as a tamperer would."""
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    (record[section] if section else record).update(changes)
    write(folder / "record.json", record)
