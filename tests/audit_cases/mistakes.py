"""A folder for each of the 34 mistakes, as far as logs, JSON and code show them. What leaves no other trace than a score that
is too good is labelled as the question that it raises."""

import json
from functools import partial

from tests.audit_cases.folders import COLON, SCRIPT, SEEDS, Case, Files, edited, folder, log, plus

TOO_GOOD = {s: b - 0.15 for s, b in SEEDS.items()}
FLAT = "step:4900/20000 val_loss:2.8200 val_bpb:1.0917 train_time:588000ms step_avg:120.00ms\n"


def fail(n: int | str, name: str, rule: str, files) -> Case:
    return Case(f"mistake {n}: {name}", files, "fail", rule)


def ask(n: int | str, name: str, rule: str, files) -> Case:
    return Case(f"mistake {n}: {name}", files, "needs argument", rule)


def scored_in(ratio: float) -> Files:
    """All figures at another rate of nats per bpb."""
    made = folder()
    for seed, bpb in SEEDS.items():
        made[f"train_seed{seed}.log"] = made[f"train_seed{seed}.log"].replace(
            f"{bpb * 2.5831:.8f}", f"{bpb * ratio:.8f}"
        )
        made[f"train_seed{seed}.log"] = made[f"train_seed{seed}.log"].replace(
            f"{bpb * 2.5831:.4f}", f"{bpb * ratio:.4f}"
        )
    value = json.loads(made["submission.json"])
    for key, row in value["seed_results"].items():
        row["val_loss"] = round(SEEDS[int(key)] * ratio, 5)
    value["val_loss"] = round(sum(r["val_loss"] for r in value["seed_results"].values()) / 3, 5)
    made["README.md"] = made["README.md"].replace("| val_loss |", "|  |")
    return made | {"submission.json": json.dumps(value)}


def before(text: str) -> dict:
    return {"after": text + COLON["after"]}


def cut(made: Files) -> Files:
    return {k: v[: v.index("Serialized model:")] if k == "train_seed42.log" else v for k, v in made.items()}


MISTAKES = [
    fail(1, "the space counted twice", "mistakes 1-6", lambda: scored_in(2.5831 * 1.17)),
    fail(2, "the marker missing from the vocabulary", "mistakes 1-6", lambda: scored_in(2.5831 * 1.08)),
    fail(3, "byte pieces of three bytes", "mistakes 1-6", lambda: scored_in(2.5831 * 1.03)),
    fail(
        4,
        "bytes of a transformed text",
        "mistakes 1-6",
        lambda: edited("logs", "eval_time:112084ms", "eval_time:112084ms tokens=40540160 bytes=164594398"),
    ),
    fail(5, "a vocabulary clamp", "mistakes 1-6", lambda: scored_in(2.5831 * 0.95)),
    fail(6, "a sidecar matched by the glob", "mistakes 1-6", lambda: scored_in(2.5831 * 0.5)),
    fail(
        7,
        "a part of the split",
        "mistake 7",
        lambda: edited(
            "logs", "final_int6_sliding_window val", "eval subset=8000000 tokens\nfinal_int6_sliding_window val"
        ),
    ),
    ask(7, "a truncated shard", "mistake 7", lambda: edited("logs", "tokens:40540160", "tokens:31010816")),
    ask(8, "windows that skip the hard targets", "C1-C4", lambda: folder(scores=TOO_GOOD, logs={"step": FLAT})),
    ask(9, "documents in both splits", "mistake 9", lambda: edited("logs", "train_shards:80", "train_shards:1499")),
    fail(
        10,
        "adapt, then score",
        "C3",
        lambda: folder(logs=before("ttt_adamw:epoch 1/2 loss:2.9\nttt_adamw:epoch 2/2 loss:2.7\n")),
    ),
    ask(
        11,
        "the average chosen by validation",
        "mistake 11",
        lambda: folder(logs=before("best_averaging:ema val_bpb:1.1381\n")),
    ),
    ask(
        11,
        "calibrated on validation text",
        "mistake 11",
        lambda: folder(logs=before("gptq: calibrating on validation data\n")),
    ),
    fail(
        12,
        "two passes",
        "C4",
        lambda: folder(logs=before("ngram_two_pass: Pass 1 done val_bpb=1.12\nngram_two_pass: Pass 2 done\n")),
    ),
    ask(13, "a gate that sees the target", "C1-C4", lambda: folder(scores=TOO_GOOD, logs={"step": FLAT})),
    ask(14, "a mixture of the realised token", "C2", lambda: edited("logs", "final_int6_sliding_window", "ppm_mix")),
    ask(
        15,
        "a cache that is not normalised",
        "C2",
        lambda: edited("logs", "final_int6_sliding_window", "final_ngram_blend"),
    ),
    ask(
        16,
        "a hint from the next document",
        "C1-C4",
        lambda: folder(scores={s: b - 0.06 for s, b in SEEDS.items()}, logs={"step": FLAT}),
    ),
    ask(
        17, "an optimiser that sees the target", "C1-C4", lambda: folder(scores={s: b - 0.3 for s, b in SEEDS.items()})
    ),
    fail(18, "calibration after the clock", "mistake 18", lambda: edited("logs", "in 3.6s", "in 23.6s")),
    fail(18, "training over the clock", "mistake 18", lambda: edited("logs", "588000ms", "612000ms")),
    ask(
        18,
        "198 s of text of its own",
        "mistake 18",
        lambda: edited("logs", "gptq:calibrated 68 layers in 3.6s", "gptq:generated 64 sequences in 198.3s"),
    ),
    fail(
        19,
        "evaluation over the clock",
        "mistake 19",
        lambda: edited("logs", "eval_time:112084ms", "eval_time:712084ms"),
    ),
    ask(
        19,
        "adapted before the timer",
        "mistake 19",
        lambda: edited(
            "logs", "final_int6_sliding_window val", "ttt:done elapsed=540.0s\nfinal_int6_sliding_window val"
        ),
    ),
    fail(20, "a seed over the cap", "mistake 20", lambda: edited("train_seed42.log", "brotli: 158", "brotli: 168")),
    fail(21, "another code size", "mistake 21", lambda: folder(counted=len(SCRIPT) + 5000)),
    fail(
        21, "a module beside", "mistake 21", lambda: plus({"helpers.py": "x = 1\n"}, script="import helpers\n" + SCRIPT)
    ),
    fail(21, "C beside", "mistake 21", lambda: plus({"tilt.c": "int x;\n"}, script="C = './tilt.c'\n" + SCRIPT)),
    fail(22, "another file executed", "mistake 22", partial(folder, script="exec(open('other.py').read())\n")),
    ask(22, "code that cannot be seen", "mistake 22", partial(folder, script="import torch\nexec(torch.load('x'))\n")),
    ask(
        23,
        "another program",
        "mistake 23",
        partial(folder, script="import subprocess\nsubprocess.run(['lrzip', 'model'])\n"),
    ),
    ask(24, "downloads", "mistake 24", partial(folder, script="import urllib.request\nurllib.request.urlopen('x')\n")),
    ask(24, "installs", "mistake 24", partial(folder, script="import os\nos.system('pip install brotli')\n")),
    fail(
        25,
        "the best seed as the mean",
        "mistake 25",
        lambda: folder(changes={"val_bpb": round(min(SEEDS.values()), 6)}),
    ),
    fail(25, "README states another score", "mistake 25", lambda: edited("README.md", "1.09012", "1.08812")),
    fail(25, "no log states it", "mistake 25", lambda: folder(changes={"val_bpb": 1.07, "seed_results": ...})),
    fail(26, "null", "mistake 26", lambda: folder(changes={"val_bpb": None})),
    fail(26, "text for a number", "mistake 26", lambda: folder(changes={"val_bpb": "1.0902"})),
    fail(26, "no JSON", "mistake 26", lambda: plus({"submission.json": "{'val_bpb': 1.1}"})),
    fail(27, "no logs", "mistake 27", lambda: {k: v for k, v in folder().items() if not k.endswith(".log")}),
    fail(27, "cut short", "mistake 27", lambda: cut(folder())),
    fail(
        27,
        "a traceback",
        "mistake 27",
        lambda: edited("train_seed42.log", "final_int6_round", "Traceback (most recent call last):\nfinal_int6_round"),
    ),
    fail(27, "a seed without a log", "mistake 27", lambda: plus({"train_seed42.log": None})),
    fail(28, "another seed's log", "mistake 28", lambda: edited("train_seed42.log", "seed:42", "seed:43")),
    fail(
        28,
        "another script's log",
        "mistake 28",
        lambda: edited(
            "train_seed42.log", "Running", "".join(f"import m{i}\n" for i in range(9)) + "=" * 99 + "\nRunning"
        ),
    ),
    ask(
        28,
        "one run under two seeds",
        "mistake 28",
        lambda: folder(scores={1: 1.09012345, 2: 1.09012345, 3: 1.09112345}),
    ),
    Case(
        "mistake 29: every rank prints",
        lambda: edited("logs", "gptq:cal", "gptq_quantize: 66 layers\n" * 8 + "gptq:cal"),
        "consistent",
    ),
    fail(30, "does not parse", "mistake 30", partial(folder, script="import torch\nprint((\n")),
    fail(
        31,
        "nats for bpb",
        "mistake 31",
        lambda: folder(changes={"delta_vs_leaderboard_bpb": -0.02, "delta_vs_leaderboard_nats": -0.02}),
    ),
    fail(
        31,
        "a p of another test",
        "mistake 31",
        lambda: folder(changes={"p_value": 0.001, "comparison_baseline_bpb": 1.0924}),
    ),
    fail(
        32,
        "the best of the seeds",
        "mistake 32",
        lambda: folder(changes={"val_bpb": round((SEEDS[42] + SEEDS[999]) / 2, 6)}),
    ),
    ask(32, "a seed that is not reported", "mistake 32", lambda: plus({"train_seed7.log": log(7, 1.0955)})),
    Case("mistake 34: another environment", lambda: edited("logs", "Running PyTorch 2.9.1+cu128\n", ""), "consistent"),
]
