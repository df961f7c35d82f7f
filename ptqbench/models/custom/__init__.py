"""Custom models: registration, and importing the modules that register them."""
