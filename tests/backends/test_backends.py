"""Artifacts of every engine that is there: built, saved, loaded, and side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.runs import run_models
from torch import nn

from ptqbench.backends import cpu as isa
from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.torch_engines.saturation_probe import probe_engine
from ptqbench.backends.torch_engines.torchscript import (
    engine_set,
    save_script,
    trace_and_freeze,
)
from ptqbench.errors import UserError
from ptqbench.gates import gates_in_order
from ptqbench.gates.verdict import Verdict
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.settings.thresholds import INSTRUCTION_SETS

if TYPE_CHECKING:
    from conftest import Workshop

AVAILABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]
PAIRS = [(a, b) for i, a in enumerate(AVAILABLE) for b in AVAILABLE[i + 1 :]]
MODEL = "resnet18"

pytestmark = pytest.mark.usefixtures("torch_settings")


def test_the_backends_are_the_four_engines_and_other_runtimes() -> None:
    engines = [backend.name for backend in BACKENDS if backend.runtime == "torch"]
    assert sorted(engines) == ["fbgemm", "onednn", "qnnpack", "x86"]
    others = {"onnxruntime", "openvino", "executorch", "inductor"}
    assert set(BACKENDS.names()) - set(engines) == others
    assert AVAILABLE, "this build of torch has no quantized engine at all"


# Round trip


@pytest.mark.parametrize("backend", AVAILABLE)
def test_the_file_says_what_it_is(workshop: Workshop, backend: str) -> None:
    built = workshop.built(MODEL, backend).artifact
    opened = Artifact.open(built.path)
    assert opened == built
    assert opened.info == ArtifactInfo(
        precision="int8",
        backend=backend,
        engine=BACKENDS.get(backend).engine,
        model=MODEL,
        recipe_hash=workshop.recipe(MODEL).hash,
        flow="fx",
        instruction_set=isa.instruction_set(),
        calibration_images=len(workshop.calibration),
        runtime=f"torch {torch.__version__}",
        build=built.info.build,
    )
    assert BuildRecord.from_dict(opened.info.build).unfused == ()
    assert opened.size_bytes == len(built.path.read_bytes())


@pytest.mark.parametrize("backend", AVAILABLE)
def test_the_file_behaves_like_the_module(workshop: Workshop, backend: str) -> None:
    built = workshop.built(MODEL, backend)
    other = next(name for name in torch.backends.quantized.supported_engines if name != backend)
    torch.backends.quantized.engine = other
    loaded = built.artifact.load()
    assert torch.backends.quantized.engine == built.artifact.info.engine
    # It was traced with one image of 64 pixels.
    for count, size in ((1, 64), (7, 64), (2, 96), (3, 49)):
        images = nn.functional.interpolate(workshop.evaluation[0][:count], (size, size))
        torch.backends.quantized.engine = other
        with torch.inference_mode():
            logits = loaded(images)
            with engine_set(built.artifact.info.engine):
                expected = built.converted(images)
        assert logits.shape == (count, 16)
        assert torch.equal(logits, expected)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_engines_side_by_side(workshop: Workshop, first: str, second: str) -> None:
    images = workshop.evaluation[0][:4]
    artifacts = [workshop.built(MODEL, name).artifact for name in (first, second)]
    with torch.inference_mode():
        alone = [artifact.load()(images) for artifact in artifacts]
        a, b = (artifact.load() for artifact in artifacts)
        assert torch.equal(b(images), alone[1])
        for _ in range(2):
            assert torch.equal(a(images), alone[0])
            assert torch.equal(b(images), alone[1])


@pytest.mark.parametrize("backend", AVAILABLE)
def test_engines_agree_with_float32(workshop: Workshop, backend: str) -> None:
    images, _ = workshop.evaluation
    with torch.inference_mode():
        expected = workshop.model(MODEL)(images)
        logits = workshop.built(MODEL, backend).artifact.load()(images)
    noise = (logits - expected).square().sum() / expected.square().sum()
    assert float(noise) < 0.01  # 20 dB; what saturates measured 9 to 17 dB


def test_building_restores_the_engine(workshop: Workshop, tmp_path: Path) -> None:
    before = torch.backends.quantized.engine
    model, recipe = workshop.model("squeezenet1_1"), workshop.recipe("squeezenet1_1")
    backend = BACKENDS.get(AVAILABLE[-1])
    backend.build(model, recipe, [workshop.calibration[:2]], tmp_path / "int8.pt")
    assert torch.backends.quantized.engine == before
    for engine in (name for name in torch.backends.quantized.supported_engines if name != before):
        with engine_set(engine):
            assert torch.backends.quantized.engine == engine
        assert torch.backends.quantized.engine == before
    with pytest.raises(KeyError), engine_set(AVAILABLE[0]):
        raise KeyError
    assert torch.backends.quantized.engine == before


# float32


def test_float_lowerings_equal_the_module(workshop: Workshop) -> None:
    backend = BACKENDS.get(AVAILABLE[0])
    images, model = workshop.evaluation[0][:8], workshop.model("squeezenet1_1")
    path = workshop.folder / "squeezenet1_1.float32.pt"
    artifact = backend.build_float(model, "squeezenet1_1", images[:1], path)
    assert artifact == Artifact.open(path)
    assert artifact.info.precision == "float32"
    parameters = sum(p.numel() for p in model.parameters())
    assert artifact.size_bytes > 4 * parameters
    lowerings = backend.float_lowerings(artifact)
    assert list(lowerings) == ["frozen", "optimized"]
    with torch.inference_mode():
        expected = model(images)
        for run in lowerings.values():
            torch.testing.assert_close(run(images), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(run(images[:1]), expected[:1], rtol=1e-4, atol=1e-4)


def test_int8_is_a_quarter_in_the_same_container(workshop: Workshop) -> None:
    backend = BACKENDS.get(AVAILABLE[0])
    path = workshop.folder / "resnet18.float32.pt"
    example = workshop.calibration[:1]
    float32 = backend.build_float(workshop.model(MODEL), MODEL, example, path)
    int8 = workshop.built(MODEL, AVAILABLE[0]).artifact
    assert 3.5 < float32.size_bytes / int8.size_bytes <= 4.1


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode elsewhere")
def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    backend, model = BACKENDS.get(AVAILABLE[0]), nn.Conv2d(3, 2, 1).eval()
    images = torch.ones(1, 3, 8, 8)
    artifact = backend.build_float(model, "one", images, folder / "one.float32.pt")
    with torch.inference_mode():
        loaded = Artifact.open(artifact.path).load()
        for run in (loaded, *backend.float_lowerings(artifact).values()):
            torch.testing.assert_close(run(images), model(images))


# A missing engine


@pytest.fixture
def without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(torch.backends.quantized)
    monkeypatch.setattr(kind, "supported_engines", ["none", "some_other"])


@pytest.mark.usefixtures("without_engines")
@pytest.mark.parametrize("backend", [backend.name for backend in TORCH_ENGINES])
def test_a_missing_engine_is_explained(workshop: Workshop, backend: str) -> None:
    reason = BACKENDS.get(backend).availability()
    assert reason is not None
    assert f"no {backend} engine" in reason
    assert "it has some_other" in reason
    path = workshop.folder / "never.pt"
    with pytest.raises(UserError, match=f"backend {backend} cannot be used here: .*no {backend}"):
        BACKENDS.get(backend).build(
            workshop.model(MODEL), workshop.recipe(MODEL), workshop.batches(), path
        )
    assert not path.exists()


@pytest.mark.usefixtures("without_engines")
def test_a_missing_engine_is_never_green() -> None:
    report = run_models([MODEL, "squeezenet1_1"], ["qnnpack", "x86"])
    assert [(case.model, case.backend) for case in report.cases] == [
        (MODEL, "qnnpack"),
        (MODEL, "x86"),
        ("squeezenet1_1", "qnnpack"),
        ("squeezenet1_1", "x86"),
    ]
    for case in report.cases:
        assert [gate.name for gate in case.gates] == [gate.name for gate in gates_in_order()]
        assert {gate.verdict for gate in case.gates} == {Verdict.UNVERIFIED}
        assert all(f"no {case.backend} engine" in gate.detail for gate in case.gates)
    assert report.exit_code() == 0
    assert report.exit_code(strict=True) == 3


# What is no artifact


def foreign(path: Path) -> None:
    save_with = torch.jit.script(nn.ReLU())
    torch.jit.save(save_with, str(path))


def unknown_words(path: Path) -> None:
    files = {"ptqbench.json": '{"precision": "int8", "colour": "green"}'}
    torch.jit.save(torch.jit.script(nn.ReLU()), str(path), _extra_files=files)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        pytest.param(lambda path: None, "cannot be loaded as TorchScript", id="missing"),
        pytest.param(lambda path: path.mkdir(), "cannot be loaded as TorchScript", id="folder"),
        pytest.param(
            lambda path: path.write_bytes(b""), "cannot be loaded as TorchScript", id="empty"
        ),
        pytest.param(
            lambda path: path.write_bytes(b"PK\3\4 no archive"),
            "cannot be loaded as TorchScript",
            id="garbage",
        ),
        pytest.param(
            lambda path: torch.save({"a": torch.ones(1)}, path),
            "cannot be loaded as TorchScript",
            id="state dict",
        ),
        pytest.param(foreign, "is not an artifact of ptqbench", id="foreign"),
        pytest.param(unknown_words, "metadata that this version", id="other version"),
    ],
)
def test_what_is_no_artifact_is_refused(tmp_path: Path, write: object, words: str) -> None:
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(UserError, match=words) as caught:
        Artifact.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Saving


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("disk full"), OSError(28, "")])
def test_an_interrupted_save_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise error

    script = trace_and_freeze(nn.ReLU(), torch.ones(1))
    monkeypatch.setattr(Path, "write_bytes", half)
    path = tmp_path / "model.pt"
    expected = UserError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(expected):
        save_script(script, path, ArtifactInfo("int8", "x86", "x86", "relu"))
    assert list(tmp_path.iterdir()) == []


def test_saving_where_there_is_no_folder(tmp_path: Path) -> None:
    script = trace_and_freeze(nn.ReLU(), torch.ones(1))
    path = tmp_path / "missing" / "model.pt"
    with pytest.raises(UserError, match=r"model\.pt cannot be written"):
        save_script(script, path, ArtifactInfo("int8", "x86", "x86", "relu"))


# The CPU


@pytest.mark.parametrize(
    ("machine", "capability", "flags", "expected"),
    [
        ("x86_64", "DEFAULT", {"avx2"}, "other"),
        ("x86_64", "AVX2", {"avx2", "avx512f", "avx512_vnni"}, "avx2"),
        ("x86_64", "AVX2", {"avx2", "avx_vnni"}, "avx2_vnni"),
        ("x86_64", "AVX2", {"avx2", "avx512f", "avx_vnni"}, "avx2"),  # switched off by hand
        ("x86_64", "DEFAULT", {"avx2", "avx_vnni"}, "other"),
        ("x86_64", "AVX512", {"avx512f"}, "avx512"),
        ("x86_64", "AVX512", {"avx512f", "avx512_vnni"}, "avx512_vnni"),
        ("x86_64", "AVX512", {"avx512f", "avx512_vnni", "amx_int8"}, "amx"),
        ("aarch64", "DEFAULT", set(), "neon"),
        ("arm64", "DEFAULT", set(), "neon"),
    ],
)
def test_instruction_sets(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    capability: str,
    flags: set[str],
    expected: str,
) -> None:
    monkeypatch.setattr(isa.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(isa, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(isa, "cpu_fields", dict)
    assert isa.instruction_set.__wrapped__() == expected


@pytest.mark.parametrize(
    ("vendor", "family", "model", "expected"),
    [
        ("AuthenticAMD", 0x17, 0x01, "avx2_128"),  # Naples: Zen
        ("AuthenticAMD", 0x17, 0x18, "avx2_128"),  # Picasso: Zen+
        ("AuthenticAMD", 0x17, 0x31, "avx2"),  # Rome: Zen 2
        ("AuthenticAMD", 0x19, 0x01, "avx2"),  # Milan: Zen 3
        ("AuthenticAMD", 0x15, 0x65, "avx2_128"),  # Bristol Ridge: Excavator
        ("HygonGenuine", 0x18, 0x01, "avx2_128"),
        ("GenuineIntel", 0x06, 0x3F, "avx2"),  # Haswell
        ("GenuineIntel", 0x17, 0x01, "avx2"),
    ],
)
def test_cpus_that_execute_avx2_in_halves_are_a_kind_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    vendor: str,
    family: int,
    model: int,
    expected: str,
) -> None:
    text = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
    info = tmp_path / "cpuinfo"
    info.write_text(f"{text}model name\t: a CPU\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n")
    monkeypatch.setattr(isa, "_CPUINFO", info)
    # Neither read nor left in a cache.
    monkeypatch.setattr(isa, "cpu_fields", isa.cpu_fields.__wrapped__)
    monkeypatch.setattr(isa, "cpu_flags", isa.cpu_flags.__wrapped__)
    monkeypatch.setattr(isa.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert isa.instruction_set.__wrapped__() == expected
    assert isa.cpu_flags() == {"fpu", "avx2"}
    assert isa.cpu_name.__wrapped__() == "a CPU"


@pytest.mark.parametrize(
    ("instructions", "saturates"),
    [
        *(("avx2", True), ("avx2_128", True), ("avx2_vnni", False), ("avx512", True)),
        *(("avx512_vnni", False), ("amx", False), ("neon", False)),
    ],
)
def test_what_saturates(instructions: str, saturates: bool) -> None:
    assert isa.multiplies_into_16_bits(instructions) == saturates
    saturating = {backend.name: backend.saturates(instructions) for backend in BACKENDS}
    fbgemm = instructions != "neon"  # its depthwise kernels, which x86 uses too
    engines = {"x86": fbgemm, "fbgemm": fbgemm, "onednn": saturates, "qnnpack": False}
    runtimes = dict.fromkeys(("onnxruntime", "openvino", "inductor"), saturates)
    runtimes["executorch"] = False
    assert saturating == engines | runtimes


def test_every_instruction_set_can_have_a_speedup_threshold() -> None:
    targets = {name for backend in BACKENDS for name in backend.targets}
    assert targets == set(INSTRUCTION_SETS)


def test_backends_and_cpu_flags_are_known_without_torch() -> None:
    code = (
        "import sys; from ptqbench.backends import backend_registry, cpu; cpu.cpu_flags(); "
        "print(backend_registry.BACKENDS.names()); sys.exit('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "onednn" in run.stdout


@pytest.mark.parametrize("name", AVAILABLE)
def test_an_engine_that_saturates_here_is_known_to(name: str) -> None:
    backend = BACKENDS.get(name)
    exact = all(share == 1.0 for share in probe_engine(backend.engine).values())
    assert exact != backend.saturates()


CPUINFO = """\
processor\t: 0
model name\t: A CPU @ 2 GHz
flags\t\t: fpu avx2 avx512_vnni

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


def test_cpu_facts_come_from_the_first_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(isa, "_CPUINFO", path)
    monkeypatch.setattr(isa, "cpu_fields", isa.cpu_fields.__wrapped__)
    assert isa.cpu_flags.__wrapped__() == frozenset()
    assert isa.cpu_name.__wrapped__()
    path.write_text(CPUINFO)
    assert isa.cpu_flags.__wrapped__() == {"fpu", "avx2", "avx512_vnni"}
    assert isa.cpu_name.__wrapped__() == "A CPU @ 2 GHz"
