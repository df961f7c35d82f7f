"""CIFAR-10 and ImageNet by name, synset folders, and what is said when images are not there.

The data sets are made here, tiny, in the original formats; torchvision reads them.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import pickle
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from scipy import io

from ptqbench.cli import main
from ptqbench.data.cifar10 import open_cifar10
from ptqbench.data.class_matching import match_classes
from ptqbench.data.folder import open_folder
from ptqbench.data.image_set import Data, check_classes, check_disjoint
from ptqbench.data.imagenet import open_imagenet
from ptqbench.data.imagenet_synsets import imagenet_synsets
from ptqbench.data.open import open_source
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.split import DataOptions
from ptqbench.errors import UserError
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.settings.data_specifier import Source, check_source, read_source, resolved
from ptqbench.settings.run_settings import RunSettings

import_torchvision()
from torchvision import datasets  # noqa: E402
from torchvision.datasets import imagenet  # noqa: E402

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SMALL = Preprocessing(32, 32)
TRAIN_EACH = 6


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


class Cifar:
    """A small CIFAR-10 in the format of its authors, and what torchvision must know of it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.batches = folder / "cifar-10-batches-py"
        self.batches.mkdir(parents=True)
        random = np.random.default_rng(0)
        self.train = random.integers(0, 256, (5 * TRAIN_EACH * 2, 3, 32, 32), dtype=np.uint8)
        self.train_labels = [i % 10 for i in range(len(self.train))]
        self.test = random.integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
        self.test[4] = self.train[17]  # a copy of a training image, which is a `horse`
        self.test[9] = self.test[8]  # a copy inside the test part
        self.test_labels = [(i * 3) % 10 for i in range(30)]
        each = len(self.train) // 5
        for n in range(5):
            part = slice(n * each, (n + 1) * each)
            self.write(f"data_batch_{n + 1}", self.train[part], self.train_labels[part])
        self.write("test_batch", self.test, self.test_labels)
        self.dump("batches.meta", {"label_names": NAMES, "num_vis": 3072})
        self.archive = folder / "cifar-10-python.tar.gz"

    def write(self, name: str, pixels: np.ndarray, labels: list[int]) -> None:
        self.dump(name, {"data": pixels.reshape(len(pixels), -1), "labels": labels})

    def dump(self, name: str, content: object) -> None:
        (self.batches / name).write_bytes(pickle.dumps(content, protocol=2))

    def pack(self) -> None:
        with tarfile.open(self.archive, "w:gz") as archive:
            archive.add(self.batches, self.batches.name)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cifar:
    dataset = Cifar(tmp_path / "data")

    def known(names: list[str]) -> list[list[str]]:
        return [[name, md5(dataset.batches / name)] for name in names]

    dataset.pack()
    meta = {**datasets.CIFAR10.meta, "md5": md5(dataset.batches / "batches.meta")}
    train = [f"data_batch_{n}" for n in range(1, 6)]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", known(train))
    monkeypatch.setattr(datasets.CIFAR10, "test_list", known(["test_batch"]))
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(dataset.archive))
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    dataset.archive.unlink()
    return dataset


def opened(
    text: str, classes: tuple[str, ...] | None = None, outputs: int = 10, **options: object
) -> Data:
    data = open_source(
        text,
        SMALL,
        classes=classes,
        num_classes=outputs,
        **options,  # type: ignore[arg-type]
    )
    check_classes(data, classes, outputs)
    check_disjoint(data)
    return data


def all_of(images: object, size: int = 7) -> tuple[torch.Tensor, list[int]]:
    batches = list(images.batches(0, images.count, size))  # type: ignore[attr-defined]
    return torch.cat([p for p, _ in batches]), torch.cat([n for _, n in batches]).tolist()


def normalised(pixels: np.ndarray) -> torch.Tensor:
    mean = torch.tensor(SMALL.mean).view(3, 1, 1)
    std = torch.tensor(SMALL.std).view(3, 1, 1)
    return (torch.from_numpy(pixels).float() / 255 - mean) / std


# --- CIFAR-10


def test_cifar10_is_calibrated_with_train_and_evaluated_on_test(cifar: Cifar) -> None:
    data = opened(f"cifar10:{cifar.root}")
    assert data.name == f"cifar10:{cifar.root}"
    assert data.evaluation.classes == tuple(NAMES)
    rest = [i for i in range(30) if i != 4]
    pixels, labels = all_of(data.evaluation)
    assert labels == [cifar.test_labels[i] for i in rest]
    assert torch.allclose(pixels, normalised(cifar.test[rest]), atol=1e-6)
    calibrated, calibration_labels = all_of(data.calibration)
    assert sorted(calibration_labels) == sorted(cifar.train_labels)
    whole = {p.numpy().tobytes() for p in normalised(cifar.train).mul(1e4).round().int()}
    assert {p.numpy().tobytes() for p in calibrated.mul(1e4).round().int()} == whole
    hashes = [hashlib.sha256(i.transpose(1, 2, 0).tobytes()).hexdigest() for i in cifar.test[rest]]
    assert [*data.evaluation.content_hashes(0, 29)] == hashes
    assert data.notes == (
        "Calibration images come from CIFAR-10's training images. By content hash, none of them "
        "is evaluated.",
        "Copies of calibration images left out of evaluation: 1.",
        "Evaluation images that are copies of other ones: 1. Each counts, so the intervals are a "
        "little too short.",
    )


def test_cifar10_is_calibrated_evenly(cifar: Cifar) -> None:
    options = DataOptions(SMALL, None, 10, seed=3, calibration_images=10)
    data = open_cifar10(cifar.root, options)
    assert data.calibration.count == 10
    assert sorted(all_of(data.calibration)[1]) == list(range(10))


def test_cifar10_takes_part_of_its_images(cifar: Cifar) -> None:
    source = f"cifar10:{cifar.root}"
    data = opened(source, reading=RunSettings(limit=20, workers=1))
    counts = np.bincount(all_of(data.evaluation)[1], minlength=10)
    assert data.evaluation.count == 20 and set(counts) == {2}
    assert any("sample of 20 of the 29 images" in note for note in data.notes)
    whole, part = opened(source).evaluation, data.evaluation
    assert set(part.content_hashes(0, 20)) <= set(whole.content_hashes(0, 29))


def test_cifar10_is_matched_to_the_weights_by_name(cifar: Cifar) -> None:
    order = (*reversed(NAMES), "zebra")
    data = opened(f"cifar10:{cifar.root}", order, 11)
    expected = [9 - cifar.test_labels[i] for i in range(30) if i != 4]
    assert all_of(data.evaluation)[1] == expected
    assert any("1 of 11 classes have no images: zebra" in n for n in data.notes)


@pytest.mark.parametrize(
    ("classes", "outputs", "message"),
    [
        (None, 16, "CIFAR-10 has 10 classes .* but the weights have 16 outputs"),
        (
            ("plane", *NAMES[1:]),
            10,
            "1 of 10 classes in CIFAR-10 do not match .*: airplane. Did you mean plane",
        ),
    ],
)
def test_cifar10_for_other_weights_is_refused(
    cifar: Cifar, classes: tuple[str, ...] | None, outputs: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        opened(f"cifar10:{cifar.root}", classes, outputs)


def test_an_archive_is_unpacked_without_a_network(cifar: Cifar) -> None:
    cifar.pack()
    for path in cifar.batches.iterdir():
        path.unlink()
    # Packing stores times, so that the archive is another one than before.
    datasets.CIFAR10.tgz_md5 = md5(cifar.archive)  # put back by the fixture
    assert opened(f"cifar10:{cifar.root}").evaluation.count == 29


def test_without_a_network_file_and_folder_are_named(
    cifar: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTQBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError) as caught:
        opened("cifar10")
    message = str(caught.value)
    assert (
        f"CIFAR-10 is not in {tmp_path / 'cache' / 'cifar10'} and cannot be downloaded" in message
    )
    assert f"Place cifar-10-python.tar.gz (from {datasets.CIFAR10.url})" in message
    assert "cifar10:ROOT" in message


@pytest.fixture
def served(cifar: Cifar, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cifar]:
    """The same, where a server has the archive."""
    cifar.pack()

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Silent, directory=str(cifar.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{cifar.archive.name}"
        monkeypatch.setattr(datasets.CIFAR10, "url", url)
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(cifar.archive))
        yield cifar
        server.shutdown()
        thread.join()


def test_it_is_downloaded_into_the_cache_and_says_nothing_on_standard_output(
    served: Cifar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PTQBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert opened("cifar10").evaluation.count == 29
    assert capsys.readouterr().out == ""
    folder = tmp_path / "cache" / "cifar10" / "cifar-10-batches-py"
    assert (folder / "test_batch").read_bytes() == (served.batches / "test_batch").read_bytes()
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/nothing")
    assert opened("cifar10").name == "cifar10"  # the second time there is nothing to download


def test_one_process_at_a_time_downloads_and_unpacks(
    served: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTQBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/nothing")
    folder = tmp_path / "cache" / "cifar10"
    folder.mkdir(parents=True)
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.append(opened("cifar10").evaluation.count))
    with FileLock(folder / f".{served.archive.name}.lock"):
        thread.start()
        thread.join(0.3)  # without the lock it would have failed by now
        shutil.copytree(served.batches, folder / served.batches.name)
    thread.join()
    assert counts == [29]


class Poison:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "unpickled")


def test_nothing_is_unpickled_that_is_not_the_original(cifar: Cifar, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    cifar.dump("test_batch", Poison(trap))
    with pytest.raises(UserError, match=r"MD5 is not that of the original.*all seven files"):
        opened(f"cifar10:{cifar.root}")
    assert not trap.exists()


# --- ImageNet

SYNSETS = {"n01443537": ("goldfish", "Carassius auratus"), "n01614925": ("bald eagle",),
           "n02096051": ("Airedale", "Airedale terrier")}  # fmt: skip


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def tree(top: Path, synsets: list[str], each: int, first: int = 0) -> None:
    for label, synset in enumerate(synsets):
        for i in range(each):
            number = first + label * each + i
            paint(top / synset / f"ILSVRC2012_{number:08d}.JPEG", number)


@pytest.fixture
def small_imagenet(tmp_path: Path) -> Path:
    root = tmp_path / "imagenet"
    tree(root / "val", sorted(SYNSETS), 4)
    # Not in sorted order: neither is that of ImageNet's own devkit.
    shuffled = {name: SYNSETS[name] for name in reversed(SYNSETS)}
    torch.save((shuffled, []), root / "meta.bin")
    return root


def test_imagenet_holds_calibration_out_of_val(small_imagenet: Path) -> None:
    data = opened(f"imagenet:{small_imagenet}", outputs=3)
    assert data.evaluation.classes == ("goldfish", "bald eagle", "Airedale")
    assert (data.calibration.count, data.evaluation.count) == (2, 10)
    assert sorted(all_of(data.evaluation)[1] + all_of(data.calibration)[1]) == sorted([0, 1, 2] * 4)
    assert "There is no train folder" in data.notes[0]


def test_imagenet_is_calibrated_with_train_where_it_is(small_imagenet: Path) -> None:
    tree(small_imagenet / "train", sorted(SYNSETS), 3, first=100)
    data = open_imagenet(small_imagenet, DataOptions(SMALL, None, 3, calibration_images=6))
    assert (data.calibration.count, data.evaluation.count) == (6, 12)
    assert data.notes == (
        "Calibration images come from train/. By content hash, none of them is evaluated.",
    )
    reference = datasets.ImageNet(str(small_imagenet), split="val")
    assert all_of(data.evaluation)[1] == [label for _, label in reference.samples]


def test_the_names_of_the_weights_win(small_imagenet: Path) -> None:
    names = ("goldfish, Carassius auratus", "bald eagle", "Airedale")
    assert opened(f"imagenet:{small_imagenet}", names, 3).evaluation.classes == names


def test_a_part_of_val_keeps_its_labels(small_imagenet: Path) -> None:
    for path in (small_imagenet / "val" / "n01443537").iterdir():
        path.unlink()
    (small_imagenet / "val" / "n01443537").rmdir()
    data = opened(f"imagenet:{small_imagenet}", outputs=3)
    assert set(all_of(data.evaluation)[1]) == {1, 2}
    assert any("1 of 3 classes have no images: goldfish" in n for n in data.notes)


def test_archives_are_unpacked_by_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "imagenet"
    flat = tmp_path / "flat"
    ids = [3, 1, 2, 3, 1, 2, 2, 2, 1, 1]
    for i, _ in enumerate(ids, start=1):
        paint(flat / f"ILSVRC2012_val_{i:08d}.JPEG", i)
    root.mkdir()
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        for path in sorted(flat.iterdir()):
            archive.add(path, path.name)
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"),
            ("num_children", "O")]  # fmt: skip
    rows = [(i, synset, ", ".join(SYNSETS[synset]), "", 0) for i, synset in enumerate(SYNSETS, 1)]
    rows.append((4, "n00000001", "entity", "", 3))  # not a class, but one above them
    io.savemat(devkit / "meta.mat", {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    truth = devkit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("\n".join(map(str, ids)) + "\n")
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(devkit.parent, devkit.parent.name)
    known = {
        key: (name, md5(root / name) if (root / name).exists() else hash_)
        for key, (name, hash_) in imagenet.ARCHIVE_META.items()
    }
    monkeypatch.setattr(imagenet, "ARCHIVE_META", known)
    data = opened(f"imagenet:{root}", outputs=3)
    labels = all_of(data.evaluation)[1] + all_of(data.calibration)[1]
    assert sorted(labels) == sorted(i - 1 for i in ids)
    assert (root / "meta.bin").is_file()


@pytest.mark.parametrize(
    ("classes", "outputs", "message"),
    [
        (None, 1000, "has 3 classes, but the weights have 1000 outputs"),
        (("Airedale", "goldfish", "bald eagle"), 3, "Only 0 of the weights' 3 classes"),
        (("cat", "dog", "Airedale"), 3, "Only 1 of the weights' 3 classes .*cat, dog, Airedale"),
    ],
)
def test_weights_with_other_classes_than_imagenet_are_refused(
    small_imagenet: Path, classes: tuple[str, ...] | None, outputs: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        opened(f"imagenet:{small_imagenet}", classes, outputs)


def test_a_foreign_folder_in_val_is_named(small_imagenet: Path) -> None:
    paint(small_imagenet / "val" / "others" / "a.JPEG", 99)
    with pytest.raises(
        UserError, match=r"contains folder others, which is not listed in .*meta\.bin"
    ):
        opened(f"imagenet:{small_imagenet}", outputs=3)


def test_images_that_are_not_in_the_folder_of_a_class_yet_are_noticed(small_imagenet: Path) -> None:
    paint(small_imagenet / "val" / "overview.png", 98)
    assert opened(f"imagenet:{small_imagenet}", outputs=3).evaluation.count == 10
    paint(small_imagenet / "val" / "ILSVRC2012_val_00000007.JPEG", 99)
    with pytest.raises(UserError, match=r"1 images in .*val are not in .*00007\.JPEG.* remove"):
        opened(f"imagenet:{small_imagenet}", outputs=3)


def test_an_empty_folder_in_val_is_named(small_imagenet: Path) -> None:
    for path in (small_imagenet / "val" / "n01614925").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"cannot be read: .*n01614925"):
        opened(f"imagenet:{small_imagenet}", outputs=3)


def test_a_strangers_meta_bin_is_not_unpickled(small_imagenet: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save(Poison(trap), small_imagenet / "meta.bin")
    with pytest.raises(UserError, match=r"ImageNet in .* cannot be read"):
        opened(f"imagenet:{small_imagenet}", outputs=3)
    assert not trap.exists()


# --- folders called by synsets


def words() -> tuple[str, ...]:
    """What torchvision's weights call the thousand classes, as its own table has them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


@pytest.mark.parametrize("count", [1000, 999, 100, 2])
def test_folders_named_by_synsets_are_matched_to_imagenets_classes(count: int) -> None:
    synsets = imagenet_synsets()
    # Some are missing, but the list says which.
    present = sorted(np.random.default_rng(0).choice(synsets, count, replace=False).tolist())
    matched = match_classes(present, words(), 1000, "photos")
    assert matched.names == words()
    assert matched.labels == {synset: synsets.index(synset) for synset in present}
    assert "ImageNet's 1,000 synsets" in matched.note
    if count == 1000:
        known = {"n01443537": "goldfish", "n02096051": "Airedale", "n15075141": "toilet tissue"}
        assert {synset: words()[matched.labels[synset]] for synset in known} == known


def test_other_editions_of_imagenets_words_are_matched() -> None:
    longer = [f"{word}, and a synonym" for word in words()]
    longer[134] = "crane"  # torchvision tells two cranes apart
    assert words()[134] != "crane" == words()[517]
    assert match_classes(["n01443537"], longer, 1000, "photos").labels == {"n01443537": 1}


def swapped() -> list[str]:
    names = list(words())
    names[3], names[4] = names[4], names[3]
    return names


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (imagenet_synsets(), tuple(reversed(words()))),  # the weights have another order
        (imagenet_synsets(), swapped()),
        (["n01443537", "n02096051"], ("goldfish", "Airedale")),
    ],
)
def test_synsets_that_nothing_explains_are_refused(
    folders: list[str], classes: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        match_classes(folders, classes, len(classes), "photos")
    message = str(caught.value)
    assert f"The {len(folders)} folders in photos are named by synsets" in message
    assert "one a line" in message and "--classes" in message and "imagenet:ROOT" in message


def test_a_synset_that_is_not_imagenets_is_named() -> None:
    folders = [*imagenet_synsets()[1:], "n99999999"]
    with pytest.raises(UserError, match=r"1 of 1000 folders .* ImageNet's 1,000 .*: n99999999"):
        match_classes(folders, words(), 1000, "photos")


@pytest.mark.parametrize("form", ["{}", "{} goldfish, Carassius auratus", "{}\tfish"])
def test_synsets_are_matched_by_a_list_of_them(tmp_path: Path, form: str) -> None:
    tree(tmp_path, ["n01443537", "n02096051"], 5)
    classes = tuple(form.format(name) for name in ("n02096051", "n01614925", "n01443537"))
    data = open_folder(tmp_path, DataOptions(SMALL, classes, 3))
    assert all_of(data.evaluation)[1] == [2] * 4 + [0] * 4
    assert data.evaluation.classes == classes


def test_a_synset_that_is_not_in_the_list_is_named(tmp_path: Path) -> None:
    tree(tmp_path, ["n01443537", "n02096051"], 2)
    options = DataOptions(SMALL, ("n01443537 goldfish", "n01614925 eagle"), 2)
    with pytest.raises(UserError, match=r"1 of 2 folders .* weights' synsets: n02096051"):
        open_folder(tmp_path, options)


def test_a_class_that_several_outputs_are_called_is_refused() -> None:
    with pytest.raises(UserError, match="has a class crane, but several outputs"):
        match_classes(["crane"], ("crane", "dog", "crane"), 3, "photos")


# --- what a text means


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("fixture", Source("fixture")),
        ("cifar10", Source("cifar10")),
        ("cifar10:/data", Source("cifar10", Path("/data"))),
        ("imagenet:data/imagenet", Source("imagenet", Path("data/imagenet"))),
        ("imagenet:C:/data", Source("imagenet", Path("C:/data"))),
        ("photos", Source("folder", Path("photos"))),
        ("./cifar10", Source("folder", Path("cifar10"))),
        ("a:b", Source("folder", Path("a:b"))),
    ],
)
def test_texts_are_read(text: str, means: Source) -> None:
    assert read_source(text) == means


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    assert resolved("cifar10", tmp_path) == "cifar10"
    assert resolved("photos", tmp_path) == f"{tmp_path}/photos"
    assert resolved("imagenet:sets", tmp_path) == f"imagenet:{tmp_path}/sets"
    assert resolved("cifar10:/sets", tmp_path) == "cifar10:/sets"
    assert resolved("photos", Path()) == "photos"
    # A folder that is called like a data set stays a folder.
    assert read_source(resolved("./cifar10", Path())) == Source("folder", Path.cwd() / "cifar10")
    assert read_source(resolved("./fixture", Path())).kind == "folder"


MISTAKES = [
    ("cifar100", "There are no images at cifar100: it is neither a folder nor the name of a data "
     "set (fixture, cifar10, cifar10:ROOT, imagenet:ROOT). Did you mean cifar10"),
    ("imagenet", "need the folder that they are in, like imagenet:/data/imagenet"),
    ("imagenet:", "need the folder that they are in"),
    ("cifar10:", "like cifar10:/data/cifar10"),
    ("imagnet:here", "Did you mean imagenet:ROOT"),
    ("imagenet:nowhere", "The folder nowhere of imagenet:nowhere does not exist. Expected there"),
    ("imagenet:empty", "there is neither meta.bin nor ILSVRC2012_devkit_t12.tar.gz"),
    ("imagenet:half", "there is neither val nor ILSVRC2012_img_val.tar"),
    ("cifar10:nowhere", "does not exist. Expected there: the folder cifar-10-batches-py with"),
    ("cifar10:empty", "empty/cifar-10-batches-py/data_batch_1 is missing. Expected there"),
    ("cifar10:x/cifar-10-batches-py", "Name the folder above it, x."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MISTAKES)
@pytest.mark.parametrize("command", ["run resnet18", "gate", "predict"])
def test_mistakes_are_said_before_anything_is_measured(
    text: str,
    message: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "half", "x/cifar-10-batches-py"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "half" / "meta.bin").write_bytes(b"")
    paint(tmp_path / "photo.png", 0)
    torch.jit.save(torch.jit.script(torch.nn.Identity()), tmp_path / "int8.pt")
    more = {
        "run resnet18": [],
        "gate": ["--model", "resnet18", "--artifact", "int8.pt"],
        "predict": ["photo.png", "--model", "resnet18"],
    }[command]
    assert main([*command.split(), *more, "--data", text]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_a_settings_file_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, message in (
        ("imagenet", "Wrong value for 'data' in ptqbench.toml: expected `fixture`"),
        ("imagenet:sets", f"The folder {tmp_path}/sets of imagenet:"),
        ("cifar100", "(ptqbench.toml): it is neither a folder nor the name of a data set"),
    ):
        (tmp_path / "ptqbench.toml").write_text(f'data = "{text}"\n')
        assert main(["run", "resnet18"]) == 2
        assert message in capsys.readouterr().err


def test_what_is_there_is_not_refused(cifar: Cifar, small_imagenet: Path) -> None:
    for text in ("fixture", "cifar10", f"cifar10:{cifar.root}", f"imagenet:{small_imagenet}"):
        check_source(text)
    check_source(str(small_imagenet))
