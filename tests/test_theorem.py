"""Notebook 1's theorem and M-step, on random data; and its section "Try it"."""

import re

import nbformat
import pytest
import torch
from torch.testing import assert_close

import helpers as h
from lab import ROOT

torch.set_num_threads(1)  # the tensors are small
N, D, K = 40, 5, 4


def layer(seed, signed=False, mean=0.0):
    """A layer in float64, and N inputs of this mean."""
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return h.Encoder(D, K, signed=signed, seed=seed).double(), x - x.mean(0) + mean


@pytest.mark.parametrize("mean", [0.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_every_unit_falls_silent(mean, seed):
    """Within the theorem's time, by the steps and within the bounds of its proof."""
    (model, x), rate, active = layer(seed, mean=mean), 4e-3, torch.zeros(K)
    x = torch.cat([x, torch.ones(N, 1)], 1)
    theta = torch.cat([model.W, model.b[:, None]], 1).detach()
    length = theta.norm(dim=1)
    M = length.max() * x.norm(dim=1).max()
    least = (-M).exp() / K
    for _ in range(5_000):
        E = torch.relu(x @ theta.requires_grad_().T)
        (g,) = torch.autograd.grad(h.lse_loss(E), theta)
        E, r, after = E.detach(), h.responsibilities(E.detach()), (theta - rate * g).detach()
        change = -2 * rate * (r * E).sum(0) + rate**2 * g.square().sum(1)
        assert_close(after.square().sum(1) - theta.square().sum(1), change, rtol=0, atol=1e-12)
        awake, theta = (E > 0).any(0), after
        assert E.max() <= M and r.min() >= least
        assert (g[awake, -1] >= least).all() and not g[~awake].any()
        active += awake * rate
    assert not awake.any() and (active <= 2 * length / least).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_m_step_is_silence(seed):
    (model, x), (other, _) = layer(seed, mean=1.0), layer(seed + 9)
    E, other = model(x), other(x)
    r, floor = h.responsibilities(E), -N * torch.log(torch.tensor(K).double())
    # Whatever lowers the expected energy at fixed responsibilities lowers the loss by as much.
    assert h.lse_loss(other) - h.lse_loss(E) <= (r * (other - E)).sum() + 1e-9
    assert h.lse_loss(E) > floor and (r * E).sum() > 0
    assert_close(h.lse_loss(torch.zeros(N, K).double()), floor)
    signed = layer(seed, signed=True)[0](x)  # their Q falls with b without end
    assert_close((r * (signed - 1e9)).sum(), (r * signed).sum() - 1e9 * N)


def test_try_it():
    """With softplus in place of the ReLU the edges leave as well, and the assertions fail."""
    cells = nbformat.read(ROOT / "notebooks" / "1_theorem.ipynb", 4).cells
    sources = [c.source for c in cells if c.cell_type == "code"]
    end = next(i for i, source in enumerate(sources) if "assert not gradient" in source)
    left_out = r"(?m)^( *!|figure =|report\.s).*"  # what only a notebook knows, and figures
    names = {}
    for source in sources[:end]:
        if source.startswith("energies ="):
            source = source.replace("torch.relu", "torch.nn.functional.softplus")
        exec(re.sub(left_out, "", source), names)
    theta, points = names["theta"][-1], names["points"]
    assert (points @ theta[:, :2].T + theta[:, 2] < 0).all() and names["gradient"][-1].all()
    with pytest.raises(AssertionError, match="not close"):
        exec(sources[end], names)
