"""Train many models at once: a stack of them in lockstep, and stacks side by side, one a core."""

import contextvars
import itertools
import math
import os
import sys
import threading
import warnings
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from copy import deepcopy
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
import tqdm.auto
from threadpoolctl import threadpool_limits
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import helpers as h

ADAM = partial(torch.optim.Adam, fused=True)
# Of the `side_by_side` that runs a job: an event that interrupts it, and whom to tell of an epoch
_pool = contextvars.ContextVar("pool", default=(threading.Event(), lambda: None))


class _Objective(nn.Module):
    """A model and its loss as one module, so that functional_call can replace the parameters."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x, arguments):
        return self.loss(self.model, x, **arguments)


def train(
    models,
    loss,
    x,
    *,
    epochs,
    arguments=None,
    batch_size=h.BATCH_SIZE,
    lr=1e-3,
    optimizer=ADAM,
    schedule=None,
    seed=0,
    monitor=None,
):
    """Train a list of models of one shape in place: `helpers.fit`, for a whole stack in lockstep.

    loss(model, x, **arguments) -> () is the loss of one model on one minibatch x (batch_size, D).
    Each of `arguments`, lr, and seed (of the order of the inputs) is one value for all models, or a
    list of one for each. Neighbours of equal seeds read one minibatch, which is faster.
    optimizer(parameters, lr=lr) must treat all entries alike, and its steps must be proportional to
    lr if there are several, as those of SGD and Adam are. schedule: a factor of lr an epoch.
    monitor(model) -> dict of numbers is called after each epoch. Models move to the device of x; on
    Ctrl-C they keep what they have learned.

    Returns a dict of arrays (epochs, n_models): "loss", the mean per input, and what monitor gave.
    Where a loss is not finite, it is NaN from then on, with a RuntimeWarning; the other models go
    on. Raises ValueError for bad arguments and inputs, and what PyTorch raises for models that
    differ in class or size.
    """
    arguments, n = arguments or {}, len(models)
    schedule = [1.0] * epochs if schedule is None else schedule
    _check(models, epochs, schedule, {"lr": lr, "seed": seed, **arguments})
    x = h.checked_inputs(x, rows=batch_size)
    for model in models:
        model.to(x.device)
    x = x.to(next(models[0].parameters()).dtype)

    # Models are stacked as (groups, models of a group), of which each group has a seed.
    seeds = np.broadcast_to(np.array(seed, int), n).tolist()
    size = math.gcd(*(len(list(run)) for _, run in itertools.groupby(seeds)))
    generators = [torch.Generator().manual_seed(s) for s in seeds[::size]]

    def stacked(values):
        values = torch.as_tensor(values, dtype=x.dtype, device=x.device).expand(n)
        return values.unflatten(0, (-1, size))

    arguments = {name: stacked(value) for name, value in arguments.items()}
    state = {
        f"model.{name}": value.detach().unflatten(0, (-1, size)).requires_grad_()
        for name, value in stack_module_state(models)[0].items()
    }
    objective = _Objective(deepcopy(models[0]), loss)

    def one_loss(state, arguments, x):
        return functional_call(objective, state, (x, arguments))

    losses_of = vmap(vmap(one_loss, in_dims=(0, 0, None)))  # over groups, and within each
    # Steps are proportional to lr: several rates are the largest one, and a part of each step.
    parts = None if np.ndim(lr) == 0 else stacked(lr) / float(np.max(lr))
    step = optimizer(state.values(), lr=float(np.max(lr)))
    rates = [group["lr"] for group in step.param_groups]
    n_batches, history, finite = len(x) // batch_size, {"loss": []}, np.ones(n, bool)
    interrupted, tell = _pool.get()

    try:
        for epoch in range(epochs):
            for group, rate in zip(step.param_groups, rates):
                group["lr"] = rate * schedule[epoch]
            order = torch.stack([torch.randperm(len(x), generator=g) for g in generators])
            total = torch.zeros(len(generators), size, dtype=x.dtype, device=x.device)
            for rows in order.to(x.device).split(batch_size, dim=1)[:n_batches]:
                if interrupted.is_set():
                    raise KeyboardInterrupt
                batch = x.index_select(0, rows.flatten())  # faster than x[rows]
                value = losses_of(state, arguments, batch.unflatten(0, rows.shape))
                step.zero_grad()
                value.sum().backward()
                with torch.no_grad():
                    total += value
                    _take_step(step, state.values(), parts)
            losses = (total.flatten() / (n_batches * batch_size)).cpu().numpy()
            for i in np.flatnonzero(finite & ~np.isfinite(losses)):
                told = f"the loss of model {i} became {losses[i]} in epoch {epoch + 1}"
                warnings.warn(f"{told}; try a smaller lr", RuntimeWarning, stacklevel=2)
            finite &= np.isfinite(losses)
            history["loss"].append(np.where(finite, losses, np.nan))
            if monitor is not None:
                _unstack(state, models)
                seen = [monitor(model) for model in models]
                for name in seen[0]:
                    history.setdefault(name, []).append([float(s[name]) for s in seen])
            tell()
    finally:  # also on Ctrl-C
        _unstack(state, models)
    return {name: np.array(values) for name, values in history.items()}


def _take_step(step, parameters, parts):
    """One step of the optimizer; of each model only its part, where there are several rates."""
    before = [] if parts is None else [p.clone() for p in parameters]
    step.step()
    for p, old in zip(parameters, before):
        p.copy_(torch.lerp(old, p, parts.view(*parts.shape, *[1] * (p.dim() - 2))))


def _check(models, epochs, schedule, values):
    if not models or len({id(model) for model in models}) < len(models):
        raise ValueError("a stack has one model or more, and each of them once")
    # PyTorch would train all with the options of the first
    if len({(getattr(m, "k", None), getattr(m, "tied", None)) for m in models}) > 1:
        raise ValueError("models of different options do not stack: train a stack for each k")
    if epochs < 1 or len(schedule) != epochs:
        raise ValueError(f"needs at least one epoch, and a schedule of {epochs} factors")
    for name, value in values.items():
        if np.ndim(value) and len(value) != len(models):
            raise ValueError(f"{name}: one value, or one for each of the {len(models)} models")
    if np.min(values["lr"]) <= 0:
        raise ValueError(f"lr must be positive, got {values['lr']}")


@torch.no_grad()
def _unstack(state, models):
    for name, values in state.items():
        for model, value in zip(models, values.flatten(0, 1)):
            model.get_parameter(name.removeprefix("model.")).copy_(value)


def train_side_by_side(stacks, title):
    """`train` each of some stacks, dicts of its arguments, side by side: their histories.

    The bar counts epochs of all of them.
    """
    jobs = [partial(train, **stack) for stack in stacks]
    return side_by_side(jobs, title, epochs=sum(stack["epochs"] for stack in stacks))


def side_by_side(jobs, title, epochs=None):
    """Run functions at the same time, one a core: their results, in the order of the jobs.

    Each has one torch thread. That is faster than one after the other with all threads, for the
    tensors are small, and results do not depend on the number of cores. If a job fails or is
    interrupted, the others end after their current step, and all models keep what they learned.
    title: of the progress bar, None for no bar; epochs: those of all `train` in the jobs, which the
    bar then counts in the place of jobs.
    """
    threads, interrupted = torch.get_num_threads(), threading.Event()
    pool = ThreadPoolExecutor(joblib.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))
    total, unit = (len(jobs), "job") if epochs is None else (epochs, "epoch")
    with threadpool_limits(1), progress_bar(title, total, unit) as bar:
        torch.set_num_threads(1)
        context = contextvars.copy_context()
        context.run(_pool.set, (interrupted, bar.update if epochs else lambda: None))
        running = [pool.submit(context.copy().run, job) for job in jobs]
        for job in running if epochs is None else []:
            job.add_done_callback(lambda _: bar.update())
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            failed = [job for job in running if job.done() and job.exception()]
            return [job.result() for job in failed or running]
        finally:  # also on Ctrl-C
            interrupted.set()
            try:
                pool.shutdown(cancel_futures=True)
            finally:  # also on a second Ctrl-C
                torch.set_num_threads(threads)


def progress_bar(title, total, unit):
    """A bar in scripts and live notebooks; under `make` on its terminal, and in no saved output."""
    terminal = os.environ.get("PROGRESS", "")
    look = {"total": total, "desc": title, "unit": unit, "leave": False}
    look |= {"mininterval": 0, "miniters": 1}  # updates are few, and the last is to be seen
    if title and Path(terminal).is_char_device() and os.access(terminal, os.W_OK):
        return tqdm.tqdm(**look, file=open(terminal, "w", encoding="utf-8"))
    live = {"JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"} & {*os.environ}
    saved = terminal or ("ipykernel" in sys.modules and not live)
    return tqdm.auto.tqdm(**look, disable=bool(saved or not title))
