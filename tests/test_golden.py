"""Every golden file of a folder: `PGOLF_GOLDEN=DIR python -m pytest tests/test_golden.py`; without it those of tests/data.

A file is recognised by its keys (and, where sizes depend on it, the system in its name). One that nothing recognises fails:
a figure nobody compares with is no test."""

import os
from pathlib import Path

import pytest
import torch

from tests.goldens import DATA, Golden, Part, judging, keys_of, models, optimisation, quantisation, text

torch.set_num_threads(1)

FOLDER = Path(os.environ.get("PGOLF_GOLDEN") or DATA)
PARTS = tuple(part for module in (models, optimisation, quantisation, text, judging) for part in module.PARTS)
FILES = sorted(p for p in FOLDER.glob("*") if p.suffix in (".npz", ".json"))


def parts_of(path: Path) -> list[Part]:
    keys = keys_of(path)
    return [part for part in PARTS if part.named(keys, path.stem)]


@pytest.mark.parametrize(
    ("path", "part"), [pytest.param(p, q, id=f"{p.stem}-{q.name}") for p in FILES for q in parts_of(p)]
)
def test_golden(path: Path, part: Part):
    if part.missing:
        pytest.skip(f"not built: {part.missing}")
    part.check(Golden(path))


MODELS = [
    path for path in FILES if any(part.check in (models.check_model, models.check_record) for part in parts_of(path))
]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in MODELS])
def test_a_model_in_bf16_is_near(path: Path):
    models.check_bf16(Golden(path), "cpu")


def test_every_file_is_recognised():
    assert FILES, f"{FOLDER} holds no .npz and no .json file"
    assert not [path.name for path in FILES if not parts_of(path)]
