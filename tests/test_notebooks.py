"""What tables and figures of notebooks say of a run on a few hundred digits, held against models
that are trained here, one by one."""

import itertools
import json
import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

import common
import helpers as h
import tune


def run(path, monkeypatch, **parameters):
    """Run the code of a notebook in its folder, with other parameters; return its variables."""
    monkeypatch.chdir((ROOT / path).parent)
    notebook = json.loads((ROOT / path).read_text("utf-8"))
    variables = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec("".join(s for s in source.splitlines(True) if not s.startswith("%")), variables)
            if "parameters" in cell["metadata"].get("tags", []):
                assert parameters.keys() <= variables.keys()
                variables.update(parameters)
    return variables


@pytest.mark.parametrize("path", sorted(ROOT.glob("[nq]*s/*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_in_place_have_run(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert all("error" not in output["output_type"] for cell in code for output in cell["outputs"])


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")


@pytest.fixture
def digits(tmp_path):
    """A few hundred digits, in a file like MNIST's."""
    with np.load(ROOT / "data/mnist.npz") as file:
        part = {name: file[name][: 640 if "train" in name else 400] for name in file}
    np.savez(tmp_path / "digits.npz", **part)
    return tmp_path / "digits.npz"


def test_the_method_of_readme_trains_a_sparse_layer(monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)
    code = re.search(r"```python\n(.*?)```", Path("README.md").read_text("utf-8"), re.S)[1]
    assert "range(1000)" in code
    variables = {}
    exec(code.replace("range(1000)", "range(300)"), variables)
    E = variables["layer"](variables["x"][:2000]).relu().detach()
    assert 15 < h.l0(E) < 26  # it is 20; without the log-sum-exp 50 and more
    assert h.dead_units(E) < 3 and h.decorrelation_loss(E) < 150


# --- 1 ------------------------------------------------------------------------------------------


def test_theorem(monkeypatch, tmp_path):
    found = run("notebooks/1_theorem.ipynb", monkeypatch, STARTS=3, EPOCHS=4, FIGURES=str(tmp_path))
    E, r = found["CASES"]["five Gaussians"]
    torch.testing.assert_close(r, torch.softmax(-E, 1))  # r is computed from densities
    for axis, name in zip(plt.figure(1).axes, found["CASES"], strict=True):  # Figure 1
        line, dots = (np.stack(part.get_data()) for part in axis.get_lines())
        assert (line[0] == line[1]).all()
        assert axis.get_title() == name
        np.testing.assert_allclose(dots[0], found["CASES"][name][1].flatten())
        np.testing.assert_allclose(dots[1], dots[0], rtol=1e-9)
    expected = {"A": (1, 0, 0), "B": (1, 1, 0), "C": (1, 1, 1), "D": (0, 1, 1)}
    points, table = found["points"], found["ends"]
    cluster = torch.arange(len(points)) % 5
    for axis, name in zip(plt.figure(2).axes, found["CONFIGS"], strict=True):  # Figure 1a
        layer = trained(2, 5, 0, expected[name[0]], points, 4, lr=0.03)
        assert axis.get_title() == name
        drawn = np.array([line.get_ydata() for line in axis.get_lines()])
        W, b = layer.W.detach()[0], layer.b.detach()[0]
        edge = axis.get_lines()[0].get_xdata()
        for y, w, offset in zip(drawn, W, b):
            assert abs(float(w[0]) * edge + float(w[1]) * y + float(offset)).max() < 0.05
        for seed in range(3):
            E = trained(2, 5, seed, expected[name[0]], points, 4, lr=0.03)(points)[0].detach()
            active = np.stack([(E[cluster == c] > 0).float().mean(0) for c in range(5)]) > 0.2
            own = (active.sum(0) == 1).all() and (active.sum(1) == 1).all()
            R = np.nan_to_num(np.corrcoef(E.T.numpy())) - np.eye(5)  # of dead units: 0
            row = table[(table["loss"] == name) & (table["seed"] == seed)].iloc[0]
            assert row["dead units"] == int((E == 0).all(0).sum())
            assert row["L0"] == pytest.approx(float((E > 0).sum() / len(E)), abs=0.02)
            assert row["two alike, %"] == 100 * (R > 0.9).any()
            assert row["a cluster each, %"] == 100 * own


def trained(n_inputs, n_units, seed, weights, x, epochs, lr=0.001):
    layer = h.Encoder(n_inputs, n_units, [seed])
    adam = torch.optim.Adam(layer.parameters(), lr=lr)
    h.fit(layer, lambda layer, x: h.loss(layer(x), *weights), x, epochs, adam)
    return layer


# --- 2 ------------------------------------------------------------------------------------------


def test_ablation(monkeypatch, tmp_path, digits):
    parameters = {"EPOCHS": 3, "SEEDS": [5, 6], "DATA": digits, "FIGURES": str(tmp_path)}
    found = run("notebooks/2_ablation.ipynb", monkeypatch, K=16, **parameters)
    x, y, x_test, y_test = h.load_images(digits)
    titles = [axis.get_title() for axis in found["axes"][0]]
    assert [title[0] for title in titles] == ["A", "B", "C", "D", "E"]
    expected = {"A": (1, 0, 0), "B": (1, 1, 0), "C": (1, 1, 1), "D": (0, 1, 1)}
    expected["E"] = (1, 0, 1)
    words = ["log-sum-exp", "+ variance", "+ decorrelation", "no log-sum-exp", "no variance"]
    assert [title[2:] for title in titles] == words
    for i, (letter, weights) in enumerate(expected.items()):
        similarity, used, pictures = found["axes"][:, i]
        for seed in (5, 6):
            layer = trained(784, 16, seed, weights, x, 3)
            with torch.no_grad():
                E_train, E = layer(x)[0], layer(x_test)[0]
            row = found["table"].query("loss == @letter and seed == @seed").iloc[0]
            R = np.nan_to_num(np.corrcoef(E.T))  # of dead units: 0
            assert row["redundancy"] == pytest.approx((R**2).sum() - np.trace(R), rel=1e-3)
            assert row["L0"] == pytest.approx(float((E > 0).sum() / 400), rel=1e-5)
            assert row["dead units"] == int((E == 0).all(0).sum())
            r = torch.exp(-E) / torch.exp(-E).sum(1, keepdim=True)
            assert row["entropy"] == pytest.approx(float(-(r * r.log()).sum(1).mean()), rel=1e-4)
            assert row["probe, %"] == h.probe_accuracy(E_train, y, E, y_test)
            if seed == 5:  # drawn
                shown = np.sort(similarity.get_images()[0].get_array().ravel())
                np.testing.assert_allclose(shown, np.sort(abs(R).ravel()), atol=5e-3)
                heights = [bar.get_height() for bar in used.patches]
                usage = (E > 0).float().mean(0).sort(descending=True).values
                np.testing.assert_allclose(heights, usage, rtol=1e-5)
                tile = pictures.get_images()[0].get_array()[1:29, 1:29]
                W = layer.W.detach()[0].view(-1, 28, 28)
                nearest = [np.corrcoef(tile.ravel(), w.ravel())[0, 1] for w in W]
                assert max(nearest) > 0.99
        of_seeds = found["table"][found["table"]["loss"] == letter]
        assert used.get_xlabel() == f"L0 {of_seeds['L0'].mean():.1f}"
        if not of_seeds["dead units"].any():
            assert similarity.get_xlabel() == f"redundancy {of_seeds['redundancy'].mean():,.0f}"
    paper = {  # §4.2 and §4.3
        "A": {"dead units": "64", "entropy": "4.16"},
        "B": {"dead units": "0", "redundancy": "1875", "entropy": "3.77"},
        "C": {"dead units": "0", "redundancy": "29", "entropy": "3.85", "L0": "17.2"},
        "D": {"dead units": "0", "redundancy": "28", "entropy": "1.99"},
    }
    paper["C"]["probe, %"] = "93.4"
    brackets_are(found, "loss", paper)


@pytest.mark.parametrize("path", sorted(ROOT.glob("figures/*.png")), ids=lambda path: path.name)
def test_no_figure_is_cut_off(path):
    pixels = plt.imread(path)[..., :3]
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert edge.min() > 0.9


def brackets_are(found, by, paper):
    """Check that the last table has the means of seeds, and in brackets the paper's numbers."""
    text = h.mean_table(found["table"], by, found["decimals"], found["paper"])
    for row, cells in text.iterrows():
        for column, cell in cells.items():
            number = paper.get(row, {}).get(column)
            assert ("(" in cell) == (number is not None), (row, column)
            assert not number or cell.endswith(f"({number})")
            mean = found["table"][found["table"][by] == row][column].mean()
            assert cell.split()[0] == f"{mean:,.{found['decimals'][column]}f}"


# --- 3 ------------------------------------------------------------------------------------------


def best_rates():
    """Return the learning rates that the search chose, by method."""
    table = pd.read_csv(ROOT / "figures/tuning.csv").query("epochs == 12")
    return common.score_rates(table, tune.ACTIVE).idxmax(axis=1)


def strength_of(method):
    """Return the strength with 17 active units, as the search has it at 100 epochs."""
    table = pd.read_csv(ROOT / "figures/tuning.csv").query("epochs == 100 and method == @method")
    return round(common.interpolate_at_l0(table, "strength", tune.ACTIVE), 2)


def test_benchmark(monkeypatch, tmp_path, digits):
    parameters = {"EPOCHS": 2, "SEEDS": [3, 4], "DATA": digits, "FIGURES": str(tmp_path)}
    found = run("notebooks/3_benchmark.ipynb", monkeypatch, K=16, **parameters)
    x, y, x_test, y_test = h.load_images(digits)
    table, models = found["table"], found["models"]
    trained = ["the paper's layer", "the paper's SAE", "layer, tuned", "tied SAE, tuned"]
    assert [*models] == ["untrained layer", *trained]
    _, layer_loss, rate = found["TUNED"]["layer, tuned"]
    _, sae_loss, sae_rate = found["TUNED"]["tied SAE, tuned"]
    assert rate == best_rates()["layer, decay 0.8"]
    assert sae_rate == best_rates()["tied SAE"]
    lse, l1 = strength_of("layer, decay 0.8"), strength_of("tied SAE")
    D, K = 784, 16
    sizes = [K * D + K, K * D + K, 2 * K * D + K + D, K * D + K, K * D + K + D]
    length = x_test.norm(dim=1, keepdim=True)
    for (name, model), size in zip(models.items(), sizes):
        for i in range(2):
            with torch.no_grad():
                A, A_test = model(x)[i], model(x_test)[i]
            V = (model.V if "SAE" in name else model.W).detach()[i]
            decoded, decoded_test = (A @ V).numpy(), (A_test @ V).numpy()
            C = decoded - decoded.mean(0)
            gain = np.linalg.lstsq(C.reshape(-1, 1), (x - x.mean(0)).numpy().ravel())[0][0]
            x_hat = x.mean(0).numpy() + gain * (decoded_test - decoded.mean(0))
            norms = np.linalg.norm(decoded_test, axis=1)[:, None].clip(1e-12)
            scaled = decoded_test / norms * length.numpy()
            row = table.query("model == @name").iloc[i]
            error = ((scaled - x_test.numpy()) ** 2).mean()
            assert row["paper's error"] == pytest.approx(error, rel=1e-3)
            assert row["MSE"] == pytest.approx(((x_hat - x_test.numpy()) ** 2).mean(), rel=1e-3)
            assert row["parameters"] == size
            assert row["L0"] == pytest.approx(float((A_test > 0).sum() / len(x_test)), rel=1e-5)
            assert row["dead units"] == int((A_test == 0).all(0).sum())
            assert row["probe, %"] == h.probe_accuracy(A, y, A_test, y_test)
    for name, losses in {
        "the paper's layer": found["layer_loss"],
        "the paper's SAE": found["sae_loss"],
        "layer, tuned": layer_loss,
        "tied SAE, tuned": sae_loss,
    }.items():
        A = models[name](x[:50])
        rest = (models[name].decode(A) - x[:50]).square()
        decay = 0.8 * models[name].W.square().sum((1, 2))
        expected = {
            "the paper's layer": h.loss(A),
            "the paper's SAE": rest.mean((1, 2)) + 0.01 * A.mean((1, 2)),
            "layer, tuned": h.loss(A, lse) + decay,
            "tied SAE, tuned": rest.sum((1, 2)) + l1 * A.sum((1, 2)),
        }
        torch.testing.assert_close(losses(models[name], x[:50]), expected[name])
    tied = h.SparseAutoencoder(D, K, [4], tied=True, mean=x.mean(0))
    for name, model, losses, lr in (
        ("the paper's layer", h.Encoder(D, K, [4]), found["layer_loss"], 0.001),
        ("the paper's SAE", h.SparseAutoencoder(D, K, [4]), found["sae_loss"], 0.001),
        ("layer, tuned", h.Encoder(D, K, [4]), layer_loss, rate),
        ("tied SAE, tuned", tied, sae_loss, sae_rate),
    ):
        adam = torch.optim.Adam(model.parameters(), lr=lr)
        falls = [1] if "tuned" in name else []  # the rate, in the second epoch of two
        schedule = torch.optim.lr_scheduler.MultiStepLR(adam, falls)
        h.fit(model, losses, x, 2, adam, schedule.step)
        torch.testing.assert_close(models[name].W[1], model.W[0], rtol=1e-3, atol=1e-4)
    plt.figure(1).canvas.draw()
    labels = [label.get_text() for label in plt.figure(1).axes[0].get_yticklabels()]
    assert labels == trained
    measures = ["parameters", "L0", "MSE", "probe, %"]
    for axis, measure in zip(plt.figure(1).axes, measures, strict=True):  # Figure 3
        assert axis.get_title() == measure
        widths = [bar.get_width() for bars in axis.containers for bar in bars]
        means = table.groupby("model", sort=False)[measure].mean()[trained]
        np.testing.assert_allclose(widths, means)
        texts = [label.get_text() for label in axis.texts]
        assert [float(t.replace(",", "")) for t in texts] == pytest.approx([*means], rel=0.1)
        assert axis.get_xlim()[0] == (88 if axis.get_title() == "probe, %" else 0)
    pictures = plt.figure(2).axes  # Figure 3a
    for axis, name in zip(pictures, trained, strict=True):
        assert axis.get_title() == name
        model = models[name]
        most_used = int((model(x_test)[0] > 0).sum(0).argmax())
        tile = axis.get_images()[0].get_array()[1:29, 1:29]
        w = model.W.detach()[0, most_used] * x.std(0)
        assert np.corrcoef(tile.ravel(), w)[0, 1] > 0.95
    paper = {
        "the paper's layer": {"parameters": "50,240", "L0": "17.2", "probe, %": "93.4 ± 0.4"},
        "the paper's SAE": {"parameters": "101,200", "L0": "32.2", "probe, %": "90.3 ± 0.3"},
    }
    paper["the paper's layer"]["paper's error"] = "0.143"
    paper["the paper's SAE"]["paper's error"] = "0.026"
    brackets_are(found, "model", paper)


# --- competition --------------------------------------------------------------------------------


def test_competition(monkeypatch, tmp_path, digits):
    epochs = {"EPOCHS": 2, "MEDIUM": 1, "SHORT": 1, "STARTS": 2}
    parameters = {**epochs, "SEEDS": [7, 8], "DATA": digits, "FIGURES": str(tmp_path)}
    found = run("questions/competition.ipynb", monkeypatch, **parameters)
    x, y, x_test, y_test = h.load_images(digits)
    axes = plt.figure(1).axes
    assert [axis.get_title() for axis in axes] == ["with competition", "without", "", ""]
    names = ["C, with decorrelation", "", "B, without decorrelation", ""]
    assert [axis.get_ylabel() for axis in axes] == names
    cases = [("C", "on"), ("C", "off"), ("B", "on"), ("B", "off")]
    for axis, (letter, switch) in zip(axes, cases):
        layer = h.Encoder(784, 64, [7])
        h.fit(layer, losses_with(switch, 1, letter == "C"), x, 2)
        E = layer(x_test).detach()
        of_seeds = found["table"].query("loss == @letter and competition == @switch")
        assert axis.get_xlabel() == f"redundancy {of_seeds['redundancy'].mean():,.0f}"
        row = of_seeds.iloc[0]
        assert row["redundancy"] == pytest.approx(float(h.decorrelation_loss(E)), rel=1e-3)
        assert row["L0"] == pytest.approx(float(h.l0(E)), rel=1e-3)
        Z = torch.exp(-E[0].double()).sum(1).numpy()
        assert row["variation of Z, %"] == pytest.approx(100 * Z.std() / Z.mean(), rel=1e-2)
        assert (row["same units"] > 1 - 1e-6) == (switch == "on")
    for weight, switch in ((0.1, "on"), (0, "off")):
        layer = h.Encoder(784, 64, [7])
        h.fit(layer, losses_with(switch, 1, weight), x, 1)
        row = found["dose"].query("decorrelation == @weight and competition == @switch").iloc[0]
        redundancy = float(h.decorrelation_loss(layer(x_test)))
        assert row["redundancy"] == pytest.approx(redundancy, rel=1e-3)
    codes = {}
    for switch, seed in itertools.product(("on", "off"), (7, 8)):
        layer = h.Encoder(784, 64, [seed], activation=torch.abs)
        h.fit(layer, losses_with(switch, 1, 1), x, 1)
        codes[switch, seed] = layer(x_test)[0].detach()
    row = found["energies"].query("loss == 'C' and energy == '|z|' and seed == 7").iloc[0]
    for column, switch in (("redundancy", "on"), ("redundancy, off", "off")):
        expected = float(h.decorrelation_loss(codes[switch, 7]))
        assert row[column] == pytest.approx(expected, rel=1e-3)
    for column, other in (("off", ("off", 7)), ("start", ("on", 8))):
        matched = common.matched_correlation(codes["on", 7], codes[other])
        assert row[f"same units, {column}"] == pytest.approx(matched, abs=1e-3)
    assert row["redundancy, noise"] != pytest.approx(row["redundancy"], rel=1e-6)
    for switch in ("on", "off"):
        mixture = found["Mixture"](found["points"][found["random_five"]].clone())
        adam = torch.optim.Adam(mixture.parameters(), lr=0.05)
        h.fit(mixture, losses_with(switch, 0, 0), found["points"], 40, adam)
        means = found["fitted"]["five Gaussians", switch].means
        torch.testing.assert_close(means, mixture.means.detach(), rtol=1e-3, atol=1e-3)


def losses_with(switch, variance, decorrelation):
    """Return the losses of a stack, with competition "on" or "off"."""

    def losses(model, x):
        E = model(x)
        Z = torch.exp(-E).sum(-1)
        lse = -Z.log().sum(-1) if switch == "on" else -len(x) * Z.mean(-1).log()
        return lse + h.loss(E, 0, variance, decorrelation)

    return losses


# --- sparsity -------------------------------------------------------------------------------------


def test_sparsity(monkeypatch, tmp_path, digits):
    epochs = {"EPOCHS": 3, "MEDIUM": 1}
    parameters = {**epochs, "SEEDS": [7, 8], "DATA": digits, "FIGURES": str(tmp_path)}
    found = run("questions/sparsity.ipynb", monkeypatch, **parameters)
    x, _, x_test, _ = h.load_images(digits)
    E = trained(784, 64, 0, (1, 1, 1), x, 3)(x_test)[0].detach()
    S = float(64 - torch.exp(-E[1]).sum())
    said = f"epoch 3: {int((E[1] > 0).sum())} units are active, S = {S:.1f}"
    assert plt.figure(1).axes[1].get_title() == said  # Figure 1
    tuned = f"[{strength_of('tied SAE')}], SEEDS, lr={best_rates()['tied SAE']}"
    assert tuned in (ROOT / "questions/sparsity.ipynb").read_text("utf-8")
    r = torch.exp(-E) / torch.exp(-E).sum(1, keepdim=True)
    share = 100 * float(r[E == 0].sum() / r.sum())
    assert found["reach"]["inactive, %"] == pytest.approx(share, rel=1e-3)
    for price, competition in itertools.product(("on", "off"), ("on", "off")):
        layer = h.Encoder(784, 64, [8])

        def losses(layer, x, price=price, competition=competition):
            Z = torch.exp(-layer(x)).sum(-1)
            of_price = -len(x) * Z.mean(-1).log()
            rest = -Z.log().sum(-1) - of_price
            lse = of_price * (price == "on") + rest * (competition == "on")
            return lse + h.loss(layer(x), lse=0)

        h.fit(layer, losses, x, 3)
        row = found["parts"].query("price == @price and competition == @competition and seed == 8")
        assert row["L0"].iloc[0] == pytest.approx(float(h.l0(layer(x_test))), rel=2e-3)
    for _, row in found["shares"].iterrows():
        ratio = 2 * row["variance"] * row["units"] / row["inputs"]
        assert row["formula, %"] == pytest.approx(100 - 100 / math.sqrt(1 + ratio))
    row = found["shares"].query("units == 64 and inputs == 48").iloc[0]
    layer = h.Encoder(784, 64)
    h.fit(layer, lambda layer, x: h.loss(layer(x)), x, 1, batch_size=48)
    assert row["active, %"] == pytest.approx(100 * float(h.l0(layer(x_test))) / 64, rel=1e-3)


# --- decoder --------------------------------------------------------------------------------------


def test_decoder(monkeypatch, tmp_path, digits):
    parameters = {"EPOCHS": 2, "SEEDS": [5, 6], "DATA": digits, "FIGURES": str(tmp_path)}
    found = run("questions/decoder.ipynb", monkeypatch, **parameters)
    x, _, x_test, _ = h.load_images(digits)
    for name, (method, strengths, lr) in found["METHODS"].items():
        assert lr == best_rates()[name.replace("weight decay", "decay 0.8")]
        row = found["curves"].query("method == @name and seed == 6").iloc[2]
        model = common.train_stack(method, x, 64, strengths[2:3], [6], lr, 2)
        assert row["strength"] == strengths[2]
        for column, number in common.measure_stack(model, x, x_test).iloc[0].items():
            assert row[column] == pytest.approx(number, rel=0.02, abs=0.2), (name, column)
    layer = common.train_stack(common.new_layer, x, 64, [1], [6], found["METHODS"]["layer"][2], 2)
    E, E_test, W = layer(x)[0].numpy(), layer(x_test)[0].numpy(), layer.W[0].numpy()
    row = found["account"].query("seed == 6").iloc[0]
    divided = W / E.var(0, ddof=1)[:, None]
    S = np.cov(x.numpy().T)
    alone = np.array([np.linalg.lstsq((e - e.mean())[:, None], x.numpy())[0][0] for e in E.T])
    accounts = {"divided": divided, "smoothed": W @ S, "both": divided @ S, "unit by unit": alone}
    for name, V in accounts.items():
        C, mean = E @ V - (E @ V).mean(0), x.numpy().mean(0)
        gain = (C * (x.numpy() - mean)).sum() / (C**2).sum()
        rest = x_test.numpy() - mean - gain * (E_test @ V - (E @ V).mean(0))
        of_mean = x_test.numpy() - x_test.numpy().mean(0)
        explained = 100 - 100 * (rest**2).sum() / (of_mean**2).sum()
        assert row[name] == pytest.approx(explained, abs=0.2)
    layer = h.Encoder(784, 64, [6])  # untrained
    z, z_test = ((part @ layer.W[0].T).detach().numpy() for part in (x, x_test))
    threshold = np.quantile(z, 44 / 64, axis=0)
    A, A_test = (np.maximum(part - threshold, 0) for part in (z, z_test))
    V = np.linalg.lstsq(A - A.mean(0), x.numpy() - mean, rcond=1e-6)[0]
    rest = x_test.numpy() - mean - (A_test - A.mean(0)) @ V
    row = found["at_20_units"].query("method == 'untrained layer' and seed == 6").iloc[0]
    explained = 100 - 100 * (rest**2).sum() / (of_mean**2).sum()
    assert row["best decoder"] == pytest.approx(explained, abs=0.5)
    centred = common.train_stack(common.new_layer, x - mean, 64, [1], [6], 0.002, 2)
    row = found["centred"][0].query("strength == 1 and seed == 6").iloc[0]
    assert row["L0"] == pytest.approx(float(h.l0(centred(x_test - mean))), rel=1e-3)
    plt.figure(1).canvas.draw()
    for axis, column in zip(plt.figure(1).axes, ["own decoder", "best decoder"]):  # Figure 1
        assert axis.get_title() == column
        curve = next(line for line in axis.get_lines() if line.get_label() == "TopK SAE")
        means = found["curves"].query("method == 'TopK SAE'").groupby("strength")
        np.testing.assert_allclose(curve.get_ydata(), means[["L0", column]].mean()[column])


# --- scale ----------------------------------------------------------------------------------------


def test_scale(monkeypatch, tmp_path, digits):
    parameters = {"EPOCHS": 10, "SEEDS": [7], "DATA": digits, "FIGURES": str(tmp_path)}
    found = run("questions/scale.ipynb", monkeypatch, **parameters)
    x = h.load_images(digits)[0]
    for kind, rate in itertools.product(("SGD", "Adam"), found["RATES"]):
        layer = h.Encoder(784, 64, [7])
        optimizer = getattr(torch.optim, kind)(layer.parameters(), lr=rate)
        h.fit(layer, lambda layer, x: h.loss(layer(x)), x, 2, optimizer)
        with torch.no_grad():
            E = layer(x)[0]
            varies = E.std(0) > 1e-6
            scaled = torch.where(varies, 100 * E / E.std(0), E)
            losses = [
                sum(float(h.loss(part[rows])) for rows in found["minibatches"])
                for part in (E, scaled)
            ]
            size = torch.cat([layer.W[0], layer.b[0, :, None]], 1).norm(dim=1).log().sum()
        query = "optimizer == @kind and rate == @rate and epoch == 2"
        row = found["table"].query(query).iloc[0]
        number = len(found["minibatches"])
        assert row["loss"] == pytest.approx(losses[0] / number, abs=0.5), (kind, rate)
        assert row["scaled loss"] == pytest.approx(losses[1] / number, abs=3), (kind, rate)
        rest = sum(
            float(h.lse_loss(E[rows]) + h.decorrelation_loss(E[rows]))
            for rows in found["minibatches"]
        )
        assert row["without variance"] == pytest.approx(rest / number, abs=0.5), (kind, rate)
        assert row["log norm"] == pytest.approx(float(size), abs=0.1), (kind, rate)
    for held, size in zip(found["held"][4](x).std(1), found["SIZES"]):  # after 20 steps
        np.testing.assert_allclose(held[held > 0.1].detach(), size, rtol=1e-3)
    ends, last = found["ends"], found["table"].query("epoch == 10")
    late = found["table"].query("epoch == 4")  # of ten
    np.testing.assert_allclose(ends["late fall"], late["loss"].values - last["loss"].values)
    grown = 2 * (last["log norm"].values - late["log norm"].values)
    np.testing.assert_allclose(ends["by growth"], grown)
    sgd, adam = (last.query("optimizer == @name") for name in ("SGD", "Adam"))
    np.testing.assert_allclose(found["gap"]["rate"], found["RATES"])
    lower, larger = found["gap"][["Adam is lower by", "by growth"]].to_numpy().T
    np.testing.assert_allclose(lower, sgd["loss"].values - adam["loss"].values)
    norms = adam["log norm"].values - sgd["log norm"].values
    np.testing.assert_allclose(larger, 2 * norms)
    law = found["law"]
    expected = (64 - ends["dead units"][:4]) * math.log(10 / 4)
    np.testing.assert_allclose(law["by the law"], expected)
    columns = ["loss", "without variance", "scaled loss"]
    titles = ["loss", "without the variance term", "all units scaled to one size"]
    for axis, title, column in zip(found["axes"], titles, columns):
        assert axis.get_title() == title
        settings = itertools.product(("SGD", "Adam"), found["RATES"])
        for line, setting in zip(axis.lines, settings):
            drawn = found["table"].set_index(["optimizer", "rate"]).loc[setting]
            means = drawn.groupby("epoch")[column].mean()
            np.testing.assert_allclose(line.get_ydata(), means)
