"""torchvision's own weights: chosen, downloaded, checked, prepared as torchvision does.

Nothing here reaches the network: the "download" comes from a server on this machine.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ptqbench.errors import UserError
from ptqbench.evaluation import run as run_module
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict
from ptqbench.models.catalog import MODELS
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.recipes import RECIPES
from ptqbench.recipes.published_accuracy import PUBLISHED_ACCURACIES
from ptqbench.reporting.console import render
from ptqbench.reporting.markdown import to_markdown
from ptqbench.reporting.terminal import report_view
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.run_settings import RunSettings
from ptqbench.weights import torchvision_weights as imagenet
from ptqbench.weights.load import build_model, check_published, load_weights

MODEL = "squeezenet1_1"
"""Small, so that a file of its parameters is written in no time."""


@dataclass
class Server:
    """Serves one file and records the requests for it."""

    url: str
    content: bytes = b""
    length: int | None = None
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            self.send_response(200 if served.content else 404)
            length = len(served.content) if served.length is None else served.length
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(served.content)

        def log_message(self, *_: object) -> None:
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Server(f"http://127.0.0.1:{http_server.server_address[1]}")
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
    thread.start()
    yield served
    http_server.shutdown()
    http_server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def file() -> bytes:
    """A state dict of the right shapes, as torchvision's files are."""
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save(MODELS.get(MODEL).factory(1000).state_dict(), buffer)
    return buffer.getvalue()


@dataclass(frozen=True)
class Member:
    """What ptqbench uses of a member of a weights enum, with a URL of the test's."""

    url: str
    real: Any

    @property
    def name(self) -> str:
        return str(self.real.name)

    @property
    def meta(self) -> dict[str, Any]:
        return dict(self.real.meta)

    def transforms(self) -> Any:
        return self.real.transforms()

    def __str__(self) -> str:
        return str(self.real)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TORCH_HOME; the value is the folder that weights lie in."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "hub" / "checkpoints"


def named(content: bytes) -> str:
    """The file's name as torchvision gives it: with the beginning of its hash."""
    return f"{MODEL}-{hashlib.sha256(content).hexdigest()[:8]}.pth"


def publish(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let torchvision's weights of the model lie there."""
    real = import_torchvision().models.get_model_weights(MODEL).DEFAULT
    monkeypatch.setattr(imagenet, "choose", lambda *_: Member(url, real))


def test_weights_are_downloaded_once_with_progress(
    server: Server, file: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content, name = file, named(file)
    publish(monkeypatch, f"{server.url}/models/{name}")
    steps: list[tuple[str, int, int]] = []
    weights = load_weights(MODELS.get(MODEL), "imagenet", progress=lambda *step: steps.append(step))
    assert {description for description, _, _ in steps} == {f"download {name}"}
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    assert steps[-1][1:] == (len(file) // 1000, len(file) // 1000)
    assert len(steps) > 2
    assert (home / name).read_bytes() == file
    assert weights.sha256 == hashlib.sha256(file).hexdigest()
    assert weights.num_classes == 1000
    assert weights.name == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert weights.classes is not None and weights.classes[0] == "tench"
    assert build_model(MODELS.get(MODEL), weights)(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    load_weights(MODELS.get(MODEL), "imagenet")
    assert server.requests == [f"/models/{name}"]
    # Nothing but the file and the lock is left.
    assert {path.name for path in home.iterdir()} <= {name, f".{name}.lock"}


def test_a_file_that_was_placed_by_hand_is_used(
    server: Server, file: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, f"{server.url}/{named(file)}")
    home.mkdir(parents=True)
    (home / named(file)).write_bytes(file)
    assert load_weights(MODELS.get(MODEL), "IMAGENET1K_V1").num_classes == 1000
    assert server.requests == []


def test_another_file_of_the_name_is_refused(
    server: Server, file: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = named(file)
    publish(monkeypatch, f"{server.url}/{name}")
    home.mkdir(parents=True)
    (home / name).write_bytes(file[:-1] + bytes([file[-1] ^ 1]))
    with pytest.raises(UserError, match="damaged or another file: their SHA-256 begins with"):
        load_weights(MODELS.get(MODEL), "imagenet")


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_download_that_is_not_the_file_leaves_nothing(
    server: Server, file: bytes, home: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    name = named(file)
    publish(monkeypatch, f"{server.url}/{name}")
    if damage == "cut":
        server.content, server.length = file[:1000], len(file)
    else:
        server.content = file[:-1] + b"?"
    with pytest.raises(UserError, match=rf"{name}.* place (it|the file)"):
        load_weights(MODELS.get(MODEL), "imagenet")
    assert not (home / name).exists()
    assert not list(home.glob("*.pth"))


def test_without_a_network_the_file_and_its_place_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody listens at port 9 of this machine; a refusal comes at once.
    publish(monkeypatch, "http://127.0.0.1:9/models/squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(UserError) as caught:
        load_weights(MODELS.get(MODEL), "imagenet")
    message = str(caught.value)
    assert "Get the file from http://127.0.0.1:9/models/squeezenet1_1-b8a52dc0.pth" in message
    assert f"place it as {home / 'squeezenet1_1-b8a52dc0.pth'}" in message
    assert f"TORCH_HOME={home.parents[1]}" in message


def test_missing_weights_of_the_last_model_are_said_before_the_first_is_measured(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = imagenet.choose

    def choose(spec: Any, source: str) -> Any:
        member = real(spec, source)
        return Member(f"http://127.0.0.1:9/{Path(member.url).name}", member)

    monkeypatch.setattr(imagenet, "choose", choose)
    monkeypatch.setattr(run_module, "open_subject", None)
    first = Path(choose(MODELS.get("resnet18"), "imagenet").url).name
    home.mkdir(parents=True)
    (home / first).write_bytes(b"read later")
    check_published(MODELS.get("resnet18"), "imagenet")
    check_published(MODELS.get("vgg11"), "fixture")
    requests = [
        CaseRequest(name, (RECIPES.get(name).backend,), "recipe", RunSettings(weights="imagenet"))
        for name in ("resnet18", "vgg11")
    ]
    with pytest.raises(UserError, match=r"vgg11-.*\.pth are not in"):
        run_module.run_requests(requests)


@pytest.mark.parametrize(
    ("model", "source", "message"),
    [
        ("resnet18", "IMAGENET1K_V2", "For resnet18 there are: IMAGENET1K_V1"),
        ("resnet50", "IMAGENET1K_V3", "Did you mean IMAGENET1K_V2 or IMAGENET1K_V1?"),
        ("resnet50", "ResNet18_Weights.IMAGENET1K_V1", "belongs to another model"),
        ("resnet18", "IMAGENET1K_FBGEMM_V1", "ptqbench starts from float32"),
        ("vgg16", "IMAGENET1K_FEATURES", "without a trained classifier"),
    ],
)
def test_names_that_there_are_not(model: str, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        imagenet.choose(MODELS.get(model), source)


def test_a_custom_model_has_no_weights_of_a_torchvision_model_of_its_name() -> None:
    spec = replace(MODELS.get("resnet18"), name="ResNet18", origin="nets.py, line 3")
    assert imagenet.names(spec) == []
    for source in ("imagenet", "IMAGENET1K_V1"):
        with pytest.raises(UserError, match="no ImageNet weights for ResNet18"):
            imagenet.choose(spec, source)


def test_an_impossible_folder_for_downloads_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", f"/tmp/{'x' * 300}")
    publish(monkeypatch, "http://127.0.0.1:9/squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(UserError, match=r"cannot be written: .*TORCH_HOME"):
        load_weights(MODELS.get(MODEL), "imagenet")


def test_the_default_and_full_names() -> None:
    resnet50 = MODELS.get("resnet50")
    assert imagenet.choose(resnet50, "imagenet").name == "IMAGENET1K_V2"
    assert imagenet.choose(resnet50, "IMAGENET1K_V1").name == "IMAGENET1K_V1"
    full = imagenet.choose(resnet50, "ResNet50_Weights.IMAGENET1K_V1")
    assert full.name == "IMAGENET1K_V1"


def test_every_member_is_prepared_as_torchvision_prepares_it() -> None:
    """All of torchvision's presets, each distinct one once, on a picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    small = Image.fromarray(pixels).resize((640, 500), Image.Resampling.BICUBIC)
    seen = set()
    for name in MODELS.names():
        for source in imagenet.names(MODELS.get(name)):
            member = imagenet.choose(MODELS.get(name), source)
            settings = imagenet.settings_of(member, MODELS.get(name))
            assert settings.classes is not None and len(settings.classes) == 1000
            if settings.preprocessing in seen:
                continue
            seen.add(settings.preprocessing)
            ours = settings.preprocessing
            actual = ours.normalise(ours.pixels(small)[None])[0]
            expected = member.transforms()(small)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert len(seen) > 15


def test_published_accuracies_are_torchvisions_own() -> None:
    """float32 as the enums say today; int8 as the enums of the int8 weights say."""
    models = import_torchvision().models
    for (name, weights), published in PUBLISHED_ACCURACIES.items():
        member = imagenet.choose(MODELS.get(name), weights)
        assert imagenet.published_with(MODELS.get(name), member) == published
        metrics = member.meta["_metrics"]["ImageNet-1K"]
        assert published.float32_top1 == metrics["acc@1"]
        quantized = models.get_model_weights(f"quantized_{name}")
        same = [
            each.meta["_metrics"]["ImageNet-1K"]["acc@1"]
            for each in quantized
            if each.meta["unquantized"] == member
        ]
        assert published.int8_top1 in same
        assert RECIPES.get(name).published[weights] == published


def test_weights_without_int8_have_their_float32_accuracy() -> None:
    spec = MODELS.get("vgg11")
    published = imagenet.published_with(spec, imagenet.choose(spec, "imagenet"))
    assert published is not None
    assert (published.float32_top1, published.int8_top1) == (69.02, None)
    assert RECIPES.get("vgg11").published == {}


def test_published_stands_beside_measured_in_every_report() -> None:
    facts = PUBLISHED_ACCURACIES["resnet18", "IMAGENET1K_V1"].facts()
    assert facts["published_float32_top1"] == pytest.approx(0.69758)
    assert facts["published_int8_top1"] == pytest.approx(0.69494)
    assert (facts["published_int8_engine"], facts["published_int8_method"]) == ("fbgemm", "PTQ")
    gate = GateResult("accuracy", Verdict.PASS, 0.99, 0.99, (0.98, 1.0), 2000, "A sentence.")
    metrics: dict[str, float | None] = {"float32_top1": 0.6971, "int8_top1": 0.6953}
    case = CaseResult(
        "resnet18", "imagenet", "x86", "imagenet", "ab", metrics, (gate,), facts=facts
    )
    report = Report({}, (case,))
    shown = render(report_view(report))
    assert "resnet18 on x86: top-1 69.71 → 69.53, published 69.76 → 69.49 (fbgemm)" in shown
    assert "69.71 → 69.53; published 69.76 → 69.49 (fbgemm)" in to_markdown(report)
    facts_in_json = report.to_dict()["cases"][0]["facts"]  # type: ignore[index]
    assert math.isclose(facts_in_json["published_int8_top1"], 0.69494)
