"""A draft ahead of a slow upstream: how early its readers see text, and what that costs."""
