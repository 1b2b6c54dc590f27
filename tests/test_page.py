"""The page, docs/index.html: its mathematics against helpers.py, its texts, and in a browser."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import quickjs
import torch
from numpy.testing import assert_allclose

import helpers as h

DOCS = Path(__file__).resolve().parent.parent / "docs"
HTML = (DOCS / "index.html").read_text("utf-8")
WORDS = ("quiet", "alive", "different", "competition")
STATES = [*itertools.product([False, True], repeat=4)]  # of the words
N, K, D = 40, 7, 784


@pytest.fixture(scope="module")
def page():
    """The page's script, without a document: page(expression) is its value, by way of JSON."""
    context = quickjs.Context()
    context.eval(re.search(r'<script>\n"use strict";(.*?)</script>', HTML, re.DOTALL)[1])

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


def images(x):
    return f"{json.dumps(x.tolist())}.map(inked)"


def loss(E, quiet, alive, different, competition=True):
    if competition:
        return h.loss(E, quiet, alive, different)
    shared = -len(E) * torch.exp(-E).sum(1).mean().log()
    return quiet * shared + h.loss(E, 0, alive, different)


# --- The mathematics -----------------------------------------------------------------------------


@pytest.mark.parametrize("on", STATES)
def test_the_switches_have_the_gradients_of_helpers(page, layer, on):
    W, b, x = layer
    weight = f"weightOf({json.dumps(dict(zip(WORDS, on)))})"
    start = array(torch.cat([W.T.flatten(), b]))
    found = page(f"gradient({start}, {images(x)}, {K}, {weight}, {json.dumps(on[3])})")
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    expected = torch.autograd.grad(loss(torch.relu(x @ W.T + b), *on), (W, b))
    for part, g in zip((np.reshape(found[: D * K], (D, K)).T, found[D * K :]), expected):
        assert (g[5] == 0).all() and (g[:5].abs().max() > 0.1 or not any(on[:3]))
        assert_allclose(part, g, rtol=1e-6, atol=1e-9 * float(g.abs().max()))


def test_steps_are_those_of_adam(page, layer):
    """From the page's own start, in single precision."""
    x, (n_units, rate) = layer[2], page("[K, RATE]")
    start, after = page(f"""(() => {{
      const weight = {{ lse: 1, variance: 1, decorrelation: 1 }}, images = {images(x)};
      const layer = new Layer(1, weight, true), start = layer.parameters.slice();
      for (let i = 0; i < 3; i++) layer.step(images);
      return [start, layer.parameters]; }})()""")
    parameters = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameters], lr=rate)
    for _ in range(3):
        adam.zero_grad()
        W, b = parameters[: D * n_units].view(D, n_units), parameters[D * n_units :]
        h.loss(torch.relu(x @ W + b)).backward()
        adam.step()
    difference = (torch.tensor(after) - parameters.detach()).abs()
    assert (difference < 0.01 * rate).double().mean() > 0.999  # a gradient near zero has no sign


def test_copies_usage_and_decoder_are_those_of_helpers_and_numpy(page, layer):
    """With a little ridge: two equal units have no unique decoder, and a dead one has none."""
    W, b, x = layer
    E = torch.relu(x @ W.T + b)
    R = h.correlation(E)
    call = f"{array(E)}, {N}, {K}"
    assert_allclose(page(f"correlations({call}).R"), R.flatten(), atol=1e-9)
    assert page(f"copiesOf({call})") == [0, 1] and R[0, 1] > 0.9 > R.fill_diagonal_(0)[2:].max()
    assert_allclose(page(f"usageOf({call})"), h.usage(E), rtol=1e-6)
    E[:, 1] = E[:, 0]
    A = E.T @ E
    expected = torch.linalg.solve(A + 1e-4 * A.trace() / K * torch.eye(K), E.T @ x)
    found = np.reshape(page(f"decoder({array(E)}, {images(x)}, {K})"), (K, D))
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert (found[5] == 0).all() and abs(found).max() > 0.1


def test_quiet_alone_kills_all_units_and_alive_brings_none_back(page):
    """From a new start; a unit is dead if it is silent on all digits for training."""
    x = (15 * h.load_images()[0][1000:6000]).round() / 15
    quiet, both = ({"lse": 1, "variance": alive, "decorrelation": 0} for alive in (0, 1))
    page(f"training = {images(x[:640])}, layer = new Layer(3, {quiet}, true), 0")

    def units_that_fire():
        found = torch.tensor(page("layer.parameters"))
        return int((x @ found[: D * 25].view(D, 25) + found[D * 25 :] > 0).any(0).sum())

    assert units_that_fire() == 25
    for weight in (quiet, both):
        page(f"layer.weight = {weight}, Array.from({{ length: 50 }}, trainOnce), 0")
        assert units_that_fire() == 0


# --- The texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 3, 999999999])
def test_each_state_has_an_address(page, seed):
    states = [{"on": dict(zip(WORDS, on)), "seed": seed} for on in STATES]
    hashes = page(f"{json.dumps(states)}.map(({{ on, seed }}) => hashOf(on, seed))")
    assert page(f"{json.dumps(hashes)}.map(fromHash)") == states


@pytest.mark.parametrize(
    "rubbish", ["", "#go", "#on=quiet", "#on=quiet+loud&seed=4", "#on=&seed=4"]
)
def test_other_addresses_are_a_first_visit(page, rubbish):
    on = {"quiet": True, "alive": True, "different": False, "competition": True}
    for hash in (rubbish, f"#on={rubbish}&seed=4", f"#on=none&seed=4{rubbish}x"):
        assert page(f"fromHash({json.dumps(hash)})") == {"on": on, "seed": 3}


@pytest.mark.parametrize("copies, have", [(0, "none has"), (2, "2 have"), (11, "11 have")])
@pytest.mark.parametrize("dead, are", [(0, "none is"), (1, "1 is"), (2, "2 are"), (25, "25 are")])
def test_the_sentence_says_what_was_counted(page, copies, have, dead, are):
    fires = {0: "none of 25 units fires", 1: "1 of 25 units fires", 2: "2 of 25 units fire"}
    for firing in (None, *fires):
        measured = json.dumps({"copies": [*range(copies)], "dead": dead})
        parts = page(f"sentence({json.dumps(firing)}, {measured})")
        of_digit = "" if firing is None else f"{fires[firing]} on your digit; "
        said = "".join(f"{number} {text}" for _, number, text in parts)
        assert said == f"{of_digit}{have} a copy; {are} dead."
        assert [part[0] for part in parts][-2:] == ["different", "alive"]


@pytest.mark.parametrize("on", STATES)
def test_the_guide_claims_nothing_that_was_not_measured(page, on):
    for copies, dead, steps in itertools.product([0, 11], [0, 2, 25], [0, 30, 900]):
        measured = {"copies": [*range(copies)], "dead": dead, "l0": 3.46, "steps": steps}
        call = f"guide({json.dumps(dict(zip(WORDS, on)))}, runs, {json.dumps(measured)})"
        said, paused = page(f"[true, false].map(runs => {call})")
        assert set(re.findall(r"\d+(?:\.\d+)?", said + paused)) <= {"25", "3.5"}
        assert "Press “Train”" in paused and ("dead" in said) == (dead == 25)
        asked = copies and dead < 25 and steps == 900 and on[:3] == (True, True, False)
        assert ("Press “Be different”" in said) == bool(asked)
        for word, demand in zip(on, ("for silence", "units alive", "units apart")):
            assert not word or demand not in said


def test_links_lead_to_the_clone_until_the_repository_has_an_address(page):
    token = "OWNER" + "/" + "NAME"
    assert HTML.count(token) == 1 and f'<a href="https://github.com/{token}">' in HTML
    links = re.findall(r'href="(\.\./[^"]*)"', HTML)
    assert links and all(re.fullmatch(r"\.\./(notebooks|questions)/\w+\.ipynb", a) for a in links)
    for repository in (f"https://github.com/{token}", "https://github.com/someone/a.name"):
        found = page(f"{json.dumps(links)}.map(href => address(href, {json.dumps(repository)}))")
        blob = f"{repository}/blob/main/"
        assert found == (links if token in repository else [a.replace("../", blob) for a in links])


# --- In a browser, where there is one ------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as run:
        options = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
        options += " --disable-background-networking --disable-component-update"
        browser = run.chromium.launch(executable_path=path, args=options.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """visit(hash) opens the page, paused. The test fails if the page reports an error."""
    tab, errors = browser.new_page(reduced_motion="reduce"), []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.on("console", lambda message: message.type == "error" and errors.append(message.text))

    def opened(hash):
        tab.goto(f"{(DOCS / 'index.html').as_uri()}{hash}")
        tab.wait_for_selector(".unit")
        return tab

    yield opened
    tab.close()
    assert not errors


def numbers(tab):
    """Those of the sentence: units that fire on the digit, have a copy, and are dead."""
    return [int(n.replace("none", "0")) for n in tab.locator("#said b").all_text_contents()]


def press(tab, *names):
    for name in names:
        tab.get_by_role("button", name=name, exact=True).click()


def train(tab, steps):
    """Train for this many steps, and a few more until it is paused."""
    until = tab.evaluate("layer.steps") + steps
    press(tab, "Train")
    tab.wait_for_function(f"layer.steps >= {until}")
    press(tab, "Pause")
    assert tab.evaluate("layer.steps") < until + 300


def test_it_loads_and_its_controls_say_their_state(visit):
    """New start and Competition do not go on with a training that is paused."""
    tab = visit("#on=quiet+different&seed=5")
    for name, pressed in (("Be quiet", True), ("Stay alive", False), ("Be different", True)):
        assert tab.get_by_role("button", name=name, pressed=pressed).count() == 1
    assert "no competition" in tab.locator("#quiet").inner_text()
    tab.get_by_text("Go deeper").click()
    tab.get_by_role("checkbox", name="Competition").check()
    press(tab, "New start")
    assert tab.url.endswith("#on=quiet+different+competition&seed=6")
    assert "no competition" not in tab.locator("#quiet").inner_text()
    assert tab.evaluate("[layer.steps, frame, layer.competition]") == [0, 0, True]


def test_a_stroke_changes_the_rebuilt_digit(visit):
    tab = visit("")
    train(tab, 100)
    rebuilt = "element('rebuilt').toDataURL()"
    pictures, box = {tab.evaluate(rebuilt)}, tab.locator("#pad").bounding_box()
    for x, y in ((0.3, 0.3), (0.7, 0.3), (0.4, 0.8)):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        tab.mouse.down()  # at first a dot
        pictures.add(tab.evaluate(rebuilt))
    assert len(pictures) == 4
    tab.mouse.up()
    press(tab, "Clear")
    assert len(numbers(tab)) == 2  # nothing is said of a digit


def test_each_switch_changes_the_sentence_within_1000_steps(visit):
    tab = visit("#on=quiet+alive+competition&seed=3")
    train(tab, 400)
    _, copies, dead = numbers(tab)
    assert copies > 9 and dead == 0
    press(tab, "Be different")
    train(tab, 600)
    fire, copies, _ = numbers(tab)
    assert copies < 5
    press(tab, "Be quiet")
    train(tab, 600)
    assert numbers(tab)[0] > fire + 4
    press(tab, "Be quiet", "Be different", "Stay alive", "New start")
    train(tab, 200)
    assert numbers(tab) == [0, 0, 25]
