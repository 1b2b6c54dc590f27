"""Train many models at once: a stack of them in lockstep, and stacks side by side, one a core."""

import warnings
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import helpers as h
from lab.parallel import side_by_side, stop_if_interrupted, tell_epoch

ADAM = partial(torch.optim.Adam, fused=True)


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
    Other than there, models move to the device of x, and a model that diverges stops no other.

    loss(model, x, **arguments) -> () is the loss of one model on one minibatch x (batch_size, D).
    Each of `arguments`, lr, and seed (of the order of the inputs) is one value for all models, or a
    list of one for each. Models of one seed read one minibatch, which is faster.
    optimizer(parameters, lr=lr) must treat all entries alike, and its steps must be proportional to
    lr if there are several, as those of SGD and Adam are. schedule: a factor of lr an epoch.
    monitor(model) -> dict of numbers is called after each epoch. On Ctrl-C models keep what they
    have learned.

    Returns a dict of arrays (epochs, n_models): "loss", the mean per input, and what monitor gave.
    Where a loss is not finite, it is NaN from then on, with a RuntimeWarning; the other models go
    on. Raises ValueError for inputs that cannot be learned from and for models of different
    options, and what PyTorch raises for models that differ in class or size.
    """
    # PyTorch would train all with the options of the first
    if len({(getattr(m, "k", None), getattr(m, "tied", None)) for m in models}) > 1:
        raise ValueError("models of different options do not stack: train a stack for each")
    schedule = [1.0] * epochs if schedule is None else schedule
    if epochs < 1 or len(schedule) != epochs:
        raise ValueError(f"needs at least one epoch, and a schedule of {epochs} factors")
    x, n = h.checked_inputs(x, rows=batch_size), len(models)
    for model in models:
        model.to(x.device)
    x = x.to(next(models[0].parameters()).dtype)

    def stacked(values):
        return torch.as_tensor(values, dtype=x.dtype, device=x.device).expand(n)

    seeds = np.broadcast_to(np.array(seed, int), n).tolist()
    if len({*seeds}) == 1:  # one minibatch for all
        seeds = seeds[:1]
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    arguments = {name: stacked(value) for name, value in (arguments or {}).items()}
    state = {
        f"model.{name}": value.detach().requires_grad_()
        for name, value in stack_module_state(models)[0].items()
    }
    objective = _Objective(deepcopy(models[0]), loss)

    def one_loss(state, arguments, x):
        return functional_call(objective, state, (x, arguments))

    losses_of = vmap(one_loss, in_dims=(0, 0, 0 if len(seeds) > 1 else None))
    # Steps are proportional to lr: several rates are the largest one, and a part of each step.
    top = float(np.max(lr))
    parts = None if np.ndim(lr) == 0 else stacked(lr) / top
    opt = optimizer(state.values(), lr=top)
    n_batches, history, finite = len(x) // batch_size, {"loss": []}, np.ones(n, bool)

    try:
        for epoch in range(epochs):
            for group in opt.param_groups:
                group["lr"] = top * schedule[epoch]
            order = torch.stack([torch.randperm(len(x), generator=g) for g in generators])
            total = torch.zeros(n, dtype=x.dtype, device=x.device)
            for rows in order.to(x.device).split(batch_size, dim=1)[:n_batches]:
                stop_if_interrupted()
                batch = x.index_select(0, rows.flatten())  # faster than x[rows]
                if len(seeds) > 1:
                    batch = batch.unflatten(0, rows.shape)
                value = losses_of(state, arguments, batch)
                opt.zero_grad()
                value.sum().backward()
                with torch.no_grad():
                    total += value
                    _take_step(opt, state.values(), parts)
            losses = (total / (n_batches * batch_size)).cpu().numpy()
            for i in np.flatnonzero(finite & ~np.isfinite(losses)):
                message = f"the loss of model {i} became {losses[i]} in epoch {epoch + 1}"
                warnings.warn(f"{message}; try a smaller lr", RuntimeWarning, stacklevel=2)
            finite &= np.isfinite(losses)
            history["loss"].append(np.where(finite, losses, np.nan))
            if monitor is not None:
                _unstack(state, models)
                seen = [monitor(model) for model in models]
                for name in seen[0]:
                    history.setdefault(name, []).append([float(s[name]) for s in seen])
            tell_epoch()
    finally:  # also on Ctrl-C
        _unstack(state, models)
    return {name: np.array(values) for name, values in history.items()}


def _take_step(opt, parameters, parts):
    """One step of the optimizer; of each model only its part, where there are several rates."""
    before = [] if parts is None else [p.clone() for p in parameters]
    opt.step()
    for p, old in zip(parameters, before):
        p.copy_(torch.lerp(old, p, parts.view(-1, *[1] * (p.dim() - 1))))


@torch.no_grad()
def _unstack(state, models):
    for name, values in state.items():
        for model, value in zip(models, values):
            model.get_parameter(name.removeprefix("model.")).copy_(value)


def train_stacks(stacks, title):
    """`train` stacks side by side, whose models have names.

    stacks: pairs of a list of keys, one for each model, and a dict of the arguments of `train`. The
    bar counts epochs of all of them. Returns {key: model} and {key: losses (epochs,)}.
    """
    jobs = [partial(train, **arguments) for _, arguments in stacks]
    histories = side_by_side(jobs, title, sum(arguments["epochs"] for _, arguments in stacks))
    models, losses = {}, {}
    for (keys, arguments), history in zip(stacks, histories):
        models |= zip(keys, arguments["models"])
        losses |= zip(keys, history["loss"].T)
    return models, losses
