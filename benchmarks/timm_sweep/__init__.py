"""The sweep over architectures of timm: what is quantized, and what is refused for which reason."""
