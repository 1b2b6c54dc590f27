"""The mathematics of docs/index.html, run by an engine for JavaScript, against helpers.py."""

import base64
import importlib.util
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import quickjs
import torch
from numpy.testing import assert_allclose
from PIL import Image

import helpers as h

DOCS = Path(__file__).resolve().parent.parent / "docs"
TERMS = ("lse", "variance", "decorrelation")
LOSSES = {"A": (1, 0, 0), "B": (1, 1, 0), "C": (1, 1, 1), "D": (0, 1, 1)}
N, K, D = 40, 7, 784


@pytest.fixture(scope="module")
def page():
    """The page's script, without a document: page(expression) is its value, by way of JSON."""
    html = (DOCS / "index.html").read_text("utf-8")
    script = re.search(r'<script>\n"use strict";(.*?)</script>', html, re.DOTALL)[1]
    context = quickjs.Context()
    context.eval(script)

    def value(expression):
        plain = "(_, v) => ArrayBuffer.isView(v) ? [...v] : v"
        return json.loads(context.eval(f"JSON.stringify(({expression}), {plain})"))

    return value


@pytest.fixture(scope="module")
def layer():
    """W, b, x: of the units two are alike, one is dead, and one constant but not zero."""
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(N, D, generator=rng) * (torch.rand(N, D, generator=rng) < 0.04)
    W = torch.randn(K, D, generator=rng) / 3
    W[1] = W[0] + 0.1 * W[2]
    W[6] = 0
    b = torch.full((K,), 0.1)
    b[5] = -99
    return W.double(), b.double(), x.double()


def array(values):
    """Return JavaScript for numbers in double precision, in one row."""
    return f"Float64Array.from({json.dumps(torch.as_tensor(values).flatten().tolist())})"


def parameters(W, b):
    return array(torch.cat([W.T.flatten(), b]))


def images(x):
    return f"{json.dumps(x.tolist())}.map(inked)"


def weights(terms):
    return json.dumps(dict(zip(TERMS, terms)))


def loss(E, terms, competition):
    lse, variance, decorrelation = terms
    if competition:
        return h.loss(E, lse, variance, decorrelation)
    shared = -len(E) * (torch.logsumexp(-E, (-2, -1)) - np.log(len(E)))
    return lse * shared + h.loss(E, 0, variance, decorrelation)


@pytest.mark.parametrize("competition", [True, False])
@pytest.mark.parametrize("terms", [*LOSSES.values(), (1.5, 0.7, 2)])
def test_gradients_are_those_of_helpers(page, layer, terms, competition):
    W, b, x = layer
    call = f"{parameters(W, b)}, {images(x)}, {K}, {weights(terms)}, {json.dumps(competition)}"
    of_page = torch.tensor(page(f"gradient({call})"), dtype=torch.float64)
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    expected = torch.autograd.grad(loss(torch.relu(x @ W.T + b), terms, competition), (W, b))
    for found, g in zip((of_page[: D * K].reshape(D, K).T, of_page[D * K :]), expected):
        assert (g[5] == 0).all() and g[:5].abs().max() > 0.1
        assert_allclose(found, g, rtol=1e-6, atol=1e-9 * float(g.abs().max()))


def test_panels_have_the_losses_of_their_names(page):
    """Each has a layer with competition and one without; without the log-sum-exp they are one."""
    layers = page("PANELS.map(panel => (newLayers(panel), [panel.competing, panel.independent]))")
    assert page("PANELS.map(panel => panel.name)") == [*LOSSES]
    for (name, terms), (competing, independent) in zip(LOSSES.items(), layers, strict=True):
        for layer in (competing, independent):
            assert tuple(layer["weight"][term] for term in TERMS) == terms
        assert competing["competition"] and independent["competition"] == (name == "D")


def test_steps_are_those_of_adam(page, layer):
    """From the page's own start, which is distributed as PyTorch's; in single precision."""
    _, _, x = layer
    start, after = page(f"""(() => {{ const images = {images(x)};
      const layer = new Layer(1, {weights((1, 1, 1))}, true);
      const start = layer.parameters.slice();
      for (let i = 0; i < 3; i++) layer.step(images);
      return [start, layer.parameters]; }})()""")
    n_units = page("K")
    start = torch.tensor(start, dtype=torch.float64)
    assert start.abs().max() <= 1 / 28 and start.std() == pytest.approx(1 / 28 / 3**0.5, rel=0.02)
    W = start[: D * n_units].reshape(D, n_units).requires_grad_()
    b = start[D * n_units :].clone().requires_grad_()
    rate = page("RATE")
    adam = torch.optim.Adam((W, b), lr=rate)
    for _ in range(3):
        adam.zero_grad()
        h.loss(torch.relu(x @ W + b)).backward()
        adam.step()
    expected = torch.cat([W.flatten(), b]).detach()
    difference = (torch.tensor(after) - expected).abs()
    assert (difference < 0.01 * rate).double().mean() > 0.999  # a gradient near zero has no sign


@pytest.mark.parametrize("scale", [1, 1000])  # at 1000 all of exp(-E) is 0 in double precision
@pytest.mark.parametrize("competition", [True, False])
def test_responsibilities(page, scale, competition):
    E = scale * (0.8 + torch.rand(7, 4, generator=torch.Generator().manual_seed(0)).double())
    of_page = page(f"responsibilities({array(E)}, 7, {json.dumps(competition)})")
    E.requires_grad_()
    (expected,) = torch.autograd.grad(loss(E, (1, 0, 0), competition), E)
    assert_allclose(np.reshape(of_page, (7, 4)), expected, rtol=1e-9, atol=1e-12)


def energies_of_copies(seed, n=200):
    """E (n, 8): three groups, of which two overlap in a chain, a dead unit and a constant one."""
    rng = torch.Generator().manual_seed(seed)
    base = torch.rand(n, 2, generator=rng).double()
    angle = torch.tensor([0, 0.3, 0.6, 0.9, 1.4, 1.5])  # the cosine of .45 is .9
    E = base[:, :1] * angle.cos() + base[:, 1:] * angle.sin()
    return torch.cat([E, torch.zeros(n, 1), torch.full((n, 1), 0.1)], 1)


@pytest.mark.parametrize("seed", range(4))
def test_units_alike_are_those_of_the_correlation_of_helpers(page, seed):
    E = energies_of_copies(seed)
    n, n_units = E.shape
    expected = h.correlation(E)
    R = page(f"correlations({array(E)}, {n}, {n_units}).R")
    assert_allclose(np.reshape(R, (n_units, n_units)), expected, atol=1e-9)

    def alike(group):
        return all(expected[j, k] > 0.9 for j, k in itertools.combinations(group, 2))

    groups = [g for size in range(9) for g in itertools.combinations(range(n_units), size)]
    most = max(len(g) for g in groups if alike(g))
    measured = page(f"measure({array(E)}, {n}, {n_units})")
    assert alike(measured["group"]) and len(measured["group"]) == most > 1
    assert_allclose(measured["usage"], h.usage(E), rtol=1e-6)
    assert measured["dead"] == h.dead_units(E)
    assert measured["l0"] == pytest.approx(float(h.l0(E)), rel=1e-6)


def test_the_largest_group_is_found_among_many_units(page):
    """A greedy search ends with {0, 1}, or with a unit of many pairs."""
    n_units, R = 25, torch.full((25, 25), 0.89)
    for group in [(0, 1), (0, 2), (0, 3), (0, 4), (5, 6, 7, 8), (8, 9, 10), (8, 11, 12)]:
        for j, k in itertools.permutations(group, 2):
            R[j, k] = 0.91
    assert page(f"largestGroup({array(R)}, {n_units})") == [5, 6, 7, 8]


def test_the_answer_follows_from_the_counts(page):
    sizes = [1, 2, 3, 8, 11, 16]
    counts = list(itertools.product(sizes, repeat=4))
    answers = page(f"{json.dumps(counts)}.map(counts => answer(...counts))")
    for (b, b0, c, c0), text in zip(counts, answers):
        of_b, of_c = text.split(". ", 1)
        assert ("repeats itself more" in of_b) == (b0 > b + 1) and f"({b} → {b0} alike)" in of_b
        assert ("units stay apart" in of_c) == (max(c, c0) < 3)
        assert ("repeats itself more" in of_c) == (c0 > c + 1 and c0 > 2)


def test_digits_are_those_that_the_script_beside_them_makes():
    """Compressors differ from version to version: pictures are compared, and the text around."""
    spec = importlib.util.spec_from_file_location("make_digits", DOCS / "make_digits.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    pattern = r"(?<=data:image/png;base64,)[^\"]*"
    parts = []
    for text in (script.digits_as_script(), (DOCS / "digits.js").read_text("utf-8")):
        png = base64.b64decode(re.search(pattern, text)[0])
        picture = np.array(Image.open(io.BytesIO(png)).convert("L"))
        parts.append((re.sub(pattern, "", text), picture))
    (made, picture), (stands, seen) = parts
    assert made == stands and (picture == seen).all()
    x, y, _, _ = h.load_images()
    assert abs(seen / 255 - x[:6000].numpy()).max() < 0.034  # half a step of sixteen
    assert f'LABELS = "{"".join(map(str, y[:6000].tolist()))}"' in stands
