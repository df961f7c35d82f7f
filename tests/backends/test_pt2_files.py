"""Programs that torchao quantized, and planted defects in them: which gate says what."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_networks import Tiny, decibels, random_images
from helpers.torchao_strangers import quantized
from torch import nn

from ptqbench import UserError, Verdict
from ptqbench.backends.inductor.inductor_backend import INDUCTOR
from ptqbench.backends.inductor.inductor_session import InductorModel
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.cli import main
from ptqbench.gates import GATES, Evidence, GateResult
from ptqbench.measurement.artifact_inspection import ArtifactInspection, ArtifactProvenance
from ptqbench.measurement.conversion import Promise
from ptqbench.settings.thresholds import Thresholds

if _REASON := INDUCTOR.availability():
    pytest.skip(_REASON, allow_module_level=True)
pytest.importorskip("torchao", reason="torchao is not installed")

pytestmark = pytest.mark.usefixtures("torch_settings")

INSIDE = ("fusion", "conversion", "saturation")


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Tiny().eval()


class Strangers:
    """Makes files of a small network, each once, and asks the gates that look inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = tiny()
        self.quantize = functools.cache(self._quantize)

    def _quantize(self, name: str, seed: int = 0, **options: Any) -> Path:
        return quantized(tiny(seed), random_images(), self.folder / f"{name}.pt2", **options)

    def look(self, path: Path) -> dict[str, GateResult]:
        """What the gates say that look inside a file."""
        assert INDUCTOR.recognize(path) is None
        images = random_images()[:4]
        provenance = ArtifactProvenance(path, INDUCTOR, None, None, Promise())
        reference = read_float_graph(self.model, images[:1])
        inspection = ArtifactInspection(
            provenance, INDUCTOR.load(path), reference, images, float32=self.model
        )
        result = inspection.measure(INSIDE)
        evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
        return {name: GATES.get(name)(evidence) for name in INSIDE}


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Strangers:
    return Strangers(tmp_path_factory.mktemp("strangers"))


# Sound files


@pytest.mark.parametrize("open_batch", [True, False], ids=["any batch", "one image"])
def test_sound_files_of_torchao_pass_the_gates_that_look_inside(
    strangers: Strangers, open_batch: bool
) -> None:
    path = strangers.quantize(f"sound {open_batch}", open_batch=open_batch)
    gates = strangers.look(path)
    assert {gate.verdict for gate in gates.values()} == {Verdict.PASS}, gates
    assert gates["conversion"].observed == 3
    assert "3 int8 layers equal exact integer arithmetic" in gates["saturation"].detail
    assert "No layer can saturate on a CPU without VNNI" in gates["saturation"].detail


def test_what_is_executed_is_what_torchao_executes(strangers: Strangers) -> None:
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86

    path, images = strangers.quantize("sound True", open_batch=True), random_images()[:2]
    lowered = lower_pt2e_quantized_to_x86(torch.export.load(path).module(), (images,))
    loaded = INDUCTOR.load(path)
    assert isinstance(loaded, InductorModel)
    operators = [
        Counter(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        for module in (lowered, loaded.module)
    ]
    assert operators[0] == operators[1]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), lowered(images), rtol=0, atol=0)


def test_a_files_own_door_leads_to_all_gates(
    workshop, user_case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = workshop.model("squeezenet1_1")
    path = quantized(model, workshop.calibration, tmp_path / "mine.pt2")
    argv = ["gate", "--model", "squeezenet1_1", "--artifact", str(path), "--input-size", "64"]
    argv += ["--weights", str(user_case.weights), "--data", str(user_case.data), "--threads", "1"]
    main([*argv, "--baseline", "runtime"])
    output = capsys.readouterr().out
    assert "inductor" in output
    for gate in ("fusion", "conversion", "fidelity", "saturation"):
        assert f"{gate} of" not in output, output  # only what did not pass is named so
    # torchao's converted module still has its float32 weights, and torch saves the example.
    assert "✗ fail size of" in output and "weights that were saved twice" in output
    path.write_bytes(path.read_bytes()[:100_000])
    assert main(argv) == 2
    assert "damaged or not complete" in capsys.readouterr().err


# Planted defects


def test_a_file_that_was_not_calibrated_is_recognised(strangers: Strangers) -> None:
    gate = strangers.look(strangers.quantize("uncalibrated", calibrated=False))["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "default scale 1 and zero point 0" in gate.detail


def test_a_layer_that_was_left_out_is_named(strangers: Strangers) -> None:
    gate = strangers.look(strangers.quantize("left out", float_layers=("conv2",)))["conversion"]
    assert gate.verdict is Verdict.FAIL and gate.observed == 2
    assert "not int8: conv2 (look at what the quantizer annotates" in gate.detail


def test_one_scale_for_all_channels_is_executed_in_float_and_named(strangers: Strangers) -> None:
    path = strangers.quantize("per tensor", per_channel=False)
    gate = strangers.look(path)["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "conv2" in gate.detail and "one weight scale for all channels" in gate.detail


def test_another_networks_weights_belong_to_no_layer(strangers: Strangers) -> None:
    gate = strangers.look(strangers.quantize("other", seed=7))["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "weights of no layer of the float model" in gate.detail


def test_a_truncated_file_is_refused(strangers: Strangers, tmp_path: Path) -> None:
    content = strangers.quantize("sound True", open_batch=True).read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        path = tmp_path / "cut.pt2"
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="cannot be loaded as a program"):
            INDUCTOR.recognize(path)


LOOK = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from backends.test_pt2_files import Strangers
gate = Strangers(Path(".")).look(Path(sys.argv[1]))["saturation"]
print(gate.verdict, gate.detail)
"""


def test_full_range_weights_saturate_without_vnni(strangers: Strangers) -> None:
    path = strangers.quantize("full range", bits=8)
    gate = strangers.look(path)["saturation"]
    if INDUCTOR.probe()["convolution"] == 1.0:
        assert gate.verdict is Verdict.PASS
        assert "On a CPU without VNNI 1 layers would saturate" in gate.detail
    # On any CPU, as one without VNNI: for oneDNN and for ptqbench.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    tests = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK, str(path), str(tests)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "fail" in result.stdout.lower() and "conv1" in result.stdout, result.stdout
    assert "quant_min=-64" in result.stdout
    assert "Executed exactly (the program before it is lowered)" in result.stdout


def test_seven_bits_cost_little(strangers: Strangers) -> None:
    images = random_images()
    path = strangers.quantize("sound True", open_batch=True)
    with torch.inference_mode():
        assert decibels(strangers.model(images), INDUCTOR.load(path)(images)) > 30
