"""Reads the files that W&B's client leaves offline, as far as tests need: runs with their history, summary and artifacts."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


@dataclass
class Kept:
    """One run as its file tells it."""

    name: str = ""
    group: str = ""
    job_type: str = ""
    project: str = ""
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)  # metric or pattern -> what it is drawn over
    artifacts: dict[str, tuple[str, set[str]]] = field(default_factory=dict)  # name -> kind, files
    tables: dict[str, dict] = field(default_factory=dict)


def kept_runs(folder: Path) -> list[Kept]:
    """Every run below `folder`/wandb, in the order in which they began."""
    return [kept(path) for path in sorted(folder.glob("wandb/*run-*/*.wandb"), key=lambda p: p.stat().st_mtime_ns)]


def kept(path: Path) -> Kept:
    run = Kept()
    for record in records(path.read_bytes()):
        add(run, record)
    for name in run.summary:
        for table in (path.parent / "files/media/table").glob(f"{name}_*.table.json"):
            run.tables[name] = json.loads(table.read_text())
    return run


def add(run: Kept, record: Any) -> None:
    match record.WhichOneof("record_type"):
        case "run":
            run.name, run.group, run.job_type = record.run.display_name, record.run.run_group, record.run.job_type
            run.project = record.run.project
            run.config |= values(record.run.config.update)
        case "history":
            run.history.append(values(record.history.item))
        case "summary":
            run.summary |= values(record.summary.update)
        case "metric":
            run.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        case "exit":
            run.exit_code = record.exit.exit_code
        case "artifact":
            files = {content.path for content in record.artifact.manifest.contents}
            run.artifacts[record.artifact.name] = (record.artifact.type, files)


def values(items: Any) -> dict[str, Any]:
    """Key to value; of nested keys the first part counts."""
    return {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in items}


def records(data: bytes) -> Iterator[Any]:
    """The protocol buffers of a log of 32 KiB blocks: each piece has a checksum, a length and a kind."""
    from wandb.proto import wandb_internal_pb2

    at, whole = FILE_HEADER, b""
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
