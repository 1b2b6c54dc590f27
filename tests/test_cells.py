"""The functions in the cells of the notebooks against plain formulas and loops, and the theorem."""

import ast
import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.autograd import grad

import helpers as h
from lab import ROOT, measures, methods

D, K, N = 6, 5, 40
pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = normal(128, D) + 0.3


def notebook(name, **names):
    """{name: what it is} of the functions and classes in a notebook's cells."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    tree = ast.parse(re.sub(r"^( *)!.*", r"\1pass", source, flags=re.MULTILINE))
    kept = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    exec(compile(tree, name, "exec"), names)
    return names


THEOREM = notebook("1_theorem")
ABLATION = notebook("2_ablation", EPOCHS=1, K=K, SEEDS=[3, 5], x=X, x_test=X)
BENCHMARK = notebook("3_benchmark", K=K, adam="a", revised="b")


@pytest.fixture
def model():
    return h.Encoder(D, K, seed=1)


# --- Notebook 1 ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*converge")
def test_a_step_is_em_and_without_the_denominator_mean_shift():
    x, mu = normal(30, 2), normal(4, 2, seed=1)
    e = np.array([[np.exp(-((p - m) ** 2).sum() / 2) for m in mu.numpy()] for p in x.numpy()])
    em, mean_shift = (
        [np.average(x, axis=0, weights=column) for column in weights.T]
        for weights in (e / e.sum(1, keepdims=True), e)
    )
    assert_allclose(THEOREM["descend"](mu, x), em, rtol=1e-9)
    assert_allclose(THEOREM["em_step"](mu, x), em, rtol=1e-9)
    pooled_loss = partial(h.lse_loss, competition=0)
    assert_allclose(THEOREM["descend"](mu, x, pooled_loss), mean_shift, rtol=1e-9)
    several = torch.stack([mu, mu + 1])  # starts at once move as each alone
    alone = [THEOREM["descend"](start, x) for start in several]
    assert_allclose(THEOREM["descend"](several, x), torch.stack(alone), rtol=1e-9)


def test_signed_loss_is_the_log_sum_exp_without_a_relu(model):
    E = X.numpy() @ model.W.detach().numpy().T + model.b.detach().numpy()
    expected = -np.log(np.exp(-E).sum(1)).sum()
    assert E.min() < -1 and THEOREM["signed_loss"](model, X).item() == pytest.approx(expected)


def test_an_exact_m_step_has_the_largest_biases_without_an_active_unit():
    W = normal(K, D, seed=1)
    b = THEOREM["m_step"](W, X)
    assert not torch.relu(X @ W.T + b).any()
    assert ((X @ W.T + b + 1e-9) > 0).any(0).all()


def test_every_unit_dies():
    """Within the time of the theorem; and while a unit lives its bias falls as the proof says."""
    x, theta, rate = torch.cat([X[:N], torch.ones(N, 1)], 1), normal(4, D + 1, seed=1) / 4, 0.02
    length = theta.norm(dim=1)
    least = (-length.max() * x.norm(dim=1).max()).exp() / 4  # of responsibilities
    path = [theta]
    for _ in range(1000):
        last = path[-1].clone().requires_grad_()
        path.append(path[-1] - rate * grad(h.lse_loss(torch.relu(x @ last.T)), last)[0])
    path = torch.stack(path)
    alive, fall = (path @ x.T > 0).any(2), -path.diff(dim=0) / rate  # of each step and unit
    assert alive[0].any() and not alive[-1].any()
    assert (rate * alive.sum(0) <= 2 * length / least).all()
    assert (fall[..., -1][alive[:-1]] >= 0.99 * least).all() and not fall[~alive[:-1]].any()


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_the_loss_is_a_sum_of_weighted_terms_and_that_of_helpers(model):
    """Of a minibatch of 128, which is what helpers.py divides by."""
    E = model(X)
    terms = [h.lse_loss(E, 7), h.variance_loss(E), h.decorrelation_loss(E)]
    expected = (2 * terms[0] + 3 * terms[1] + 5 * terms[2]).item()
    found = ABLATION["loss"](E, lse=2, competition=7, variance=3, decorrelation=5).item()
    assert found == pytest.approx(expected)
    assert ABLATION["loss"](E).item() == pytest.approx(h.decoder_free_loss(model, X).item())


def test_training_is_that_of_helpers_with_the_loss_that_is_given():
    loss = partial(ABLATION["loss"], decorrelation=0.3)
    models = ABLATION["train"]({"C": loss}, 2)["C"]
    for model in h.split_by_seed(models):
        alone = h.Encoder(D, K, seed=model.seed)
        h.fit(alone, lambda model, x: loss(model(x)), X, epochs=2)
        assert_allclose(model.W.detach(), alone.W.detach(), atol=1e-9)


def test_a_run_of_an_optimizer_is_that_of_helpers():
    for name, optimizer in (("SGD", torch.optim.SGD), ("Adam", h.ADAM)):
        model, losses = ABLATION["train_by"]((name, 0.01, 4))
        alone = h.Encoder(D, 4, seed=3)
        expected = h.fit(alone, h.decoder_free_loss, X, epochs=1, lr=0.01, optimizer=optimizer)
        assert_allclose(model.W.detach(), alone.W.detach(), atol=1e-9)
        assert_allclose(losses, expected)


def test_agreements_are_those_of_each_seed(capsys):
    E, other = normal(2, 50, K), normal(2, 50, K, seed=1)
    found = ABLATION["agreements"]("C", "changed", E, other)
    assert found.seed.tolist() == [3, 5] and found.change.tolist() == ["changed"] * 2
    assert found.agreement.tolist() == [measures.agreement(E[i], other[i]) for i in (0, 1)]
    assert capsys.readouterr().out.startswith("C, changed: agreement 0.")


def test_even_counts_penalise_the_variance_of_the_denominator():
    """To second order what competition does, where denominators vary little."""
    E = normal(2, 9, K).abs()
    Z = np.exp(-E.numpy()).sum(-1)
    penalty = 9 / 2 * Z.var(-1) / Z.mean(-1) ** 2
    without = ABLATION["loss"](E, competition=0, decorrelation=0)
    assert_allclose(ABLATION["even_counts"](E) - without, penalty)
    little = 2 + 0.01 * E
    expected = h.lse_loss(little) - h.lse_loss(little, competition=0)
    without = ABLATION["loss"](little, competition=0, decorrelation=0)
    found = ABLATION["even_counts"](little) - without
    assert_allclose(found, expected, rtol=0.01)


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_papers_sae_loss_has_means_and_a_weight_of_a_hundredth():
    model = h.split_by_seed(methods.paper_sae(D, K, [2]))[0]
    W, b, V, c = (p.detach().numpy() for p in (model.W, model.b, model.V, model.c))
    A = np.maximum(X.numpy() @ W.T + b, 0)
    expected = np.square(A @ V + c - X.numpy()).mean() + 0.01 * A.mean()
    assert BENCHMARK["paper_sae_loss"](model, X).item() == pytest.approx(expected)


def test_what_takes_the_place_of_the_log_sum_exp():
    E = normal(2, 9, K).abs()
    assert_allclose(BENCHMARK["l1"](E), E.numpy().sum((1, 2)) / K)


def test_batch_top_k_keeps_the_largest_of_a_batch():
    model = BENCHMARK["BatchTopK"](D, K, seed=[0, 1], k=2)
    A, plain = model.encode(X), torch.relu(model.pre_activations(X))
    for kept, all_of_them in zip(A, plain):
        largest = all_of_them.flatten().sort(descending=True).values[: 2 * len(X)]
        assert_allclose(
            kept.flatten().sort(descending=True).values[: 2 * len(X)].detach(), largest.detach()
        )
        assert h.l0(kept) == 2


def test_the_parts_of_the_loss_are_means_over_minibatches_and_its_sum(model, monkeypatch):
    x, x_test = normal(300, D), normal(90, D, seed=1)  # two minibatches
    y, y_test = x[:, 0] > 0, x_test[:, 1] > 0
    for name, value in {"x": x, "y": y, "x_test": x_test, "y_test": y_test}.items():
        monkeypatch.setitem(ABLATION, name, value)
    terms = (h.variance_loss, lambda E: h.lse_loss(E) + h.decorrelation_loss(E))
    variance, rest = (term(measures.minibatches(model(x))).mean().item() for term in terms)
    accuracy = measures.accuracy(model(x), y, model(x_test), y_test)
    expected = {"dead": h.n_dead(model(x_test)), "variance term": variance, "the rest": rest}
    expected |= {"loss": variance + rest, "classifier": accuracy}
    assert ABLATION["parts_of_loss"](model) == pytest.approx(expected)
    assert ABLATION["measure_with_classifier"](model)["classifier"] == accuracy


def test_what_notebook_3_measures_is_of_test_inputs_the_own_decoder_and_no_decay(monkeypatch):
    x, x_test = normal(300, D), 0.7 * normal(90, D, seed=1) + 0.4
    names = {"x": x, "y": x[:, 0] > 0, "x_test": x_test, "y_test": x_test[:, 1] > 0}
    stack = h.Encoder(D, K, seed=[1])
    names["models"] = dict.fromkeys(("a", "b", "L1 SAE"), stack)
    for name, value in names.items():
        monkeypatch.setitem(BENCHMARK, name, value)
    (model,) = h.split_by_seed(stack)
    found, own = BENCHMARK["measure_as_in_paper"](model), h.with_decoder(model, x, h.own_decoder)
    assert found["mse"] == pytest.approx((own(x_test) - x_test).square().mean().item())
    assert found["norm-matched"] == measures.norm_matched_error(model, x_test)
    model.loss = partial(h.decoder_free_loss, weight_decay=0.7)
    found = BENCHMARK["measure_directions"](model)
    assert found | measures.cosines(model, h.decoder_free_loss, x) == found
    monkeypatch.setattr(BENCHMARK["plots_benchmark"], "one_digit", lambda digit, codes: codes)
    A_digit = model(x_test[3:4]).detach()
    for A, V, x_hat in BENCHMARK["one_digit"](3, "a").values():
        assert A.equal(A_digit[0]) and V.equal(own.V) and x_hat.equal(own.decode(A_digit)[0])
