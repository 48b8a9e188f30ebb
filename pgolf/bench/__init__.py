"""Benchmarks, one file each: `pgolf/bench/<name>.py` with a function `contests(setting)` and a docstring whose first sentence
is its line in the list. `python -m pgolf.bench` lists them, `python -m pgolf.bench NAME` runs one."""
