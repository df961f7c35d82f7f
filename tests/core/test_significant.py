"""Numbers in sentences."""

from __future__ import annotations

import pytest

from ptqbench.core.significant import significant


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.0, "1"), (27.55, "27.6"), (999.4, "999"), (1503.7, "1,504")],
)
def test_large_numbers_are_written_out(value: float, text: str) -> None:
    assert significant(value) == text
