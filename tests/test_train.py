"""lab/train.py: a stack of models against `helpers.fit` of one, and stacks side by side."""

import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import train as lab_train
from lab.ablation import ablation_loss, controlled_loss, shuffled_competition
from lab.methods import MOMENTUM, adamw_on_W, mean_l1, paper_loss, paper_sae_loss, revised_loss
from lab.train import ADAM, side_by_side, train

SGD = torch.optim.SGD
X = torch.randn(165, 6, generator=torch.Generator().manual_seed(0)).double()  # 10 minibatches + 5
FOUR = [0.1, 0.3, 1.0, 3.0]
SHORT = {"batch_size": 16, "epochs": 3, "title": None}


def energies_loss(model, x):
    return h.published_loss(model(x))


def four(kind=h.Encoder, **options):
    return [kind(6, 4, seed=seed, **options).double() for seed in range(4)]


def values(models):
    return torch.cat([p.detach().flatten() for model in models for p in model.parameters()])


def assert_close(models, others):
    assert_allclose(values(models), values(others), rtol=1e-6, atol=1e-8)


# --- A stack is a loop --------------------------------------------------------------------------

encoders, saes = partial(four, h.Encoder), partial(four, h.SparseAutoencoder)
pooled = {"penalty": h.pooled_lse_loss}
KINDS = {
    "paper": (encoders, paper_loss, {"lam": FOUR, "kappa": FOUR[::-1]}),
    "revised": (encoders, revised_loss, {"lam": FOUR, "kappa": 0.5}),
    "revised, pooled": (encoders, partial(revised_loss, **pooled), {"lam": FOUR, "kappa": 0.5}),
    "revised, L1": (encoders, partial(revised_loss, penalty=mean_l1), {"lam": FOUR, "kappa": 0.5}),
    "ablation": (encoders, ablation_loss, {"lse": FOUR, "pooled": 0.5, "decorrelation": FOUR}),
    "control": (encoders, partial(controlled_loss, control=shuffled_competition), {"weight": FOUR}),
    "L1 SAE": (saes, h.sae_loss, {"penalty": FOUR}),
    "tied SAE": (partial(saes, tied=True), h.sae_loss, {"penalty": FOUR}),
    "TopK SAE": (partial(saes, k=2), h.sae_loss, {}),
    "paper's SAE": (saes, paper_sae_loss, {}),
}
SEEDS = {"one": 3, "pairs": [0, 0, 1, 1], "triple": [0, 0, 0, 1], "different": [4, 0, 2, 1]}


def assert_stack_is_loop(models, loops, loss, arguments, lr, seed, optimizer):
    options = {"epochs": 3, "batch_size": 16, "optimizer": optimizer, "schedule": [0.5, 1.0, 0.1]}
    seen = train(models, loss, X, arguments=arguments, lr=lr, seed=seed, title=None, **options)[
        "loss"
    ]
    assert seen.shape == (3, 4)
    lr, seed = np.broadcast_to(lr, 4).tolist(), np.broadcast_to(seed, 4).tolist()
    for i, model in enumerate(loops):
        own = {name: float(np.broadcast_to(value, 4)[i]) for name, value in arguments.items()}
        alone = h.fit(model, partial(loss, **own), X, lr=lr[i], seed=seed[i], **options)
        assert_allclose(seen[:, i], alone, rtol=1e-6)
    assert_close(models, loops)


@pytest.mark.parametrize("optimizer, seeds", [(SGD, "pairs"), (ADAM, "different")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_of_every_kind_equals_the_loop(kind, optimizer, seeds):
    """With a factor, a rate and an order of the inputs for each model."""
    make, loss, arguments = KINDS[kind]
    rates = [1e-3, 4e-3, 1e-3, 2e-3]
    assert_stack_is_loop(make(), make(), loss, arguments, rates, SEEDS[seeds], optimizer)


@pytest.mark.parametrize("optimizer", [SGD, MOMENTUM, torch.optim.Adam, ADAM, adamw_on_W])
@pytest.mark.parametrize("lr", [2e-3, [1e-3, 4e-3, 1e-3, 2e-3]], ids=["one rate", "four rates"])
def test_a_stack_under_every_optimizer_equals_the_loop(optimizer, lr):
    args = paper_loss, {"lam": FOUR}, lr, SEEDS["triple"], optimizer
    assert_stack_is_loop(four(), four(), *args)


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_stack_of_shared_and_different_seeds_equals_the_loop(seeds):
    args = paper_loss, {"lam": FOUR}, 2e-3, SEEDS[seeds], SGD
    assert_stack_is_loop(four(), four(), *args)


def test_a_group_of_parameters_keeps_its_rate_under_a_schedule():
    def bias_is_faster(parameters, lr):
        W, b = parameters
        return SGD([{"params": [W]}, {"params": [b], "lr": 7 * lr}], lr=lr)

    models, one, schedule = four()[:1], four()[0], [1.0, 0.1, 3.0]
    train(models, energies_loss, X, lr=0.01, optimizer=bias_is_faster, schedule=schedule, **SHORT)
    order = torch.Generator().manual_seed(0)
    for factor in schedule:
        for rows in torch.randperm(165, generator=order)[:160].view(10, 16):
            gW, gb = torch.autograd.grad(energies_loss(one, X[rows]), (one.W, one.b))
            one.W.data -= 0.01 * factor * gW
            one.b.data -= 0.07 * factor * gb
    assert_close(models, [one])


def test_the_monitor_sees_each_model_after_each_epoch():
    def look(model):
        return {"first": model.W[0, 0].detach(), "length": model.b.detach().square().sum()}

    seen = train(four(), energies_loss, X, monitor=look, **SHORT)
    for epochs in (1, 2, 3):
        models = four()
        train(models, energies_loss, X, batch_size=16, epochs=epochs, title=None)
        assert_allclose(seen["first"][epochs - 1], [m.W[0, 0].item() for m in models])
        lengths = [m.b.square().sum().item() for m in models]
        assert_allclose(seen["length"][epochs - 1], lengths)


# --- What goes wrong ----------------------------------------------------------------------------


def test_a_model_that_diverges_is_nan_and_leaves_the_others_to_the_bit():
    def loss(model, x, factor):
        return factor * h.published_loss(model(x))

    models, others = four(), four()
    alone = train(others, loss, X, arguments={"factor": [1, 1, 2, 1]}, **SHORT)["loss"]
    with pytest.warns(RuntimeWarning, match="model 1 .* in epoch 1"):
        found = train(models, loss, X, arguments={"factor": [1, 1e308, 2, 1]}, **SHORT)["loss"]
    assert np.isnan(found[:, 1]).all() and values([models[1]]).isnan().all()
    kept = [0, 2, 3]
    assert np.array_equal(found[:, kept], alone[:, kept])
    assert values([models[i] for i in kept]).equal(values([others[i] for i in kept]))


def test_a_stack_warns_of_fewer_rows_than_units():
    models = [h.Encoder(6, 9, seed=seed) for seed in (0, 1)]
    arguments = {"lam": 1.0, "kappa": 0.5}
    with pytest.warns(UserWarning, match="9 units from minibatches of 8 rows"):
        seen = train(models, revised_loss, X, arguments=arguments, **SHORT | {"batch_size": 8})
    assert np.isfinite(seen["loss"]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_any_loss_of_a_model_that_diverged_is_nan_and_not_an_error(kind):
    make, loss, arguments = KINDS[kind]
    models = make()
    models[1].W.data[:] = torch.nan
    with pytest.warns(RuntimeWarning, match="model 1 "):
        found = train(models, loss, X, arguments=arguments, optimizer=SGD, **SHORT)["loss"]
    assert np.isnan(found[:, 1]).all() and np.isfinite(found[:, [0, 2, 3]]).all()


NAN_AT = X.clone()
NAN_AT[7, 2] = torch.nan
A_MODEL, FROZEN = h.Encoder(6, 4), h.Encoder(6, 4)
FROZEN.b.requires_grad_(False)
TWO = [h.Encoder(6, 4), h.Encoder(6, 4)]


@pytest.mark.parametrize(
    "faulty, said",
    [
        ({"models": []}, "stack"),
        ({"models": [A_MODEL, h.Encoder(6, 5)]}, "stack"),
        ({"models": [A_MODEL, h.SparseAutoencoder(6, 4)]}, "stack"),
        ({"models": [h.SparseAutoencoder(6, 4, k=k) for k in (1, 2)]}, "stack"),
        ({"models": [A_MODEL, A_MODEL]}, "stack"),
        ({"models": [FROZEN]}, "trained"),
        ({"x": NAN_AT}, "row 7, column 2"),
        ({"x": X[:15]}, "16 rows"),
        ({"epochs": 0}, "epoch"),
        ({"schedule": [1.0]}, "schedule"),
        ({"lr": [0.1]}, "lr"),
        ({"lr": [0.0, 0.0]}, "lr"),
        ({"lr": -1.0}, "lr"),
        ({"seed": [1, 2, 3]}, "seed"),
        ({"arguments": {"lam": [1, 2, 3]}}, "lam"),
    ],
)
def test_faulty_arguments_are_refused(faulty, said):
    arguments = {"models": TWO, "loss": paper_loss, "x": X, "arguments": {"lam": 1.0}} | SHORT
    with pytest.raises(ValueError, match=said):
        train(**arguments | faulty)


# --- Side by side -------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 2])
def test_side_by_side_is_one_after_the_other_to_the_bit(cores, monkeypatch):
    monkeypatch.setattr(lab_train.joblib, "cpu_count", lambda: cores)
    stacks, alone = [four() for _ in range(3)], [four() for _ in range(3)]
    jobs = [partial(train, m, energies_loss, X, seed=i, **SHORT) for i, m in enumerate(stacks)]
    together = side_by_side(jobs, None)
    for i, models in enumerate(alone):
        expected = train(models, energies_loss, X, seed=i, **SHORT)["loss"]
        assert np.array_equal(together[i]["loss"], expected)
        assert values(stacks[i]).equal(values(models))


def test_each_job_has_one_thread_and_the_caller_keeps_its_own(monkeypatch):
    monkeypatch.setattr(lab_train.joblib, "cpu_count", lambda: 2)
    torch.set_num_threads(2)
    try:
        assert side_by_side([torch.get_num_threads] * 3, None) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_call_within_a_job_works_and_leaves_the_outer_jobs_alone(monkeypatch):
    monkeypatch.setattr(lab_train.joblib, "cpu_count", lambda: 2)
    outer, alone = four(), four()
    inner = [partial(train, [model], energies_loss, X, **SHORT) for model in four()]
    job = partial(train, outer, energies_loss, X, **SHORT | {"epochs": 20})
    losses, found = side_by_side([job, partial(side_by_side, inner, None)], None)
    assert len(found) == 4 and np.isfinite([run["loss"] for run in found]).all()
    expected = train(alone, energies_loss, X, **SHORT | {"epochs": 20})["loss"]
    assert np.array_equal(losses["loss"], expected)


def test_a_job_that_fails_ends_the_others_which_keep_what_they_learned(monkeypatch):
    monkeypatch.setattr(lab_train.joblib, "cpu_count", lambda: 2)
    model, learning, begun = h.Encoder(6, 4).double(), threading.Event(), time.time()

    def look(model):
        learning.set()
        assert time.time() < begun + 10
        return {}

    def fail():
        assert learning.wait(10)
        raise ZeroDivisionError

    endless = partial(train, [model], energies_loss, X, monitor=look, **SHORT | {"epochs": 10**6})
    with pytest.raises(ZeroDivisionError):
        side_by_side([endless, fail], None)
    assert time.time() - begun < 10
    assert model.W.isfinite().all() and not model.W.equal(four()[0].W)
    assert np.isfinite(train(four(), energies_loss, X, **SHORT)["loss"]).all()  # not stopped


def test_an_interrupt_ends_all_jobs_soon(monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    monkeypatch.setattr(lab_train.joblib, "cpu_count", lambda: 2)
    models, seen, pressed, begun = four()[:2], set(), [], time.time()

    def look(model):
        seen.add(threading.get_ident())
        assert time.time() < begun + 10
        while len(seen) == 2 and not pressed:  # both have learned something
            pressed.append(time.time())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)
        return {}

    options = SHORT | {"epochs": 10**6, "monitor": look}
    with pytest.raises(KeyboardInterrupt):
        side_by_side([partial(train, [m], energies_loss, X, **options) for m in models], None)
    assert time.time() - pressed[0] < 5
    for model, fresh in zip(models, four()):
        assert model.W.isfinite().all() and not model.W.equal(fresh.W)
    assert np.isfinite(train(models, energies_loss, X, **SHORT)["loss"]).all()  # not stopped
