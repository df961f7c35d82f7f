"""Errors caused by user input."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in usage, configuration or input: a sentence for the user, exit code 2.

    The message says what is wrong, where, what is allowed and what to do.
    """


class UnknownNameError(UserError):
    """A name that is not registered; the message suggests the nearest ones."""
