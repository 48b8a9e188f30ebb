"""The figures of a submission.json by seed, in any of the spellings in use: read by their keys, at any depth.

A seed is a key that is a number below one that speaks of seeds or scores (`seed_results`, `per_seed`, `val_bpb`), a key with
`seed` in it (`seed_42`, `val_bpb_seed42`), an object's own `seed`, or a place in a list as long as `seeds`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

LEAVES = 20_000  # figures that are looked at
OTHERS = re.compile(
    r"(?i)baseline|compar|previous|prior|sota|ablation|reference|parent|history|leaderboard|delta|rejected|other|upstream|ancestor|supersed|deprecat|earlier|retired|old_"
)
ABOUT = re.compile(r"(?i)seed|val_|bpb|loss|result|run|score|bytes|artifact|metric|time|steps")
SEEDED = re.compile(r"(?i)^(?:train_?)?(?:seed|s)?[ _=:-]*(\d{1,10})(?:[_-]?seed)?$")
INSIDE = re.compile(r"(?i)^(.*?)_?seed[ _=-]?(\d+)_?(.*)$")
APART = re.compile(
    r"(?i)std|delta|gain|diff|improve|pre_?ttt|baseline|target|min\b|max\b|ci_|_ci|sem\b|var\b|before|prequant|pre_quant"
)
BPB = re.compile(
    r"(?i)^(val_?|final_|mean_|headline_|official_)*(bpb|bits_per_byte)(_exact|_final|_mean|_avg)?$|^score$"
)
LOSS = re.compile(r"(?i)^(final_|mean_)*(val_|validation_)(loss|nll)(_exact|_final|_mean|_avg|_nats)?$")
SIZE = re.compile(r"(?i)(?:^|_)bytes?(?:$|_)|(?:artifact|submission|compressed|total)_?size")
NOT_SIZE = re.compile(
    r"(?i)cap\b|limit|budget|allow|headroom|margin|remain|unprun|uncompress|raw|max_bytes|under|free|over|saved|per_token|payload|val_|text|canonical|tokenizer|train_bytes|total_train"
)


@dataclass
class SeedTable:
    """`rows`: seed to {name: value} as stated; `named`: the seeds a file lists without figures, in its order."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    named: list[int] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """Every seed, those that are listed first."""
        return list(dict.fromkeys([*self.named, *self.rows]))


def seed_table(value: dict[str, Any]) -> SeedTable:
    """What `value` says of each seed.

    seed_table({"per_seed": {"seed_42": {"bpb": 1.1}}, "val_bpb_seed7": 1.2}).rows == {42: {"bpb": 1.1}, 7: {"val_bpb": 1.2}}
    """
    table = SeedTable(named=_listed(value.get("seeds")))
    for path, leaf in islice(_leaves(value, ()), LEAVES):
        place = _placed(path, table.named)
        if place is not None:
            seed, name = place
            table.rows.setdefault(seed, {}).setdefault(name, leaf)
    for key in ("seeds", "seed_list", "seeds_run", "seeds_used"):
        table.named = table.named or _listed(value.get(key))
    if not table.named and isinstance(value.get("seed"), int) and not isinstance(value.get("seed"), bool):
        table.named = [value["seed"]]
    return table


def _listed(stated: Any) -> list[int]:
    """[42, "7", {"seed": 1}]: 42, 7, 1; {"42": …}: 42."""
    named = list(stated) if isinstance(stated, list | dict) else []
    named = [s.get("seed") if isinstance(s, dict) else s for s in named]
    found = (SEEDED.match(str(s)) for s in named if isinstance(s, str | int) and not isinstance(s, bool))
    return list(dict.fromkeys(int(m[1]) for m in found if m))


def _leaves(value: Any, path: tuple) -> Iterator[tuple[tuple, Any]]:
    """(path, figure) without recursion; an object that names its seed puts it into its path."""
    waiting = [(path, value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            own = value.get("seed")
            here = (*path, f"seed_{own}") if isinstance(own, int | str) and path else path
            waiting += [((*here, str(key)), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [((*path, i), item) for i, item in reversed(list(enumerate(value)))]
        elif len(path) > 1 or (path and "seed" in str(path[0]).lower()):
            yield path, value


def _placed(path: tuple, listed: list[int]) -> tuple[int, str] | None:
    """The seed a path is of, and the name of its figure."""
    parts = [str(part) for part in path]
    if any(OTHERS.search(word) for word in parts) or parts[-1] == "seed":
        return None
    for i, part in enumerate(path):
        above = parts[i - 1] if i else ""
        if isinstance(part, int):
            if (
                i == len(path) - 1
                and above != "seeds"
                and ABOUT.search(above)
                and part < len(listed)
                and _per_seed(above)
            ):
                return listed[part], _stem(above)
            continue
        whole, inside = SEEDED.match(part), INSIDE.match(part)
        if whole and (part[:1].lower() == "s" or (above and ABOUT.search(above))):
            return int(whole[1]), _name(parts[i + 1 :], above)
        if inside:
            rest = [w for w in (inside[1], inside[3]) if w]
            return int(inside[2]), _name(parts[i + 1 :] or ["_".join(rest)], above)
    return None


def _per_seed(name: str) -> bool:
    return not APART.search(name) or "per_seed" in name


def _stem(name: str) -> str:
    """val_bpb_per_seed, val_bpbs, seeds_val_bpb: val_bpb."""
    found = re.sub(r"(?i)_?(per_|by_|_all_|all_)?(seeds?|results?|runs?|values|list)_?", "", name)
    return re.sub(r"(?i)(bpb|loss)(s|es)$", r"\1", found) or "val_bpb"


def _name(below: list[str], above: str) -> str:
    """The figure's own name, or else that of the table it is in."""
    if below and below[-1]:
        return "_".join(w for w in below if not w.isdigit()) or below[-1]
    return _stem(above)


def figure(row: dict[str, Any], pattern: re.Pattern) -> str | None:
    """The name in `row` under which the figure of a kind stands: an exact name before one that only contains it."""
    exact = [name for name in row if pattern.match(name)]
    best = sorted(exact, key=lambda name: (not name.lower().startswith("val"), len(name)))
    if best:
        return best[0]
    word = "bpb" if pattern is BPB else "val_loss"
    near = [name for name in row if word in name.lower() and not APART.search(name)]
    final = [name for name in near if re.search(r"(?i)post|final|ttt|slid|exact|quant", name)]
    return near[0] if len(near) == 1 else (final or [None])[-1]


def sizes(row: dict[str, Any]) -> dict[str, int]:
    """Names of a row that state a size of the submission in bytes, code apart. {"artifact_size_bytes": 15_900_000}: itself."""
    return {
        name: value
        for name, value in row.items()
        if type(value) is int and SIZE.search(name) and not is_code(name) and not NOT_SIZE.search(name)
    }


def is_code(name: str) -> bool:
    """Whether a size's name speaks of code. code_bytes, bytes_code, train_gpt_bytes: True"""
    return bool(re.search(r"(?i)code|script|train_gpt|wrapper|source|_py\b", name))
