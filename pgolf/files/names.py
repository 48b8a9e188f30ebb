"""The files of a run folder, by their fixed names."""

RECORD, LOG, ARTIFACT, CODE = "record.json", "train.log", "artifact.pgolf", "train_gpt.py"
CONFIG = "config.yaml"
LOGS = "ranks"  # what ranks print, and what rank 0 leaves for the parent
CHECKPOINTS, WHOLE = "checkpoints", "checkpoint.json"  # of a training; the file says that one is whole
