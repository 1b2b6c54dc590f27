"""lab/training.py: a stack of models against the plain loop of one, and stacks side by side."""

import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
import tqdm.auto
import tqdm.notebook
from numpy.testing import assert_allclose
from test_helpers import SGD, normal

import helpers as h
from lab import training

X, FOUR = normal(165, 6), [0.1, 0.3, 1.0, 3.0]  # 10 minibatches of 16, and 5 rows too many
LOSSES = [
    (h.Encoder, h.published_loss, {"lam": FOUR}),
    (h.Encoder, h.bounded_loss, {"lam": FOUR, "kappa": 0.5}),
    (partial(h.Encoder, signed=True), h.published_loss, {"decorrelation": FOUR}),
    (h.SparseAutoencoder, h.sae_loss, {"penalty": FOUR}),
    (partial(h.SparseAutoencoder, tied=True), h.sae_loss, {"penalty": FOUR}),
    (partial(h.SparseAutoencoder, k=2), h.sae_loss, {}),
]
train = partial(training.train, loss=h.published_loss, x=X, batch_size=16, epochs=3, title=None)


def four(kind=h.Encoder):
    return [kind(6, 4, seed=s).double() for s in range(4)]


def values(models):
    return torch.cat([p.detach().flatten() for model in models for p in model.parameters()])


def assert_close(models, others):
    assert (values(models) - values(others)).abs().max() < 1e-5 * values(others).abs().max()


@pytest.mark.parametrize("kind, loss, arguments", LOSSES)
@pytest.mark.parametrize("optimizer, seed", [(SGD, [0, 0, 1, 1]), (torch.optim.Adam, [0, 0, 1, 2])])
def test_a_stack_equals_the_plain_loop(kind, loss, arguments, optimizer, seed):
    """50 steps, in one stack: several arguments, rates and orders of the data."""
    stack, loops, lr = four(kind), four(kind), [1e-3, 4e-3, 1e-3, 2e-3]
    plan = dict(epochs=5, optimizer=optimizer)
    losses = train(stack, loss=loss, arguments=arguments, lr=lr, seed=seed, **plan)["loss"]
    for i, model in enumerate(loops):
        own = partial(loss, **{k: np.broadcast_to(v, 4)[i] for k, v in arguments.items()})
        alone = h.fit(model, own, X, lr=lr[i], seed=seed[i], batch_size=16, **plan)
        assert_allclose(losses[:, i], alone, rtol=1e-6)
        assert_close([stack[i]], [model])


def test_schedules_and_unit_norm_against_a_loop():
    models, loops, lr, factors = *map(four, [h.SparseAutoencoder] * 2), [1, 0.1, 3], [0, 1, 0.5]
    for model in models + loops:
        model.c.requires_grad_(False)  # and stays as it is
    plan = dict(schedule={"lr": lr, "penalty": factors}, lr=0.01, unit_norm="V", optimizer=SGD)
    train(models, loss=h.sae_loss, arguments={"penalty": FOUR}, **plan)
    for model, penalty in zip(loops, FOUR):
        order = torch.Generator().manual_seed(0)
        for epoch in range(3):
            for rows in torch.randperm(165, generator=order)[:160].view(10, 16):
                model.zero_grad()
                h.sae_loss(model, X[rows], penalty * factors[epoch]).backward()
                model.V.grad -= (model.V.grad * model.V).sum(1, keepdim=True) * model.V
                for p in (model.W, model.b, model.V):
                    p.data -= 0.01 * lr[epoch] * p.grad
                model.V.data /= model.V.data.norm(dim=1, keepdim=True)
    assert_close(models, loops)
    assert all((model.c == 0).all() for model in models)


def test_second_moments_and_every_parameter_group():
    """A bias with a rate of its own, on the same schedule; the moments of one plain Adam."""

    def groups(parameters, lr, kind=torch.optim.Adam):
        W, b = parameters
        return kind([{"params": [W]}, {"params": [b], "lr": 7 * lr}], lr=lr)

    for kind in (torch.optim.Adam, SGD):
        models, loops, plan = four(), four(), {"lr": [1, 0.1, 3]}
        found = train(models, lr=0.01, optimizer=partial(groups, kind=kind), schedule=plan)
        for i, model in enumerate(loops):
            step, order = groups(model.parameters(), 0.01, kind), torch.Generator().manual_seed(0)
            for factor in plan["lr"]:
                for group, own in zip(step.param_groups, (0.01, 0.07)):
                    group["lr"] = own * factor
                for rows in torch.randperm(165, generator=order)[:160].view(10, 16):
                    model.zero_grad()
                    h.published_loss(model, X[rows]).backward()
                    step.step()
            for name, p in model.named_parameters() if kind is not SGD else ():
                own = step.state[p]["exp_avg_sq"]
                torch.testing.assert_close(found["second_moments"][name][i], own, rtol=1e-6, atol=0)
        assert_close(models, loops)
        assert ("second_moments" in found) == (kind is not SGD)


def test_one_diverging_model_is_nan_and_leaves_the_others_to_the_bit():
    stack, alone, others = four(), four(), [0, 2, 3]
    loss = lambda model, x, c: c * h.published_loss(model, x)  # noqa: E731
    calm = train(alone, loss=loss, arguments={"c": [1, 1, 2, 1]})["loss"]
    with pytest.warns(RuntimeWarning, match="loss of model 1 became .* in epoch 1 of 3"):
        wild = train(stack, loss=loss, arguments={"c": [1, 1e308, 2, 1]})["loss"]
    assert np.array_equal(wild[:, others], calm[:, others]) and np.isnan(wild[:, 1]).all()
    assert values([stack.pop(1)]).isnan().all() and alone.pop(1)
    assert values(stack).equal(values(alone))


@pytest.mark.parametrize("cores", [1, 2])
def test_side_by_side_is_one_after_the_other_to_the_bit(cores, monkeypatch):
    monkeypatch.setattr(training.joblib, "cpu_count", lambda: cores)
    stacks, seen = [four() for _ in range(3)], set()
    look = lambda model: seen.add((threading.get_ident(), torch.get_num_threads())) or {}  # noqa: E731
    jobs = [partial(train, models, seed=i, monitor=look) for i, models in enumerate(stacks)]
    together = training.side_by_side(*jobs, title=None)
    for i, (models, alone) in enumerate(zip(stacks, (four() for _ in range(3)))):
        assert np.array_equal(train(alone, seed=i)["loss"], together[i]["loss"])
        assert values(models).equal(values(alone))
    assert len(seen) == cores and {threads for _, threads in seen} == {1}


@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupt_ends_all_within_two_seconds(presses, monkeypatch):
    """A second Ctrl-C, while the first is being waited for, leaves nothing set."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    monkeypatch.setattr(training.joblib, "cpu_count", lambda: 2)
    models, seen, at = four()[:2], set(), []

    def look(model):
        seen.add(threading.get_ident())
        while len(seen) == 2 and len(at) < presses:  # both have learned something
            at.append(time.time())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)
        return {}

    jobs = [partial(train, [model], epochs=10**6, monitor=look) for model in models]
    with pytest.raises(KeyboardInterrupt):
        training.side_by_side(*jobs, title=None)
    assert time.time() - at[0] < 2 and len(at) == presses
    for model, fresh in zip(models, four()):
        assert model.W.isfinite().all() and not model.W.equal(fresh.W)
    assert np.isfinite(train(models)["loss"]).all()  # what comes next is not stopped


def test_the_bar_of_a_live_notebook_ends_at_its_total(monkeypatch):
    ended = {}

    class Bar(tqdm.notebook.tqdm):
        def close(self):
            ended[self.desc] = self.container.children[1].value, self.container.children[1].max
            super().close()

    monkeypatch.setenv("JPY_SESSION_NAME", "live")
    monkeypatch.delenv("PROGRESS", raising=False)
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    monkeypatch.setattr(training.joblib, "cpu_count", lambda: 1)
    jobs = [partial(train, four(), epochs=n) for n in (2, 3)]
    training.side_by_side(*jobs, title="two")
    train(four(), epochs=4, title="alone")
    assert ended == {"two": (5, 5), "alone": (4, 4)}


def test_progress_goes_to_a_terminal_and_into_no_file(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    kept.write_text("mine")
    monkeypatch.setenv("PROGRESS", str(kept))
    with training.progress_bar(3, "epochs") as bar:
        assert bar.disable
    assert kept.read_text() == "mine"
