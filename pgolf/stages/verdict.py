"""The verdict of a run, from its own record: `fail (rule)` or `consistent`. What needs argument, an audit says."""


def verdict(record: dict) -> str:
    """`fail (rule)` for the first rule that a record breaks, or 'consistent'. Never more than that: see rules C1-C4."""
    train, judged, limits = record["train"], record["evaluate"], record["limits"]
    size = record["artifact"]["bytes"] + record["code"]["bytes"]
    dead = [r["part"] for r in record["receipts"] if not r["alive"]]
    broken = {
        "code: the file that evaluated is not the one that is weighed": judged["code_sha256"]
        != record["code"]["sha256"],
        "C3": train["validation_tokens"] > 0,
        f"size: {size:,} bytes of {limits['artifact_bytes']:,}": size > limits["artifact_bytes"],
        f"training clock: {train['seconds']:.1f} s of {limits['train_seconds']:g}": train["seconds"]
        > limits["train_seconds"],
        f"evaluation clock: {judged['seconds']:.1f} s of {limits['eval_seconds']:g}": judged["seconds"]
        > limits["eval_seconds"],
        "part of the validation split": judged["tokens"] != record["data"]["val_tokens"] - 1,
        "byte accounting": judged["bytes"] != record["data"]["val_bytes"],
        f"on but did nothing: {', '.join(dead)}": bool(dead),
    }
    for rule, holds in broken.items():
        if holds:
            return f"fail ({rule})"
    return "consistent"
