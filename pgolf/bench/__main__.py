"""`python -m pgolf.bench NAME [size=small|medium|full] [repeats=5] [device=cuda] [artifact=FILE] [seeds=1337,42] [json=FILE]
[picture=FILE.png] [only=PART]`: run one benchmark; without a NAME, list them. `gpu` is all that a CUDA device is wanted for, at
size=full, and is rehearsed with device=cpu size=small; `only` is of it, `seeds` and `picture` are of `scaling`. Figures are of
this machine at this moment: compare ratios."""

import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pgolf.config.command import CommandError, Result, StatusLines, command
from pgolf.errors import UserError, nearest
from pgolf.machine import RUNTIME, tune_runtime
from pgolf.machine.hardware import cores

HELPERS = ("__main__", "contest", "parts", "published", "shares")
OPTIONS = ("size", "repeats", "device", "artifact", "seeds", "json", "picture", "only")
ONLY = {"seeds": "scaling", "picture": "scaling", "only": "gpu"}  # options of one benchmark


def names() -> list[str]:
    """All benchmarks."""
    return sorted(m.name for m in iter_modules([str(Path(__file__).parent)]) if m.name not in HELPERS)


@command(__doc__)
def main(args: Sequence[str], say: StatusLines) -> Result:
    """0 done, 1 the ways disagree or a part was missed, 2 misuse with one message."""
    chosen, options = parse(args)
    if chosen is None:
        about = listed()
        width = max(map(len, about))
        text = "\n".join(f"{name:<{width}}  {line}" for name, line in about.items())
        return Result("pgolf.bench.list/1", {"benchmarks": about}, text, file=kept(options))
    from pgolf.bench.contest import DisagreementError

    try:
        result = run(chosen, options)
    except DisagreementError as wrong:
        raise CommandError(str(wrong), 1) from None
    return Result("pgolf.bench/1", result, "\n".join(table(result)), int(bool(result["missed"])), kept(options))


def kept(options: dict[str, str]) -> Path | None:
    """Where json=FILE wants the object as well."""
    return Path(options["json"]) if "json" in options else None


def listed() -> dict[str, str]:
    """The first line of each benchmark's docstring, by its name."""
    return {name: (import_module(f"pgolf.bench.{name}").__doc__ or "").splitlines()[0] for name in names()}


def parse(args: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The benchmark's name and the options, all checked."""
    chosen = [w for w in args if "=" not in w]
    options = dict(w.split("=", 1) for w in args if "=" in w)
    for key in options:
        if key not in OPTIONS:
            raise UserError(f"{key}=: no such option.{nearest(key, OPTIONS)} There are: {', '.join(OPTIONS)}")
    if len(chosen) > 1:
        raise UserError(f"one benchmark at a time, not {' '.join(chosen)}")
    for name in chosen:
        if name not in names():
            raise UserError(f"{name}: no such benchmark.{nearest(name, names())} There are: {', '.join(names())}")
    for key in options.keys() & ONLY.keys():
        if chosen != [ONLY[key]]:
            raise UserError(f"{key}=: is an option of the benchmark {ONLY[key]} alone")
    return (chosen[0] if chosen else None), options


def run(name: str, options: dict[str, str]) -> dict[str, Any]:
    """Time it: what was measured, on what, and a row for each way."""
    from pgolf.bench.contest import Part

    defaults = {"device": "cuda", "size": "full"} if name == "gpu" else {}
    setting, rows, missed = setting_of(defaults | options), [], {}
    for contest in import_module(f"pgolf.bench.{name}").contests(setting):
        rows += contest.run(setting)
        missed |= contest.missed if isinstance(contest, Part) else {}
    about = {"bench": name, "size": setting.size, "repeats": setting.repeats, "machine": machine(setting.device)}
    if "picture" in options:
        from pgolf.bench.scaling import draw

        draw(rows, Path(options["picture"]))
    return about | {"rows": rows, "missed": missed}


def setting_of(options: dict[str, str]) -> Any:
    """The options with their types and ranges checked."""
    from pgolf.bench.contest import SIZES, Setting

    size, repeats, device = options.get("size", "medium"), options.get("repeats", "5"), options.get("device", "cpu")
    if size not in SIZES:
        raise UserError(f"size={size}: must be one of {', '.join(SIZES)}")
    if not repeats.isdecimal() or int(repeats) < 5:
        raise UserError(f"repeats={repeats}: must be a number, at least 5")
    if device not in ("cpu", "cuda"):
        raise UserError(f"device={device}: must be cpu or cuda")
    seeds = options.get("seeds", "1337").split(",")
    if not all(seed.isdecimal() for seed in seeds) or len({*seeds}) < len(seeds):
        raise UserError(f"seeds={options['seeds']}: must be different numbers, as 1337,42,7")
    picture = Path(options.get("picture", "a.png"))
    if picture.suffix != ".png" or not picture.absolute().parent.is_dir():
        raise UserError(f"picture={picture}: must be a file of a folder that is there, and end in .png")
    return Setting(size, int(repeats), device, options.get("artifact"), tuple(map(int, seeds)), options.get("only", ""))


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    import torch

    on_gpu = device == "cuda" and torch.cuda.is_available()
    where = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    return {
        **({"cuda": torch.version.cuda, "driver": driver(), "date": time.strftime("%Y-%m-%d")} if on_gpu else {}),
        "device": where,
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def driver() -> str:
    """The version that the kernel module states, or nothing."""
    file = Path("/proc/driver/nvidia/version")
    return file.read_text().splitlines()[0] if file.exists() else ""


def table(result: dict[str, Any]) -> list[str]:
    """Plain text: the contests with their ways, and under each what was checked."""
    about, rows = result["machine"], result["rows"]
    lines = [
        f"{result['bench']}  size={result['size']}  {result['repeats']} turns  {about['device']}, {about['threads']} thread(s)"
        f" of {about['cores']} cores, load {about['load']:.1f}"
    ]
    width = max((len(row["way"]) for row in rows), default=0)
    for i, row in enumerate(rows):
        if i == 0 or rows[i - 1]["contest"] != row["contest"]:
            floor = "" if row["floor_s"] is None else f"   floor {_ms(row['floor_s'])}"
            lines += ["", f"{row['contest']}{floor}", f"  checked: {row['check']}"]
            lines.append(f"  {'':<{width}} {'min':>12} {'median':>12} {'times faster':>13}")
        times = f"{_ms(row['min_s']):>12} {_ms(row['median_s']):>12} {row['times_faster']:>12.2f}x"
        lines.append(f"  {row['way']:<{width}} {times}  {row['figures']}".rstrip())
    return lines + [f"\nMISSED {name}: {why}" for name, why in result["missed"].items()]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.2f} ms"


def start_as_a_run() -> None:
    """The C library reads its settings as a process starts: begin again with those that ranks have."""
    if RUNTIME.keys() - os.environ.keys():
        tune_runtime()
        os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    start_as_a_run()
    sys.exit(main())
