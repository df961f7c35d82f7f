"""Write a number as a sentence wants it."""

from __future__ import annotations


def significant(value: float) -> str:
    """Write a number with three significant digits, or all those before the point.

    Args:
        value: Finite; large ones do not become powers of ten.
    """
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
