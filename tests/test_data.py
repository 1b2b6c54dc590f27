"""lab/data.py: MNIST, images of a user's, and what is said of a faulty file."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from lab import ROOT, data

RANDOM = np.random.default_rng(0)
IMAGES = {
    "x_train": RANDOM.integers(0, 256, (9, 4, 4), dtype=np.uint8),
    "y_train": np.arange(9, dtype=np.uint8),
    "x_test": RANDOM.integers(0, 256, (5, 4, 4), dtype=np.uint8),
    "y_test": np.arange(5, dtype=np.int32),
}


def test_mnist_and_the_corpus_are_whole():
    x, y, x_test, y_test = data.load_images()
    assert x.shape == (60_000, 784) and x_test.shape == (10_000, 784)
    assert y[:5].tolist() == [5, 0, 4, 1, 9] and len(y_test) == 10_000  # in its own order
    assert x.mean().item() == pytest.approx(0.1307, abs=1e-4)  # as is well known
    documents = data.load_documents()
    assert len(documents) == 95 and documents[0] == documents[0].strip() != ""


def test_images_of_a_user_are_pixels_in_the_unit_interval_and_labels(tmp_path, monkeypatch):
    """A path is seen from the repository. Training rows, sorted by label here, are mixed."""
    monkeypatch.setattr(data, "ROOT", tmp_path)
    np.savez_compressed(tmp_path / "mine.npz", **IMAGES)
    found = data.load_images("mine.npz")
    assert [values.dtype for values in found] == 2 * [torch.float32, torch.int64]
    order = found[1].numpy()  # a label is the row's number in the file
    assert sorted(order) == [*range(9)] != [*order]
    for values, (name, array) in zip(found, IMAGES.items()):
        array = array[order] if name.endswith("train") else array
        pixels = array.reshape(len(array), -1) / np.float32(255)
        assert_array_equal(values, array if name.startswith("y") else pixels)


def test_a_faulty_file_of_a_user_is_refused_with_what_is_wrong(tmp_path):
    path = tmp_path / "mine.npz"

    def said():
        with pytest.raises(ValueError, match="^DATA: ") as error:
            data.load_images(path)
        return str(error.value)

    assert f"there is no file {path}" in said()
    np.savez(path, x_train=IMAGES["x_train"], y_test=IMAGES["y_test"])
    assert "lacks the arrays ['y_train', 'x_test']" in said()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is no .npz of arrays" in said()
    for wrong in (
        {"x_test": IMAGES["x_test"] / 255},  # no bytes
        {"x_test": IMAGES["x_test"][:, :3, :3]},  # another size than those of x_train
        {name: IMAGES[name][:, :3] for name in ("x_train", "x_test")},  # not square
        {name: IMAGES[name][..., None] for name in ("x_train", "x_test")},  # with a colour
        {"y_train": np.arange(8)},  # of nine images
        {"y_test": np.array(list("abcde"))},
    ):
        np.savez(path, **IMAGES | wrong)
        assert "all of one size" in said()


@pytest.mark.parametrize("name", data.FILES)
def test_a_file_that_is_missing_or_damaged_is_not_read(name, tmp_path, monkeypatch):
    file, load = data.FILES[name][0], {"MNIST": data.load_images}.get(name, data.load_documents)
    said = f"{name} is missing or damaged: `git checkout -- data/{file}`"
    monkeypatch.setattr(data, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=said):
        load()
    (tmp_path / "data").mkdir()
    content = (ROOT / "data" / file).read_bytes()
    (tmp_path / "data" / file).write_bytes(content[:10_000] + b"?!" + content[10_002:])
    with pytest.raises(ValueError, match=said):
        load()
