"""lab/data.py: MNIST, images of a user's, what is said of a faulty file, and the device."""

import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from lab import ROOT, data

RANDOM = np.random.default_rng(0)
IMAGES = {
    "x_train": RANDOM.integers(0, 256, (9, 4, 3), dtype=np.uint8),
    "y_train": np.arange(9, dtype=np.uint8),
    "x_test": RANDOM.integers(0, 256, (5, 4, 3), dtype=np.uint8),
    "y_test": np.arange(5, dtype=np.int32),
}


def test_mnist_is_whole():
    found = data.load_images()
    shapes = [(60_000, 784), (60_000,), (10_000, 784), (10_000,)]
    for values, shape, name in zip(found, shapes, data.ARRAYS):
        assert tuple(values.shape) == shape
        assert values.dtype == (torch.float32 if name.startswith("x") else torch.int64)
    for x, y in (found[:2], found[2:]):
        assert x.min() == 0 and x.max() == 1 and (y.unique() == torch.arange(10)).all()
    assert found[0].mean().item() == pytest.approx(0.1307, abs=1e-4)  # as is well known


def test_images_of_a_user_are_pixels_in_the_unit_interval_and_labels(tmp_path, monkeypatch):
    """A path is seen from the repository."""
    monkeypatch.setattr(data, "ROOT", tmp_path)
    np.savez_compressed(tmp_path / "mine.npz", **IMAGES)
    found = data.load_images("mine.npz")
    for values, (name, array) in zip(found, IMAGES.items()):
        pixels = array.reshape(len(array), -1).astype(np.float32) / 255
        assert_array_equal(values, array if name.startswith("y") else pixels)


WRONG = {
    "bytes": {"x_test": IMAGES["x_test"] / 255},
    "too few axes": {"x_train": IMAGES["x_train"][:, 0, 0]},
    "as many labels": {"y_train": np.arange(8)},
    "one label each": {"y_test": np.eye(5, dtype=np.uint8)},
    "one size of images": {"x_test": IMAGES["x_test"][:, :3]},
    "labels that count": {"y_test": np.array(list("abcde"))},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_arrays_of_another_kind_are_refused(wrong, tmp_path):
    np.savez(tmp_path / "mine.npz", **IMAGES | WRONG[wrong])
    with pytest.raises(ValueError, match="^DATA: ."):
        data.load_images(tmp_path / "mine.npz")


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "mine.npz", x_train=IMAGES["x_train"], y_test=IMAGES["y_test"])
    with pytest.raises(ValueError, match=r"DATA: .*lacks the arrays \['y_train', 'x_test'\]"):
        data.load_images(tmp_path / "mine.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="DATA: there is no file .*mine.npz"):
        data.load_images(tmp_path / "mine.npz")


@pytest.mark.parametrize("content", ["text", "nothing", "half", "pickle", "npy", "folder"])
def test_what_is_no_npz_is_refused(content, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **IMAGES)
    whole = path.read_bytes()
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content == "npy":
        np.save(path.open("wb"), IMAGES["x_train"])
    elif content == "pickle":
        np.savez(path, **IMAGES | {"y_test": np.array([None] * 5)})
    else:
        path.write_bytes(
            {"text": b"0, 1", "nothing": b"", "half": whole[: len(whole) // 2]}[content]
        )
    with pytest.raises(ValueError, match="DATA: .*mine.npz is no .npz of arrays"):
        data.load_images(path)


@pytest.mark.parametrize("name", data.FILES)
def test_a_file_that_is_missing_or_damaged_is_not_read(name, tmp_path, monkeypatch):
    file = data.FILES[name][0]
    assert data.verified(name) == ROOT / "data" / file
    monkeypatch.setattr(data, "ROOT", tmp_path)
    (tmp_path / "data").mkdir()
    said = f"{name} is missing or damaged: `git checkout -- data/{file}`"
    load = data.load_images if name == "MNIST" else data.load_documents
    with pytest.raises(ValueError, match=said):
        load()
    shutil.copy(ROOT / "data" / file, tmp_path / "data" / file)
    with (tmp_path / "data" / file).open("r+b") as damaged:
        damaged.seek(10_000)
        damaged.write(b"?!")
    with pytest.raises(ValueError, match=said):
        load()


def test_documents_are_those_of_the_readme():
    documents = data.load_documents()
    assert len(documents) == 95 and all(documents)
    assert documents[0] == documents[0].strip() and "<|endoftext|>" not in "".join(documents)


@pytest.mark.parametrize("gpu", [True, False])
def test_the_device_is_the_gpu_if_there_is_one(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert data.pick_device().type == ("cuda" if gpu else "cpu")
    assert data.pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "gpu", ""])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f'DEVICE = "{name}": .*"auto" or "cpu"'):
        data.pick_device(name)
