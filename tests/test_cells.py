"""The functions in the cells of the notebooks against plain formulas and loops, and the theorem."""

import ast
import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import ROOT, measures, methods

D, K = 6, 5
pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = normal(256, D) + 0.3


def notebook(name, **names):
    """{name: what it is} of the functions, classes and partials in a notebook's cells."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    tree = ast.parse(re.sub(r"^( *)!.*", r"\1pass", source, flags=re.MULTILINE))
    kept = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, kept)
        or (isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("partial("))
    ]
    exec(compile(tree, name, "exec"), names)
    return names


THEOREM = notebook("1_theorem")
OF_BOTH = {"K": K, "SEEDS": [3, 5], "x": X, "x_test": X}
ABLATION = notebook("2_ablation", EPOCHS=1, CONFIGURATIONS={}, **OF_BOTH)
LOSSES = {"paper_loss": h.decoder_free_loss, "kappa": 0.7}
BENCHMARK = notebook("3_benchmark", EPOCHS=2, as_tuned=True, with_sgd="a", **LOSSES, **OF_BOTH)


@pytest.fixture
def model():
    return h.Encoder(D, K, seed=1)


@pytest.mark.filterwarnings("ignore:.*converge")
def test_a_step_is_em_and_without_competition_mean_shift():
    x, mu = normal(30, 2), normal(4, 2, seed=1)
    e = np.array([[np.exp(-((p - m) ** 2).sum() / 2) for m in mu.numpy()] for p in x.numpy()])
    em, mean_shift = (
        [np.average(x, axis=0, weights=column) for column in weights.T]
        for weights in (e / e.sum(1, keepdims=True), e)
    )
    assert_allclose(THEOREM["descend"](mu, x), em, rtol=1e-9)
    assert_allclose(THEOREM["em_step"](mu, x), em, rtol=1e-9)
    assert_allclose(THEOREM["descend"](mu, x, 0), mean_shift, rtol=1e-9)
    several = torch.stack([mu, mu + 1])  # starts at once move as each alone
    alone = [THEOREM["descend"](start, x) for start in several]
    assert_allclose(THEOREM["descend"](several, x), torch.stack(alone), rtol=1e-9)


def test_the_loss_of_notebook_2_is_a_sum_of_weighted_terms(model):
    E = model(X[:128])
    expected = 2 * h.lse_loss(E, 7) + 3 * h.variance_loss(E) + 5 * h.decorrelation_loss(E)
    loss = ABLATION["loss"]
    weighted = loss(E, lse=2, competition=7, variance=3, decorrelation=5)
    assert weighted.item() == pytest.approx(expected.item())
    assert loss(E).item() == pytest.approx(h.decoder_free_loss(model, X[:128]).item())


def test_training_and_its_parts_are_those_of_helpers(monkeypatch):
    weighted = partial(ABLATION["loss"], decorrelation=0.3)
    rows = {"C": (ABLATION["TwoSided"], weighted, 2)}
    model, alone = ABLATION["train"](("C", 3), rows), ABLATION["TwoSided"](D, K, seed=3)
    h.fit(alone, lambda model, x: weighted((x @ model.W.T + model.b).abs()), X, epochs=2)
    assert_allclose(model.W.detach(), alone.W.detach(), atol=1e-9)
    for name, optimizer in (("SGD", torch.optim.SGD), ("Adam", h.ADAM)):
        model, losses = ABLATION["train_by"]((name, 0.01, 4))
        alone = h.Encoder(D, 4, seed=3)
        expected = h.fit(alone, h.decoder_free_loss, X, epochs=1, lr=0.01, optimizer=optimizer)
        assert_allclose(losses, expected)
    monkeypatch.setitem(ABLATION, "y", X[:, 0] > 0)
    monkeypatch.setitem(ABLATION, "y_test", X[:, 0] > 0)
    parts = ABLATION["parts_of_loss"](alone)  # of two minibatches
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    variance = np.mean([h.variance_loss(alone(X[rows])).item() for rows in order.split(128)])
    assert parts["variance term"] == pytest.approx(variance)
    whole = np.mean([h.decoder_free_loss(alone, X[rows]).item() for rows in order.split(128)])
    assert parts["loss"] == pytest.approx(whole)


def test_even_counts_and_the_spread_are_those_of_the_denominator(model):
    """To second order the penalty is what competition does, where denominators vary little."""
    E, loss = normal(9, K).abs(), ABLATION["loss"]
    Z = np.exp(-E.numpy()).sum(1)
    without = loss(E, competition=0, decorrelation=0)
    assert_allclose(ABLATION["even_counts"](E) - without, 9 / 2 * Z.var() / Z.mean() ** 2)
    little = 2 + 0.01 * E
    expected = h.lse_loss(little) - h.lse_loss(little, competition=0)
    penalty = ABLATION["even_counts"](little) - loss(little, competition=0, decorrelation=0)
    assert_allclose(penalty, expected, rtol=0.01)
    Z = np.exp(-model(X).detach().numpy()).sum(1)
    spread = ABLATION["spread_of_denominator"](model)["spread of Z"]
    assert spread == pytest.approx(Z.std(ddof=1) / Z.mean())


def test_losses_of_notebook_3():
    sae = methods.paper_sae(D, K, 2)
    W, b, V, c = (p.detach().numpy() for p in (sae.W, sae.b, sae.V, sae.c))
    A = np.maximum(X.numpy() @ W.T + b, 0)
    expected = np.square(A @ V + c - X.numpy()).mean() + 0.01 * A.mean()
    assert BENCHMARK["paper_sae_loss"](sae, X).item() == pytest.approx(expected)
    decayed = h.decoder_free_loss(sae, X, 2) + 2 * 2 * 0.7 * sae.W.square().sum()
    assert BENCHMARK["decay_loss"](sae, X, 2).item() == pytest.approx(decayed.item())
    E = torch.from_numpy(A)
    revised = h.lse_loss(E) + 4 * (h.log_det_loss(E) + 0.7 * sae.W.square().sum())
    assert BENCHMARK["revised_loss"](sae, X, 2).item() == pytest.approx(revised.item())
    assert BENCHMARK["l1"](E).item() == pytest.approx(A.sum() / K)
    Z = np.exp(-A).sum(1)
    assert BENCHMARK["lse_0"](E).item() == pytest.approx(-len(A) * np.log(Z.mean()))


def test_notebook_3_trains_at_a_setting_or_searches_one(monkeypatch, capsys):
    new_model, loss = partial(h.Encoder, D, K), h.decoder_free_loss
    rows = {"a": (new_model, loss, 0.5, {}), "b": (new_model, loss, None, {"epochs": 4})}
    model = BENCHMARK["train"](("a", 1), rows, 10)
    assert model.setting == 0.5 and model.seed == 1

    def search(new_model, loss, x, l0, **options):
        assert new_model().seed == 1 and (l0, options["start"]) == (2, 1.0)
        assert options["schedule"] == methods.lr_schedule(4)  # of its own number of epochs
        return h.Encoder(D, K, seed=1), 9.0

    monkeypatch.setattr(h, "fit_to_l0", search)
    found = BENCHMARK["train"](("b", 1), rows, 2)
    assert (found.loss, found.setting) == (loss, 9.0)
    assert f"{h.l0(found.encode(X)):.1f} active units" in capsys.readouterr().out


def test_steps_are_of_the_loss_of_a_model_without_weight_decay(model):
    model.setting = 2
    for name, infomax in {"decay_loss": h.infomax_loss, "revised_loss": h.log_det_loss}.items():
        model.loss = BENCHMARK[name]
        expected = h.decoder_free_loss(model, X, 2, infomax=infomax).item()
        assert BENCHMARK["step_loss"](model)(model, X).item() == pytest.approx(expected)
        cosines = measures.cosines(model, BENCHMARK["step_loss"](model), X)
        assert BENCHMARK["measure_directions"](model) == cosines | measures.decoded(model, X, X)


def test_batch_top_k_keeps_the_largest_of_a_minibatch_and_then_those_above_a_threshold():
    model = BENCHMARK["BatchTopK"](D, K, seed=0, k=2)
    A = torch.relu(model.pre_activations(X)).detach()
    smallest = A.flatten().sort(descending=True).values[2 * len(X) - 1]
    assert torch.equal(model.encode(X).detach(), A * (A >= smallest))
    model.threshold = smallest - 1e-9
    alone = torch.cat([model.encode(row[None]) for row in X]).detach()  # as all at once
    assert_allclose(alone, A * (A >= smallest), atol=1e-9)
