"""One profile for every property test: no deadlines, for these machines are shared with others."""

from hypothesis import settings

settings.register_profile("pgolf", deadline=None)
settings.load_profile("pgolf")
