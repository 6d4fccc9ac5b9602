from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100

from ticketsweep.errors import DataError
from ticketsweep.train import data
from ticketsweep.train.data import Dataset, check_sizes, load_dataset, split_validation
from ticketsweep.train.torchvision_data import read_idx

NOWHERE = Path("/nonexistent")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", data_root=NOWHERE)


def test_digits_are_split_by_class_and_scaled_to_bytes(digits: Dataset) -> None:
    assert digits.input_shape == (1, 8, 8)
    assert digits.classes == 10
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert digits.train_images.dtype == np.uint8
    assert digits.train_images.max() == 255
    shares = np.bincount(digits.test_labels) / (
        np.bincount(digits.test_labels) + np.bincount(digits.train_labels)
    )
    assert np.abs(shares - 0.2).max() < 0.005


def test_digits_never_change(digits: Dataset) -> None:
    """The digest is part of what a trial means: another split would need another name."""
    assert digits.digest == "6ff67adbe0dba6de1116278a709acadd"


def test_an_unknown_data_set_is_refused_with_a_hint() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load_dataset("digit", data_root=NOWHERE)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60).filter(
        lambda labels: len(labels) > len(set(labels))
    ),
    share=st.floats(0.01, 0.99),
)
def test_a_validation_split_is_a_stratified_partition(labels: list[int], share: float) -> None:
    array = np.array(labels, dtype=np.int64)
    train, held = split_validation(array, share=share)
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert len(held) > 0
    assert set(array[train]) == set(labels)
    for label in set(labels):
        wanted = share * np.sum(array == label)
        assert abs(np.sum(array[held] == label) - wanted) <= 1
    again = split_validation(array, share=share)
    assert np.array_equal(train, again[0])
    assert np.array_equal(held, again[1])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(share: float) -> None:
    with pytest.raises(DataError, match=r"validation must lie in \(0, 1\)"):
        split_validation(np.zeros(9, dtype=np.int64), share=share)


def test_one_image_a_class_leaves_nothing_to_hold_out() -> None:
    with pytest.raises(DataError, match="two images"):
        split_validation(np.arange(5), share=0.5)


def test_a_batch_is_at_most_what_is_trained_on() -> None:
    sizes: dict[str, Any] = {"classes": 10, "key": "train.batch_size"}
    check_sizes(trained_on=90, held_out=10, batch_size=90, **sizes)
    with pytest.raises(DataError) as caught:
        check_sizes(trained_on=90, held_out=10, batch_size=91, **sizes)
    assert str(caught.value) == (
        "train.batch_size must be <= 90, which is what validation leaves of 100 training images, "
        "got 91 (lower train.batch_size)"
    )
    with pytest.raises(DataError, match=r"got 64 \(lower train.batch_size, or validation\)"):
        check_sizes(trained_on=20, held_out=80, batch_size=64, **sizes)


def test_a_validation_split_has_an_image_a_class_or_more() -> None:
    with pytest.raises(DataError, match=r"got 9 of 99 training images for 10 classes \(raise val"):
        check_sizes(trained_on=90, held_out=9, classes=10, batch_size=9, key="train.batch_size")


# --- MNIST's own format -------------------------------------------------------------------------


def write_idx(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
        (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix, n in (("train", 20), ("t10k", 10)):
        images = generator.integers(0, 256, size=(n, 28, 28), dtype=np.uint8)
        write_idx(folder, prefix, images, np.arange(n, dtype=np.uint8) % 10)
    return folder


def pack(folder: Path) -> None:
    for path in list(folder.iterdir()):
        with gzip.open(f"{path}.gz", "wb") as packed:
            packed.write(path.read_bytes())
        path.unlink()


def test_packed_and_unpacked_mnist_are_the_same_data(idx_folder: Path, tmp_path: Path) -> None:
    plain = load_dataset("mnist", data_root=tmp_path)
    pack(idx_folder)
    before = sorted(idx_folder.iterdir())
    packed = load_dataset("mnist", data_root=tmp_path)
    assert plain.digest == packed.digest
    assert plain.train_images.shape == (20, 1, 28, 28)
    assert sorted(idx_folder.iterdir()) == before  # the folder may be read-only


def test_mnist_and_digits_are_what_torchvision_and_scikit_learn_read_and_import_neither(
    idx_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from ticketsweep.train.data import load_dataset\n"
        f"print(load_dataset('mnist', data_root=Path({str(tmp_path)!r})).digest)\n"
        "print(load_dataset('digits', data_root=None).digest)\n"
        "print({'torch', 'torchvision', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mnist, digits, imported = done.stdout.splitlines()
    assert imported == "set()"
    assert mnist == load_dataset("mnist", data_root=tmp_path).digest
    own = load_dataset("mnist", data_root=tmp_path)
    train, test = read_idx("MNIST", tmp_path)
    for split, images, labels in (
        (train, own.train_images, own.train_labels),
        (test, own.test_images, own.test_labels),
    ):
        assert np.array_equal(split.images, images)
        assert np.array_equal(split.labels, labels)
    assert digits == load_dataset("digits", data_root=None).digest
    bunch = load_digits()
    pixels, targets = data._scikit_learns_digits()
    assert np.array_equal(pixels, bunch.images)
    assert np.array_equal(targets, bunch.target)


def test_a_damaged_archive_is_named(idx_folder: Path, tmp_path: Path) -> None:
    pack(idx_folder)
    broken = idx_folder / "t10k-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz must be a gzip file"):
        load_dataset("mnist", data_root=tmp_path)


def test_a_cut_off_file_is_refused(idx_folder: Path, tmp_path: Path) -> None:
    broken = idx_folder / "train-images-idx3-ubyte"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"MNIST's 4 files, but they cannot be read"):
        load_dataset("mnist", data_root=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_missing_files_without_a_network_end_in_one_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_args: object, **_options: object) -> None:
        raise socket.gaierror("Temporary failure in name resolution")

    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(DataError, match=r"data_root must hold .* the download failed") as caught:
        load_dataset(name, data_root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert socket.getdefaulttimeout() is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_refused_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "mistyped"
    with pytest.raises(DataError, match=r"data_root .* must name a folder that exists, got '/.*'"):
        load_dataset("mnist", data_root=folder)
    assert not folder.exists()
    with pytest.raises(DataError, match="got '~nobody-of-that-name/x'"):
        load_dataset("mnist", data_root=Path("~nobody-of-that-name/x"))


def test_the_users_cache_is_made_for_a_download_and_not_left_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_kind: object, root: Path, **_options: object) -> None:
        seen.append((root, (root / "MNIST" / "raw").is_dir()))
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    seen: list[tuple[Path, bool]] = []
    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", fail)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="the download failed: Error downloading"):
        load_dataset("mnist", data_root=None)
    assert seen == [(tmp_path / ".cache" / "ticketsweep", True)]
    assert list(tmp_path.iterdir()) == []


def test_real_mnist_is_read_from_its_archives(real_data: Path) -> None:
    mnist = load_dataset("mnist", data_root=real_data)
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    assert np.bincount(mnist.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


# --- CIFAR's own format -------------------------------------------------------------------------


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path, np.ndarray]:
    """A small data set in torchvision's format, whose checksums torchvision is told.

    Its name, its folder, and the training images.
    """
    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[request.param]
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    generator = np.random.default_rng(0)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    drawn = []
    for key in ("train_list", "test_list"):
        checksums = []
        for name, _ in getattr(kind, key):
            pixels = generator.integers(0, 256, size=(20, 3072), dtype=np.uint8)
            labels = {"labels" if request.param == "cifar10" else "fine_labels": [*range(10)] * 2}
            checksums.append([name, write(name, {"data": pixels, **labels})])
            drawn.append(pixels)
        monkeypatch.setattr(kind, key, checksums)
    names = {kind.meta["key"]: [str(n) for n in range(10)]}
    checksum = write(kind.meta["filename"], names)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": checksum})
    return request.param, folder, np.concatenate(drawn[:-1]).reshape(-1, 3, 32, 32)


def test_packed_and_unpacked_cifar_are_the_same_data(cifar: tuple[str, Path, np.ndarray]) -> None:
    name, folder, images = cifar
    plain = load_dataset(name, data_root=folder.parent)
    assert np.array_equal(plain.train_images, images)
    assert plain.train_labels[:12].tolist() == [*range(10), 0, 1]
    assert plain.train_labels.dtype == np.int64
    assert (len(plain.test_labels), plain.classes) == (20, 10)
    archive = folder.parent / {"cifar10": CIFAR10, "cifar100": CIFAR100}[name].filename
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, arcname=folder.name)
    shutil.rmtree(folder)
    assert load_dataset(name, data_root=folder.parent).digest == plain.digest
    assert list(folder.parent.iterdir()) == [archive]  # the folder may be read-only
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match=f"{archive.name} must be a gzip file"):
        load_dataset(name, data_root=folder.parent)


def test_a_file_with_another_checksum_is_refused(cifar: tuple[str, Path, np.ndarray]) -> None:
    name, folder, _ = cifar
    (folder / "meta").write_bytes(b"other")
    (folder / "batches.meta").write_bytes(b"other")
    with pytest.raises(DataError, match=r"files, but they cannot be read: Dataset .*\. \(delete"):
        load_dataset(name, data_root=folder.parent)


# --- Functions of the user's --------------------------------------------------------------------

SMALL = """
    import numpy as np
    def arrays(labels=np.int64):
        images = np.arange(6 * 2 * 3 * 3).reshape(6, 2, 3, 3).astype(np.uint8)
        return images, np.arange(6).astype(labels) % 2, images[:2], np.arange(2)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module of the user's into the working folder, and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    written: list[str] = []

    def write(text: str) -> str:
        written.append(f"data_of_a_user_{len(written)}")
        Path(f"{written[-1]}.py").write_text(textwrap.dedent(SMALL) + textwrap.dedent(text))
        return written[-1]

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_a_factorys_arrays_are_the_data_set(module: Callable[[str], str]) -> None:
    loaded = load_dataset(f"{module('')}:arrays", data_root=NOWHERE)
    assert loaded.input_shape == (2, 3, 3)
    assert loaded.train_labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert loaded.classes == 2
    same = load_dataset(f"{module('def same(): return list(arrays())')}:same", data_root=NOWHERE)
    assert same.digest == loaded.digest
    other = module("def other(): return (255 - arrays()[0], *arrays()[1:])")
    assert load_dataset(f"{other}:other", data_root=NOWHERE).digest != loaded.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"data_of_a_user_0 must have a function f without arguments, got none$"),
        ("f = 3", r"have a function f without arguments, got a value of type int$"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(it is looked for in"),
        ("raise SystemExit(3)", r"cannot be imported: SystemExit: 3 "),
        ("def f(:", r"cannot be imported: SyntaxError: "),
        ("def f(n): pass", r"f\(\) raised TypeError: f\(\) missing 1 required .* \(try it: python"),
        ("def f(): raise KeyError", r"f\(\) raised KeyError \(try it"),
        ("def f(): return 1", r"f\(\) must return train_images, .*, got a value of type int$"),
        ("def f(): return arrays()[:2]", r"test_labels, got 2 values$"),
        (
            "def f(): return arrays(np.int32)",
            r"train_labels must be a numpy array int64 \(N,\), got int32 \(6,\)$",
        ),
        (
            "def f(): return arrays()[0][:, 0], *arrays()[1:]",
            r"train_images must be a numpy array uint8 \(N, C, H, W\) .*, got uint8 \(6, 3, 3\)$",
        ),
        (
            "def f(): return *arrays()[:3], np.arange(3)",
            r"test_labels must have a label for each of 2 test_images, got 3$",
        ),
        ("def f(): return arrays()[0], arrays()[1] + 1, *arrays()[2:]", r"labels must be 0\.\.K-1"),
    ],
)
def test_a_factory_that_gives_no_data_set_is_refused_in_one_line(
    module: Callable[[str], str], text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(f"{module(text)}:f", data_root=NOWHERE)
    assert str(caught.value).startswith("dataset data_of_a_user_0:f: ")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_nowhere_is_refused_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be imported: ModuleNotFoundError: .* looked for"):
        load_dataset("no_such_module_of_a_user:f", data_root=NOWHERE)


@pytest.mark.parametrize("name", ["digits", "parquet:x", "some.module:f"])
def test_only_an_image_folder_takes_a_size(name: str) -> None:
    with pytest.raises(DataError, match=rf"image_size must be null where dataset is {name}, got 8"):
        load_dataset(name, data_root=NOWHERE, image_size=8)


# --- Parquet folders ----------------------------------------------------------------------------


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(n: int, shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return list(generator.integers(0, 256, size=(n, *shape), dtype=np.uint8))


def write(
    path: Path,
    images: list[bytes | None],
    labels: list[Any],
    *,
    image: str = "image",
    label: str = "label",
) -> None:
    cells = [None if cell is None else {"bytes": cell, "path": "x.png"} for cell in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({image: pa.array(cells, kind), label: labels}), path)


def write_splits(folder: Path, shape: tuple[int, ...] = (5, 4), **columns: str) -> None:
    for split, n in (("train", 6), ("test", 3)):
        images = [png(picture) for picture in pictures(n, shape, seed=n)]
        write(
            folder / f"{split}-00000-of-00001.parquet",
            images,
            [at % 3 for at in range(n)],
            **columns,
        )


def load(folder: Path) -> Dataset:
    return load_dataset(f"parquet:{folder}", data_root=NOWHERE)


@pytest.mark.parametrize("columns", [{}, {"image": "img", "label": "fine_label"}])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_a_parquet_folder_is_read_as_it_was_written(
    tmp_path: Path, shape: tuple[int, ...], columns: dict[str, str]
) -> None:
    write_splits(tmp_path, shape, **columns)
    loaded = load(tmp_path)
    for stored, wanted in zip(loaded.train_images, pictures(6, shape, seed=6), strict=True):
        assert np.array_equal(
            stored, wanted[None] if wanted.ndim == 2 else wanted.transpose(2, 0, 1)
        )
    assert loaded.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert loaded.classes == 3


def test_the_digest_follows_the_content_and_not_the_folder(tmp_path: Path) -> None:
    for name in ("a", "b/data"):
        (tmp_path / name).mkdir(parents=True)
        write_splits(tmp_path / name)
    here, there = load(tmp_path / "a"), load(tmp_path / "b")
    assert here.digest == there.digest
    write(tmp_path / "a" / "test.parquet", [png(pictures(1, (5, 4), seed=9)[0])], [1])
    assert load(tmp_path / "a").digest != here.digest


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("train-1", "got grey where {}/train-00000-of-00001.parquet, row 0 is in colour"),
        ("train-0", "train-00000-of-00001.parquet, row 0: .* got in colour where {}/train-0.parq"),
        ("test-1", "test-1.parquet, row 0: all images must be all grey or all in colour, got grey"),
    ],
)
def test_grey_and_colour_images_do_not_go_together(tmp_path: Path, file: str, message: str) -> None:
    write_splits(tmp_path, (5, 4, 3))
    write(tmp_path / f"{file}.parquet", [GOOD], [0])
    with pytest.raises(DataError, match=message.format(tmp_path)):
        load(tmp_path)


def test_validation_stands_in_for_a_missing_test_split(tmp_path: Path) -> None:
    write_splits(tmp_path)
    shutil.move(tmp_path / "test-00000-of-00001.parquet", tmp_path / "validation.parquet")
    assert len(load(tmp_path).test_labels) == 3


GOOD = png(np.zeros((5, 4), dtype=np.uint8))
NOISE = png(pictures(1, (40, 40), seed=0)[0])


@pytest.mark.parametrize(
    ("images", "labels", "columns", "message"),
    [
        (
            [GOOD, b"not an image"],
            [0, 1],
            {},
            r"^dataset parquet:/.*train\.parquet, row 1: the image cannot be decoded: it is in no "
            "format that Pillow knows$",
        ),
        ([GOOD, NOISE[:99]], [0, 1], {}, r"train\.parquet, row 1: the image cannot be decoded"),
        ([GOOD, None], [0, 1], {}, r"train\.parquet, row 1: the image must have bytes, got null"),
        (
            [GOOD, png(np.zeros((4, 5), np.uint8))],
            [0, 1],
            {},
            "row 1: all images must have one size",
        ),
        ([png(np.zeros((5, 4), np.uint16))], [0], {}, "row 0: images must have 8 bits a channel"),
        ([GOOD, GOOD], [0, None], {}, r"row 1: 'label' must be an integer, got null"),
        ([GOOD, GOOD], [0.0, 1.0], {}, "column 'label' must hold integers, got double"),
        ([GOOD, GOOD], [0, 2], {}, r"training labels must be 0\.\.K-1"),
        ([GOOD, GOOD], [-1, 0], {}, r"training labels must be 0\.\.K-1"),
        ([GOOD], [0], {"image": "picture"}, "column 'image' or 'img' .*, got picture, label"),
        ([GOOD], [0], {"label": "class"}, "column 'label' or 'fine_label' .*, got image, class"),
        ([], pa.array([], pa.int64()), {}, "must hold images"),
    ],
)
def test_a_bad_parquet_folder_is_refused_with_the_place(
    tmp_path: Path, images: list[Any], labels: Any, columns: dict[str, str], message: str
) -> None:
    write(tmp_path / "train.parquet", images, labels, **columns)
    write(tmp_path / "test.parquet", [GOOD], [0])
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_damaged_missing_or_empty_parquet_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must name a folder"):
        load(tmp_path / "absent")
    with pytest.raises(DataError, match=r"must hold train\*\.parquet, got an empty folder"):
        load(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"must hold test\*\.parquet or .*, got train\.parquet"):
        load(tmp_path)
    write(tmp_path / "test.parquet", [GOOD], [0])
    with pytest.raises(DataError, match=r"train\.parquet must be a Parquet file"):
        load(tmp_path)


def test_test_labels_outside_the_training_labels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [GOOD, GOOD], [0, 1])
    write(tmp_path / "test.parquet", [GOOD], [-1])
    with pytest.raises(DataError, match="test labels must be among the training labels"):
        load(tmp_path)


def test_splits_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [GOOD, GOOD], [0, 1])
    write(tmp_path / "test.parquet", [png(np.zeros((6, 6), np.uint8))], [0])
    with pytest.raises(DataError, match=r"test\.parquet, row 0: all images must have one size"):
        load(tmp_path)


@pytest.mark.slow
def test_real_cifar_10_is_read(real_data: Path) -> None:
    cifar = load(real_data / "cifar10-parquet")
    assert cifar.train_images.shape == (50_000, 3, 32, 32)
    assert np.bincount(cifar.test_labels).tolist() == [1000] * 10
