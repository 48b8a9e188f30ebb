"""What evaluation opens: the sealed bytes, a model for this text, of the recipe's shape; and what lets a score stand."""

import hashlib
from dataclasses import replace

import pytest
import torch

from pgolf.codec import Zstd
from pgolf.errors import ArtifactError, UserError
from pgolf.files.frozen import freeze
from pgolf.machine.world import World
from pgolf.stages.artifact import pack
from pgolf.stages.judge import load
from pgolf.stages.verdict import verdict
from tests.options import option
from tests.sweeps import SCRIPT, make_record
from tests.test_quant import tiny

torch.set_num_threads(1)
CODEC = Zstd(level=3, shuffle=True)


def sealed(path, meta: dict) -> str:
    """The tests' tiny model in a file, whose hash is returned."""
    made = option("quant/int8_round", keep_below=512).compress(
        tiny(), {}, lambda result: pack(result.tensors, meta, CODEC, {}), 10**6
    )
    path.write_bytes(made[1])
    return hashlib.sha256(made[1]).hexdigest()


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "artifact.pgolf"
    return path, sealed(path, {"model": freeze(tiny().spec)})


def test_the_model_is_loaded_from_the_sealed_bytes_alone(artifact):
    path, sha256 = artifact
    model = load(path, sha256, 64, World.alone(), tiny().spec)
    assert model.spec == tiny().spec
    for (name, weight), before in zip(model.named_parameters(), tiny().parameters(), strict=True):
        assert (weight - before).abs().max() < 0.01, name
    again = load(path, sha256, 64, World.alone())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_other_bytes_another_text_and_another_shape_are_refused(artifact):
    path, sha256 = artifact
    with pytest.raises(UserError, match="a model of 64 pieces cannot score text of 1024 pieces"):
        load(path, sha256, 1024, World.alone())
    with pytest.raises(UserError, match=r"its model is .*, the recipe.s is "):
        load(path, sha256, 64, World.alone(), replace(tiny().spec, layers=3))
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UserError, match="It was changed after training"):
        load(path, sha256, 64, World.alone())


@pytest.mark.parametrize(
    "meta", [{}, {"model": 3}, {"model": {"_target_": "os.system"}}, {"model": {"_target_": "GPT"}}]
)
def test_a_file_that_describes_no_model_is_refused(tmp_path, meta):
    path = tmp_path / "artifact.pgolf"
    sha256 = sealed(path, meta)
    with pytest.raises(ArtifactError, match=r"^meta: "):
        load(path, sha256, 64, World.alone())


# ---- verdicts

BROKEN = {
    "fail (code: the file that evaluated is not the one that is weighed)": ("evaluate", {"code_sha256": "0" * 64}),
    "fail (C3)": ("train", {"validation_tokens": 5}),
    "fail (size: 16,000,001 bytes of 16,000,000)": ("artifact", {"bytes": 16_000_001 - len(SCRIPT)}),
    "fail (training clock: 61.0 s of 60)": ("train", {"seconds": 61.0}),
    "fail (evaluation clock: 61.0 s of 60)": ("evaluate", {"seconds": 61.0}),
    "fail (part of the validation split)": ("evaluate", {"tokens": 20_000}),
    "fail (byte accounting)": ("evaluate", {"bytes": 117_000}),
}


def judged() -> dict:
    made = make_record(7, 1.6, "default", SCRIPT, b"weights")
    return made | {"train": made["train"] | {"validation_tokens": 0}}


def test_a_record_that_breaks_no_rule_is_consistent():
    assert verdict(judged()) == "consistent"


@pytest.mark.parametrize("told", BROKEN)
def test_a_broken_rule_is_named(told):
    section, changes = BROKEN[told]
    made = judged()
    made[section] |= changes
    assert verdict(made) == told


def test_a_part_that_did_nothing_is_named():
    made = judged()
    made["receipts"][0]["alive"] = False
    assert verdict(made) == "fail (on but did nothing: average)"
