"""Access: who a request comes from, what it may do, and how much of it."""

from gateway.access.access import Access, keys_path, read_keys, require_guard
from gateway.access.accounts import Allowance
from gateway.access.exposure import exposure
from gateway.access.principal import Principal
from gateway.access.quotas import Claim, Quota, take_all

__all__ = [
    "Access",
    "Allowance",
    "Claim",
    "Principal",
    "Quota",
    "keys_path",
    "exposure",
    "read_keys",
    "require_guard",
    "take_all",
]
