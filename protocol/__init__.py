"""The wire protocol of Wetink, sans-I/O. `SPEC.md` is its normative text."""
