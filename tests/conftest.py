"""Settings that must stand before torch is loaded by any test."""

import os

# As in the engine's own process (engine/worker.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
