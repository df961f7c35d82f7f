"""The release gates as tests: one per gate, run for every case.

Either ``pytest --pyargs ptqbench.suite``, or in a test file::

    from ptqbench.suite import *

There is a test for each registered gate, ``test_accuracy`` for the gate ``accuracy``.
"""

from __future__ import annotations

from collections.abc import Callable

from ptqbench.gates import gates_in_order

_Check = Callable[[str], None]


def _test_of(gate: str) -> Callable[[_Check], None]:
    def test(ptqbench_gate: _Check) -> None:
        ptqbench_gate(gate)

    test.__name__ = test.__qualname__ = f"test_{gate}"
    test.__doc__ = f"The gate {gate} passes."
    return test


_TESTS = {f"test_{gate.name}": _test_of(gate.name) for gate in gates_in_order()}
globals().update(_TESTS)


def test_reference(ptqbench_reference: Callable[[], None]) -> None:
    """Counts, bytes, accuracy and SQNR are those of the committed reference."""
    ptqbench_reference()


# Only collected if references are configured.
test_reference.ptqbench_setting = "baselines"  # type: ignore[attr-defined]

__all__ = [*_TESTS, "test_reference"]
