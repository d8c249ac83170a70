"""The configuration as operators see it: what there is, what is in force, what is wrong."""
