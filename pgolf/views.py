"""Lines that people read, made from a record and from nothing else."""

import shlex
from pathlib import Path

from pgolf.stats import digits


def opening_lines(record: dict) -> list[str]:
    """What runs, on what: the head of train.log. The first line names the code by its sha256."""
    env, data = record["environment"], record["data"]
    packages = " ".join(f"{name}={number}" for name, number in env["packages"].items())
    return [
        code_line("begin", record),
        f"run {record['name']}  arm {record['arm']}  seed {record['seed']}  config_sha256={record['config_sha256']}",
        f"python={env['python']} {packages} commit={env['commit']}",
        f"{env['platform']}, {env['cpu']}, {env['cores']} cores, GPUs: {'; '.join(env['gpus']) or 'none'},"
        f" {record['ranks']} rank(s)",
        f"data {data['name']}: {data['train_tokens']:,} training and {data['val_tokens']:,} validation tokens,"
        f" manifest_sha256={data['manifest_sha256']}",
        "techniques: " + ", ".join(f"{t['group']}={t['option']}" for t in record["techniques"]),
    ]


def code_line(word: str, record: dict) -> str:
    """The first and the last line of a log carry it, so that a log cannot be paired with another script."""
    return f"{word} pgolf={record['pgolf']} code_sha256={record['code']['sha256']} code_bytes={record['code']['bytes']}"


def closing_lines(record: dict) -> list[str]:
    """The results of a complete run."""
    return [
        *_training(record["train"]),
        *_artifact(record),
        *_evaluation(record),
        *(
            f"receipt {r['part']}: {r['what']} = {r['value']:.6g}{'' if r['alive'] else '  DEAD'}"
            for r in record["receipts"]
        ),
        f"verdict {record['verdict']}",
    ]


def _training(train: dict) -> list[str]:
    dev = train["dev_bpb"]
    return [
        f"trained {train['steps']} steps, {train['tokens']:,} tokens, {train['parameters']:,} parameters"
        f" in {train['seconds']:.1f} s ({phases(train['phases'])})",
        "dev_bpb "
        + " -> ".join(f"{stage} {bpb:.4f}" for stage, bpb in dev.items())
        + f"; quantisation gap {dev['quantized'] - dev['averaged']:+.4f}",
    ]


def _artifact(record: dict) -> list[str]:
    artifact, code, cap = record["artifact"], record["code"]["bytes"], record["limits"]["artifact_bytes"]
    total = artifact["bytes"] + code
    return [
        f"artifact_bytes={artifact['bytes']} code_bytes={code} total_bytes={total} cap={cap} spare={cap - total}",
        f"artifact_sha256={artifact['sha256']}",
    ]


def _evaluation(record: dict) -> list[str]:
    judged = record["evaluate"]
    lines = [
        f"evaluated {judged['tokens']:,} tokens, {judged['bytes']:,} bytes in {judged['seconds']:.1f} s"
        f" ({phases(judged['phases'])}); every target scored once",
        f"val_loss={digits(judged['val_loss'])} val_bpb={digits(judged['val_bpb'])}",
    ]
    if record["reference"]:
        lines.append(
            "on the same bytes: " + ", ".join(f"{name} {bpb:.4f} bpb" for name, bpb in record["reference"].items())
        )
    return lines


def phases(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items())


def final_line(record: dict, folder: Path) -> str:
    """The last line on stdout, for programs."""
    total = record["artifact"]["bytes"]
    return (
        f"val_bpb={digits(record['evaluate']['val_bpb'])} artifact_bytes={total}"
        f" verdict={shlex.quote(record['verdict'])} run={shlex.quote(str(folder))}"
    )
