"""What is said before a run starts, and where its sizes come from."""

from pathlib import Path

from pgolf.config.compose import rehearse
from pgolf.config.plan import Size, plan, start_lines

CODE = 35_000


def planned(*words: str):
    (job,) = rehearse(list(words), sweep=False)
    return job


def test_a_start_is_told_in_five_lines_that_fit_a_terminal():
    lines = start_lines(planned("machine.ranks=2", "limits.train_steps=60", "seed.value=7"), CODE, Path("runs/x"))
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for word in ("laptop", "seed 7", "2 rank(s) on CPU", "1,451,271 parameters", "60 steps", "60 s", "runs/x"):
        assert word in text


def test_many_words_do_not_make_the_plan_long():
    words = [f"model.{key}=2" for key in ("layers", "heads", "kv_heads", "xsa_layers")] + ["quant=int5_gptq"]
    lines = start_lines(planned(*words, "model.value_embedding.layers=[1]"), CODE, Path("x"))
    assert len(lines[0]) < 100


def test_a_fit_to_the_cap_limits_the_prediction():
    free = Size.predicted(planned("quant=int8_gptq"), CODE)
    small = f"limits.artifact_bytes={(free.artifact + CODE) * 3 // 4}"
    fitted = planned("quant=int8_gptq", "quant/fit=prune", small)
    size = Size.predicted(fitted, CODE)
    assert size.fitted
    assert size.spare == fitted.recipe.quant.fit.within
    assert "by quant.fit" in plan(fitted, [1], 0)
    over = Size.predicted(planned("quant=int8_gptq", small), CODE)
    assert not over.fitted
    assert over.spare < 0
    assert f"{-over.spare:,} OVER" in over.brief()


def test_a_fit_that_is_not_needed_changes_nothing():
    assert Size.predicted(planned("quant/fit=prune"), CODE) == Size.predicted(planned(), CODE)
    assert not Size.predicted(planned("quant=none"), CODE).fitted
