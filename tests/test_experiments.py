"""The published systems: every number of their recipes, and each of them small, through the whole line."""

import re
import subprocess
import sys

import pytest
import torch

from pgolf.config.compose import beside_or_inside, register_experiments, rehearse
from pgolf.config.plan import plan
from pgolf.errors import ConfigError, RefusedError
from pgolf.pipeline import run as start
from pgolf.show.console import QuietConsole
from tests.command import environment, only, record, run
from tests.small import SYSTEMS, small

TRAINING = {
    "machine.ranks": 8,
    "machine.device": "CUDA",
    "data.name": "fineweb_sp1024",
    "data.batch_tokens": 786432,
    "data.sequence_length": 2048,
    "limits.train_seconds": 600,
    "limits.eval_seconds": 600,
    "limits.artifact_bytes": 16_000_000,
    "limits.train_steps": None,
    "schedule.warmup_steps": 20,
    "optim.betas": [0.9, 0.95],
    "optim.eps": 1e-8,
    "optim.clip_norm": 0.3,
    "optim.matrix.lr": 0.025,
    "optim.matrix.weight_decay": 0.04,
    "optim.embedding.lr": 0.035,
    "optim.embedding.weight_decay": 0.04,
    "optim.scalar.lr": 0.025,
    "optim.scalar.weight_decay": 0.04,
    "optim.matrix.row_normalize": False,
    "schedule.ramp.start": 0.92,
    "schedule.ramp.end": 0.99,
    "schedule.ramp.steps": 1500,
    "eval.context": 2048,
    "ttt.sequence_length": 2048,
    "ttt.epochs": 3,
    "ttt.clip": 1.0,
    "quant.embedding_bits": 8,
    "quant.keep_below": 65536,
}
TRAINING_1852 = {
    "data.name": "fineweb_sp8192",
    "schedule.loop_at": 0.35,
    "limits.reserve_seconds": 12,
    "quant.scale.k": 12.85,
}
RECORD = {
    "machine.ranks": 8,
    "data.name": "fineweb_caseops",
    "data.batch_tokens": 786432,
    "data.loader.row_sequences": 48,
    "optim.matrix.weight_decay": 0.095,
    "average.decay": 0.9965,
    "limits.reserve_seconds": 8,
    "limits.study": False,
    "quant.attention.k": 13.0,
    "quant.mlp.k": 11.5,
    "quant.embedding.k": 14.0,
    "ttt.chunk_tokens": 48,
    "ttt.rank": 80,
    "ttt.alpha": 144.0,
    "ttt.optimizer.betas": [0.0, 0.99],
    "ttt.optimizer.eps": 1e-10,
}
PUBLISHED = {
    "baseline_sp1024": (
        17_059_912,
        {
            "data.loader._target_": "pgolf.data.InOrder",
            "data.batch_tokens": 524288,
            "data.sequence_length": 1024,
            "machine.ranks": 8,
            "optim.matrix.lr": 0.04,
            "optim.embedding.lr": 0.05,
            "optim.scalar.lr": 0.04,
            "schedule.warmdown.iterations": 1200,
            "model.qk_gain": 1.5,
            "eval.context": 1024,
            "average._target_": "pgolf.average.NoAverage",
            "ttt._target_": "pgolf.ttt.NoTTT",
            "quant.bits": 8,
        },
    ),
    "pr606_int5_softround": (
        33_580_124,
        TRAINING
        | {
            "data.loader._target_": "pgolf.data.InOrder",
            "schedule.warmdown.iterations": 3500,
            "schedule.warmdown.shape": "LINEAR",
            "schedule.warmdown.floor": 0.0,
            "schedule.qat_below": 0.5,
            "qat.alpha_start": 1.0,
            "qat.alpha_end": 16.0,
            "average._target_": "pgolf.average.Best",
            "average.first.decay": 0.997,
            "average.second.every": 50,
            "average.second.below": 0.2,
            "quant.bits": 5,
            "quant.prune": 0.02,
            "quant.solver.calibration_sequences": 256,
            "codec.level": 22,
            "eval.stride": 32,
            "ttt.optimizer._target_": "pgolf.ttt.AdamW",
            "ttt.optimizer.lr": 1e-4,
            "ttt.chunk_tokens": 131072,
            "ttt.batch_sequences": 8,
            "ttt.trained.blocks": 2,
            "ttt.polyak": 0.998,
            "ttt.temperature.value": 0.98,
        },
    ),
    "pr639_full_gptq": (
        27_124_848,
        TRAINING
        | {
            "schedule.warmdown.iterations": 3500,
            "schedule.qat_below": 0.15,
            "qat._target_": "pgolf.qat.STE",
            "average.weight": 0.5,
            "average.ema.decay": 0.997,
            "average.swa.every": 50,
            "limits.reserve_seconds": 40,
            "quant.bits": 6,
            "quant.fit._target_": "pgolf.quant.PruneToCap",
            "codec._target_": "pgolf.codec.Lzma",
            "codec.preset": 9,
            "eval.stride": 64,
            "ttt.optimizer.lr": 0.002,
            "ttt.optimizer.momentum": 0.9,
            "ttt.chunk_tokens": 32768,
            "ttt.gradient_scale": "SNR",
            "ttt.within_chunk_floor": 0.1,
        },
    ),
    "pr1129_crownq": (
        26_993_756,
        TRAINING
        | {
            "data.loader.shards_first": 8,
            "data.loader.shards_last": 32,
            "data.loader.power_first": 0.9,
            "data.loader.power_last": 0.5,
            "data.loader.ramp_batches": 1800,
            "schedule.warmdown.iterations": 4000,
            "schedule.warmdown.shape": "SQRT",
            "schedule.warmdown.floor": 0.05,
            "schedule.qat_below": 0.5,
            "qat._target_": "pgolf.qat.CrownQ",
            "average.first.decay": 0.997,
            "quant.bits": 6,
            "quant.solver.block": 64,
            "quant.solver.damp": 0.002,
            "codec.level": 22,
            "eval.stride": 32,
            "ttt.optimizer.lr": 1e-4,
            "ttt.chunk_tokens": 262144,
            "ttt.trained.blocks": 2,
        },
    ),
    "pr1852_prequant_ttt": (
        35_944_536,
        TRAINING
        | {
            "data.name": "fineweb_sp8192",
            "data.vocab_size": 8192,
            "data.loader._target_": "pgolf.data.ShuffledWindows",
            "optim.matrix.lr": 0.022,
            "optim.matrix.weight_decay": 0.095,
            "optim.matrix.row_normalize": True,
            "optim.embedding.lr": 0.03,
            "optim.embedding.weight_decay": 0.085,
            "optim.scalar.lr": 0.02,
            "optim.scalar.weight_decay": 0.02,
            "schedule.warmdown.fraction": 0.72,
            "schedule.warmdown.floor": 0.0,
            "schedule.loop_at": 0.35,
            "qat._target_": "pgolf.qat.NoQAT",
            "average.decay": 0.9965,
            "limits.reserve_seconds": 12,
            "limits.study": True,
            "quant.bits": 6,
            "quant.scale.k": 12.85,
            "quant.embedding_scale.k": 20.0,
            "codec.quality": 11,
            "codec.shuffle": True,
            "eval.stride": 64,
            "ttt.epochs": 21,
            "ttt.lr": 5e-4,
            "ttt.final_lr": 5e-5,
            "ttt.batch_sequences": 256,
        },
    ),
    "pr1852_legal": (
        35_944_536,
        TRAINING_1852 | {"limits.study": False, "ttt._target_": "pgolf.ttt.ScoreFirst", "ttt.chunk_tokens": 32768},
    ),
    "pr1855_record": (
        35_945_671,
        RECORD
        | {
            "data.loader.cuts": [2048],
            "model.qk_gain": 5.0,
            "optim.matrix.lr": 0.026,
            "quant.gate_bits": 8,
            "quant.low_rank.group": 64,
            "eval.context": 2048,
            "ttt.optimizer.lr": 1e-4,
            "ttt.optimizer.weight_decay": 0.5,
            "ttt.places": ["q", "k", "v", "o", "mlp", "head"],
            "ttt.documents": 512,
        },
    ),
    "pr2014_long_context": (
        35_945_671,
        RECORD
        | {
            "data.loader.cuts": [1024, 2048, 3072],
            "data.loader.until": [0.1, 0.7],
            "data.loader.rewarm_steps": 32,
            "model.qk_gain": 5.25,
            "optim.matrix.lr": 0.026,
            "quant.gate_bits": 8,
            "quant.protect.group": 64,
            "quant.low_rank.group": 64,
            "quant.solver.calibration_sequences": 768,
            "eval.context": 3072,
            "ttt.optimizer.lr": 7.5e-5,
            "ttt.optimizer.weight_decay": 0.5,
            "ttt.places": ["k", "o", "mlp", "head"],
            "ttt.documents": 192,
            "ttt.short_tokens": [256, 2000],
            "ttt.short_chunks": [8, 24],
            "ttt.mixer": None,
        },
    ),
    "pr2135_token_tilt": (
        35_945_671,
        RECORD
        | {
            "data.loader.cuts": [2048],
            "model.qk_gain": 5.0,
            "optim.matrix.lr": 0.028,
            "quant.gate_bits": 16,
            "quant.protect": None,
            "quant.low_rank.group": 32,
            "quant.solver.calibration_sequences": 1536,
            "eval.context": 2560,
            "ttt.optimizer.lr": 8e-5,
            "ttt.optimizer.weight_decay": 2.0,
            "ttt.places": ["q", "v", "o", "mlp", "head"],
            "ttt.documents": 512,
            "ttt.short_tokens": [],
            "ttt.mixer.order": 16,
            "ttt.mixer.threshold": 0.8,
            "ttt.mixer.beta": 2.625,
        },
    ),
    "frontier": (
        35_945_671,
        RECORD
        | {
            "data.loader.cuts": [1024, 2048, 3072],
            "optim.matrix.lr": 0.028,
            "eval.context": 3072,
            "ttt.mixer.order": 16,
            "ttt.warm": False,
            "ttt.phases": None,
        },
    ),
}
SIBLING = ("experiment=pr1852_prequant_ttt", "ttt=pr1852_sibling", "limits=record", "limits.reserve_seconds=12")
GROUPS = ("model", "optim", "schedule", "average", "qat", "quant", "codec", "eval", "ttt")


@pytest.fixture(autouse=True, scope="module")
def ready():
    register_experiments()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
        yield


def composed(*words: str):
    return rehearse(list(words), sweep=False)[0]


def value(config: dict, key: str):
    for part in key.split("."):
        config = config[part]
    return config


def test_every_overlay_is_named_after_its_folder_and_explained():
    folders = [path.parent for path in beside_or_inside("experiments").glob("*/overlay.yaml")]
    assert {folder.name for folder in folders} == {*PUBLISHED, "laptop_four_layers", "quant_ablation", "ttt_ablation"}
    for folder in folders:
        assert composed(f"experiment={folder.name}").config["name"] == folder.name
        assert len((folder / "README.md").read_text()) > 500


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_those_of_the_recipe(name):
    parameters, numbers = PUBLISHED[name]
    job = composed(f"experiment={name}")
    wrong = {key: value(job.config, key) for key, stated in numbers.items() if value(job.config, key) != stated}
    assert not wrong
    assert job.recipe.model.parameters_count() == parameters
    assert job.recipe.accumulation == 1


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", PUBLISHED)
def test_fewer_gpus_take_more_turns(name, ranks):
    recipe = composed(f"experiment={name}", f"machine.ranks={ranks}").recipe
    assert recipe.accumulation == 8 // ranks


def test_the_legal_sibling_is_one_word_away():
    recipe = composed(*SIBLING).recipe
    assert recipe.ttt.legal
    with pytest.raises(ConfigError, match="limits=study"):
        composed("experiment=pr1852_prequant_ttt", "limits=record")


@pytest.mark.parametrize("name", PUBLISHED)
def test_scaled_down_every_technique_stays(name):
    large, little = (composed(f"experiment={name}", *words).recipe for words in ((), ("scale=laptop",)))
    for group in GROUPS:
        assert parts_of(getattr(little, group)) == parts_of(getattr(large, group)), group
    small, loader = little.data.loader, large.data.loader
    assert parts_of(small) == (["ShuffledWindows"] if parts_of(loader) == ["InOrder"] else parts_of(loader))
    assert getattr(small, "shuffled", True), "in order, a step of few tokens reads a part of one document"
    assert not little.machine.on_gpu or little.machine.device.name == "AUTO"
    assert little.model.parameters_count() < 2_000_000
    assert little.data.batch_tokens == 2048
    assert bool(little.model.xsa_layers) == bool(large.model.xsa_layers)
    stretched = (max(1.0, one.data.sequence_length / one.model.rope_train_len) for one in (little, large))
    assert len(set(stretched)) == 1 or name == "baseline_sp1024"


def parts_of(component: object) -> list[str]:
    """The classes of a component and of all that is nested in it."""
    nested = [parts_of(v) for v in vars(component).values() if hasattr(v, "__dataclass_fields__")]
    return [type(component).__name__, *(name for names in nested for name in names)]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_any_option_can_be_scaled_down(group):
    """`scale=laptop` belongs to options, not to systems: every one of them composes and passes all checks."""
    for path in (beside_or_inside("conf") / group).glob("*.yaml"):
        word = f"{group}={path.stem}"
        loop = ("schedule.loop_at=0.35",) if group == "model" else ()
        recipe = composed(word, "scale=laptop", "limits.study=true", *loop).recipe
        if group == "model":
            assert recipe.model.parameters_count() < 3_000_000
    known = {path.name for path in (beside_or_inside("conf") / group).glob("*.yaml")}
    scaled = (beside_or_inside("conf") / "scale" / group).glob("*.yaml")
    assert {path.name.removeprefix("laptop_") for path in scaled} <= known


def test_without_scale_nothing_is_small():
    assert composed("model=pr606", "schedule=linear_warmdown").recipe.model.layers == 11
    assert composed(
        "model=pr606", "scale=laptop", "model.layers=3", "model.xsa_layers=2", "model.value_embedding.layers=[1]"
    )


@pytest.mark.slow
def test_small_it_goes_through_the_command_line(tmp_path):
    run(tmp_path, *small("pr606_int5_softround"))
    kept = record(only(tmp_path, "runs/*_pr606_int5_softround"))
    assert (kept["status"], kept["verdict"]) == ("complete", "consistent")
    assert [r["part"] for r in kept["receipts"]].count("qat") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_the_audit_passes_every_system_but_the_one_for_study(tmp_path, name):
    run(tmp_path, *small(name), "hydra.run.dir=run")
    words = [sys.executable, "-m", "pgolf.audit", "run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=1200)
    illegal = name == "pr1852_prequant_ttt"
    assert done.returncode == illegal, done.stdout + done.stderr
    assert ("verdict consistent" in done.stdout) != illegal
    assert any(re.match(r"fail +C3 ", line) for line in done.stdout.splitlines()) == illegal


def test_without_gpus_a_record_is_planned_but_not_started(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = composed("experiment=pr606_int5_softround")
    assert "8 rank(s) on GPU; 786,432 tokens a step = 8 x 1 x 98,304" in plan(job, [1337], 0)
    with pytest.raises(
        RefusedError, match=r"machine\.ranks=8: .* and this machine has 0 that torch can use; machine\.device=cpu"
    ):
        start(job, tmp_path, QuietConsole())
    assert not list(tmp_path.iterdir())
