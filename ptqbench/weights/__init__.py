"""Where a model's parameters come from."""
