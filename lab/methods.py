"""What notebook 3 trains and helpers.py does not have."""

import torch

import helpers as h


def lr_schedule(epochs, slow_start=False):
    """Factors of the learning rate, one an epoch: 1, and for the last quarter, of two epochs or
    more at least one, 0.1. slow_start: the first has a twentieth, so that SGD kills no units."""
    last = max(epochs // 4, int(epochs > 1))
    factors = [1.0] * (epochs - last) + [0.1] * last
    return [0.05, *factors[1:]] if slow_start and epochs > 2 else factors


class AdamByUnit(torch.optim.Optimizer):
    """Adam with one second moment for each unit, the mean over its row of W (K, D), in place of one
    for each weight. All else is Adam's."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                square = p.grad.square()
                if p.dim() == 2:
                    square = square.mean(1, keepdim=True)
                state = self.state[p]
                if not state:
                    state.update(steps=0, mean=torch.zeros_like(p), square=torch.zeros_like(square))
                state["steps"] += 1
                state["mean"].lerp_(p.grad, 0.1)
                state["square"].lerp_(square, 0.001)
                mean = state["mean"] / (1 - 0.9 ** state["steps"])
                square = state["square"] / (1 - 0.999 ** state["steps"])
                p -= group["lr"] * mean / (square.sqrt() + 1e-8)


def paper_sae(n_inputs, n_units, seed):
    """The SAE of the paper's benchmark: its decoder starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(n_inputs, n_units, seed=seed)
    generator, bound = torch.Generator().manual_seed(100 + seed), n_units**-0.5
    model.V.data.uniform_(-bound, bound, generator=generator)
    return model


def principal_components(x, n_units, l0):
    """An encoder that nothing trains: its rows are the n_units / 2 leading principal components of
    x (N, D) and their negatives, on centred inputs; one bias for all lets l0 of them be active on
    a row of x, on average."""
    model = h.Encoder(x.shape[1], n_units, x.mean(0)).to(x.device)
    axes = torch.linalg.eigh(torch.cov(x.T)).eigenvectors.T[-n_units // 2 :]
    model.W.data = torch.cat([axes, -axes])[:n_units]
    model.b.data.zero_()
    scores = model.pre_activations(x).detach().flatten()
    model.b.data -= scores.kthvalue(len(scores) - round(l0 * len(scores) / n_units)).values
    return model
