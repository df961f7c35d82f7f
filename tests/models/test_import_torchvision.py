"""Importing torchvision with and without its compiled operators, in fresh interpreters."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptqbench.errors import UserError
from ptqbench.models import import_torchvision as torchvision_import

ROOT = Path(torchvision_import.__file__).parents[2]

WITHOUT_OPERATORS = """
import torch

def cannot_load(path):
    raise OSError("undefined symbol")

torch.ops.load_library = cannot_load
from ptqbench.models import import_torchvision as module
torchvision = module.import_torchvision()
assert module.declare_missing_schemas() == [], "both schemas are declared by now"
assert torch.ops.torchvision.nms.default._schema.name == "torchvision::nms"
model = torchvision.models.squeezenet1_1(weights=None, num_classes=4).eval()
assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
torchvision.transforms.Resize(8), torchvision.datasets.ImageFolder
print("imported")
"""

WITH_OPERATORS = """
import torch
from ptqbench.models import import_torchvision as module

torchvision = module.import_torchvision()
assert torchvision.MATCHING_BUILD
assert module._library.cache_info().currsize == 0, "nothing may be declared"
assert not hasattr(torch.ops.torchvision, "nms")
print("imported")
"""


USERS_MODULE = """
import sys
from pathlib import Path

from ptqbench.models.custom import importing

assert "torch" not in sys.modules
Path("nets.py").write_text(
    "import torchvision\\n"
    "def net(num_classes=4):\\n"
    "    return torchvision.models.squeezenet1_1(weights=None, num_classes=num_classes)\\n"
)
before = list(sys.meta_path)
importing.reference("nets.py:net")
assert sys.meta_path == before
assert sys.modules["torchvision"].models.squeezenet1_1
print("imported")
"""

DEFERRED = """
import sys
from ptqbench.core.process import dedicate_process
dedicate_process()
from ptqbench.models.import_torchvision import import_torchvision

torchvision = import_torchvision()
assert "torch._dynamo" not in sys.modules, "the compiler was imported, or a stand-in is left"

from torchvision.ops import roi_align  # whoever needs the compiler gets the real one

assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") in (True, False)
assert hasattr(sys.modules["torch._dynamo"], "optimize")
print("imported")
"""


DATASETS = """
import sys
from ptqbench.core.process import dedicate_process
dedicate_process()
from ptqbench.models.import_torchvision import import_torchvision

torchvision = import_torchvision()
assert not any(name.startswith("torchvision.datasets.") for name in sys.modules)
{usage}
assert torchvision.datasets is sys.modules["torchvision.datasets"]
assert torchvision.datasets.__file__
print("imported")
"""
USAGES = (
    "torchvision.datasets.CIFAR10",
    "from torchvision.datasets import CIFAR10",
    "from torchvision.datasets import *; CIFAR10",
    "import torchvision.datasets.cifar; torchvision.datasets.cifar.CIFAR10",
)


def run(script: str, *path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def add_loadable_library(package: Path) -> None:
    """Put some library that loads where torchvision's would be."""
    for name in ("_json", "_struct", "_ctypes", "_ssl", "numpy._core._multiarray_umath"):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and spec.origin.endswith((".so", ".pyd")):
            library = Path(spec.origin)
            (package / f"_C{library.suffix}").write_bytes(library.read_bytes())
            return
    pytest.skip("This Python has no extension module in a file of its own.")


def test_schemas_are_declared_where_the_operators_cannot_load() -> None:
    assert run(WITHOUT_OPERATORS) == "imported"


def test_nothing_is_declared_where_the_operators_load(tmp_path: Path) -> None:
    # A stand-in for a torchvision that fits its torch: the one installed may not.
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("MATCHING_BUILD = True\n")
    add_loadable_library(package)
    assert run(WITH_OPERATORS, tmp_path) == "imported"


@pytest.mark.slow
def test_a_users_module_may_import_torchvision_itself(tmp_path: Path) -> None:
    script = f"import os; os.chdir({str(tmp_path)!r})\n{USERS_MODULE}"
    assert run(script) == "imported"


def test_the_compiler_is_imported_at_first_use_only() -> None:
    assert run(DEFERRED) == "imported"


@pytest.mark.parametrize(
    "usage", [USAGES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in USAGES[1:])]
)
def test_datasets_are_imported_at_first_use_only(usage: str) -> None:
    assert run(DATASETS.format(usage=usage)) == "imported"


def test_a_library_that_loads_is_noticed(tmp_path: Path) -> None:
    add_loadable_library(tmp_path)
    assert torchvision_import.load_compiled_operators(tmp_path)


def test_a_library_that_does_not_load_is_passed_over(tmp_path: Path) -> None:
    assert not torchvision_import.load_compiled_operators(tmp_path)
    (tmp_path / "_C.so").write_bytes(b"built for another machine")
    assert not torchvision_import.load_compiled_operators(tmp_path)


def test_missing_torchvision_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="torchvision is not installed"):
        torchvision_import.import_torchvision.__wrapped__()
