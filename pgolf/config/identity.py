"""What a run is called by: what is computed, and never where. A cache, a folder, a machine, a number of ranks or threads, a
logger or an author can change without a run becoming another; its seed belongs to the run and not to its arm.

One definition, for hashes here and for what the exported file has frozen in.
"""

import hashlib
import json
from typing import Any

from pgolf.files.frozen import TARGET

IDENTITY = 2  # in a record, with hashes made as below; version 1, without the field, hashed the whole config
PLACES = (  # of `data`: where files are found, which says nothing of what is in them
    *("cache", "folder", "tokenizer", "files", "val_files"),
    *("repository", "root", "dataset", "remote_tokenizer"),
)
OF_ONE_RUN = ("seed", "logger", "dry", "quiet", "name", "author", "trained", "stop_after", "resume", "checkpoint")
OF_A_MACHINE = (
    "ranks",
    "device",
    "threads",
    "nodes",
    "node_rank",
    "rendezvous",
    "rendezvous_seconds",
)  # of one place only
OF_THE_SPEED = ("micro_batch_tokens", "compile")  # of a machine: they round differently and compute the same


def computed(config: dict) -> dict:
    """A resolved config without what does not change the result, but for rounding: the same for every seed, place and machine.

    >>> computed({"data": {"cache": "/a", "vocab_size": 512}, "machine": {"ranks": 2, "compile": True}, "seed": {"value": 1}})
    {'data': {'cache': '', 'vocab_size': 512}, 'machine': {'compile': True}}
    """
    kept = {key: value for key, value in config.items() if key not in OF_ONE_RUN}
    if "machine" in kept:
        kept["machine"] = {k: v for k, v in kept["machine"].items() if k not in (*OF_A_MACHINE, TARGET)}
    if "data" in kept:
        kept["data"] = kept["data"] | {key: _blank(kept["data"][key]) for key in PLACES if key in kept["data"]}
    return kept


def _blank(place: Any) -> Any:
    return [] if isinstance(place, list) else place and ""


def arm_sha256(config: dict, text: str | None, own: dict[str, str]) -> str:
    """Of what all seeds of an arm share, on any machine. `text` is a hash of the text where a person's files decide it,
    `own` the hashes of modules of theirs."""
    return sha256_of({k: v for k, v in computed(config).items() if k != "machine"} | _besides(text, own))


def config_sha256(config: dict, text: str | None, own: dict[str, str]) -> str:
    """Of one run: its arm, its seed, and what its exported file is made for."""
    return sha256_of(computed(config) | {"seed": config["seed"]} | _besides(text, own))


def _besides(text: str | None, own: dict[str, str]) -> dict[str, Any]:
    return {"text": text} | ({"own": own} if own else {})


def fits(config: dict, record: dict) -> bool:
    """Whether a record has the hash of this config, as its version made it."""
    made = (
        config_sha256(config, record.get("text"), record.get("own") or {})
        if record.get("identity") == IDENTITY
        else sha256_of(config)
    )
    return made == record.get("config_sha256")


def sha256_of(plain: dict) -> str:
    """Of the canonical JSON of plain values."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def job_folder(arm: str, seed: int) -> str:
    """The name of a job's folder in a sweep. job_folder("0123456789ab", 42) == "01234567_seed42" """
    return f"{arm[:8]}_seed{seed}"
