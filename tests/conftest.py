"""Settings that must stand before torch is loaded by any test, and those of all property tests."""

import os

from hypothesis import settings

# As in the engine's own process (engine/worker.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# How long an example takes says more about the machine than about the code.
settings.register_profile("wetink", deadline=None)
settings.load_profile("wetink")
