"""Training many models at once: a stack in lockstep (`train`), and stacks side by side."""

import contextlib
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
_interrupted = threading.Event()  # of the last `side_by_side`: ends its `train`s with their step
_bar = None  # of `side_by_side`, for all that it runs


class _Objective(nn.Module):
    """A model and its loss as one module, for functional_call to put parameters into."""

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
    arguments=None,
    epochs,
    batch_size=128,
    lr=1e-3,
    optimizer=ADAM,
    schedule=None,
    seed=0,
    unit_norm=None,
    monitor=None,
    title="training",
):
    """Train a list of models of one shape in lockstep; they are updated in place.

    loss(model, x, **arguments) -> () is the loss of one model on one minibatch x (B, D), and
    `helpers.fit` the loop of one model. `arguments`, lr and seed hold one value for all models, or
    a list of one for each. Models of equal seeds see the same minibatches; incomplete last ones
    are dropped, for fewer rows would shift the balance of summed and unsummed terms.
    optimizer(parameters, lr=lr) must treat entries one by one, and its steps must be proportional
    to lr, as those of SGD and Adam are; all its parameter groups follow the schedule,
    {"lr" or an argument: one factor per epoch}.

    unit_norm: name of the parameter whose rows keep norm 1; as the field's libraries do it, the
    gradient along the rows is removed before each step, and the rows are rescaled after it.
    monitor(model) -> dict of numbers runs after each epoch.
    title: of the progress bar, None for no bar.

    Returns a dict of arrays (times, n_models): "loss", mean per row and epoch, and what monitor
    gave; after Adam also "second_moments" {parameter: (n_models, ...)}, its running mean squares.
    Where a model's loss turns non-finite, its losses are NaN, with a RuntimeWarning; others go on.
    Raises ValueError for bad arguments or inputs. On Ctrl-C models keep what they learned.
    """
    arguments, schedule, n = arguments or {}, schedule or {}, len(models)
    _check(models, epochs, schedule, arguments)
    x = h.training_inputs(x, models[0].W, batch_size)
    seeds = np.broadcast_to(np.array(seed, int), n).tolist()
    n_batches = len(x) // batch_size
    # Runs of equal seeds: so many neighbours share each minibatch, which is then read once.
    shared = math.gcd(*(len(list(run)) for _, run in itertools.groupby(seeds)))
    objective = _Objective(copy.deepcopy(models[0]), loss).to(x.device)
    state = {k: v.detach().to(x.device) for k, v in stack_module_state(models)[0].items()}
    named = models[0].named_parameters()
    learned = {k: state[k].requires_grad_() for k, p in named if p.requires_grad}
    arguments = {k: _per_model(v, n, x) for k, v in arguments.items()}  # one number a model
    # Steps are proportional to lr: several rates are one rate, and a share of each step.
    lr, rates = (float(lr), None) if np.ndim(lr) == 0 else (max(lr), _per_model(lr, n, x) / max(lr))

    def one_loss(state, arguments, x):
        named = {f"model.{name}": value for name, value in state.items()}
        return functional_call(objective, named, (x, arguments))

    group_loss = vmap(one_loss, in_dims=(0, 0, 0 if shared == 1 else None))

    def stack_loss(state, arguments, batches):
        if shared in (1, n):
            return group_loss(state, arguments, batches if shared == 1 else batches[0])
        own = [{k: v.unflatten(0, (-1, shared)) for k, v in d.items()} for d in (state, arguments)]
        return vmap(group_loss)(*own, batches).flatten()

    step = optimizer(learned.values(), lr=lr)
    base = [group["lr"] for group in step.param_groups]
    generators = [torch.Generator().manual_seed(s) for s in seeds[::shared]]
    history, finite, stop = {"loss": []}, np.ones(n, bool), _interrupted

    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress_bar(0, title)) if _bar is None else _bar
        _extend(bar, epochs)
        stack.callback(_unstack, learned, models)  # also on Ctrl-C
        for epoch in range(epochs):
            factors = {name: float(f[epoch]) for name, f in schedule.items()}
            for group, own in zip(step.param_groups, base):
                group["lr"] = own * factors.get("lr", 1.0)
            now = {name: v * factors.get(name, 1.0) for name, v in arguments.items()}
            order = torch.stack([torch.randperm(len(x), generator=g) for g in generators])
            total = torch.zeros(n, dtype=x.dtype, device=x.device)
            batches = order.to(x.device).split(batch_size, dim=1)[:n_batches]
            for rows in batches:
                if stop.is_set():
                    raise KeyboardInterrupt
                batch = x.index_select(0, rows.flatten())  # faster than x[rows]
                value = stack_loss(state, now, batch.unflatten(0, rows.shape))
                step.zero_grad()
                value.sum().backward()
                with torch.no_grad():
                    total += value
                    _step(step, learned, rates, unit_norm)
            losses = (total / (n_batches * batch_size)).cpu().numpy()
            for i in np.flatnonzero(finite & ~np.isfinite(losses)):
                said = f"{title}: the loss of model {i} became {losses[i]} in epoch {epoch + 1} of"
                warnings.warn(f"{said} {epochs}; try a smaller lr", RuntimeWarning, stacklevel=2)
            finite &= np.isfinite(losses)
            history["loss"].append(np.where(finite, losses, np.nan))
            if monitor is not None:
                _unstack(learned, models)
                seen = [monitor(model) for model in models]
                for key in seen[0]:
                    history.setdefault(key, []).append([float(s[key]) for s in seen])
            bar.update()
    found = {key: np.array(values) for key, values in history.items()}
    moments = {name: step.state.get(p, {}).get("exp_avg_sq") for name, p in learned.items()}
    return found | ({"second_moments": moments} if None not in moments.values() else {})


def _step(step, learned, rates, unit_norm):
    """One step of the optimizer: of each model its share, with rows of norm 1 where wanted."""
    if unit_norm is not None:
        V = learned[unit_norm]
        V.grad -= (V.grad * V).sum(-1, keepdim=True) * V
    before = [] if rates is None else [p.clone() for p in learned.values()]
    step.step()
    for p, old in zip(learned.values(), before):
        p.copy_(torch.lerp(old, p, rates.view(-1, *[1] * (p.dim() - 1))))
    if unit_norm is not None:
        V /= V.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _check(models, epochs, schedule, arguments):
    options = [{k: v for k, v in vars(model).items() if k[0] != "_"} for model in models]
    shapes = [[(n, p.shape, p.requires_grad) for n, p in m.named_parameters()] for m in models]
    kinds = {*map(str, zip(map(type, models), shapes, options))}
    if len(kinds) != 1 or len({id(model) for model in models}) < len(models):
        raise ValueError("models trained together: one or more, of one class, size and options")
    if epochs < 1:
        raise ValueError(f"at least 1 epoch, got {epochs}")
    if any(np.ndim(v) and len(v) != len(models) for v in arguments.values()):
        raise ValueError(f"arguments: one number, or one for each of {len(models)} models")
    if any(k not in {"lr", *arguments} or len(f) != epochs for k, f in schedule.items()):
        raise ValueError(f"schedule: {epochs} factors for lr or for an argument; {list(schedule)}")


def _per_model(values, n, x):
    return torch.as_tensor(values, dtype=x.dtype, device=x.device).expand(n)


@torch.no_grad()
def _unstack(stacked, models):
    for name, values in stacked.items():
        for model, value in zip(models, values):
            model.get_parameter(name).copy_(value)


def side_by_side(*jobs, title="training"):
    """Run functions at the same time, one a core -> their results in the order of the jobs.

    Each has one torch thread: two stacks so take two thirds of the time of one after the other
    with two threads each, results do not depend on the number of cores, and they are to the bit
    those of one after the other. On one core that is what happens. If a job fails or is
    interrupted, the others stop after their current step, and all models keep what they learned.
    """
    global _bar, _interrupted
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(joblib.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))
    with threadpool_limits(1), progress_bar(0, title) as _bar:
        torch.set_num_threads(1)
        running = [pool.submit(job) for job in jobs]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            failed = [job for job in running if job.done() and job.exception()]
            return [job.result() for job in failed or running]
        finally:  # also on Ctrl-C
            _interrupted.set()
            try:
                pool.shutdown(cancel_futures=True)
            finally:  # also on a second Ctrl-C: what is trained next is not stopped
                _interrupted, _bar = threading.Event(), None
                torch.set_num_threads(threads)


def progress_bar(total, title, unit="epoch"):
    """A bar in scripts and front ends; under `make`, on its terminal and so in no saved output."""
    terminal = os.environ.get("PROGRESS", "")
    live = {"JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"} & {*os.environ}
    look = {"total": total, "desc": title, "unit": unit, "leave": False}
    look |= {"mininterval": 0, "miniters": 1}  # few updates, and the last one is drawn too
    if title and Path(terminal).is_char_device() and os.access(terminal, os.W_OK):
        return tqdm.tqdm(**look, file=open(terminal, "w"))
    silent = not title or terminal or ("ipykernel" in sys.modules and not live)
    return tqdm.auto.tqdm(**look, disable=bool(silent))


def _extend(bar, epochs):
    """More to do. Only `reset` tells the bar of a live notebook of a new total."""
    with bar.get_lock():
        done, begun = bar.n, getattr(bar, "start_t", None)
        bar.reset((bar.total or 0) + epochs)
        bar.update(done)
        bar.start_t = begun
