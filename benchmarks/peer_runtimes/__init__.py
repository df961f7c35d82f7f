"""The same network in other runtimes, quantized by their own tools."""
