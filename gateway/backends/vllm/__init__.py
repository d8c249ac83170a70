"""An upstream vLLM whose own speculation is visible: its HTTP stream, joined with what its plugin
(`integrations/vllm`) publishes.
"""

from gateway.backends.vllm.backend import VllmBackend

__all__ = ["VllmBackend"]
