"""Settings for the tests of this folder."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says something of the machine only; pytest's limit for a test stands.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
