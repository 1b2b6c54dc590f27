"""lab/train.py: a stack of models against `helpers.fit` of one, and stacks side by side."""

import itertools
import re
import signal
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import train as lab_train
from lab.methods import MOMENTUM, methods, paper_loss
from lab.train import ADAM, side_by_side, train, train_side_by_side

SGD = torch.optim.SGD
X = torch.randn(165, 6, generator=torch.Generator().manual_seed(0)).double()  # 10 minibatches + 5
FOUR = {"lam": [0.1, 0.3, 1.0, 3.0]}
RATES = [1e-3, 4e-3, 1e-3, 2e-3]
SHORT = {"batch_size": 16, "epochs": 3}
SEEDS = {"one": 3, "pairs": [0, 0, 1, 1], "triple": [0, 0, 0, 1], "different": [4, 0, 2, 1]}


def energies_loss(model, x):
    return h.published_loss(model(x))


def four():
    return [h.Encoder(6, 4, seed=seed).double() for seed in range(4)]


STACK = {"loss": energies_loss, "x": X} | SHORT


def values(models):
    return torch.cat([p.detach().flatten() for model in models for p in model.parameters()])


# --- A stack is a loop --------------------------------------------------------------------------


def assert_stack_is_loop(make, loss, arguments, lr, seed, optimizer):
    models, loops = make(), make()
    options = SHORT | {"optimizer": optimizer, "schedule": [0.5, 1.0, 0.1]}
    seen = train(models, loss, X, arguments=arguments, lr=lr, seed=seed, **options)["loss"]
    lr, seed = np.broadcast_to(lr, 4).tolist(), np.broadcast_to(seed, 4).tolist()
    for i, model in enumerate(loops):
        own = {name: float(np.broadcast_to(value, 4)[i]) for name, value in arguments.items()}
        alone = h.fit(model, partial(loss, **own), X, lr=lr[i], seed=seed[i], **options)
        assert_allclose(seen[:, i], alone, rtol=1e-6)
    assert_allclose(values(models), values(loops), rtol=1e-6, atol=1e-8)


METHODS = {name: method for name, method in methods(kappa=0.5).items() if method.loss}


def of_method(method):
    """Four models of a method, and four settings of its loss."""
    settings = list(itertools.islice(itertools.cycle(method.settings), 4))

    def make():
        k = 2  # of a TopK SAE: one for all
        return [method.model(6, 4, k, seed).double() for seed in range(4)]

    return make, {method.argument: settings} if method.argument else {}


@pytest.mark.parametrize("optimizer, seeds", [(SGD, "pairs"), (ADAM, "different")])
@pytest.mark.parametrize("name", METHODS)
def test_a_stack_of_every_method_equals_the_loop(name, optimizer, seeds):
    """With a setting, a rate and an order of the inputs for each model."""
    make, arguments = of_method(METHODS[name])
    assert_stack_is_loop(make, METHODS[name].loss, arguments, RATES, SEEDS[seeds], optimizer)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("lr", [2e-3, RATES], ids=["one rate", "four rates"])
@pytest.mark.parametrize("optimizer", [MOMENTUM, torch.optim.Adam])
def test_a_stack_of_equal_and_different_seeds_equals_the_loop(optimizer, lr, seeds):
    arguments = FOUR | {"kappa": FOUR["lam"][::-1]}
    assert_stack_is_loop(four, paper_loss, arguments, lr, SEEDS[seeds], optimizer)


def test_inputs_of_numpy_and_of_another_precision_are_taken():
    models, twins = ([h.Encoder(6, 4, seed=seed) for seed in range(2)] for _ in range(2))
    found = train(models, energies_loss, X.numpy(), **SHORT)["loss"]
    assert np.array_equal(found, train(twins, energies_loss, X.float(), **SHORT)["loss"])


def look(model):
    return {"first": model.W[0, 0].detach(), "length": model.b.detach().square().sum()}


def test_the_monitor_sees_each_model_after_each_epoch():
    seen = train(four(), energies_loss, X, monitor=look, **SHORT)
    for epochs in (1, 2, 3):
        models = four()
        train(models, energies_loss, X, **SHORT | {"epochs": epochs})
        for name in ("first", "length"):
            assert_allclose(seen[name][epochs - 1], [look(model)[name] for model in models])


# --- What goes wrong ----------------------------------------------------------------------------


def test_a_model_that_diverges_is_nan_and_leaves_the_others_to_the_bit():
    def loss(model, x, factor):
        return factor * h.published_loss(model(x))

    models, others, kept = four(), four(), [0, 2, 3]
    alone = train(others, loss, X, arguments={"factor": [1, 1, 2, 1]}, **SHORT)["loss"]
    with pytest.warns(RuntimeWarning, match="model 1 .* in epoch 1; try a smaller lr") as warned:
        found = train(models, loss, X, arguments={"factor": [1, 1e308, 2, 1]}, **SHORT)["loss"]
    assert len(warned) == 1 and np.isnan(found[:, 1]).all() and values([models[1]]).isnan().all()
    assert np.array_equal(found[:, kept], alone[:, kept])
    assert values([models[i] for i in kept]).equal(values([others[i] for i in kept]))


@pytest.mark.parametrize("name", METHODS)
def test_any_loss_of_a_model_that_diverged_is_nan_and_not_an_error(name):
    make, arguments = of_method(METHODS[name])
    models, options = make(), SHORT | {"arguments": arguments, "lr": 1e-4, "optimizer": SGD}
    models[1].W.data[:] = torch.nan
    with pytest.warns(RuntimeWarning, match="model 1 "):
        found = train(models, METHODS[name].loss, X, **options)["loss"]
    assert np.isnan(found[:, 1]).all() and np.isfinite(found[:, [0, 2, 3]]).all()


def test_a_loss_that_is_finite_again_stays_nan():
    """It is infinite while a weight is at its first value: in the first of two minibatches."""
    models = [h.Encoder(6, 4).double()]
    start = models[0].W[0, 0].item()

    def loss(model, x):
        return energies_loss(model, x) + torch.where(model.W[0, 0] == start, torch.inf, 0.0)

    with pytest.warns(RuntimeWarning, match="became inf in epoch 1"):
        found = train(models, loss, X, **SHORT | {"batch_size": 82})["loss"]
    assert np.isnan(found).all() and values(models).isfinite().all()


def test_interrupted_models_keep_what_they_have_learned():
    def interrupt(model):
        seen.append(model)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return {}

    models, twins, seen = four(), four(), []
    with pytest.raises(KeyboardInterrupt):
        train(models, energies_loss, X, monitor=interrupt, **SHORT)
    train(twins, energies_loss, X, **SHORT | {"epochs": 2})
    assert values(models).equal(values(twins))


NAN_AT = X.clone()
NAN_AT[7, 2] = torch.nan
A_MODEL, TWO = h.Encoder(6, 4), [h.Encoder(6, 4), h.Encoder(6, 4)]
SAE = partial(h.SparseAutoencoder, 6, 4)


@pytest.mark.parametrize(
    "faulty, said",
    [
        ({"models": []}, "stack"),
        ({"models": [A_MODEL, A_MODEL]}, "stack"),
        ({"models": [SAE(k=1), SAE(k=2)]}, "different options do not stack"),
        ({"models": [SAE(k=1), SAE()]}, "different options do not stack"),
        ({"x": NAN_AT}, "row 7, column 2"),
        ({"x": X[:15]}, "16 rows"),
        ({"epochs": 0}, "epoch"),
        ({"schedule": [1.0]}, "schedule of 3 factors"),
        ({"lr": [0.1]}, "lr: .* 2 models"),
        ({"lr": [0.1, 0.0]}, "lr must be positive"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"seed": [1, 2, 3]}, "seed: .* 2 models"),
        ({"arguments": {"lam": [1, 2, 3]}}, "lam: .* 2 models"),
    ],
)
def test_faulty_arguments_are_refused(faulty, said):
    arguments = {"models": TWO, "loss": paper_loss, "x": X, "arguments": {"lam": 1.0}} | SHORT
    with pytest.raises(ValueError, match=said):
        train(**arguments | faulty)


@pytest.mark.parametrize(
    "models",
    [
        [A_MODEL, h.Encoder(6, 5)],
        [A_MODEL, SAE()],
        [SAE(), SAE(tied=True)],
        [SAE(tied=True), SAE()],
    ],
    ids=["size", "class", "untied, tied", "tied, untied"],
)
def test_models_that_differ_do_not_stack(models):
    with pytest.raises((RuntimeError, ValueError, KeyError)):
        train(models, lambda model, x: model.encode(x).sum(), X, **SHORT)


# --- Side by side -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def cores(request, monkeypatch):
    monkeypatch.setattr(lab_train.joblib, "cpu_count", lambda: getattr(request, "param", 2))


@pytest.mark.parametrize("cores", [1, 2], indirect=True)
def test_side_by_side_is_one_after_the_other_to_the_bit():
    stacks, alone = ([STACK | {"models": four(), "seed": i} for i in range(3)] for _ in "ab")
    for stack, found, twin in zip(stacks, train_side_by_side(stacks, None), alone):
        assert np.array_equal(found["loss"], train(**twin)["loss"])
        assert values(stack["models"]).equal(values(twin["models"]))


def test_each_job_has_one_thread_and_the_caller_keeps_its_own():
    torch.set_num_threads(2)
    try:
        assert side_by_side([torch.get_num_threads] * 3, None) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.fixture
def bar(monkeypatch, capsys):
    """What a script shows: "done/total" and the unit, whenever a bar is drawn."""
    monkeypatch.delenv("PROGRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    return lambda: re.findall(r"(\d+/\d+) .*?(epoch|job)", capsys.readouterr().err)


@pytest.mark.parametrize("cores", [1], indirect=True)  # so that the bar is drawn in order
def test_the_bar_knows_its_total_at_the_start(bar):
    """Epochs of all stacks, or jobs."""
    stacks = [STACK | {"models": four(), "epochs": epochs} for epochs in (1, 2, 1)]
    train_side_by_side(stacks, "stacks")
    assert bar() == [(f"{done}/4", "epoch") for done in range(5)]
    side_by_side([partial(train, **stack) for stack in stacks], "jobs")
    assert bar() == [(f"{done}/3", "job") for done in range(4)]
    train_side_by_side(stacks, None)
    assert bar() == []


def learned(model, seed):
    return values([model]).isfinite().all() and not model.W.equal(four()[seed].W)


def test_a_job_that_fails_ends_the_others_which_keep_what_they_learned():
    model, learning, begun = four()[0], threading.Event(), time.time()

    def monitor(model):
        learning.set()
        assert time.time() < begun + 10
        return {}

    def fail():
        assert learning.wait(10)
        raise ZeroDivisionError

    options = SHORT | {"epochs": 10**6, "monitor": monitor}
    with pytest.raises(ZeroDivisionError):
        side_by_side([partial(train, [model], energies_loss, X, **options), fail, fail], None)
    assert time.time() - begun < 10 and learned(model, 0)
    assert np.isfinite(train(four(), energies_loss, X, **SHORT)["loss"]).all()  # not stopped


@pytest.fixture
def python_interrupt():
    """A shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_interrupt")
def test_an_interrupt_ends_all_jobs_soon_and_models_keep_what_they_learned():
    models, seen, pressed, begun = four()[:2], set(), [], time.time()

    def monitor(model):
        seen.add(threading.get_ident())
        assert time.time() < begun + 10
        while len(seen) == 2 and not pressed:  # both have learned something
            pressed.append(time.time())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)
        return {}

    options = SHORT | {"epochs": 10**6, "monitor": monitor}
    with pytest.raises(KeyboardInterrupt):
        side_by_side([partial(train, [m], energies_loss, X, **options) for m in models], None)
    assert time.time() - pressed[0] < 5
    assert learned(models[0], 0) and learned(models[1], 1)
    assert np.isfinite(train(models, energies_loss, X, **SHORT)["loss"]).all()  # not stopped
