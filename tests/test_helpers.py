"""helpers.py against NumPy, SciPy, scikit-learn and plain loops."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import special, stats
from torch import nn

import helpers as h


def normal(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape)).float()


def close(actual, expected, rtol=1e-6, atol=1e-6):
    pair = (v.detach().double() if torch.is_tensor(v) else v for v in (actual, expected))
    np.testing.assert_allclose(*pair, rtol=rtol, atol=atol)


# --- The loss -------------------------------------------------------------------------------------


def correlation(e):
    """That of NumPy, and zeros for units that do not vary."""
    R, varies = np.zeros((e.shape[1], e.shape[1])), np.ptp(e, 0) > 0
    R[np.ix_(varies, varies)] = np.corrcoef(e[:, varies].T)
    return R


TERMS = {
    h.lse_loss: lambda e: -sum(special.logsumexp(-row) for row in e),
    h.responsibilities: lambda e: special.softmax(-e, axis=1),
    h.variance_loss: lambda e: -sum(math.log(np.var(unit, ddof=1) + 1e-6) for unit in e.T),
    h.correlation: correlation,
    h.decorrelation_loss: lambda e: (correlation(e) ** 2).sum() - np.trace(correlation(e)),
}
E = np.random.default_rng(0).normal(size=(40, 5))
DEAD, CONSTANT = E.copy(), E.copy()
DEAD[:, 2], CONSTANT[:, 2] = 0, 0.125
ENERGIES = {
    "usual": E,
    "large": 100 * E,
    "far from zero": E + 1e4,
    "dead unit": DEAD,
    "constant unit": CONSTANT,
    "constant unit far from zero": CONSTANT + 1e4,
    "only dead units": 0 * E,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("energies", ENERGIES)
def test_terms_equal_their_formulas_and_gradients_are_finite(energies, dtype):
    E = torch.tensor(ENERGIES[energies], dtype=dtype, requires_grad=True)
    tolerance = 1e-8 if dtype == torch.float64 else 3e-4
    for term, formula in TERMS.items():
        close(term(E), formula(E.detach().double().numpy()), tolerance, tolerance)
    h.loss(E).backward()
    assert E.grad.isfinite().all()


def test_gradients_are_those_of_other_functions():
    E = torch.tensor(ENERGIES["usual"], requires_grad=True)
    others = {
        h.variance_loss: -(torch.cov(E.T).diagonal() + 1e-6).log().sum(),
        h.decorrelation_loss: (torch.corrcoef(E.T) - torch.eye(5)).square().sum(),
    }
    for term, other in others.items():
        close(*(torch.autograd.grad(loss, E)[0] for loss in (term(E), other)))
    h.lse_loss(E).backward()
    close(E.grad, special.softmax(-ENERGIES["usual"], axis=1))


def test_the_loss_is_the_sum_of_its_weighted_terms():
    E = torch.tensor(ENERGIES["usual"])
    lse, variance, decorrelation = (
        float(TERMS[term](ENERGIES["usual"]))
        for term in (h.lse_loss, h.variance_loss, h.decorrelation_loss)
    )
    close(h.loss(E), lse + variance + decorrelation)
    close(h.loss(E, 2, 3, 5), 2 * lse + 3 * variance + 5 * decorrelation)


# --- Models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_starts_as_pytorchs_layers_and_is_decoded_by_its_formula(tied):
    layer, sae = h.Encoder(400, 64, seed=3), h.SparseAutoencoder(400, 64, seed=3, tied=tied)
    torch.manual_seed(3)
    theirs, V = nn.Linear(400, 64), nn.Linear(64, 400).weight.T
    for model in (layer, sae):
        assert torch.equal(model.weight, theirs.weight) and torch.equal(model.bias, theirs.bias)
    assert (sae.V is sae.weight) == tied and not sae.c.any()
    if not tied:
        assert stats.ks_2samp(sae.V.detach().flatten(), V.detach().flatten()).pvalue > 1e-4
    assert not torch.equal(h.Encoder(400, 64, seed=4).weight, layer.weight)
    x = normal(50, 400)
    sae.c.data = normal(400, seed=1)
    A = np.maximum(0, x.numpy() @ theirs.weight.detach().numpy().T + theirs.bias.detach().numpy())
    for model in (layer, sae):
        close(model(x), A, atol=1e-5)
    close(layer.decode(layer(x)), A @ theirs.weight.detach().numpy(), atol=1e-4)
    close(sae.decode(sae(x)), A @ sae.V.detach().numpy() + sae.c.numpy(force=True), atol=1e-4)


# --- Training -------------------------------------------------------------------------------------


def paper(model, x):
    return h.loss(model(x))


def squared_error(model, x, weight=0.1):
    A = model(x)
    return (model.decode(A) - x).square().sum() + weight * A.sum()


class Scaled(h.Encoder):
    """A layer with a buffer of its own."""

    def __init__(self, n_inputs, n_units, seed):
        super().__init__(n_inputs, n_units, seed)
        self.register_buffer("scale", torch.tensor(1.0 + seed))

    def forward(self, x):
        return self.scale * super().forward(x)


@pytest.mark.parametrize("optimizer", [None, partial(torch.optim.SGD, lr=0.01, momentum=0.5)])
def test_fit_is_a_plain_loop(optimizer):
    """Ten minibatches in each of three epochs, and 5 rows that make none."""
    x, model, twin = normal(165, 6), h.Encoder(6, 5, 7), h.Encoder(6, 5, 7)
    plain = (optimizer or partial(torch.optim.Adam, lr=0.001))(twin.parameters())
    halving = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    schedule, order = halving(plain), torch.Generator().manual_seed(3)
    found = h.fit([model], paper, x, 3, (), optimizer, halving, batch_size=16, seed=3)
    expected = []
    for _ in range(3):
        losses = []
        for rows in torch.randperm(165, generator=order)[:160].view(10, 16):
            losses.append(paper(twin, x[rows]))
            plain.zero_grad()
            losses[-1].backward()
            plain.step()
        schedule.step()
        expected.append(torch.stack(losses).mean())
    close(found[:, 0], torch.stack(expected), 1e-5)
    close(model.weight, twin.weight, 1e-5)
    assert found.shape == (3, 1) and not found.requires_grad
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "new, loss",
    [
        (h.Encoder, paper),
        (Scaled, paper),
        (h.SparseAutoencoder, squared_error),
        (partial(h.SparseAutoencoder, tied=True), squared_error),
    ],
    ids=["layer", "buffer", "SAE", "tied SAE"],
)
def test_a_list_of_models_trains_as_each_does_alone(new, loss):
    x, seeds = torch.rand(640, 784, generator=torch.Generator().manual_seed(0)), (3, 4, 5)
    side_by_side, alone = ([new(784, 64, seed=seed) for seed in seeds] for _ in range(2))
    losses = h.fit(side_by_side, loss, x, 3, batch_size=64)
    for i, model in enumerate(alone):
        close(h.fit([model], loss, x, 3, batch_size=64)[:, 0], losses[:, i])
        ours, theirs = side_by_side[i].state_dict(), model.state_dict()
        assert all(torch.allclose(ours[k], theirs[k], atol=1e-6) for k in theirs)
        if isinstance(model, h.SparseAutoencoder):
            assert (side_by_side[i].V is side_by_side[i].weight) == (model.V is model.weight)
        if isinstance(model, Scaled):
            assert side_by_side[i].scale == 1 + seeds[i]


def test_at_the_sizes_of_notebook_2_models_train_to_the_bit_as_alone():
    """With an option of its own for each; on one thread, which conftest.py sets."""
    x = torch.rand(640, 784, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1]] * 3)

    def loss(model, x, weights):
        return h.loss(model(x), *weights)

    many, alone = ([h.Encoder(784, 64, i // 5) for i in range(15)] for _ in range(2))
    h.fit(many, loss, x, 2, [weights])
    for i in (0, 2, 9, 13):
        h.fit([alone[i]], loss, x, 2, [weights[i : i + 1]])
        assert torch.equal(many[i].weight, alone[i].weight)


def test_what_is_not_trained_stays_as_it_was():
    model, other = h.Encoder(6, 5), h.Encoder(6, 5)
    model.bias.requires_grad_(False)
    h.fit([model], paper, normal(80, 6), 2, batch_size=40)
    assert torch.equal(model.bias, other.bias) and not torch.equal(model.weight, other.weight)


twice = h.Encoder(6, 5)
BAD = {
    "epochs is 0": {"epochs": 0},
    "batch_size is 1,": {"batch_size": 1},
    "batch_size is 41": {"batch_size": 41},
    "not finite": {"x": normal(40, 6).index_fill(0, torch.tensor([39]), math.inf)},
    "one model or more": {"models": []},
    "none of them twice": {"models": [twice, twice]},
    "2 kinds": {"models": [h.Encoder(6, 5), h.SparseAutoencoder(6, 5)]},
    "1 rows for 2 models": {"options": [torch.ones(1)]},
    "not iterable": {"models": h.Encoder(6, 5)},
    "must be Tensor": {"x": normal(40, 6).numpy()},
    "Expected size": {"x": normal(40, 7)},
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input_is_named_and_leaves_models_as_they_were(said):
    given = {"models": [h.Encoder(6, 5), h.Encoder(6, 5)], "x": normal(40, 6), "epochs": 1}
    given |= {"batch_size": 40} | BAD[said]
    with pytest.raises((ValueError, TypeError, RuntimeError), match=said):
        h.fit(loss=lambda model, x, *options: paper(model, x), **given)
    if isinstance(given["models"], list):
        for model in given["models"]:
            assert torch.equal(model.weight, h.Encoder(6, 5).weight)


def test_training_stops_with_the_losses_if_one_is_not_finite():
    def loss(model, x, factor):
        return factor * model.weight.exp().sum()

    sgd = partial(torch.optim.SGD, lr=1.0)
    with pytest.raises(FloatingPointError, match=r"losses after epoch \d: \[.*(inf|nan).*\]"):
        models = [h.Encoder(6, 5), h.Encoder(6, 5)]
        h.fit(models, loss, normal(40, 6), 9, [torch.tensor([0.01, -9.0])], sgd, batch_size=40)


def test_an_interrupt_leaves_what_was_learned():
    models, steps = [h.Encoder(6, 5, 0), h.Encoder(6, 5, 1)], []

    def loss(model, x):
        steps.append(x)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return paper(model, x)

    with pytest.raises(KeyboardInterrupt):
        h.fit(models, loss, normal(80, 6), 9, batch_size=16)
    learned = [h.Encoder(6, 5, 0), h.Encoder(6, 5, 1)]
    h.fit(learned, paper, normal(80, 6), 1, batch_size=16)  # five of the seven steps
    for model, part, seed in zip(models, learned, (0, 1)):
        start = h.Encoder(6, 5, seed).weight
        far, near = (model.weight - start).abs().max(), (part.weight - start).abs().max()
        assert far > 1.1 * near > 0


# --- Measures -------------------------------------------------------------------------------------


def test_usage_dead_units_and_l0():
    A = normal(40, 4).relu() * torch.tensor([1, 3, 0, 0])
    A[7, 3] = 1e-6  # active on one input
    close(h.usage(A), [np.mean(unit > 0) for unit in A.numpy().T])
    assert h.dead_units(A) == 1
    assert h.l0(A) == pytest.approx(np.mean([(row > 0).sum() for row in A.numpy()]))


@pytest.mark.parametrize("far", [0, 100])
def test_the_fitted_mse_is_that_of_least_squares(far):
    x, x_test = normal(500, 3) + far, normal(80, 3, seed=2) + far
    decoded = 0.1 * x + normal(500, 3, seed=1) + torch.arange(3)
    decoded_test = 0.1 * x_test + normal(80, 3, seed=3) + torch.arange(3)
    columns = np.concatenate([decoded.reshape(-1, 1), np.tile(np.eye(3), (500, 1))], 1)
    gain, *offset = np.linalg.lstsq(columns, x.flatten().numpy(), rcond=None)[0]
    expected = np.mean((gain * decoded_test.numpy() + offset - x_test.numpy()) ** 2)
    found = h.fitted_mse(decoded, x, decoded_test, x_test)
    assert found == pytest.approx(expected, rel=1e-4)
    dead = h.fitted_mse(0 * decoded + 0.1, x, 0 * decoded_test + 0.1, x_test)
    assert dead == pytest.approx(float((x_test - x.mean(0)).square().mean()), rel=1e-4)


def test_the_probe_is_a_linear_classifier_judged_on_test_codes():
    """Codes of three classes, of very different scales, that are easy to tell apart."""
    y = np.arange(600) % 3
    A = (np.eye(3)[y] + 0.2 * normal(600, 3).numpy()) * [1e-4, 1e-4, 1e4]
    wrong = np.random.default_rng(0).permutation(y[:300])
    assert h.probe_accuracy(A[:300], y[:300], A[300:], y[300:]) > 97
    assert h.probe_accuracy(A[:300], wrong, A[300:], y[300:]) < 60
    assert h.probe_accuracy(A[:300], y[:300], A[300:], (y[300:] + 1) % 3) < 3


# --- For notebooks --------------------------------------------------------------------------------


def test_a_table_has_deviations_of_several_seeds_and_the_papers_numbers_in_their_cells():
    runs = [("b", 10, 0.5), ("b", 20, 0.25), ("b", 60, 0.3), ("a", 1234.5, 3), ("c", 7, 1)]
    runs += [("c", 7, 2), ("d", 1, 1), ("d", 2, float("nan"))]
    table = pd.DataFrame(runs, columns=["name", "L0", "loss"])
    paper = {"L0": {"a": "17", "absent": "1"}, "loss": {"b": "0.4"}}
    text = h.mean_table(table, "name", {"L0": 0, "loss": 2}, paper)
    assert text.index.tolist() == ["b", "a", "c", "d"] and [*text] == ["L0", "loss"]
    assert text["L0"].tolist() == ["30 ± 26", "1,234 (17)", "7", "2 ± 1"]
    assert text["loss"].tolist() == ["0.35 ± 0.13 (0.4)", "3.00", "1.50 ± 0.71", "nan"]
    two = h.mean_table(table.assign(k=1), ["name", "k"], {"L0": 1}, {"L0": {("c", 1): "6"}})
    assert two["L0"].tolist() == ["30.0 ± 26.5", "1,234.5", "7.0 (6)", "1.5 ± 0.7"]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (9, 4, 4), np.uint8), rng.integers(0, 10, 9, np.uint8)
    return {"x_train": x[:6], "y_train": y[:6], "x_test": x[6:], "y_test": y[6:]}


def test_images_are_rows_of_pixels_and_labels(images, tmp_path):
    np.savez(tmp_path / "mine.npz", **images)
    x, y, x_test, y_test = h.load_images(tmp_path / "mine.npz")
    for part, name in ((x, "x_train"), (x_test, "x_test")):
        close(part, images[name].reshape(-1, 16) / 255)
        assert part.dtype == torch.float32
    assert y.tolist() == images["y_train"].tolist() and y_test.tolist() == images["y_test"].tolist()


@pytest.mark.parametrize("damage", ["missing", "truncated", "without y_test", "of floats"])
def test_a_damaged_file_is_named_with_the_cause(damage, images, tmp_path):
    path = tmp_path / "mine.npz"
    if damage == "without y_test":
        del images["y_test"]
    if damage == "of floats":
        images["x_train"] = images["x_train"] / 255
    if damage != "missing":
        np.savez(path, **images)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="mine.npz") as error:
        h.load_images(path)
    assert repr(error.value.__cause__) in str(error.value)


def test_tiles_are_images_in_rows_each_on_its_own_scale():
    images = normal(5, 9) * torch.tensor([[1.0], [10], [0.1], [-3], [0]])
    expected = np.zeros((2, 5, 3, 5))  # two rows of three places of 3 x 3 pixels and a frame
    for i in range(4):
        pixels = images[i] / images[i].abs().max()
        expected[i // 3, 1:4, i % 3, 1:4] = pixels.view(3, 3)
    close(h.tile_images(images, columns=3), expected.reshape(10, 15))
