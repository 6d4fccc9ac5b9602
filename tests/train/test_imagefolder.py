from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ticketsweep.errors import DataError, TrialFailure
from ticketsweep.train.augment import Augmentation
from ticketsweep.train.data import Dataset, load_dataset
from ticketsweep.train.imagefolder import ImageFiles
from ticketsweep.train.images import (
    SAMPLED,
    BatchOrder,
    Images,
    channel_statistics,
    evaluation_batches,
    open_images,
    training_batches,
)
from ticketsweep.train.streaming import CHUNK

CPU = torch.device("cpu")
CLASSES = {"ant": 9, "bee": 7, "cat": 8}


def picture(seed: int) -> Image.Image:
    """A smooth picture of some size, in some mode."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    width, height = generator.integers(12, 40, size=2).tolist()
    image = Image.fromarray(pixels).resize((width, height))
    return image.convert(["RGB", "L", "RGBA", "P", "CMYK"][seed % 5])


def write(folder: Path) -> Path:
    for split, extra in (("train", 0), ("val", 100)):
        for number, (name, n) in enumerate(CLASSES.items()):
            for at in range(n):
                seed = 10 * number + at + extra
                image = picture(seed)
                suffix = {"RGBA": "png", "P": "PNG", "CMYK": "tiff"}.get(image.mode, "JPEG")
                path = folder / split / name / ("deep" if at == 3 else "") / f"{at}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A folder of the test's own, to spoil."""
    return Path(shutil.copytree(written, tmp_path / "pictures"))


@pytest.fixture(scope="module", autouse=True)
def _two_workers() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def load(folder: Path, size: int | None = 16) -> Dataset:
    return load_dataset(f"imagefolder:{folder}", data_root=None, image_size=size)


@pytest.fixture(scope="module")
def streamed(written: Path) -> tuple[Images, Images]:
    dataset = load(written)
    return open_images(dataset, np.arange(len(dataset.train_labels)), CPU)


def reference(folder: Path, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by torchvision: images uint8 (N, 3, size, size) and labels (N,)."""
    fit = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    images, labels = zip(*ImageFolder(str(folder), fit), strict=True)
    return torch.stack(images), torch.tensor(labels)


def paths(files: ImageFiles) -> list[str]:
    return [str(files.path(row)) for row in range(len(files.ends))]


def test_a_folder_is_read_as_torchvision_reads_it(
    written: Path, streamed: tuple[Images, Images]
) -> None:
    dataset = load(written)
    for split, images, files in zip(
        ("train", "val"), streamed, (dataset.train_images, dataset.test_images), strict=True
    ):
        wanted, labels = reference(written / split)
        order = [path for path, _ in ImageFolder(str(written / split)).samples]
        at = torch.tensor([paths(files).index(path) for path in order])
        (pixels,) = images.gather([at])
        assert torch.equal(images.labels[at], labels)
        assert torch.equal(pixels, wanted)
    assert dataset.classes == 3
    assert dataset.input_shape == (3, 16, 16)


@pytest.mark.parametrize("size", [None, 5, 33])
def test_images_are_brought_to_the_size_that_is_asked_for(written: Path, size: int | None) -> None:
    dataset = load(written, size)
    side = size or 224
    assert dataset.train_images.shape == (24, 3, side, side)
    images, _ = open_images(dataset, np.arange(2), CPU)
    (pixels,) = images.gather([torch.tensor([[0, 1], [23, 0]])])
    assert pixels.shape == (2, 2, 3, side, side)
    assert torch.equal(pixels[0, 0], pixels[1, 1])


def test_streamed_training_equals_training_on_images_in_memory(
    streamed: tuple[Images, Images],
) -> None:
    images = streamed[0]
    (pixels,) = images.gather([torch.arange(24)])
    resident = Images(pixels, images.labels, images.mean, images.std)

    def batches(of: Images, first: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        orders = [BatchOrder(torch.arange(24), batch_size=7, seed=seed) for seed in (1, 2, 1)]
        for order in orders:
            order.skip(first)
        augmentation = Augmentation("crop_flip", [4, 5, 6])
        return list(training_batches(of, orders, first=first, steps=9, augmentation=augmentation))

    for first in (0, 4):
        for (seen, labels), (wanted, wanted_labels) in zip(
            batches(images, first), batches(resident, first), strict=True
        ):
            assert torch.equal(seen, wanted)
            assert torch.equal(labels, wanted_labels)


def test_a_batch_of_many_chunks_keeps_its_order(streamed: tuple[Images, Images]) -> None:
    images = streamed[0]
    files = images.pixels.files  # type: ignore[union-attr]
    many = ImageFiles(files.folder, np.tile(files.names, 9), _tiled(files.ends, 9), files.size)
    longer = Images(
        type(images.pixels)(many, CPU), images.labels.repeat(9), images.mean, images.std
    )
    rows = torch.randperm(24 * 9, generator=torch.Generator().manual_seed(0))[: 3 * CHUNK]
    (pixels,) = images.gather([torch.arange(24)])
    got = torch.cat([seen for seen, _ in evaluation_batches(longer, rows, 2 * CHUNK + 5)])
    assert torch.equal(got, images.standardised(pixels)[rows % 24])


def _tiled(ends: np.ndarray, times: int) -> np.ndarray:
    return np.concatenate([ends + at * ends[-1] for at in range(times)])


def test_streamed_images_are_standardised_by_the_rows_that_are_trained_on(written: Path) -> None:
    dataset = load(written)
    rows = np.arange(1, 24, 2)
    images, test = open_images(dataset, rows, CPU)
    (pixels,) = images.gather([torch.from_numpy(rows)])
    chosen = pixels.numpy().astype(np.float64)
    np.testing.assert_allclose(images.mean.ravel(), chosen.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(test.std.ravel(), chosen.std(axis=(0, 2, 3)), rtol=1e-6)


def test_a_large_folder_is_standardised_by_a_fixed_sample(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SAMPLED == 2000
    monkeypatch.setattr("ticketsweep.train.images.SAMPLED", 5)
    dataset = load(written)
    sample = channel_statistics(dataset.train_images, np.arange(24))
    same = channel_statistics(dataset.train_images, np.array([0, 5, 11, 17, 23]))
    assert np.array_equal(sample, same)


def test_a_data_set_of_files_crosses_process_boundaries(written: Path) -> None:
    dataset = load(written)
    copy = pickle.loads(pickle.dumps(dataset))
    assert paths(copy.train_images) == paths(dataset.train_images)
    assert dataset.train_images.nbytes < 1000


def test_the_digest_is_of_content_and_size_and_not_of_the_place(
    written: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load(written).digest
    assert load(folder).digest == digest
    assert load(folder, 17).digest != digest
    monkeypatch.chdir(folder.parent)
    assert load(Path("pictures")).digest == digest
    assert Path(load(Path("pictures")).train_images.folder).is_absolute()  # type: ignore[union-attr]
    (folder / "val").rename(folder / "test")
    (folder / "val").mkdir()
    (folder / "train" / "bee" / ".DS_Store").touch()
    assert load(folder).digest == digest
    changed = folder / "train" / "bee" / "0.JPEG"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    assert load(folder).digest != digest
    changed.rename(folder / "train" / "cat" / "9.JPEG")
    assert load(folder).digest not in {digest, load(written).digest}


def no_workers() -> bool:
    for _ in range(50):
        if not workers():
            return True
        time.sleep(0.1)
    return False


def workers() -> set[int]:
    """Processes that this one's fork server has started."""
    server = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    tasks = Path(f"/proc/{server}/task/{server}/children")
    return set(map(int, tasks.read_text().split())) if tasks.exists() else set()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
def test_training_that_is_stopped_leaves_no_process(streamed: tuple[Images, Images]) -> None:
    images = streamed[0]
    orders = [BatchOrder(torch.arange(24), batch_size=4, seed=0)]
    batches = training_batches(images, orders, first=0, steps=10**6, augmentation=None)
    next(batches)
    assert len(workers()) >= 2
    batches.close()
    assert no_workers()
    evaluation = evaluation_batches(images, torch.arange(24), 3)
    next(evaluation)
    del evaluation
    assert no_workers()


def test_streaming_leaves_the_global_generator_alone(streamed: tuple[Images, Images]) -> None:
    before = torch.get_rng_state()
    streamed[0].take(torch.arange(3))
    assert torch.equal(torch.get_rng_state(), before)


# --- What is refused ----------------------------------------------------------------------------


def spoil_a_class_of_one_split(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "bee")


def spoil_a_class_of_the_other_split(folder: Path) -> None:
    shutil.rmtree(folder / "train" / "bee")


def spoil_by_a_text(folder: Path) -> None:
    (folder / "train" / "bee" / "notes.txt").write_text("not an image")


def spoil_by_a_loose_image(folder: Path) -> None:
    (folder / "train" / "bee" / "0.JPEG").rename(folder / "train" / "0.JPEG")


def spoil_by_an_empty_file(folder: Path) -> None:
    (folder / "val" / "cat" / "2.PNG").write_bytes(b"")


def spoil_by_an_empty_class(folder: Path) -> None:
    shutil.rmtree(folder / "train" / "ant")
    (folder / "train" / "ant").mkdir()


def spoil_the_training_split(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def spoil_the_test_split(folder: Path) -> None:
    shutil.rmtree(folder / "val")


def spoil_by_a_broken_link(folder: Path) -> None:
    (folder / "train" / "bee" / "lost.png").symlink_to(folder / "nowhere.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_a_class_of_one_split, r"/train/bee is a class that /.*/val must have too \(add its"),
        (spoil_a_class_of_the_other_split, r"/val/bee is a class that /.*/train must have too"),
        (spoil_by_a_text, r"/bee/notes\.txt must be an image \(\.bmp, .*\), got '\.txt' \(move it"),
        (spoil_by_a_loose_image, r"/train/0\.JPEG must lie in the folder of its class"),
        (spoil_by_an_empty_file, r"/val/cat/2\.PNG must be an image, got an empty file"),
        (spoil_by_an_empty_class, r"/train/ant must hold images .*, got none \(add some, or"),
        (spoil_the_training_split, r"/train must be a folder of classes, but it does not exist"),
        (spoil_the_test_split, r"must hold train/CLASS/ and val/CLASS/ or .*, got train$"),
        (spoil_by_a_broken_link, r"/bee/lost\.png cannot be read: No such file or directory$"),
        (shutil.rmtree, r"DIR must name a folder that exists, got '/.*'$"),
    ],
)
def test_a_folder_in_another_layout_is_refused_with_the_place(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        load(folder)
    assert str(caught.value).startswith(f"dataset imagefolder:{folder}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing that Pillow knows", "it is in no format that Pillow knows$"),
        (None, "image file is truncated"),
    ],
)
def test_a_corrupt_image_is_named_when_it_is_used(
    folder: Path, content: bytes | None, message: str
) -> None:
    broken = folder / "train" / "cat" / "0.JPEG"
    Image.effect_noise((64, 64), 90).convert("RGB").save(broken)
    broken.write_bytes(content or broken.read_bytes()[:900])
    dataset = load(folder)
    images, _ = open_images(dataset, np.arange(4), CPU)
    at = paths(dataset.train_images).index(str(broken))
    with pytest.raises(DataError, match=f"^{broken}: the image cannot be decoded: .*{message}"):
        images.take(torch.arange(at + 1))


def test_a_worker_that_was_killed_fails_the_trial(
    streamed: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [BatchOrder(torch.arange(24), batch_size=4, seed=0)]
    batches = training_batches(streamed[0], orders, first=0, steps=10**6, augmentation=None)
    next(batches)
    for pid in workers():
        os.kill(pid, 9)
    with pytest.raises(TrialFailure, match="a process that decodes images was killed"):
        list(batches)
