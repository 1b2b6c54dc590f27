"""lab/plane.py against plain formulas; and the page's gradients against helpers.py."""

import json
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import ROOT, plane

POINTS, CLUSTER, CENTRES = plane.make_clusters()
DIRECTIONS = CENTRES / CENTRES.norm(dim=1, keepdim=True)


def test_clusters_are_where_they_are_said_to_be():
    assert POINTS.shape == (1280, 2) and POINTS.mean(0).abs().max() < 1e-5
    for c in range(5):
        own = POINTS[CLUSTER == c]
        assert len(own) == 256 and (own.mean(0) - CENTRES[c]).norm() < 0.3
        assert float(own.std(0).mean()) == pytest.approx(0.9, rel=0.1)
    _, cluster, _ = plane.make_clusters(shares=[1 / 2, 1 / 4, 1 / 4], n=3)
    assert cluster.bincount().tolist() == [640, 320, 320]
    _, _, centres = plane.make_clusters(4, middle=True)
    assert_allclose(torch.cdist(centres[3:], centres[:3]), np.full((1, 3), 3), rtol=1e-5)


def test_a_step_is_em_and_with_competition_off_mean_shift():
    x, mu = POINTS[:30].double(), POINTS[30:34].double()
    e = np.exp(-(np.linalg.norm(x[:, None] - mu, axis=2) ** 2) / 2)
    em, mean_shift = (w.T @ x.numpy() / w.sum(0)[:, None] for w in (e / e.sum(1)[:, None], e))
    several = torch.stack([mu, mu + 1])  # starts at once, as each alone
    for competition, expected in ((False, mean_shift), (True, em)):
        alone = [plane.descent_step(start, x, competition) for start in several]
        assert_allclose(alone[0], expected, rtol=1e-9)
        assert_allclose(plane.descent_step(several, x, competition), torch.stack(alone), rtol=1e-9)
    path = plane.trajectory(plane.descent_step, mu, 2, x)
    step = plane.descent_step(mu, x)
    assert_allclose(path, torch.stack([mu, step, plane.descent_step(step, x)]))


def test_starts_are_points_and_find_all_clusters_if_each_has_a_mean():
    starts = plane.starting_means(POINTS, 50, seed=1)
    assert {*map(tuple, starts.flatten(0, 1).tolist())} <= {*map(tuple, POINTS.tolist())}
    assert starts.shape == (50, 5, 2) and all(len(start.unique(dim=0)) == 5 for start in starts)
    means = torch.stack([CENTRES.flip(0) + 0.6, CENTRES[[0, 0, 2, 3, 4]], CENTRES + 0.8])
    assert plane.means_find_all(means, CENTRES).tolist() == [True, False, False]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("weights", [{}, {"lse": 2, "variance": 3, "competition": False}])
def test_layers_are_trained_at_once_as_each_alone(weights):
    points = POINTS[:256].double()
    _, W, b = plane.train_many_layers(points, [7, 3], epochs=2, **weights)
    assert W.shape == (1 + 2 * 2, 2, 5, 2) and b.shape == (1 + 2 * 2, 2, 5)
    for i, seed in enumerate((7, 3)):
        alone = h.Encoder(2, 5, seed=seed)
        assert_allclose(W[0, i], alone.W.detach())
        h.fit(
            alone,
            lambda model, x: h.decoder_free_loss(model(x), **weights),
            points,
            epochs=2,
            lr=0.03,
            order_seed=0,
        )
        assert_allclose(W[-1, i], alone.W.detach(), atol=1e-9)
        assert_allclose(b[-1, i], alone.b.detach(), atol=1e-9)


def test_units_find_all_clusters_if_each_has_one_of_its_own():
    def finds(W, bias=-2.0):
        E = torch.relu(POINTS @ W.T + bias)
        return bool(plane.units_find_all(E[None], CLUSTER))

    twice = DIRECTIONS[[0, 0, 2, 3, 4]]
    everywhere = torch.tensor([-2.0, -2, -2, -2, 9])
    assert [finds(DIRECTIONS), finds(DIRECTIONS, -9), finds(twice)] == [True, False, False]
    assert not finds(DIRECTIONS, everywhere)
    both = torch.nn.functional.one_hot(CLUSTER, 5).float()
    both[:, 0] += both[:, 1]  # one unit has two clusters, and another none
    both[:, 1] = 0
    assert not plane.units_find_all(both[None], CLUSTER)
    for share, found in ((0.4, True), (0.3, False)):  # of one cluster: from a third on
        edge = (POINTS[CLUSTER == 0] @ DIRECTIONS[0]).quantile(1 - share)
        bias = torch.tensor([-float(edge), -2, -2, -2, -2])
        assert finds(DIRECTIONS, bias) == found


def test_votes_are_shares_of_the_sum_and_one_on_average():
    E = torch.rand(2, 7, 5)
    Z = np.exp(-E.numpy()).sum(2)
    assert_allclose(plane.votes_without_competition(E), Z / Z.mean(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("competition", [True, False])
def test_gradients_of_the_page_are_those_of_helpers(competition):
    """Of a dead unit, too; and its votes are those of lab/plane.py."""
    quickjs = pytest.importorskip("quickjs")
    page = (ROOT / "notebooks/in_the_plane.html").read_text("utf-8")
    script = re.search(r'"use strict";(.*?)// --- What is drawn', page, re.DOTALL)[1]
    context = quickjs.Context()
    context.eval(script)
    rng = torch.Generator().manual_seed(0)
    W, b = torch.randn(5, 2, generator=rng).double(), torch.randn(5, generator=rng).double()
    b[4] = -99
    x = 2 * torch.randn(128, 2, generator=rng).double()
    flat = [json.dumps(part.flatten().tolist()) for part in (W, b, x)]
    weights = {"lse": 1.5, "variance": 0.7, "decorrelation": 2}
    call = f"gradient({', '.join(flat)}, 128, {json.dumps(weights)}, {str(competition).lower()})"
    of_page = json.loads(context.eval(f"JSON.stringify([...{call}])"))
    W.requires_grad_(), b.requires_grad_()
    loss = h.decoder_free_loss(torch.relu(x @ W.T + b), **weights, competition=competition)
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, (W, b))])
    assert_allclose(of_page, expected, rtol=1e-5, atol=1e-5)
    E = torch.relu(x @ W.T + b).detach()
    call = f"exponentials({json.dumps(E.flatten().tolist())}, 128)"
    Z, mean = json.loads(
        context.eval(
            f"(() => {{ const r = {call}; return JSON.stringify([[...r.Z], r.mean]); }})()"
        )
    )
    assert_allclose(np.array(Z) / mean, plane.votes_without_competition(E), rtol=1e-6)
