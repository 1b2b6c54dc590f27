"""The mathematics and the sentences of the pages of notebooks/, run by an engine for JavaScript."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

import helpers as h
from lab import ROOT, data, plane

quickjs = pytest.importorskip("quickjs")
TERMS = ("lse", "variance", "decorrelation")
WEIGHTS = [{"lse": 1.5}, {"variance": 0.7}, {"decorrelation": 2}, dict(zip(TERMS, (1.5, 0.7, 2)))]


class Page:
    """A page's script, without a document: page(expression) is its value, by way of JSON."""

    def __init__(self, name):
        text = (ROOT / f"notebooks/{name}.html").read_text("utf-8")
        script = re.search(r'<script>\n"use strict";(.*?)</script>', text, re.DOTALL)[1]
        self.context = quickjs.Context()
        self.context.eval(script)

    def __call__(self, expression):
        plain = "(_, v) => ArrayBuffer.isView(v) ? [...v] : v"
        value = self.context.eval(f"JSON.stringify(({expression}), {plain})")
        return json.loads(value)


@pytest.fixture(scope="module")
def in_the_plane():
    return Page("in_the_plane")


@pytest.fixture(scope="module")
def on_digits():
    return Page("on_digits")


def as_js(value):
    return json.dumps(value.tolist() if hasattr(value, "tolist") else value)


def gradients(W, b, x, weights, competition):
    """Return the gradients of W and b of the loss of relu(x W^T + b)."""
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    weights = {term: weights.get(term, 0) for term in TERMS}
    loss = plane.loss_of_energies(torch.relu(x @ W.T + b), competition, **weights)
    return torch.autograd.grad(loss, (W, b))


def all_weights(weights):
    return as_js({term: weights.get(term, 0) for term in TERMS})


# --- in_the_plane.html ----------------------------------------------------------------------------


@pytest.mark.parametrize("competition", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients_of_the_page_are_those_of_helpers(in_the_plane, weights, competition):
    """Of a dead unit, too; and its votes are those of lab/plane.py."""
    rng = torch.Generator().manual_seed(0)
    W, b = torch.randn(5, 2, generator=rng).double(), torch.randn(5, generator=rng).double()
    b[4] = -99
    x = 2 * torch.randn(128, 2, generator=rng).double()
    flat = ", ".join(as_js(part.flatten()) for part in (W, b, x))
    of_page = in_the_plane(f"gradient({flat}, 128, {all_weights(weights)}, {as_js(competition)})")
    expected = torch.cat([g.flatten() for g in gradients(W, b, x, weights, competition)])
    assert expected.abs().max() > 1
    assert_allclose(of_page, expected, rtol=1e-5, atol=1e-5)
    E = torch.relu(x @ W.T + b)
    r = in_the_plane(f"exponentials({as_js(E.flatten())}, 128)")
    assert_allclose(np.array(r["Z"]) / r["mean"], plane.votes_without_competition(E), rtol=1e-6)


def test_competition_rescues_means_that_have_merged(in_the_plane):
    """Of these starts none finds all five clusters without competition, and with it all do."""
    rescue = """(() => { place(); const ends = [];
      for (let seed = 1000; seed < 1006; seed++) {
        const mixture = new Mixture(points, seed);
        const run = on => { for (let i = 0; i < 100; i++) mixture.step(null, on); };
        run(false); ends.push(mixture.outcome(centres).success);
        mixture.shake(); run(true); ends.push(mixture.outcome(centres).success);
      } return ends; })()"""
    assert in_the_plane(rescue) == 6 * [False, True]


def test_a_unit_finds_a_cluster_if_it_is_active_on_over_a_fifth_of_it(in_the_plane):
    def outcome(bias):  # of the first unit; each faces a cluster
        return in_the_plane(f"""(() => {{ place(); const layer = new Layer(points, 1);
          centres.forEach((c, j) => {{ layer.W.set(c.map(v => v / 3), 2 * j); layer.b[j] = -2; }});
          layer.b[0] = {bias}; return layer.outcome(); }})()""")

    edge = sorted(in_the_plane("(place(), points.filter((_, i) => i % K === 0).map(p => p[1]))"))
    assert outcome(-2) == {"dead": 0, "found": 5, "success": True}
    assert outcome(-edge[-60]) == {"dead": 0, "found": 5, "success": True}  # 59 of 256 points
    assert outcome(-edge[-45]) == {"dead": 0, "found": 4, "success": False}
    assert outcome(-99) == {"dead": 1, "found": 4, "success": False}


# --- on_digits.html -------------------------------------------------------------------------------

N, K, D = 40, 6, 784


@pytest.fixture(scope="module")
def layer():
    """W, b, x: units of which two are alike and one is dead, and sparse images."""
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(N, D, generator=rng) * (torch.rand(N, D, generator=rng) < 0.04)
    W = torch.randn(K, D, generator=rng) / 3
    W[1] = W[0] + 0.1 * W[2]
    b = torch.full((K,), 0.1)
    b[5] = -99
    return W.double(), b.double(), x.double()


def parameters(W, b):
    return as_js(torch.cat([W.T.flatten(), b]))


def images(x):
    return f"{as_js(x)}.map(inked)"


@pytest.mark.parametrize("competition", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients_on_digits_are_those_of_helpers(on_digits, layer, weights, competition):
    W, b, x = layer
    call = f"{parameters(W, b)}, {images(x)}, {K}, {all_weights(weights)}, {as_js(competition)}"
    of_page = torch.tensor(on_digits(f"gradient({call})"))
    for g, expected in zip(
        (of_page[: D * K].reshape(D, K).T, of_page[D * K :]),
        gradients(W, b, x, weights, competition),
    ):
        assert (expected[5] == 0).all() and expected[:5].abs().max() > 0.1
        assert_allclose(g, expected, atol=2e-5 * float(expected.abs().max()))


def test_energies_and_steps_on_digits_are_those_of_the_layer_and_of_adam(on_digits, layer):
    W, b, x = layer
    E = torch.relu(x @ W.T + b)
    of_page = on_digits(f"energies({parameters(W, b)}, {images(x)}, {K})")
    assert_allclose(of_page, E.flatten(), rtol=1e-4, atol=1e-5)
    of_page = on_digits(f"""(() => {{ const layer = new Layer({K}, 1), images = {images(x)};
      layer.parameters.set({parameters(W, b)});
      for (let i = 0; i < 3; i++) layer.step(images, {all_weights(WEIGHTS[3])}, true);
      return layer.parameters; }})()""")
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    adam = torch.optim.Adam((W, b), lr=on_digits("RATE"))
    for _ in range(3):
        adam.zero_grad()
        plane.loss_of_energies(torch.relu(x @ W.T + b), **WEIGHTS[3]).backward()
        adam.step()
    expected = torch.cat([W.T.flatten(), b]).detach()
    assert_allclose(of_page, expected, atol=3e-5)  # a step is some 4e-3


def test_a_layer_on_digits_starts_as_those_of_pytorch(on_digits):
    start = np.array(on_digits("new Layer(16, 3).parameters"))
    assert start.shape == (785 * 16,) and abs(start.mean()) < 1e-3
    assert abs(start).max() <= 1 / 28 and start.std() == pytest.approx(1 / 28 / 3**0.5, rel=0.02)
    assert on_digits("new Layer(16, 3).parameters") != on_digits("new Layer(16, 4).parameters")


@pytest.mark.parametrize("scale", [1, 1000])  # at 1000 all of exp(-E) is 0 in double precision
def test_responsibilities_on_digits(on_digits, scale):
    E = scale * (0.8 + torch.rand(7, 4, generator=torch.Generator().manual_seed(0)).double())
    flat = as_js(E.flatten())
    r = on_digits(f"responsibilities(Float64Array.from({flat}), 7, true)")
    assert_allclose(np.reshape(r, (7, 4)), h.responsibilities(E), rtol=1e-9, atol=1e-12)
    E.requires_grad_()
    (without,) = torch.autograd.grad(plane.lse_without_competition(E), E)
    r = on_digits(f"responsibilities(Float64Array.from({flat}), 7, false)")
    assert_allclose(np.reshape(r, (7, 4)), without, rtol=1e-9, atol=1e-12)


def test_measures_on_digits(on_digits, layer):
    W, b, x = layer
    E = torch.relu(x @ W.T + b)
    E[:4] += torch.tensor([[9.0], [4], [3], [1]])  # digits that are fitted badly
    of_page = on_digits(f"measures(Float64Array.from({as_js(E.flatten())}), {N}, {K})")
    assert_allclose(of_page["usage"], (E > 0).double().mean(0))
    assert of_page["l0"] == pytest.approx(h.l0(E))
    assert of_page["redundancy"] == pytest.approx(float(h.decorrelation_loss(E)), rel=1e-6)
    votes = plane.votes_without_competition(E)
    assert 0.01 < votes[2] < 0.1 < votes[3]
    assert of_page["unheard"] == pytest.approx(3 / N)
    base = torch.rand(50, generator=torch.Generator().manual_seed(2))
    E = torch.stack([base, 2 * base, base + 0.01 * base**2, base.flip(0), 0 * base], 1)
    of_page = on_digits(f"measures(Float64Array.from({as_js(E.flatten())}), 50, 5)")
    R = np.corrcoef(E[:, :4].T.numpy())
    assert of_page["pairs"] == (np.triu(R, 1) > 0.9).sum() == 3
    assert (of_page["most"], of_page["dead"]) == (3, 1)


def test_alike_are_only_units_of_which_all_pairs_are_alike(on_digits):
    """In a chain, neighbours are alike and ends are not."""
    u = torch.linalg.qr(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)))[0]
    u = torch.linalg.qr(u - u.mean(0))[0]
    angle = torch.tensor([0, 0.4, 0.8])  # cos .4 is .92, cos .8 is .70
    E = 9 + u[:, :1] * angle.cos() + u[:, 1:2] * angle.sin()
    of_page = on_digits(f"measures(Float64Array.from({as_js(E.flatten())}), 60, 3)")
    assert (of_page["pairs"], of_page["most"]) == (2, 2)


def test_the_best_decoder_on_digits_is_that_of_least_squares(on_digits, layer):
    W, b, x = layer
    A = torch.relu(x @ W.T + b)
    of_page = on_digits(f"bestDecoder({as_js(A.flatten())}, {images(x)}, {K})")
    of_page = np.reshape(of_page, (K + 1, D))
    with_one = np.hstack([A.numpy(), np.ones((N, 1))])
    S = with_one.T @ with_one
    S += np.diag(1e-4 * np.diag(S) + 1e-9)
    assert_allclose(of_page, np.linalg.solve(S, with_one.T @ x.numpy()), atol=1e-6)
    least = np.linalg.lstsq(with_one, x.numpy(), rcond=None)[0]
    errors = [((x.numpy() - with_one @ V) ** 2).sum() for V in (of_page, least)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-2)


STATES = [  # dead, pairs, most, l0, of 25 units after 500 minibatches; and what is said
    ((25, 0, 1, 0), "All 25 units are dead.", "Active on no test digit: zero is a perfect fit."),
    ((24, 0, 1, 0.4), "All but one are dead.", "On average only 0.4 of 25"),
    ((0, 60, 11, 4.2), "11 of 25 are alike.", "On average only 4 of 25 are active"),
    ((0, 3, 3, 12), "3 of 25 are alike.", "On average 12 of 25 are active"),
    ((3, 2, 2, 12), "3 dead; 2 pairs are alike.", "On average 12 of 25 are active"),
    ((0, 1, 2, 12), "One pair is alike.", ""),
    ((1, 0, 1, 12), "1 dead; no two are alike.", ""),
    ((0, 0, 1, 22.6), "Nearly all are active,", "on average 23 of 25 on a digit. No two"),
    ((2, 0, 1, 19), "Most are active,", "on average 19 of 25 on a digit. 2 dead; no two are"),
    ((0, 0, 1, 24.7), "Nearly all are active,", "on average 24.7 of 25 on a digit."),
    ((0, 0, 1, 25), "All are active,", "on average 25 of 25 on a digit."),
    ((0, 0, 1, 0.01), "No two are alike.", "On average fewer than 0.1 of 25 are active"),
]


@pytest.mark.parametrize("state, verdict, active", STATES)
def test_sentences_on_digits(on_digits, state, verdict, active):
    m = as_js(dict(zip(("dead", "pairs", "most", "l0"), state)))
    said = on_digits(f"sentences({m}, 25, 500, 1)")
    assert said[0] == verdict and active in said[1]
    first, few = on_digits(f"[sentences({m}, 25, 0, 1), sentences({m}, 25, 9, 0)]")
    assert "alike" not in first[0] + few[0]  # too early to say
    assert "perfect" not in few[1]  # without the log-sum-exp


def test_the_answer_on_digits_concludes_only_if_it_is_measured(on_digits):
    def answer(*most):  # units alike in B and C with competition, then without
        return on_digits(f"answer(...{as_js(list(most))}.map(most => ({{ most }})))")

    numbers, conclusion = answer(11, 1, 16, 1)
    assert numbers.startswith("Alike in B: 11 with competition, 16 without. In C: no two, with or")
    assert (
        conclusion
        == "Here competition makes fewer units alike, and only where decorrelation is missing."
    )
    for most in ((11, 1, 11, 1), (11, 2, 16, 1), (11, 1, 16, 3), (16, 1, 11, 1), (1, 1, 1, 1)):
        assert answer(*most)[1] == ""


def test_who_is_responsible_for_a_digit(on_digits):
    def said(*E):
        return on_digits(f"whoIsResponsible({as_js(list(E))})")

    assert said(0, 0, 0).startswith("No unit is active.")
    assert said(1, 2, 3).startswith("All units are active")
    assert "the inactive unit (grey) is responsible for 73%; the active one (orange)" in said(0, 1)
    two = "2 inactive units (grey) are responsible for"
    assert f"{two} 80%, in equal parts" in said(0, 0, np.log(2))
    assert f"{two} over 99%" in said(0, 0, 99)
    assert "3 active ones (orange)" in said(0, 99, 99, 99)


def test_the_formula_on_digits(on_digits):
    assert on_digits("expectedActive(64, 1)") == pytest.approx(18.7, abs=0.05)
    assert on_digits("expectedActive(64, 0)") == 0


def test_digits_are_those_of_mnist_and_made_by_the_function_that_they_name(tmp_path):
    """A compressor may differ: the picture is compared, and the text around it."""
    data.write_digits(tmp_path / "digits.js")
    pattern = r'(?<=data:image/png;base64,)[^"]*'
    parts = []
    for path in (tmp_path / "digits.js", ROOT / "notebooks/digits.js"):
        text = path.read_text("utf-8")
        png = base64.b64decode(re.search(pattern, text)[0])
        grey = Image.open(io.BytesIO(png)).convert("L")
        parts.append((re.sub(pattern, "", text), np.array(grey)))
    (made, picture), (stands, seen) = parts
    assert made == stands and "MNIST, Y. LeCun" in made and "CC BY-SA 3.0" in made
    assert (picture == seen).all() and seen.shape == (6000, 784)
    with np.load(ROOT / "data/mnist.npz") as archive:
        images, labels = archive["x_train"][:6000], archive["y_train"][:6000]
    assert abs(seen.astype(int) - images.reshape(6000, -1)).max() <= 8
    assert f'LABELS = "{"".join(map(str, labels))}"' in stands


# --- Both -----------------------------------------------------------------------------------------


PAGES = ["in_the_plane", "on_digits"]


@pytest.mark.parametrize("name, other", [PAGES, PAGES[::-1]])
def test_pages_name_the_paper_and_each_other(name, other):
    """And have a line that `make publish` fills."""
    text = (ROOT / f"notebooks/{name}.html").read_text("utf-8")
    assert 'href="https://arxiv.org/abs/2601.06478"' in text and f'href="{other}.html"' in text
    assert re.search(r'^const REPOSITORY = ".*";$', text, re.MULTILINE)
