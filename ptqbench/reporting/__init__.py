"""Turning verdicts into something to read: JSON and the terminal."""
