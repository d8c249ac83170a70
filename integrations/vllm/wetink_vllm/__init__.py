"""vLLM's drafts and verdicts, published for a Wetink gateway. README.md says how to start it."""
