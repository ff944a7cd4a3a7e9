"""What holds for all tests: hypothesis looks for wrong answers, never for slow ones, for machines are busy at times."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
