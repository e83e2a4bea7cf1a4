"""Models behind OpenAI-compatible servers: one's own vLLM, or any endpoint."""
