"""Settings that must stand before torch is loaded by any test, and those of all property tests."""

import os
from pathlib import Path

from hypothesis import settings

# The keys of whoever runs the tests are none of theirs.
os.environ["XDG_CONFIG_HOME"] = str(Path(__file__).with_name("no-configuration"))

# Threads that spin while they wait starve each other on a busy machine (see engine/worker.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# How long an example takes says more about the machine than about the code.
settings.register_profile("wetink", deadline=None)
settings.load_profile("wetink")
