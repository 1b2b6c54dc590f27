"""lab/plane.py, and figures and cells of notebook 1, against plain formulas."""

import ast
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

import helpers as h
from lab import ROOT, plane
from lab.figures import theorem

POINTS, CLUSTER, CENTRES = plane.make_clusters()
DIRECTIONS = CENTRES / CENTRES.norm(dim=1, keepdim=True)
LOSSES = {"A": {"variance": 0, "decorrelation": 0}, "B": {"decorrelation": 0}, "C": {}}
LOSSES["D"] = {"lse": 0}
E = torch.rand(12, 5, generator=torch.Generator().manual_seed(0)).double()


def layer_of(W, b):
    """Return an `Encoder` of weights (K, 2) and biases, a number or (K,)."""
    layer = h.Encoder(2, len(W)).requires_grad_(False)
    layer.W.copy_(W), layer.b.copy_(torch.zeros(len(W)) + b)
    return layer


# --- Competition, on or off -----------------------------------------------------------------------


def test_without_competition_all_inputs_have_one_denominator():
    inputs = torch.stack([E, 3 * E]).requires_grad_()  # two layers at once
    loss = plane.lse_without_competition(inputs)
    e = np.exp(-inputs.detach().numpy())
    Z = e.sum(2)
    assert loss.item() == pytest.approx(-12 * np.log(Z.mean(1)).sum())
    (gradient,) = torch.autograd.grad(loss, inputs)
    assert_allclose(gradient, e / Z.mean(1)[:, None, None])
    alone = [plane.lse_without_competition(part) for part in inputs.detach()]
    assert float(sum(alone)) == pytest.approx(loss.item())
    votes = plane.votes_without_competition(inputs.detach())
    assert_allclose(votes, Z / Z.mean(1, keepdims=True))
    assert_allclose(gradient.sum(2), votes)


def test_switching_competition_off_leaves_the_other_terms_and_the_weights():
    terms = plane.lse_without_competition(E), h.variance_loss(E), h.decorrelation_loss(E)
    off = plane.loss_of_energies(E, competition=False, lse=2, variance=3, decorrelation=5)
    assert float(off) == pytest.approx(float(2 * terms[0] + 3 * terms[1] + 5 * terms[2]))
    assert float(plane.loss_of_energies(E, competition=False)) == pytest.approx(float(sum(terms)))
    on = plane.loss_of_energies(E, lse=2, variance=3, decorrelation=5)
    assert on == h.decoder_free_loss(E, 2, 3, 5) and plane.loss_of_energies(E) != sum(terms)


# --- Clusters, mixtures and layers ----------------------------------------------------------------


def test_clusters_are_where_they_are_said_to_be():
    assert POINTS.shape == (1280, 2) and POINTS.mean(0).abs().max() < 1e-5
    for c in range(5):
        own = POINTS[CLUSTER == c]
        assert len(own) == 256 and (own.mean(0) - CENTRES[c]).norm() < 0.3
        assert float(own.std(0).mean()) == pytest.approx(0.9, rel=0.1)
    _, cluster, _ = plane.make_clusters(shares=[1 / 2, 1 / 4, 1 / 4], n=3)
    assert cluster.bincount().tolist() == [640, 320, 320]
    half, _, at = plane.make_clusters(deviation=0.45)
    assert_allclose(half - at[CLUSTER], (POINTS - CENTRES[CLUSTER]) / 2, atol=1e-5)
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


def test_a_mean_without_responsibility_stays():
    means = torch.cat([POINTS[:2], torch.full((1, 2), 1e4)])
    for competition in (True, False):
        step = plane.descent_step(means, POINTS, competition)
        assert step.isfinite().all() and torch.equal(step[2], means[2])
        assert not torch.allclose(step[:2], means[:2])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", [{}, {"lse": 2, "variance": 3, "competition": False}])
def test_layers_are_trained_at_once_as_each_alone(options):
    points = POINTS[:256].double()
    layers = plane.train_layers(plane.ManyLayers([7, 3]), points, epochs=2, **options)
    for i, seed in enumerate((7, 3)):
        alone = plane.train_layers(h.Encoder(2, 5, seed=seed), points, epochs=2, **options)
        for ours, of_encoder in ((layers.W[i], alone.W), (layers.b[i], alone.b)):
            assert_allclose(ours, of_encoder, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_layers_are_trained_with_the_loss_that_is_asked_for():
    """Against the loop as it is written in a text book."""
    points = POINTS[:256].double()
    layer = plane.train_layers(h.Encoder(2, 5, seed=1), points, 1, False, lse=2, decorrelation=3)
    W, b = (p.detach().requires_grad_() for p in h.Encoder(2, 5, seed=1).parameters())
    adam = torch.optim.Adam([W, b], lr=0.03)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    for rows in order.split(128):
        E = torch.relu(points[rows] @ W.T + b)
        lse = -128 * torch.log(torch.exp(-E).sum(1).mean())
        adam.zero_grad()
        (2 * lse + h.variance_loss(E) + 3 * h.decorrelation_loss(E)).backward()
        adam.step()
    assert_allclose(layer.W, W.detach(), rtol=1e-6)
    assert_allclose(layer.b, b.detach(), rtol=1e-6)


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
    for share, found in ((0.25, True), (0.15, False)):  # of one cluster: from a fifth on
        edge = (POINTS[CLUSTER == 0] @ DIRECTIONS[0]).quantile(1 - share)
        bias = torch.tensor([-float(edge), -2, -2, -2, -2])
        assert finds(DIRECTIONS, bias) == found


# --- Experiments ----------------------------------------------------------------------------------


def test_shares_of_starts_are_those_of_each_start_alone():
    means = plane.starting_means(POINTS, 4, seed=1)
    found = [plane.fit_mixture(start, POINTS, n_steps=100) for start in means]
    share = 25 * sum(int(plane.means_find_all(end[None], CENTRES)) for end in found)
    assert plane.share_found_by_mixtures(True, 1, 4) == {"find all": pytest.approx(share)}
    points, cluster, _ = plane.make_clusters(7)
    found = {"find all": 0, "at a third": 0}
    for seed in (6, 7, 8):  # group 2 of three starts each
        layer = plane.train_layers(h.Encoder(2, 7, seed=seed), points, 30, lse=2)
        for name, bound in (("find all", 1 / 5), ("at a third", 1 / 3)):
            found[name] += int(plane.units_find_all(layer(points)[None], cluster, bound))
    assert found["find all"] != found["at a third"]
    shares = plane.share_found_by_layers(True, 2, 3, clusters={"n": 7}, epochs=30, lse=2)
    assert shares == {name: pytest.approx(100 * n / 3) for name, n in found.items()}


@pytest.mark.usefixtures("one_after_the_other")
def test_each_search_runs_as_its_row_says(monkeypatch):
    """Rows are told apart by what was asked of the functions that search."""
    calls = {}

    def remember(kind):
        def share(*arguments, **options):
            calls[len(calls) + 1] = kind, arguments, options
            return {"find all": len(calls)}

        return share

    monkeypatch.setattr(plane, "share_found_by_mixtures", remember("mixture"))
    monkeypatch.setattr(plane, "share_found_by_layers", remember("layers"))
    table = plane.starts_that_find_all(LOSSES, [4, 5], 10, many_epochs=77)
    asked = {key: calls[number] for key, number in table["find all"].items()}
    assert len(asked) == len(calls) == 12 + 2 + 2 * (1 + len(plane.OTHER_CLUSTERS) + 1)
    for switch, competition in {"on": True, "off": False}.items():
        for seed in (4, 5):
            first = competition, seed, 10
            assert asked["mixture", switch, seed] == ("mixture", first, {})
            assert asked["B", switch, seed] == ("layers", first, LOSSES["B"])
            assert asked["C", switch, seed] == ("layers", first, {})
        first = competition, 4, 10
        half = ("mixture", first, {"deviation": 0.45})
        assert asked["mixture, half as wide", switch, 4] == half
        assert asked["C, 77 epochs", switch, 4] == ("layers", first, {"epochs": 77})
        for name, clusters in plane.OTHER_CLUSTERS.items():
            assert asked[f"C, {name}", switch, 4] == ("layers", first, {"clusters": clusters})
    for letter in "AD":
        assert asked[letter, "on", 4] == ("layers", (True, 4, 10), LOSSES[letter])


def test_ends_are_those_of_the_starts_that_are_named(monkeypatch):
    trained = []
    monkeypatch.setattr(plane, "train_layers", lambda *of, **options: trained.append((of, options)))
    ends = plane.ends_of_one_start(LOSSES, 2, 7)
    start = h.Encoder(2, 5, seed=7)
    means = plane.starting_means(POINTS, 5)[2]
    expected = []
    for switch, competition in {"on": True, "off": False}.items():
        path = plane.trajectory(plane.descent_step, means, 100, POINTS, competition)
        assert torch.equal(ends["mixture", switch], path[-1])
        expected += [LOSSES[letter] | {"competition": competition} for letter in "BC"]
    assert [*ends] == [(m, s) for s in ("on", "off") for m in ("mixture", "B", "C")]
    assert [options for _, options in trained] == expected
    for (layer, points), _ in trained:
        assert torch.equal(layer.W, start.W) and torch.equal(points, POINTS)


def test_layers_on_digits_are_measured_on_test_digits(monkeypatch):
    x = torch.rand(512, 9, generator=torch.Generator().manual_seed(0))
    images = x[:384], torch.arange(384) % 3, x[384:], torch.arange(128) % 3
    asked = []
    monkeypatch.setattr(plane, "classifier_accuracy", lambda *inputs: asked.append(inputs) or 5)
    monkeypatch.setattr(
        plane,
        "measure_each",
        lambda models, measure, keys, title: {key: measure(loss) for key, loss in models.items()},
    )
    losses = {"C": h.decoder_free_loss, "twice": lambda E: 2 * h.decoder_free_loss(E)}
    table = plane.compare_on_digits(losses, images, epochs=2)
    layer = h.Encoder(9, 64)
    h.fit(layer, lambda layer, x: losses["C"](layer(x)), images[0], epochs=2)
    E_test = layer(images[2]).detach()
    row = table["C", 0]
    eigenvalues = torch.linalg.eigvalsh(h.correlation(E_test.double()) - torch.eye(64))
    living = int((E_test.var(0) > 0).sum())
    assert row["L0"] == h.l0(E_test) and row["dead units"] == h.dead_units(E_test)
    assert row["redundancy"] == h.redundancy(E_test) and row["classifier"] == 5
    if living == 64:
        assert row["eigenvalue"] == pytest.approx(float(eigenvalues.square().mean().sqrt()))
    for given, expected in zip(asked[0], (layer(images[0]), images[1], E_test, images[3])):
        assert torch.equal(given, expected)
    assert table["twice", 0] != row


# --- Figures --------------------------------------------------------------------------------------


def colors_of(axis):
    return [to_hex(color) for color in axis.collections[0].get_facecolors()]


def test_a_point_has_the_colour_of_its_unit_and_the_area_of_its_vote():
    bias = torch.tensor([-2.0, -2, -2, -2, -99])
    layer, start = layer_of(DIRECTIONS, bias), layer_of(-DIRECTIONS, 1)
    _, axis = plt.subplots()
    theorem.add_layer(axis, POINTS, layer, competition=False, start=start, area=4)
    for point, color in zip(layer(POINTS) > 0, colors_of(axis)):
        units = point.nonzero()[:, 0].tolist()
        expected = theorem.SEVERAL_ACTIVE if units else theorem.PALE
        if len(units) == 1:
            expected = theorem.POINT_COLORS[units[0]]
        assert color == to_hex(expected)
    votes = plane.votes_without_competition(layer(POINTS))
    assert_allclose(axis.collections[0].get_sizes(), 4 * votes.clamp_min(0.1), rtol=1e-5)
    of_start, of_layer = axis.lines[:5], axis.lines[5:]
    assert [line.get_linestyle() for line in of_layer] == ["-", "-", "-", "-", "--"]
    for lines, drawn in ((of_start, start), (of_layer, layer)):
        for line, w, b in zip(lines, drawn.W.numpy(), drawn.b.numpy(), strict=True):
            assert_allclose(line.get_xydata() @ w + b, 0, atol=1e-3)


def test_unexplained_points_and_perfectly_explained_ones_differ_in_colour():
    assert to_hex(theorem.UNEXPLAINED_COLOR) != to_hex(theorem.PALE)
    _, axis = plt.subplots()
    means = CENTRES[[0, 1, 1, 1, 1]] + torch.linspace(0, 1e-3, 10).view(5, 2)
    theorem.add_mixture(axis, POINTS, means)
    squared = torch.cdist(POINTS, CENTRES[:2]).square()
    for distances, color in zip(squared, colors_of(axis)):
        far = distances.min() > 8  # less than e^-4
        nearest = theorem.POINT_COLORS[int(distances.argmin())]
        assert color == to_hex(theorem.UNEXPLAINED_COLOR if far else nearest)
    near_one = torch.cdist(POINTS, CENTRES[1:2])[:, 0] < 1  # of means in one place, the first
    assert {c for c, near in zip(colors_of(axis), near_one) if near} == {theorem.POINT_COLORS[1]}
    places = torch.tensor([line.get_xydata()[0].tolist() for line in axis.lines])
    assert float(torch.pdist(places).min()) > 0.3  # means that have met are drawn side by side
    assert (places[1:].mean(0) - CENTRES[1]).norm() < 1e-2


def test_panels_have_the_shares_and_the_ends_of_their_model_and_switch():
    models, switches = ["B", "C", "mixture"], ["off", "on"]
    shares = pd.DataFrame([[1, 2], [3, 4], [5.4, 6]], models, switches)
    ends = {("mixture", switch): CENTRES + i for i, switch in enumerate(switches)}
    for i, key in enumerate([(m, s) for m in "BC" for s in switches]):
        ends[key] = layer_of(DIRECTIONS, -2 - i / 10)
    axes = theorem.draw_competition(POINTS, ends, shares).axes
    titles = [axis.get_title("center").splitlines()[-1] for axis in axes]
    assert titles == [f"{share}% of starts find all" for share in (6, 2, 4, 5, 1, 3)]
    assert [axis.get_ylabel() for axis in axes[::3]] == ["with competition", "without"]
    for axis, switch in zip((axes[0], axes[3]), ("on", "off")):
        drawn = [line.get_xydata()[0] for line in axis.lines]
        assert_allclose(drawn, ends["mixture", switch], rtol=1e-5)
    for i, switch in ((1, "on"), (4, "off")):
        for axis, letter in zip(axes[i : i + 2], "BC"):
            assert_allclose(
                axis.lines[0].get_xydata() @ DIRECTIONS[0].numpy(),
                -ends[letter, switch].b[0],
                atol=1e-3,
            )
            sizes = axis.collections[0].get_sizes()
            assert (np.ptp(sizes) == 0) == (switch == "on")


def test_contours_of_a_unit_are_numbered_where_they_end():
    layer = layer_of(1.7 * DIRECTIONS, -2)
    (axis,) = theorem.draw_unit(POINTS, layer, unit=0).axes
    assert len(axis.get_yticks()) > 2
    for n, (y, text) in enumerate(zip(axis.get_yticks(), axis.get_yticklabels())):
        n *= 2
        edge = torch.tensor([theorem.HALF_SIDE, y], dtype=torch.float32)
        energy = float(layer.pre_activations(edge)[0])
        assert energy == pytest.approx(n, abs=1e-4) and str(n) in text.get_text()
    active = layer(POINTS)[:, 0] > 0
    assert colors_of(axis) == [
        to_hex(theorem.POINT_COLORS[0] if on else theorem.PALE) for on in active
    ]


def test_the_ellipse_has_two_standard_deviations():
    z = POINTS[:200].double() @ torch.tensor([[0.5, 0.1], [0.0, 0.2]]).double()
    axis = theorem.draw_log_determinant({"a": (z, 1.23), "b": (z, -0.01)}).axes[0]
    ring = axis.lines[1].get_xydata() - z.mean(0).numpy()
    inverse = np.linalg.inv(np.cov(z.numpy().T))
    assert_allclose(np.einsum("nd,de,ne->n", ring, inverse, ring), 4)
    labels = [axis.get_xlabel() for axis in axis.figure.axes]
    assert labels[0].endswith("= 1.2") and labels[1].endswith("= 0.0")


def test_curves_end_inside_of_their_axes():
    for axis in theorem.draw_widths(POINTS[CLUSTER == 0, 0][:45]).axes:
        left, right = axis.get_xlim()
        for line in axis.lines:
            x = line.get_xdata()
            assert left < min(x) and max(x) < right


def test_every_figure_is_described_and_nothing_is_outside_of_it():
    """Texts, that is: each lies within the figure, and none on another."""
    layer = layer_of(DIRECTIONS, -2)
    r = h.responsibilities(E)
    ends = dict.fromkeys([(m, s) for m in "BC" for s in ("on", "off")], layer)
    ends |= dict.fromkeys([("mixture", s) for s in ("on", "off")], CENTRES)
    shares = pd.DataFrame(100.0, ["mixture", "B", "C"], ["on", "off"])
    cases = {name: (E[:, :2], 9.9) for name in ("independent", "one hardly varies", "copies")}
    figures = [
        theorem.draw_theorem({"random\nenergies": (r, r), "a layer": (r**5, r**5)}),
        theorem.draw_unit(POINTS, layer, unit=0),
        theorem.draw_widths(POINTS[CLUSTER == 0, 0][:45]),
        theorem.draw_layer(POINTS, layer, "D: without log-sum-exp", start=layer),
        theorem.draw_log_determinant(cases),
        theorem.draw_competition(POINTS, ends, shares),
    ]
    for fig in figures:
        assert len(fig.alt) > 40
        fig.draw_without_rendering()
        texts = []
        for axis in fig.axes:
            texts += [*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label]
            texts += [*axis.get_xticklabels(), *axis.get_yticklabels()]
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
        for i, (text, box) in enumerate(boxes):
            assert min(box.x0, box.y0) >= -1, text  # pixels
            assert box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1, text
            overlaid = [other for other, its_box in boxes[:i] if box.overlaps(its_box)]
            assert not overlaid, f"{text} lies on {overlaid}"


# --- Cells of notebook 1 --------------------------------------------------------------------------


def function_of_cell(name):
    """Return the function of this name in notebook 1, with the imports of its cells."""
    cells = json.loads((ROOT / "notebooks/1_theorem.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    statements = ast.parse("\n".join(code)).body
    imports = [s for s in statements if isinstance(s, (ast.Import, ast.ImportFrom))]
    (function,) = [s for s in statements if isinstance(s, ast.FunctionDef) and s.name == name]
    names = {}
    exec(compile(ast.Module([*imports, function], []), "notebook 1", "exec"), names)
    return names[name]


def test_one_step_of_scikit_learn_is_one_step_of_em():
    x = POINTS[:60].double()
    step = function_of_cell("em_step")(x[:4], x)
    assert_allclose(step, plane.descent_step(x[:4], x), rtol=1e-9)


def test_heights_are_standard_deviations():
    loss = function_of_cell("loss_with_heights")(E)
    e = np.exp(-E.numpy()) * E.numpy().std(0, ddof=1)
    assert loss.item() == pytest.approx(-np.log(e.sum(1)).sum())
