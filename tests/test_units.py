"""lab/units.py: purity, agreement, probes and untrained controls against plain loops and SciPy."""

from itertools import permutations

import numpy as np
import pytest
import torch
from test_helpers import normal

import helpers as h
from lab import units


def test_purity_weights_classes_equally_and_agreement_is_the_best_matching_of_all():
    A = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).double()
    A[:, 3], y = 0, torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    A[:, 0] = (y == 2) * 3.0  # of one class, though the smallest
    means = np.array([[A[y == c, j].mean() for c in range(3)] for j in range(3)])
    assert units.purity(A, y) == pytest.approx(np.mean([m.max() / m.sum() for m in means]))
    one, other = normal(50, 4), normal(50, 4, seed=1)
    other[:, 2] = 3 * one[:, 0] + 0.1 * other[:, 2]
    R = np.corrcoef(one.T, other.T)[:4, 4:]
    best = max(np.mean([R[i, j] for i, j in enumerate(p)]) for p in permutations(range(4)))
    assert units.agreement(one, other) == pytest.approx(best)


def test_a_probe_learns_from_training_and_is_judged_on_test():
    """Labels of the test set are turned round: whoever learns from them is right."""
    x = normal(400, 3, dtype=torch.float32)
    model, y = h.Encoder(3, 8), (x[:, 0] > 0).long()
    own = units.probe(model, x, y, x, y)
    assert own > 90 and units.probe(model, x, y, x, 1 - y) == pytest.approx(100 - own)


def test_pairs_compare_seeds_at_equal_settings():
    x = normal(50, 5, dtype=torch.float32)
    models = {("a", s, n): h.Encoder(5, 4, seed=n) for n in (0, 1, 2) for s in (1, 2)}
    found = units.pairs(models, x)
    assert [*found.seed] == 2 * ["0, 1", "0, 2", "1, 2"]
    codes = [models["a", 2, n].encode(x).detach() for n in (0, 2)]
    l0 = (h.l0(codes[0]) * h.l0(codes[1])) ** 0.5
    assert [*found.iloc[4]] == ["a", 2, "0, 2", l0, pytest.approx(units.agreement(*codes))]
    assert units.pairs({("a", 1, 0): models["a", 1, 0]}, x).empty


@pytest.mark.parametrize("name", ["k-means templates", "random weights"])
def test_untrained_encoders_have_unit_rows_one_bias_and_the_l0_asked_for(name):
    centres = 6 * torch.eye(6)[:4]
    x = centres.repeat(100, 1) + 0.5 * normal(400, 6, dtype=torch.float32)
    found = units.untrained(4, x, [1, 2.5], 0, [name])
    assert set(found) == {(name, 1, 0), (name, 2.5, 0)}
    for (_, l0, _), model in found.items():
        assert h.l0(model.encode(x)) == pytest.approx(l0, abs=0.02) and len(model.b.unique()) == 1
        torch.testing.assert_close(model.W.norm(dim=1), torch.ones(4))
        assert name == "random weights" or units.agreement(model.W.detach().T, centres.T) > 0.99
