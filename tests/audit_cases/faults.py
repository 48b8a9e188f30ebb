"""The smallest folders on which a reader of folders is led astray: what must be noticed, and what must not."""

import base64
import json
import lzma

from tests.audit_cases.folders import COLON, MODEL, SCRIPT, SEEDS, Case, Files, edited, folder, log, plus
from tests.audit_cases.legal import NEWER, PROGRAM

MEAN = sum(SEEDS.values()) / 3


def case(n: int, name: str, files, verdict: str = "consistent", rule: str = "") -> Case:
    return Case(f"fault {n}: {name}", files, verdict, rule)


def epochs(*lines: str) -> Files:
    return folder(logs={"after": "\n".join(lines) + "\n" + COLON["after"]})


def minified(shipped: str, raw: int, packed: int) -> Files:
    size = (
        f"Code size (uncompressed): {raw} bytes\nCode size (compressed): {packed} bytes\n"
        + COLON["size"].partition("bytes\n")[2].partition("bytes\n")[2]
    )
    return folder(
        script=shipped,
        logs={"size": size.replace("{total}", str(MODEL + packed))},
        changes={"bytes_total": MODEL + packed, "bytes_code": packed, "seed_results": ...},
    )


def wrapped_sizes() -> Files:
    """submission.json counts model and wrapper, the logs count model and the raw script, which is over the cap."""
    small = (
        f"import lzma, base64\n"
        f"exec(lzma.decompress(base64.b85decode({base64.b85encode(lzma.compress(PROGRAM.encode())).decode()!r})))\n"
    )
    model, raw = 15_998_000, len(PROGRAM)
    sizes = (
        f"Code size: {raw} bytes\nSerialized model int6+brotli: {model} bytes\n"
        f"Total submission size int6+brotli: {model + raw} bytes\n"
    )
    return folder(
        script=small,
        counted=len(small),
        logs={"size": sizes},
        changes={"bytes_total": model + len(small), "seed_results": ...},
    )


def reverse_sizes() -> Files:
    script = SCRIPT + "# " + "x" * 300_000 + "\n"
    return folder(
        script=script,
        logs={"size": COLON["size"].replace("{code}", "5000").replace("{total}", str(MODEL + 5000))},
        changes={"bytes_code": ..., "bytes_total": MODEL + 5000, "seed_results": ...},
    )


def all_seven() -> Files:
    seven = {s: 1.09 + s / 1000 for s in range(1, 8)}
    best = sum(sorted(seven.values())[:5]) / 5
    made = folder(scores=seven)
    value = json.loads(made["submission.json"])
    return made | {
        "submission.json": json.dumps(value | {"val_bpb": round(best, 8)}),
        "README.md": made["README.md"] + f"\nmean {best:.8f}\n",
    }


def one_of_three() -> Files:
    bpb = SEEDS[42]
    return folder(changes={"seeds": ..., "seed_results": ..., "val_bpb": bpb, "val_loss": round(bpb * 2.5831, 5)})


FAULTS = [
    case(
        1,
        "an implausible gain",
        lambda: folder(
            scores={s: b - 0.19 for s, b in SEEDS.items()}, logs={"step": COLON["step"].replace("{flat:.4f}", "1.1400")}
        ),
        "needs argument",
        "C1-C4",
    ),
    *(
        case(2, spelled, lambda lines=lines: epochs(*lines), "fail", "C3")
        for spelled, lines in {
            "ttt_adamw:epoch 1/6": ("ttt_adamw:epoch 1/6 loss:2.9", "ttt_adamw:epoch 6/6 loss:2.5"),
            "ttt_epoch:5/30": ("ttt_epoch:5/30 avg_loss:1.89", "ttt_epoch:30/30 avg_loss:1.7"),
            "ttt:epoch=1/3": ("ttt:epoch=1/3 loss=2.8", "ttt:epoch=2/3 loss=2.7"),
            "[time] TTT epoch 3/20": ("[12:01:02] TTT epoch 3/20: loss=2.8", "[12:03:02] TTT epoch 4/20: loss=2.7"),
        }.items()
    ),
    *(
        case(
            3,
            f"{n} shards",
            lambda n=n: edited("logs", "train_shards:80", f"train_shards: {n}"),
            "needs argument",
            "mistake 9",
        )
        for n in (1499, 1502, 1600)
    ),
    case(
        3,
        "mix_bpb as the headline",
        lambda: folder(
            logs={"end": "ppm_mix bytes=151078222 mix_bpb={bpb:.6f} ppm_only=2.27 nn_only=1.0866\n"},
            changes={"val_loss": ...},
        ),
        "needs argument",
        "C2",
    ),
    case(4, "minified and shipped raw", lambda: minified(SCRIPT, len(SCRIPT), 40), "needs argument", "mistake 21"),
    case(4, "minified, and another file", lambda: minified(SCRIPT, 157_868, 31_999), "fail", "mistake 21"),
    case(
        5,
        "seed314.log beside train.log",
        lambda: {
            k.replace("train_seed42", "train").replace("train_seed314", "seed314"): v for k, v in folder().items()
        },
    ),
    case(6, "JSON repeats one of three logs", one_of_three, "needs argument", "mistake 25"),
    case(7, "sp10240 in a path", lambda: edited("logs", "fineweb10B_sp8192", "fineweb10B_sp10240_caseops")),
    case(
        7,
        "sp1024 mentioned before",
        lambda: edited("logs", "world_size", "tokenizer: fineweb10B_sp1024/fineweb_val_tokenizer.model\nworld_size"),
    ),
    case(8, "JSON counts the wrapper, logs the source", wrapped_sizes),
    case(8, "only the log is under the cap", reverse_sizes, "fail", "mistake 20"),
    case(
        9,
        "a byte-level model is asked",
        lambda: {
            k: v.replace("tokens:40540160", "tokens:151078221").replace(
                "model_params", "byte-level vocab\nmodel_params"
            )
            if k.endswith(".log")
            else v
            for k, v in folder(stream="sp8192").items()
        },
        "needs argument",
        "mistake 7",
    ),
    case(10, "f-strings of 3.12", lambda: folder(script=NEWER)),
    case(11, "nvidia-smi is no network", folder),
    case(
        12,
        "a second table by seed",
        lambda: plus(
            {
                "README.md": folder()["README.md"]
                + "\n| seed | sliding bpb | gain |\n|---|---|---|\n| 314 | 1.09551 | .01 |\n"
            }
        ),
    ),
    case(13, "588.0 + 12.7 s", lambda: edited("logs", "in 3.6s", "in 12.7s")),
    case(
        14,
        "617 s under another label",
        lambda: edited(
            "logs",
            "final_int6_sliding_window val_loss",
            "legal_ttt val_loss",
            logs={"end": COLON["end"].replace("112084ms", "617367ms")},
        ),
        "fail",
        "mistake 19",
    ),
    case(15, "the best five of seven", all_seven, "fail", "mistake 32"),
    case(
        16,
        "a rerun of one seed",
        lambda: plus({"train_seed42_original.log": log(42, 1.0951)}),
        "needs argument",
        "mistake 32",
    ),
    case(
        16,
        "the evaluation's own log",
        lambda: plus(
            {
                "eval_seed42.txt": "seed:42\n"
                "final_int6_sliding_window_exact val_loss:{SEEDS[42] * 2.5831:.8f} val_bpb:{SEEDS[42]:.8f}\n"
            }
        ),
    ),
    case(17, "7e-6 apart", lambda: folder(changes={"val_bpb": round(MEAN + 7e-6, 8)})),
    case(18, "val_bpb 0.0", lambda: folder(changes={"val_bpb": 0.0, "seed_results": ...}), "fail", "mistake 26"),
    case(
        19,
        "losses near zero",
        lambda: folder(
            changes={"val_loss_std": 0.0004},
            logs={"after": "aux_final val_loss:0.0001 val_bpb:0.0002\n" + COLON["after"]},
        ),
    ),
    *(
        case(20, f"{n} targets", lambda n=n: edited("logs", "tokens:45508608", f"tokens:{n}", stream="sp4096"))
        for n in (45_514_752, 45_516_800)
    ),
    case(21, "one cause in every log", lambda: edited("logs", "588000ms", "690000ms"), "fail", "mistake 18"),
]


def implausible(name: str, files, rule: str = "plausibility") -> Case:
    return Case(f"implausible {name}", files, "needs argument", rule)


FAULTS += [
    implausible(
        "speed",
        lambda: edited(
            "logs",
            "step:4900/20000",
            "step:49000/20000",
            logs={"head": COLON["head"].replace("shards:80", "shards:195")},
        ),
    ),
    implausible("passes over the text", lambda: edited("logs", "train_shards:80", "train_shards:8")),
    implausible(
        "quantisation gap",
        lambda: edited("logs", "gptq:cal", "diagnostic pre-quantization val_loss:2.7123 val_bpb:1.0500\ngptq:cal"),
    ),
    implausible("spread of seeds", lambda: folder(scores={42: 1.09012345, 314: 1.09012346, 999: 1.09012344})),
    implausible("deviation of seeds", lambda: folder(scores={42: 1.09012345, 314: 1.06012346, 999: 1.07012344})),
    implausible("score", lambda: folder(scores={s: b - 0.12 for s, b in SEEDS.items()}), "C1-C4"),
]
