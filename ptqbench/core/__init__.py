"""General mechanisms, independent of quantization and torch: files, names, progress, processes."""
