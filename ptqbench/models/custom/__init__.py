"""Custom models: registered by users in their own code."""
