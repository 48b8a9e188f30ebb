"""Imported by the process that ranks are forked from, first of all, and by nothing else: when that ends, as it does with its
parent however that went, the folder with its socket is removed. Python leaves it behind where the parent was killed."""

import atexit
import os
import shutil

FOLDER = "PGOLF_SOCKETS"  # in the environment of that process

if FOLDER in os.environ:
    atexit.register(shutil.rmtree, os.environ.pop(FOLDER), ignore_errors=True)
