"""The ladder's one command: what it starts, that all of it composes, and that only one part differs from frontier."""

import json
import os
import subprocess
import sys

import pytest

from pgolf.config.compose import beside_or_inside, register_experiments, rehearse
from pgolf.config.source import flattened
from pgolf.config.words import short_words
from tests.command import environment
from tests.small import SYSTEMS

FEW = ("limits.train_steps=30", "data.val_fraction=0.005")
LISTED = "import json,sys; print(json.dumps(sys.argv[1:]))"
# What is taken away: the groups of the recipe in which the config then differs from that of frontier.
WITHOUT = {
    "without_learning": {"ttt"},
    "without_tilt": {"ttt"},
    "without_short_chunks": {"ttt"},
    "without_growing_cut": {"data"},
    "without_protect": {"quant"},
    "without_low_rank": {"quant"},
    "without_head_gate": {"model"},
    "without_smear": {"model"},
    "without_lanes": {"model"},
    "without_average": {"average"},
}


def started(tmp_path, *words: str) -> dict[str, list[str]]:
    """The words of each multirun, by the name of its folder."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{LISTED}' \"$@\"\n")
    python.chmod(0o755)
    script = beside_or_inside("experiments") / "ladder" / "run.sh"
    done = subprocess.run(
        ["bash", script, *words],
        env=environment() | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line[:3] == ["-m", "pgolf.run", "-m"] for line in lines)
    return {os.path.basename(line[-1]): line[3:] for line in lines}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """What is composed for each folder; the artifacts to be judged again are not there yet."""
    register_experiments()
    given = started(tmp_path_factory.mktemp("ladder"), "seed=1337", *FEW)
    left_out = ("trained=", "hydra.")
    return {
        name: rehearse([short_words(word) for word in words if not word.startswith(left_out)], sweep=True)
        for name, words in given.items()
    }


@pytest.mark.slow
def test_the_rungs_are_every_legal_system_at_equal_tokens(jobs):
    assert list(jobs) == [
        "rungs",
        "plain",
        "whole",
        *(name for name in WITHOUT if name != "without_learning"),
    ]
    names = list(dict.fromkeys(job.config["name"] for job in jobs["rungs"]))
    assert names == [name for name in SYSTEMS if name != "pr1852_prequant_ttt"]
    assert len(jobs["rungs"]) == len(names)
    for text in ("limits.train_steps", "data.batch_tokens", "data.name", "data.vocab_size", "data.val_fraction"):
        group, key = text.split(".")
        assert len({job.config[group][key] for job in jobs["rungs"]}) == 1, text


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_one_part_is_taken_away(jobs, name):
    whole = next(job for job in jobs["rungs"] if job.config["name"] == "frontier")
    folder = "plain" if name == "without_learning" else name
    part = next(
        job for job in jobs[folder] if job.config["name"] == "frontier" and job.config["seed"] == whole.config["seed"]
    )
    ours, theirs = flattened(part.config, ["name", "trained"]), flattened(whole.config, ["name", "trained"])
    differing = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert {key.split(".")[0] for key in differing} == WITHOUT[name]


def test_words_are_added_and_given_again_are_the_same(tmp_path):
    once, again = (started(tmp_path, "seed=42", *FEW) for _ in range(2))
    assert once == again
    assert all("seed=42" in words and "seed=three" not in words for words in once.values())
    assert all([w for w in words if w.startswith("limits.train_steps=")] == [FEW[0]] for words in once.values())
