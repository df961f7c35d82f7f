"""Implementation of the pytest plugin: shared cases, verdicts as test outcomes, latency."""
