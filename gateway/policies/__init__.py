"""Policies: who sees what of the ledger, and when."""

from gateway.policies.base import Policy
from gateway.policies.resolve import SpecPolicy, resolve_policy

__all__ = ["Policy", "SpecPolicy", "resolve_policy"]
