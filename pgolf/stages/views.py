"""Log lines and tables made from a record alone."""

import shlex
from pathlib import Path


def digits(value: float) -> str:
    """The one spelling of a loss or a bpb, everywhere: 8 decimals. digits(1.1) == '1.10000000'"""
    return f"{value:.8f}"


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


LABEL = 9  # characters: logs are searched for "evaluated N tokens", with one space


def closing_lines(record: dict) -> list[str]:
    """The results of a complete run, for a log: the card, and two lines that programs look for."""
    judged = record["evaluate"]
    return [
        *(f"{label:<{LABEL}} {text}" for label, text in card(record)),
        f"artifact_sha256={record['artifact']['sha256']}",
        f"val_loss={digits(judged['val_loss'])} val_bpb={digits(judged['val_bpb'])}",
    ]


def card(record: dict) -> list[tuple[str, str]]:
    """What came of a run, a label and its text a row; on a terminal it is drawn as a table."""
    return [
        *_training(record["train"]),
        *_sizes(record),
        *_evaluation(record),
        *(("receipt", receipt_text(r)) for r in record["receipts"]),
        ("verdict", record["verdict"]),
    ]


def receipt_text(receipt: dict) -> str:
    """One line; DEAD marks a part that did nothing."""
    return f"{receipt['part']}: {receipt['what']} = {receipt['value']:.6g}{'' if receipt['alive'] else '  DEAD'}"


def _training(train: dict) -> list[tuple[str, str]]:
    dev = train["dev_bpb"]
    stages = " -> ".join(f"{stage} {bpb:.4f}" for stage, bpb in dev.items())
    return [
        (
            "trained",
            f"{train['steps']} steps, {train['tokens']:,} tokens, {train['parameters']:,} parameters"
            f" in {train['seconds']:.1f} s ({phases(train['phases'])})",
        ),
        ("dev_bpb", f"{stages}; quantisation gap {dev['quantized'] - dev['averaged']:+.4f}"),
    ]


def _sizes(record: dict) -> list[tuple[str, str]]:
    artifact, code, cap = record["artifact"], record["code"]["bytes"], record["limits"]["artifact_bytes"]
    total = artifact["bytes"] + code
    groups = sorted((artifact["groups"] | {"code": code}).items(), key=lambda pair: -pair[1])
    return [
        (
            "bytes",
            f"artifact_bytes={artifact['bytes']} code_bytes={code} total_bytes={total} cap={cap} spare={cap - total}",
        ),
        ("of which", ", ".join(f"{name} {size:,}" for name, size in groups) + f": {total / cap:.1%} of the cap"),
    ]


def _evaluation(record: dict) -> list[tuple[str, str]]:
    judged, others = record["evaluate"], record["reference"] or {}
    same = "; on the same bytes " + ", ".join(f"{name} {bpb:.4f}" for name, bpb in others.items()) if others else ""
    return [
        (
            "evaluated",
            f"{judged['tokens']:,} tokens, {judged['bytes']:,} bytes in {judged['seconds']:.1f} s"
            f" ({phases(judged['phases'])}); every target scored once",
        ),
        ("val_bpb", digits(judged["val_bpb"]) + same),
    ]


def phases(seconds: dict[str, float]) -> str:
    """ "name seconds" of each phase."""
    return ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items())


def final_line(record: dict, folder: Path) -> str:
    """The last line on stdout, for programs."""
    total = record["artifact"]["bytes"]
    return (
        f"val_bpb={digits(record['evaluate']['val_bpb'])} artifact_bytes={total}"
        f" verdict={shlex.quote(record['verdict'])} run={shlex.quote(str(folder))}"
    )
