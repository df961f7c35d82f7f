"""Mechanisms that know nothing of quantization: files, names, progress, processes. No torch."""
