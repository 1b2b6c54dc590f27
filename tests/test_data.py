"""lab/data.py: the images and texts that are there, and a user's images."""

import numpy as np
import pytest
import torch

from lab import data


@pytest.fixture
def images():
    """Of 4 x 4 pixels, nine for training and six for the test, of three classes."""
    X = np.random.default_rng(0).integers(0, 256, (9, 4, 4), dtype=np.uint8)
    return {
        "x_train": X,
        "y_train": np.arange(9),
        "x_test": X[:6],
        "y_test": np.array([0, 1, 2] * 2),
    }


def test_images_of_a_user_are_pixels_and_labels(images, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **images)
    x, y, x_test, y_test = data.load_images(path)
    assert sorted(y) == [*range(9)] != y.tolist() and y_test.tolist() == [0, 1, 2] * 2  # y is mixed
    X = images["x_train"]
    pixels = torch.from_numpy(np.concatenate([X[y], X[:6]])).flatten(1).float()
    torch.testing.assert_close(torch.cat([x, x_test]) * 255, pixels)
    for n_train in (9, 600):
        with pytest.raises(ValueError, match="too few"):
            data.load_images(path, n_train)
    with pytest.raises(ValueError, match="too few"):
        data.load_images("", -1)
    x, y, *_ = data.load_images("", 600)  # MNIST in its order
    assert len(x) == len(y) == 600 and y[:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize(
    "reason, change",
    [
        ("bytes", lambda X: {"x_test": X[:6] / 255}),
        ("bytes", lambda X: {"x_test": X[:6, :3, :3]}),
        ("bytes", lambda X: {"x_train": X[:, :3], "x_test": X[:6, :3]}),
        ("whole numbers", lambda X: {"y_train": np.arange(8)}),
        ("whole numbers", lambda X: {"y_test": np.zeros((6, 2), int)}),
        ("hardly differ", lambda X: {"x_train": 0 * X + 200}),
        ("hardly differ", lambda X: {"x_train": X // 255}),
        ("hardly differ", lambda X: {"x_train": X // 16}),
        ("two classes", lambda X: {"y_train": np.zeros(9, int)}),
        ("two images", lambda X: {"y_test": np.array([0, 0, 1, 1, 1, 2])}),
    ],
)
def test_images_that_cannot_be_learned_from_are_refused(images, tmp_path, reason, change):
    np.savez(tmp_path / "mine.npz", **images | change(images["x_train"]))
    with pytest.raises(ValueError, match=f"DATA: .*{reason}"):
        data.load_images(tmp_path / "mine.npz")


def test_a_thousand_clothes_and_the_corpus_are_there():
    clothes = data.load_clothes()
    assert clothes.shape == (1000, 784) and 0.2 < float(clothes.mean()) < 0.4
    assert len(data.load_documents()) == 95
