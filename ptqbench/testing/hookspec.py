"""The hook that ptqbench adds to pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ptqbench.testing.runner_protocol import CaseRunner


class Hooks:
    """Hooks for a ``conftest.py``."""

    @pytest.hookspec(firstresult=True)
    def pytest_ptqbench_runner(self, config: pytest.Config) -> CaseRunner | None:
        """Return the runner that judges the cases of this session; None for the default one.

        A custom runner judges artifacts that were built elsewhere, or tests a suite without
        measuring anything.
        """
