"""Folders without a mistake: every grammar of logs, table by seed, wrapper and version of Python that is in use."""

import base64
import bz2
import json
import lzma
import zlib
from functools import partial
from statistics import mean

import brotli
import zstandard

from tests.audit_cases.folders import GRAMMARS, MODEL, RATIOS, SCRIPT, SEEDS, Case, Files, edited, folder, log, plus

PROGRAM = (
    "import torch\n\n\ndef main():\n    print('inside')\n\n\n"
    + "".join(f"x{i} = {i * 7919 % 104729}\n" for i in range(120))
    + "main()\n"
)
NEWER = (
    'import torch\nnames = ["a"]\nprint(f"{", ".join(names)} of {f"{len(names)}"}")\ntype Pair = tuple\n'
    "\n\ndef first[T](x: T) -> T:\n    return x\n"
)
RAW = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 2, "lp": 1, "pb": 1}]


def legal(name: str, files) -> Case:
    return Case(f"legal {name}", files, "consistent")


def table(**stated) -> dict:
    """submission.json with another table by seed in the place of the usual one."""
    return {"seed_results": ..., "seeds": ..., **stated}


ROWS = {s: {"val_bpb": round(b, 6), "val_loss": round(b * RATIOS["sp8192"], 5)} for s, b in SEEDS.items()}
TABLES = {
    "seeds as a table": table(seeds={str(s): r for s, r in ROWS.items()}),
    "results.seeds": table(results={"seeds": {str(s): r for s, r in ROWS.items()}}),
    "results.seed_1": table(results={f"seed_{s}": r for s, r in ROWS.items()}),
    "val_bpb_per_seed": table(val_bpb_per_seed={str(s): r["val_bpb"] for s, r in ROWS.items()}),
    "val_bpb_seeds in order": table(seeds=list(ROWS), val_bpb_seeds=[r["val_bpb"] for r in ROWS.values()]),
    "per_seed rows": table(per_seed=[{"seed": s, "bpb": r["val_bpb"]} for s, r in ROWS.items()]),
    "seed_444 keys": table(**{f"seed_{s}": r | {"artifact_size_bytes": MODEL + len(SCRIPT)} for s, r in ROWS.items()}),
    "val_bpb as a table": table(val_bpb={str(s): r["val_bpb"] for s, r in ROWS.items()}),
    "val_bpb_seed42 keys": table(**{f"val_bpb_seed{s}": r["val_bpb"] for s, r in ROWS.items()}),
    "sizes by other names": table(compressed_size_bytes=MODEL, code_bytes=len(SCRIPT), bytes_total=..., bytes_code=...),
    "baseline's own table beside": {"baseline": {"seed_results": {"1": {"val_bpb": 1.2}}, "val_bpb": 1.2}},
    "population deviation": {"val_bpb_std": 0.00031},
}


def packed(data: bytes, how: str) -> str:
    """A line of Python that holds `data`, and one that would run it."""
    literal = {
        "b85": lambda: repr(base64.b85encode(data).decode()),
        "b64": lambda: repr(base64.b64encode(data)),
        "hex": lambda: repr(data.hex()),
        "bytes": lambda: repr(data),
        "latin-1": lambda: repr(data.decode("latin-1")),
        "joined": lambda: " + ".join(
            repr(base64.b85encode(data).decode()[i : i + 90]) for i in range(0, len(data) * 5 // 4 + 5, 90)
        ),
        "numbers": lambda: repr(list(data)),
    }[how]()
    return f"import lzma as z, base64 as b\nexec(z.decompress(b.decode({literal})))\n"


WRAPPERS = {
    "lzma b85": packed(lzma.compress(PROGRAM.encode()), "b85"),
    "zlib b64": packed(zlib.compress(PROGRAM.encode()), "b64"),
    "bz2 hex": packed(bz2.compress(PROGRAM.encode()), "hex"),
    "brotli bytes": packed(brotli.compress(PROGRAM.encode()), "bytes"),
    "zstd numbers": packed(zstandard.compress(PROGRAM.encode()), "numbers"),
    "raw lzma joined": f"F = {dict(RAW[0], id=0)!r}\n"
    + packed(lzma.compress(PROGRAM.encode(), lzma.FORMAT_RAW, filters=RAW), "joined"),
    "nested": packed(lzma.compress(packed(zlib.compress(PROGRAM.encode()), "b85").encode()), "b85"),
    "twice compressed": packed(zlib.compress(base64.b85encode(lzma.compress(PROGRAM.encode()))), "b64"),
    "newer Python inside": packed(lzma.compress((NEWER + PROGRAM).encode()), "b85"),
}


def latin1() -> bytes:
    """A wrapper in latin-1, as its first line says, around raw characters."""
    text = lzma.compress(PROGRAM.encode()).decode("latin-1")
    held = "".join({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\0": "\\x00"}.get(c, c) for c in text)
    return f"# -*- coding: latin-1 -*-\nimport lzma\nexec(lzma.decompress('{held}'.encode('latin-1')))\n".encode(
        "latin-1"
    )


def in_one_log() -> Files:
    made = {k: v for k, v in folder().items() if not k.endswith(".log")}
    return made | {"train.log": "".join(log(s, b) for s, b in SEEDS.items())}


def with_source() -> Files:
    source = (
        "".join(f"import m{i}\n" for i in range(6))
        + "def f():\n    return 'val_bpb: 0.5000'\n\n\nclass A:\n    pass\n\n\nprint('step:1/2 val_bpb:0.6')\n"
    )
    made = folder(
        script=source, logs={"head": source.replace("{", "{{") + "=" * 100 + "\n" + GRAMMARS["colon"]["head"]}
    )
    return made


LEGAL = [
    *(legal(f"log grammar: {g}", partial(folder, logs={"grammar": g})) for g in GRAMMARS),
    *(legal(f"stream {s}", partial(folder, stream=s)) for s in RATIOS),
    *(legal(f"table: {name}", partial(folder, changes=changes)) for name, changes in TABLES.items()),
    *(legal(f"wrapper: {name}", partial(folder, script=text)) for name, text in WRAPPERS.items()),
    legal("wrapper: latin-1 file", lambda: folder(script=latin1())),
    legal("newer Python", partial(folder, script=NEWER)),
    legal(
        "weights unpickled",
        partial(folder, script="import pickle, zlib\nw = pickle.loads(zlib.decompress(open('m.ptz', 'rb').read()))\n"),
    ),
    *(
        legal(f"logs named {n}", partial(folder, named=n))
        for n in ("seed{seed}.txt", "logs/run_s{seed}.txt", "out/seed_{seed}/train.out", "train_v1_{seed}.txt")
    ),
    legal("three runs in one log", in_one_log),
    legal("source in the log", with_source),
    legal(
        "attempts that failed beside",
        lambda: plus(
            {
                "log_ablation.txt": log(5, 1.2)
                .replace("seed:5", "")
                .replace("588000", "900000")
                .replace("brotli: 15", "brotli: 19"),
                "first_try.txt": log(42, 1.15).partition("Serialized")[0].replace("seed:42", "")
                + "Traceback (most recent call last):\n",
                "PR_BODY.txt": "- val_bpb: 1.0950, better than val_bpb 1.2\n",
                "superseded.md": "old\n",
            },
            changes={"superseded_seeds_v1": {"42": {"val_bpb": 1.2, "artifact_bytes": 16_025_731}}},
        ),
    ),
    legal(
        "a log over another text",
        lambda: {
            k: v + "".join(f"def f{i}():\n    return {i}\n" for i in range(9)) if k.endswith(".log") else v
            for k, v in folder().items()
        },
    ),
    legal("rounded bytes", lambda: folder(changes={"bytes_total": 15_800_000, "seed_results": ...})),
    legal(
        "a wrapper with its making in the log",
        lambda: folder(
            script=WRAPPERS["lzma b85"],
            logs={
                "size": f"Code: {len(PROGRAM)} raw → 14308 lzma → {len(WRAPPERS['lzma b85'])} bootstrap\n"
                + GRAMMARS["colon"]["size"]
            },
        ),
    ),
    legal("mixed precision", lambda: edited("logs", "final_int6_sliding_window", "final_mixed_int6_window")),
    legal(
        "adapters warmed up while training",
        lambda: folder(
            logs={
                "train": "adapter warm-up: epoch 1/2 loss 3\nadapter warm-up: epoch 2/2 loss 2\nstep:1/9 train_loss:9.1\n"
            }
        ),
    ),
    legal(
        "no validation after the last step",
        lambda: edited(
            "logs",
            "step:4900/20000 val_loss",
            "step:2000/20000 val_loss:3.1000 val_bpb:1.2000 train_time:240000ms\nstep:4900/20000 train_loss:2.8 x",
        ),
    ),
    legal(
        "an install log beside", lambda: plus({"install.txt": "Collecting torch\nSuccessfully installed torch-2.9.1\n"})
    ),
    legal(
        "a second table in README",
        lambda: plus(
            {
                "README.md": folder()["README.md"]
                + "\n| seed | pre-TTT bpb | steps |\n|---|---|---|\n| 42 | 1.0995 | 4900 |\n"
            }
        ),
    ),
    legal("UTF-16 logs", lambda: {k: v.encode("utf-16") if k.endswith(".log") else v for k, v in folder().items()}),
    legal(
        "self-generated calibration in time",
        lambda: edited("logs", "gptq:calibrated 68 layers in 3.6s", "gptq:generated 64 sequences in 11.0s"),
    ),
    legal(
        "training text adapted to",
        lambda: edited("logs", "gptq:cal", "ttt_burst:epoch 1/2 loss:2.1\nttt_burst:epoch 2/2 loss:2.0\ngptq:cal"),
    ),
    legal(
        "nvidia-smi in the log",
        lambda: edited(
            "logs", "warmup_step:1/20", "| N/A   33C    P0             70W /  700W |\n" * 8 + "warmup_step:1/20"
        ),
    ),
    legal(
        "non-record, an hour long",
        lambda: edited("logs", "588000ms", "3588000ms", changes={"track": "non_record_16mb"}, stream="sp8192"),
    ),
    legal(
        "another sentence of C3",
        partial(folder, changes={"blurb": "Score-first TTT. No pre-quant TTT on validation data."}),
    ),
    legal("mean of more digits", lambda: folder(changes={"val_bpb": round(mean(SEEDS.values()) + 7e-6, 8)})),
    legal("compiled JSON", lambda: plus({"submission.json": json.dumps(json.loads(folder()["submission.json"]))})),
]
