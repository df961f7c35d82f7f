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
        """Return who judges the cases of this session, or None for ptqbench's own way.

        With a runner of its own a repository judges artifacts that come from elsewhere, or
        tests its suite without measuring anything.
        """
