"""Train many models at once: a stack of them in lockstep, and stacks side by side, one a core."""

import contextlib
import contextvars
import copy
import itertools
import math
import os
import sys
import threading
import warnings
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
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
# Of the `side_by_side` that runs a job: its progress bar, and an event that interrupts the job.
_pool = contextvars.ContextVar("pool", default=None)


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
    title="training",
):
    """Train a list of models of one shape in place: `helpers.fit`, for a whole stack in lockstep.

    loss(model, x, **arguments) -> () is the loss of one model on one minibatch x (batch_size, D).
    Each of `arguments`, lr, and seed (of the order of the inputs) is one value for all models, or a
    list of one for each. Models of equal seeds see the same minibatches.
    optimizer(parameters, lr=lr) must treat all entries alike, and its steps must be proportional to
    lr if there are several, as those of SGD and Adam are. schedule: a factor of lr an epoch.
    monitor(model) -> dict of numbers is called after each epoch. title: of the progress bar, None
    for no bar. Models move to the device of x; on Ctrl-C they keep what they have learned.

    Returns a dict of arrays (epochs, n_models): "loss", the mean per input, and what monitor gave.
    Where a loss is not finite, it is NaN from then on, with a RuntimeWarning; the other models go
    on. Raises ValueError for bad arguments and inputs.
    """
    arguments, n = arguments or {}, len(models)
    schedule = [1.0] * epochs if schedule is None else schedule
    _check(models, epochs, schedule, {"lr": lr, "seed": seed, **arguments})
    x = h.checked_inputs(x, rows=batch_size)
    for model in models:
        model.to(x.device)
    x = x.to(next(models[0].parameters()).dtype)
    seeds = np.broadcast_to(np.array(seed, int), n).tolist()
    # Neighbours of equal seeds share each minibatch, which is then read once for all of them.
    shared = math.gcd(*(len(list(run)) for _, run in itertools.groupby(seeds)))
    generators = [torch.Generator().manual_seed(s) for s in seeds[::shared]]
    arguments = {name: _per_model(value, n, x) for name, value in arguments.items()}
    state = {name: value.detach() for name, value in stack_module_state(models)[0].items()}
    learned = {k: state[k].requires_grad_() for k, p in models[0].named_parameters()}
    stack_loss = _stack_loss(_Objective(copy.deepcopy(models[0]), loss), n, shared)
    # Steps are proportional to lr: several rates are the largest one, and a part of each step.
    largest = float(np.max(lr))
    parts = None if np.ndim(lr) == 0 else _per_model(lr, n, x) / largest
    step = optimizer(learned.values(), lr=largest)
    rates = [group["lr"] for group in step.param_groups]
    n_batches, history, finite = len(x) // batch_size, {"loss": []}, np.ones(n, bool)

    with contextlib.ExitStack() as exits:
        bar, interrupted = _pool.get() or (
            exits.enter_context(progress_bar(title)),
            threading.Event(),
        )
        _extend(bar, epochs)
        exits.callback(_unstack, learned, models)  # also on Ctrl-C
        for epoch in range(epochs):
            for group, rate in zip(step.param_groups, rates):
                group["lr"] = rate * schedule[epoch]
            order = torch.stack([torch.randperm(len(x), generator=g) for g in generators])
            total = torch.zeros(n, dtype=x.dtype, device=x.device)
            for rows in order.to(x.device).split(batch_size, dim=1)[:n_batches]:
                if interrupted.is_set():
                    raise KeyboardInterrupt
                batch = x.index_select(0, rows.flatten())  # faster than x[rows]
                value = stack_loss(state, arguments, batch.unflatten(0, rows.shape))
                step.zero_grad()
                value.sum().backward()
                with torch.no_grad():
                    total += value
                    _take_step(step, learned, parts)
            losses = (total / (n_batches * batch_size)).cpu().numpy()
            for i in np.flatnonzero(finite & ~np.isfinite(losses)):
                told = f"the loss of model {i} became {losses[i]} in epoch {epoch + 1}"
                warnings.warn(f"{told}; try a smaller lr", RuntimeWarning, stacklevel=2)
            finite &= np.isfinite(losses)
            history["loss"].append(np.where(finite, losses, np.nan))
            if monitor is not None:
                _unstack(learned, models)
                seen = [monitor(model) for model in models]
                for name in seen[0]:
                    history.setdefault(name, []).append([float(s[name]) for s in seen])
            bar.update()
    return {name: np.array(values) for name, values in history.items()}


def _stack_loss(objective, n, shared):
    """The loss of every model: (state, arguments, minibatches (n / shared, B, D)) -> (n,)."""

    def one_loss(state, arguments, x):
        parameters = {f"model.{name}": value for name, value in state.items()}
        return functional_call(objective, parameters, (x, arguments))

    on_one_batch = vmap(one_loss, in_dims=(0, 0, None))
    if shared == n:
        return lambda state, arguments, x: on_one_batch(state, arguments, x[0])
    if shared == 1:
        return vmap(one_loss)

    def by_groups(state, arguments, x):
        parts = [
            {name: value.unflatten(0, (-1, shared)) for name, value in values.items()}
            for values in (state, arguments)
        ]
        return vmap(on_one_batch)(*parts, x).flatten()

    return by_groups


def _take_step(step, learned, parts):
    """One step of the optimizer; of each model only its part, where there are several rates."""
    before = [] if parts is None else [p.clone() for p in learned.values()]
    step.step()
    for p, old in zip(learned.values(), before):
        p.copy_(torch.lerp(old, p, parts.view(-1, *[1] * (p.dim() - 1))))


def _check(models, epochs, schedule, values):
    kinds = {
        (type(m), *(f"{k} {p.shape} {p.requires_grad}" for k, p in m.named_parameters()))
        + (str({k: v for k, v in vars(m).items() if not k.startswith("_")}),)
        for m in models
    }
    if len(kinds) != 1 or len({id(model) for model in models}) < len(models):
        raise ValueError("a stack is of different models of one class, one size and equal options")
    if not all(p.requires_grad for p in models[0].parameters()):
        raise ValueError("all parameters of a stack are trained")
    if epochs < 1 or len(schedule) != epochs:
        raise ValueError(f"needs at least one epoch, and a schedule of {epochs} factors")
    for name, value in values.items():
        if np.ndim(value) and len(value) != len(models):
            raise ValueError(f"{name}: one value, or one for each of the {len(models)} models")
    if np.min(values["lr"]) <= 0:
        raise ValueError(f"lr must be positive, got {values['lr']}")


def _per_model(values, n, x):
    return torch.as_tensor(values, dtype=x.dtype, device=x.device).expand(n)


@torch.no_grad()
def _unstack(stacked, models):
    for name, values in stacked.items():
        for model, value in zip(models, values):
            model.get_parameter(name).copy_(value)


def side_by_side(jobs, title="training"):
    """Run functions at the same time, one a core: their results, in the order of the jobs.

    Each has one torch thread. That is faster than one after the other with all threads, for the
    tensors are small, and results do not depend on the number of cores. If a job fails or is
    interrupted, the others end after their current step, and all models keep what they learned.
    """
    threads, interrupted = torch.get_num_threads(), threading.Event()
    pool = ThreadPoolExecutor(joblib.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))
    with threadpool_limits(1), progress_bar(title) as bar:
        torch.set_num_threads(1)
        context = contextvars.copy_context()
        context.run(_pool.set, (bar, interrupted))
        running = [pool.submit(context.copy().run, job) for job in jobs]
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


def progress_bar(title, total=0, unit="epoch"):
    """A bar in scripts and live notebooks; under `make` on its terminal, and in no saved output."""
    terminal = os.environ.get("PROGRESS", "")
    look = {"total": total, "desc": title, "unit": unit, "leave": False}
    look |= {"mininterval": 0, "miniters": 1}  # updates are few, and the last is to be seen
    if title and Path(terminal).is_char_device() and os.access(terminal, os.W_OK):
        return tqdm.tqdm(**look, file=open(terminal, "w"))
    live = {"JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"} & {*os.environ}
    saved = terminal or ("ipykernel" in sys.modules and not live)
    return tqdm.auto.tqdm(**look, disable=bool(saved or not title))


def _extend(bar, epochs):
    """More to do. Only `reset` tells the bar of a live notebook of a new total."""
    with bar.get_lock():
        done, begun = bar.n, getattr(bar, "start_t", None)
        bar.reset((bar.total or 0) + epochs)
        bar.n = bar.last_print_n = done
        bar.start_t = begun
        bar.refresh()
