"""Settings that must stand before torch is loaded by any test, and those of all property tests."""

import os

from hypothesis import settings

# Threads that spin while they wait starve each other on a busy machine (see engine/worker.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# How long an example takes says more about the machine than about the code.
settings.register_profile("wetink", deadline=None)
settings.load_profile("wetink")
