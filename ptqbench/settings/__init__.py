"""Settings: what can be set, what a value must look like, and who set it. No torch."""
