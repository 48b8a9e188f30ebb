"""One profile for every property test, without deadlines, for these machines are shared with others; and one thread for each
process of tests, which wait briefly: beside each other, those of two workers made a test of a second take half a minute."""

from hypothesis import settings

from pgolf.machine import tune_runtime

tune_runtime()  # before torch is imported, here and in the commands that tests start

import torch  # noqa: E402

settings.register_profile("pgolf", deadline=None)
settings.load_profile("pgolf")
torch.set_num_threads(1)
