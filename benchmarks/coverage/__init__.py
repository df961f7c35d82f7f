"""The whole matrix, every model on every backend: measured, written down and explained."""
