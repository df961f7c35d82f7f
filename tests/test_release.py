"""The shipped recipes through every gate, and against their committed references.

By default on the backend that each recipe recommends; the tox environment ``backends`` takes all
engines of torch, and ``--ptqbench-backends='*'`` whatever can run here. Needs the plugin, which an
installation registers; ``-m "not slow"`` leaves it out.
"""

from __future__ import annotations

import pytest

from ptqbench.core.package_data import fixtures_dir
from ptqbench.recipes import RECIPES
from ptqbench.suite import *  # noqa: F403

pytestmark = pytest.mark.slow


def test_no_reference_is_unused():
    models = {path.stem for path in (fixtures_dir() / "baselines").glob("*.json")}
    assert models <= set(RECIPES.names())
