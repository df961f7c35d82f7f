"""What stands behind the pytest plugin: cases made once, verdicts as test outcomes, latency."""
