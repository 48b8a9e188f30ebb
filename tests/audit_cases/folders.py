"""A submission folder as a dictionary of files, in several grammars of logs; every figure in it agrees with every other."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

SEEDS = {42: 1.09012345, 314: 1.09061234, 999: 1.08987654}
RATIOS = {"sp1024": 1.68845, "sp4096": 2.30103, "sp8192": 2.5831, "sp8192_caseops": 2.18837}
TOKENS = {"sp1024": 62_021_632, "sp4096": 45_508_608, "sp8192": 40_540_160, "sp8192_caseops": 47_851_520}
SCRIPT = (
    "import subprocess\nimport torch\n\nprint(subprocess.run(['nvidia-smi'], text=True).stdout)\nprint('training')\n"
)
MODEL = 15_800_000
Files = dict[str, str | bytes]


@dataclass(frozen=True)
class Case:
    """`files` of a folder, and what an auditor must say of it: the worst verdict and the rule that is named first."""

    name: str
    files: Callable[[], Files]
    verdict: str
    rule: str = ""


def write(files: Files, folder: Path) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return folder


def log(
    seed: int, bpb: float, *, stream: str = "sp8192", code: int = len(SCRIPT), grammar: str = "colon", **given
) -> str:
    """A run's log. `given` replaces parts by name (train, step, after, size, end)."""
    ratio, tokens, flat = RATIOS[stream], TOKENS[stream], round(bpb + 0.01, 4)
    figures = {"seed": seed, "bpb": bpb, "loss": bpb * ratio, "flat": flat, "flat_loss": flat * ratio, "code": code}
    figures |= {
        "gap": flat + 0.008,
        "gap_loss": (flat + 0.008) * ratio,
        "stream": stream,
        "tokens": tokens,
        "model": MODEL,
    }
    figures |= {"total": MODEL + code, "spent": 588.0}
    parts = GRAMMARS[grammar] | given
    return "".join(parts[name].format(**figures) for name in ("head", "train", "step", "after", "size", "end"))


HEAD = (
    "Running PyTorch 2.9.1+cu128\nworld_size:8 grad_accum_steps:1\ntrain_loader:dataset:fineweb10B_{stream} train_shards:80\n"
    "val_loader:shards pattern=./data/fineweb10B_{stream}/fineweb_val_*.bin tokens:{tokens}\nmodel_params:35945671\n"
    "train_batch_tokens:786432 train_seq_len:2048\nseed:{seed}\nwarmup_step:1/20\n"
)
SIZE = (
    "Serialized model: 135417533 bytes\nCode size: {code} bytes\n"
    "Serialized model int6+brotli: {model} bytes\nTotal submission size int6+brotli: {total} bytes\n"
)
COLON = {
    "head": HEAD,
    "train": "step:0/20000 val_loss:9.0090 val_bpb:3.4877 train_time:0ms\n"
    "step:1/20000 train_loss:9.0104 train_time:130ms step_avg:130ms\n",
    "step": "step:4900/20000 val_loss:{flat_loss:.4f} val_bpb:{flat:.4f} train_time:588000ms step_avg:120.00ms\n"
    "stopping_early: wallclock_cap train_time:588000ms step:4900/20000\npeak memory allocated: 39034 MiB reserved: 39058 MiB\n",
    "after": "gptq:calibrated 68 layers in 3.6s\n",
    "size": SIZE,
    "end": "final_int6_roundtrip val_loss:{gap_loss:.4f} val_bpb:{gap:.4f} eval_time:6405ms\n"
    "final_int6_roundtrip_exact val_loss:{gap_loss:.8f} val_bpb:{gap:.8f}\n"
    "final_int6_sliding_window val_loss:{loss:.4f} val_bpb:{bpb:.4f} stride:64 eval_time:112084ms\n"
    "final_int6_sliding_window_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n",
}
GRAMMARS: dict[str, dict[str, str]] = {
    "colon": COLON,
    "hyperparameters": COLON
    | {
        "head": "Hyperparameters:\n  batch_tokens: 786432\n  seed: {seed}\n  world_size: 8\n"
        "  val_files: data/fineweb10B_{stream}/fineweb_val_*.bin\n"
        "  tokenizer_path: data/fineweb_1024_bpe.model\ntrain_shards: 80\nval_tokens: {tokens}\nmodel_params:35944536\n",
        "train": "0/20000 val_loss: 9.0090 val_bpb: 3.4877\n1/20000 train_loss: 9.0104 train_time: 0.0m tok/s: 8245460\n",
        "step": "4542/20000 val_loss: {flat_loss:.4f} val_bpb: {flat:.4f}\n"
        "stopping_early: wallclock_cap train_time: 588122ms step: 4542/20000\n",
        "after": "pre-quantization post-ema val_loss:{flat_loss:.8f} val_bpb:{flat:.8f} eval_time:6405ms\n"
        "GPTQ:collecting Hessians\nGPTQ:collected 67 Hessians in 9.7s\n",
        "end": "quantized val_loss:{gap_loss:.8f} val_bpb:{gap:.8f} eval_time:18632ms\n"
        "quantized_sliding_window val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:112084ms\n",
    },
    "score_first": COLON
    | {
        "end": "final_int6_roundtrip_exact val_loss:{gap_loss:.8f} val_bpb:{gap:.8f}\nttt:start chunks=3 epochs=3\n"
        "  ttt_chunk [1/3] bpb=1.16 time=0.5s\n    ttt_train [1] epoch=1/3 batches=8\n"
        "    ttt_train [1] epoch=2/3 batches=8\n    ttt_train [1] epoch=3/3 batches=8\n"
        "  ttt_chunk [2/3] bpb=1.12 time=2.5s\n    ttt_train [2] epoch=1/3 batches=8\n  ttt_chunk [3/3] bpb=1.11 time=9.9s\n"
        "ttt:done val_loss={loss:.6f} val_bpb={bpb:.6f} elapsed=407.5s\n"
        "legal_ttt val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:408049ms\n"
        "legal_ttt_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n",
    },
    "phased": COLON
    | {
        "end": "diagnostic quantized val_loss:{gap_loss:.8f} val_bpb:{gap:.8f} eval_time:49995ms\n"
        "ttt_lora:warming up compile (random tokens, no val data)\n"
        "ttpp: phase:1/3 pd:1296 gd:833 t:209.3s\nttp: b782/782 bl:2.1403 bb:1.0135 rl:2.1403 rb:1.0135 dl:30339-97114 gd:0\n"
        "quantized_ttt_phased val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:508785ms\ntotal_eval_time:508.8s\n",
    },
    "stamped": COLON
    | {
        "train": "[2026-04-01 10:00:00] rank0: step:1/20000 train_loss:9.01 train_time:130ms\n",
        "step": "2026-04-01T10:10:00Z \x1b[32mstep:4900/20000 val_loss:{flat_loss:.4f} val_bpb:{flat:.4f} "
        "train_time:588000ms\x1b[0m\n",
        "end": "12:13:14 INFO: final_eval val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:99000ms\n",
    },
    "prose": COLON
    | {
        "train": "Step 1/20000 | train_loss: 9.01 | time 0.1s\n",
        "step": "Step 4900/20000 | val_loss: {flat_loss:.4f} | val_bpb: {flat:.4f}\nTraining time: 588.0s\n",
        "size": "Code size: {code:,} bytes\nCompressed model int6+zstd: {model:,} bytes\n"
        "Total submission size int6+zstd: {total:,} bytes\n",
        "end": "Final (sliding window): val_loss = {loss:.6f}, val_bpb = {bpb:.6f}, took 97.7s\n",
    },
    "last_step": COLON
    | {
        "step": "step:4900/20000 val_loss:{loss:.8f} val_bpb:{bpb:.8f} train_time:588000ms step_avg:120.00ms\n",
        "end": "done\n",
    },
}


def readme(scores: dict[int, float], stream: str) -> str:
    rows = "".join(f"| {s} | **{b:.5f}** | {b * RATIOS[stream]:.4f} |\n" for s, b in scores.items())
    return f"# Small\n\nval_bpb {mean(scores.values()):.5f} on 8x H100\n\n| seed | val_bpb | val_loss |\n|---|---|---|\n{rows}"


def submission(scores: dict[int, float], stream: str, code: int = len(SCRIPT), **changes) -> dict:
    ratio = RATIOS[stream]
    rows = {
        str(s): {"val_bpb": round(b, 6), "val_loss": round(b * ratio, 5), "artifact_bytes": MODEL + code}
        for s, b in scores.items()
    }
    value = {
        "author": "A. Person",
        "github_id": "aperson",
        "name": "Small",
        "track": "10min_16mb",
        "date": "2026-04-01",
    }
    value |= {"val_bpb": round(mean(scores.values()), 6), "val_loss": round(mean(scores.values()) * ratio, 5)}
    value |= {"seeds": list(scores), "seed_results": rows, "bytes_total": MODEL + code, "bytes_code": code} | changes
    return {k: v for k, v in value.items() if v is not ...}


def folder(
    *,
    scores: dict[int, float] | None = None,
    stream: str = "sp8192",
    script: str | bytes = SCRIPT,
    counted: int | None = None,
    named: str = "train_seed{seed}.log",
    changes: dict | None = None,
    logs: dict | None = None,
) -> Files:
    """The files; `logs` goes to every log, `changes` to submission.json, `counted` is the code size that both state."""
    scores, code = scores or SEEDS, counted or len(script.encode() if isinstance(script, str) else script)
    made: Files = {"train_gpt.py": script, "README.md": readme(scores, stream)}
    made["submission.json"] = json.dumps(submission(scores, stream, code, **(changes or {})), indent=1)
    for seed, bpb in scores.items():
        made[named.format(seed=seed)] = log(seed, bpb, stream=stream, code=code, **(logs or {}))
    return made


def edited(name: str, old: str, new: str, **given) -> Files:
    """A folder with `old` replaced by `new` in one file, or in every log."""
    made = folder(**given)
    hit = 0
    for key, text in made.items():
        if key == name or (name == "logs" and key.endswith(".log")):
            assert isinstance(text, str)
            hit += old in text
            made[key] = text.replace(old, new)
    assert hit, (name, old)
    return made


def plus(extra: Files, **given) -> Files:
    """A folder with more files, or without those that are None."""
    made = folder(**given) | extra
    return {name: content for name, content in made.items() if content is not None}
