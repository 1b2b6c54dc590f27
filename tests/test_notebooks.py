"""What cells of the notebooks define, against plain formulas."""

import numpy as np
import pytest
import torch
from cells import functions
from numpy.testing import assert_allclose

import helpers as h
from lab import methods, plane

rng = torch.Generator().manual_seed(0)
E = torch.rand(12, 5, generator=rng).double()


def test_notebook_1_one_step_of_scikit_learn_is_one_step_of_em():
    x = plane.make_clusters()[0][:60].double()
    em_step = functions("1_theorem")["em_step"]
    assert_allclose(em_step(x[:4], x), plane.descent_step(x[:4], x), rtol=1e-9)


def test_notebook_1_heights_are_standard_deviations():
    loss = functions("1_theorem")["loss_with_heights"](E)
    e = np.exp(-E.numpy()) * E.numpy().std(0, ddof=1)
    assert loss.item() == pytest.approx(-np.log(e.sum(1)).sum())


def test_notebook_1_models_have_the_terms_that_their_names_say():
    terms = {"lse": 1, "variance": 1, "decorrelation": 1}
    weights = functions("1_theorem", "weights")["WEIGHTS"]
    assert {name: [*(terms | changed).values()] for name, changed in weights.items()} == {
        "A: log-sum-exp": [1, 0, 0],
        "B: + variance": [1, 1, 0],
        "C: + decorrelation": [1, 1, 1],
        "D: without log-sum-exp": [0, 1, 1],
    }


def test_notebook_2_denominators_are_dealt_out_and_the_total_is_kept():
    """With the gradient of the log-sum-exp if all are equal."""
    dealt_loss = functions("2_ablation")["dealt_loss"]

    def gradient(loss, E):
        E = E.clone().requires_grad_()
        return torch.autograd.grad(loss(E), E)[0]

    def dealt(E):
        return dealt_loss(torch.Generator().manual_seed(1), variance=0, decorrelation=0)(E)

    pushed, e = gradient(dealt, E), torch.exp(-E)
    assert float(pushed.sum()) == pytest.approx(12)
    votes = (pushed / e)[:, 0]
    assert_allclose(pushed / e, votes[:, None].expand(12, 5), rtol=1e-9)
    ratio = votes.sort().values * e.sum(1).sort(descending=True).values
    assert_allclose(ratio, ratio[:1].expand(12), rtol=1e-9)  # they are those, in another order
    assert not torch.allclose(votes * e.sum(1), torch.ones(12).double(), atol=1e-3)
    equal = torch.stack([E[0].roll(i) for i in range(12)])
    assert_allclose(gradient(dealt, equal), h.responsibilities(equal), rtol=1e-9)
    loss = dealt_loss(torch.Generator().manual_seed(1), variance=3, decorrelation=5)
    rest = 3 * h.variance_loss(E) + 5 * h.decorrelation_loss(E)
    assert float(loss(E) - dealt(E)) == pytest.approx(float(rest))


def test_notebook_2_models_have_the_terms_that_their_names_say():
    names = functions("2_ablation", "losses")
    weights = {"A": (1, 0, 0), "B": (1, 1, 0), "C": (1, 1, 1), "D": (0, 1, 1)}
    for letter, terms in weights.items():
        expected = h.decoder_free_loss(E, *terms)
        assert names["LOSSES"][names[letter]](E) == expected
    off = h.decoder_free_loss(E, competition=False)
    assert names["LOSSES"][names["OFF"]](E) == off and off != h.decoder_free_loss(E)


def test_notebook_2_changes_are_those_that_their_names_say(monkeypatch):
    names = functions("2_ablation", "loss-after", K=5, SHORT=2, B="B", C="C")
    asked = {}

    def train_layer(loss, x, K, seed, epochs, **options):
        asked.update(loss=loss(E), epochs=epochs, **options)
        return lambda x: E, None

    names |= {"train_layer": train_layer, "trained": {("C", 3): {2: lambda x: E}}}
    names |= {"x": None, "x_test": None, "WHOLE_NAME": {"C": "C", "B": "B"}}
    names["trained"]["B", 3] = names["trained"]["C", 3]
    names["dealt_loss"] = lambda rng, **weights: lambda E: ("dealt", weights)
    for model, decorrelation in (("C", 1), ("B", 0)):
        with_competition = h.decoder_free_loss(E, decorrelation=decorrelation)
        off = h.decoder_free_loss(E, decorrelation=decorrelation, competition=False)
        facts = {
            "competition off": {"loss": off},
            names["DEALT"]: {"loss": ("dealt", {"decorrelation": decorrelation})},
            names["NOISE"]: {"loss": with_competition, "noise": 0.001},
            names["ORDER"]: {"loss": with_competition, "order_seed": 103},
        }
        for change, expected in facts.items():
            asked.clear()
            assert names["train_changed"]((change, model, 3)) == pytest.approx(1)
            assert asked == expected | {"epochs": 2}


def test_notebook_2_layers_have_the_settings_that_are_said():
    names = functions(
        "2_ablation", "coverage", K=5, SHORT=2, MEDIUM=3, EPOCHS=80, x=None, SEEDS=[7]
    )
    asked = {}

    def train_layer(loss, x, n_units, seed, epochs, **options):
        asked.update(loss=loss(E), n_units=n_units, seed=seed, epochs=epochs, **options)
        return lambda x: E, None

    names |= {"train_layer": train_layer, "DEALT": "dealt", "x_test": None}
    names["dealt_loss"] = lambda rng, **weights: lambda E: ("dealt", weights)

    def settings(cell, key):
        asked.clear()
        names[cell](key)
        return {**asked}

    sizes = {
        "64 units": (64, 1),
        "16 units": (16, 1),
        "64 units, decorrelation 64, too": (64, 64),
    }
    assert names["SIZES"] == sizes
    for size, (n_units, decorrelation) in sizes.items():
        common = {"n_units": n_units, "seed": 3, "epochs": 2}
        weights = {"variance": 64, "decorrelation": decorrelation}
        losses = {
            "competition on": h.decoder_free_loss(E, **weights),
            "competition off": h.decoder_free_loss(E, **weights, competition=False),
            "dealt": ("dealt", weights),
        }
        for change, loss in losses.items():
            assert settings("train_dense", (change, size, 3)) == common | {"loss": loss}
    expected = {"n_units": 32, "seed": 7, "epochs": 3, "batch_size": 256}
    loss = h.decoder_free_loss(E, variance=2, decorrelation=4)
    assert settings("share_active", (32, 256, 2, 4)) == expected | {"loss": loss}
    names["UNTIL"] = {("SGD", 0.1, 16): 100, ("Adam", 0.2, 16): 50}
    common = {"n_units": 16, "seed": 7, "loss": h.decoder_free_loss(E)}
    by_sgd = common | {"epochs": 80, "lr": 0.1, "optimizer": torch.optim.SGD}
    assert settings("train_by", ("SGD", 0.1, 16)) == by_sgd
    assert settings("train_by", ("Adam", 0.2, 16)) == common | {"epochs": 50, "lr": 0.2}


def test_notebook_2_parts_of_the_loss_are_means_over_minibatches():
    names = functions("2_ablation", x=torch.rand(300, 6, generator=rng))
    names["measure"] = lambda layer: {"classifier": 90.0}
    layer = h.Encoder(6, 5).requires_grad_(False)
    row = names["parts_of_loss"](layer)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    parts = [layer(names["x"][order[k : k + 128]]) for k in (0, 128)]
    for name, term in {"loss": h.decoder_free_loss, "variance term": h.variance_loss}.items():
        assert row[name] == pytest.approx(sum(map(term, parts)).item() / 2, rel=1e-5)
    assert row["classifier"] == 90


def test_notebook_3_terms_that_replace_the_log_sum_exp_and_a_penalty_that_counts():
    cells = functions("3_benchmark")
    model, x = h.SparseAutoencoder(6, 5), torch.rand(9, 6, generator=rng)
    A, rest = model(x), h.decoder_free_loss(model(x), lse=0)
    S = sum(1 - np.exp(-a) for a in A.detach().flatten().tolist())
    for name, expected in {"with_count": S, "with_l1": float(A.detach().sum())}.items():
        sparsity, other = cells[name](model, x)
        assert float(sparsity) == pytest.approx(expected, rel=1e-5) and other == rest
    count, error = cells["counting_sae_loss"](model, x)
    Z = np.exp(-(A * model.V.norm(dim=1) / 0.3).detach().numpy()).sum(1)
    assert float(count) == pytest.approx(-np.log(Z).sum(), rel=1e-5)
    assert error == methods.squared_error(model, A, x)
