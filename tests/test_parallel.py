"""lab/parallel.py: jobs side by side, how they end, and the bar that shows how far they are."""

import re
import signal
import sys
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

import helpers as h
from lab import parallel
from lab.parallel import side_by_side
from lab.train import train, train_stacks

X = torch.randn(160, 6, generator=torch.Generator().manual_seed(0)).double()
SHORT = {"x": X, "batch_size": 16}


def loss(model, x):
    return h.published_loss(model(x))


def stack(seed, epochs=2):
    """Keys, and two models, of another precision than their inputs, to train side by side."""
    models = [h.Encoder(6, 4, seed=seed), h.Encoder(6, 4, seed=10)]
    arguments = {"models": models, "loss": loss, "seed": seed, "epochs": epochs}
    return [(seed, "a"), (seed, "b")], SHORT | arguments


@pytest.fixture(autouse=True)
def cores(request, monkeypatch):
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: getattr(request, "param", 2))


@pytest.mark.parametrize("cores", [1, 2], indirect=True)
def test_stacks_side_by_side_are_one_after_the_other_to_the_bit():
    models, losses = train_stacks([stack(seed) for seed in range(3)], None)
    assert len(models) == len(losses) == 6
    for seed in range(3):
        keys, alone = stack(seed)
        expected = train(**alone | {"x": X.float()})["loss"]
        for i, key in enumerate(keys):
            assert models[key].W.equal(alone["models"][i].W)
            assert np.array_equal(losses[key], expected[:, i])


def test_each_job_has_one_thread_and_the_caller_keeps_its_own():
    torch.set_num_threads(2)
    try:
        assert side_by_side([torch.get_num_threads] * 3, None) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("cores", [1], indirect=True)  # so that the bar is drawn in order
def test_the_bar_counts_epochs_of_all_stacks_or_jobs_and_knows_its_total_at_the_start(
    monkeypatch, capsys
):
    def drawn():
        """Done and total, and the unit, whenever a bar is drawn."""
        return re.findall(r"(\d+/\d+) .*?(epoch|job)", capsys.readouterr().err)

    monkeypatch.delenv("PROGRESS", raising=False)  # as in a script
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    stacks = [stack(seed=0, epochs=epochs) for epochs in (1, 2, 1)]
    train_stacks(stacks, "stacks")
    assert drawn() == [(f"{done}/4", "epoch") for done in range(5)]
    jobs = [partial(train, **arguments) for _, arguments in stacks]
    side_by_side(jobs, "jobs")
    assert drawn() == [(f"{done}/3", "job") for done in range(4)]
    side_by_side(jobs, None)
    monkeypatch.setenv("PROGRESS", "no terminal")  # as under `make`, which saves what is shown
    side_by_side(jobs, "jobs")
    assert drawn() == []


# --- How jobs end -------------------------------------------------------------------------------


def fail():
    raise ZeroDivisionError


def press_ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.fixture
def python_interrupt():
    """A shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_interrupt")
@pytest.mark.parametrize("cores", [3], indirect=True)
@pytest.mark.parametrize(
    "end, error", [(fail, ZeroDivisionError), (press_ctrl_c, KeyboardInterrupt)]
)
def test_a_failure_or_an_interrupt_ends_all_jobs_soon_and_models_keep_what_they_learned(end, error):
    models, steps, begun = [h.Encoder(6, 4), h.Encoder(6, 4)], Counter(), time.time()

    def counted(model, x):
        steps[threading.get_ident()] += 1
        assert time.time() < begun + 10
        return loss(model, x)

    def end_when_both_have_learned():
        while len(steps) < 2 or min(steps.values()) < 2:
            assert time.time() < begun + 10
            time.sleep(0.01)
        end()

    jobs = [partial(train, [model], counted, epochs=10**6, **SHORT) for model in models]
    with pytest.raises(error):
        side_by_side([*jobs, end_when_both_have_learned], None)
    assert time.time() - begun < 20
    for model in models:
        assert model.W.isfinite().all() and not model.W.equal(h.Encoder(6, 4).W)
    again = train(models, loss, **SHORT, epochs=1)["loss"]  # the next training is not stopped
    assert np.isfinite(again).all()
