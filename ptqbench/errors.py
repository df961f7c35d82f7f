"""What ptqbench tells a user who asked for something that cannot be."""

from __future__ import annotations


class UserError(Exception):
    """Wrong use, configuration or input: a sentence for the user, exit code 2.

    The message says what is wrong, where, what is allowed and what to do.
    """


class UnknownNameError(UserError):
    """A name that no registry entry has; the message suggests the nearest ones."""
