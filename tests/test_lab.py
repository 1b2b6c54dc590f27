"""lab/ against scikit-learn, brute force, plain loops, and numbers made by hand."""

import math
import signal
import threading
import time
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import helpers as h
from lab import data, measures, parallel, record, show

D, K, NAN, close = 6, 5, math.nan, torch.testing.assert_close


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Of another scale and other correlations, so that any other pairing of them gives other numbers
TRAIN, TEST = normal(300, D), 0.7 * normal(200, D, seed=1) @ normal(D, D, seed=2) + 0.4
Y_TRAIN, Y_TEST = (TRAIN[:, :3].argmax(1), TEST[:, :3].argmax(1))
MODEL, SAE = h.Encoder(D, K, mean=torch.ones(D), seed=1), h.SparseAutoencoder(D, K, seed=1)


def test_rows_name_each_model():
    models = {("b", 0.1, 4): MODEL, ("a", 0.2, 4): SAE}
    rows = measures.measure_each(models, lambda m: {"c": len(m.state_dict())}, "", "method", "rate")
    assert rows.values.tolist() == [["b", 0.1, 4, 3], ["a", 0.2, 4, 4]]
    assert [*measures.measure_each({("a", 4): SAE}, lambda m: {}, "")] == ["method", "seed"]


@pytest.mark.parametrize("model, size", [(MODEL, 35), (SAE, 71)])
def test_the_benchmark_fits_on_training_rows_and_judges_on_test_inputs(model, size, monkeypatch):
    monkeypatch.setattr(measures, "FITTED", 250)
    own, best = (h.Decoded(model, TRAIN[:250], fit) for fit in (h.own_decoder, h.best_decoder))
    A, A_test = model(TRAIN).detach(), model(TEST).detach()
    row = measures.benchmark(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
    shares = {"explained": h.variance_explained(own, TEST)}
    shares["explained_best"] = h.variance_explained(best, TEST)
    decoding = {"l0": h.l0(A_test), "dead": 0} | shares
    assert measures.decoding(model, TRAIN, TEST) == decoding and row == row | decoding
    assert row["parameters"] == size and row["purity"] == measures.purity(A_test, Y_TEST)
    A, A_test = ((part - A.mean(0)) / A.std(0) for part in (A, A_test))
    right = LogisticRegression(max_iter=1000, tol=1e-8).fit(A, Y_TRAIN).score(A_test, Y_TEST)
    assert row["classifier"] == pytest.approx(100 * right, abs=0.51)  # but for one of 200 inputs


def test_errors_are_of_outputs_that_have_the_norm_of_their_inputs():
    for model, decoder in ((MODEL, MODEL.W), (SAE, SAE.V)):
        x_hat = model(TEST) @ decoder
        errors = [(row * x.norm() / row.norm() - x).square().mean() for row, x in zip(x_hat, TEST)]
        assert measures.norm_matched_error(model, TEST) == pytest.approx(sum(errors).item() / 200)
    x, x_test = torch.tensor([[3.0, 3], [3, 5]]), torch.tensor([[5.0, 0], [0, 10]])
    assert measures.mean_image_error(x, x_test) == pytest.approx(15)  # of (3, 4) and (6, 8)


def test_purity_weights_classes_equally_and_leaves_out_dead_units():
    y, shares = torch.tensor([0] * 40 + [1] * 15 + [2] * 5), []
    A = torch.relu(normal(60, 4)) * torch.tensor([1, 3, 0, 0.1])
    A[:, 3] *= y == 2
    for unit in (0, 1, 3):
        means = [np.mean([a for a, c in zip(A[:, unit].tolist(), y) if c == k]) for k in range(3)]
        shares.append(max(means) / sum(means))
    assert shares[2] == 1 and measures.purity(A, y) == pytest.approx(np.mean(shares))


def test_cosines_are_of_weights_a_gradient_step_and_the_best_decoder(monkeypatch):
    monkeypatch.setattr(measures, "FITTED", 250)
    model, x = h.Encoder(D, K, seed=1).double(), TRAIN[:250].double()
    model.b.data[4] = -100  # it is dead
    W, V = model.W.detach().clone(), h.best_decoder(model, x)[0]
    step = torch.zeros(K, D).double()
    for place in np.ndindex(K, D):
        for change in (1e-5, -1e-5):
            model.W.data[place] = W[place] + change
            step[place] -= h.decoder_free_loss(model, x).item() / change / 2
        model.W.data[place] = W[place]
    directions = measures.unit_directions(model, h.decoder_free_loss, x)
    close(directions, {"decoder row": V, "step": step, "weights": W}, rtol=1e-4, atol=1e-4)

    def median(A, B, pairs):
        values = sorted(A[i] @ B[j] / (A[i] @ A[i] * (B[j] @ B[j])) ** 0.5 for i, j in pairs)
        return pytest.approx(values[(len(values) - 1) // 2].item(), abs=1e-5)  # as torch's is

    own = [(i, i) for i in range(4)]
    assert measures.cosines(model, h.decoder_free_loss, TRAIN.double()) == {
        "weights and step": median(W, step, own),
        "step and decoder row": median(step, V, own),
        "weights and decoder row": median(W, V, own),
        "step and other rows": median(step, V, permutations(range(4), 2)),
    }


def test_units_are_paired_by_the_best_of_all_pairings():
    A, B = normal(50, 4).double(), normal(50, 4, seed=1).double()
    B[:, 2], A[:, 3] = 3 * A[:, 0] + 0.1 * B[:, 2], 0
    R = np.zeros((4, 4))
    R[:3] = np.corrcoef(A[:, :3].T, B.T)[:3, 3:]
    best = max(np.mean([R[i, j] for i, j in enumerate(p)]) for p in permutations(range(4)))
    assert measures.agreement(A, B) == pytest.approx(best)


def test_energies_and_convergence_are_measured_as_the_paper_does():
    E = torch.relu(normal(400, 4)) * torch.tensor([0.3, 0, 0.1, 1])  # variances .03, 0, .003, .3
    living = np.corrcoef(E[:, [0, 2, 3]].T.double()) - np.eye(3)
    p = torch.softmax(-E.double(), 1)
    values = {"redundancy": np.square(living).sum(), "l0": h.l0(E)}
    values["entropy"] = -(p * p.log()).sum(1).mean().item()
    row = {"dead": 1, "low variance": 2} | values
    assert measures.energy_statistics(E) == pytest.approx(row, rel=1e-5)
    assert math.isnan(measures.redundancy(E[:, 1:2])) and math.isnan(measures.redundancy(0 * E))
    changes = np.array([9, 0.5, 0.5, 0.5, 0.5, -9, 0.9, -0.9, 0.9, 0, 0.1])
    losses = torch.tensor(np.cumsum([0, *changes]))
    assert measures.convergence_epoch(losses) == 7  # the first of five, counted from 0
    assert np.isnan(measures.convergence_epoch(losses, 0.2))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_or_ctrl_c_ends_all_that_tick_and_those_that_wait(error, monkeypatch):
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: 3)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    begun, waited, ticking = time.time(), [], threading.Barrier(3)

    def run(item):
        if item not in ("bad", "a", "b"):
            return waited.append(time.sleep(0.01))
        ticking.wait()
        while item != "bad" and time.time() < begun + 10:
            time.sleep(0.001)
            parallel.tick()
        if error is RuntimeError:
            raise ZeroDivisionError
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(error):
        parallel.side_by_side(run, ["bad", "a", "b", *range(100)], "runs")
    signal.signal(signal.SIGINT, before)
    assert time.time() < begun + 5 and len(waited) < 50


def test_results_are_in_the_order_of_items_and_a_bar_is_where_it_belongs(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    for terminal in (str(tmp_path / "tty"), "", None):  # of make, of make without one, a front end
        monkeypatch.setattr(parallel, "TERMINAL", terminal)
        results = parallel.side_by_side(lambda d: time.sleep(d) or d, iter([0.03, 0.0]), "runs")
        assert [*results.items()] == [(0.03, 0.03), (0.0, 0.0)]
        assert show.live() == ("runs: " in capsys.readouterr().err) == (terminal is None)
    assert "2/2" in (tmp_path / "tty").read_text()
    of_vs_code = {"VSCODE_PID": "1"}
    for names in ({}, of_vs_code, of_vs_code | {"TERM_PROGRAM": "vscode"}):  # a terminal is none
        monkeypatch.setattr(show.os, "environ", names)
        assert show.live() == (names == of_vs_code)


def test_results_are_read_as_they_were_saved_if_their_rows_can_be_told_apart(tmp_path):
    for columns, reason in [
        ({"method": ["a", "a"], "seed": [0, 0]}, "the same .'method', 'seed'."),
        ({"method": ["a", "b"], "loss": ["c", NAN], "seed": [0, 0]}, "put .'loss'., of text"),
        ({"method": ["a", "b"], "l0": [1, 2]}, 'add a column "seed"'),
    ]:
        with pytest.raises(ValueError, match=f"table runs.*{reason}"):
            record.save("2_ablation", tmp_path, {}, [], runs=pd.DataFrame(columns))
    frame = pd.DataFrame({"method": ["λ", "b"], "seed": [0, 0], "l0": [3e-15, NAN], "dead": [3, 0]})
    parameters = {"SEEDS": [0, np.int64(1)], "LAMS": (0.5, np.float32(0.25))}
    criteria = [record.criterion("It is good.", [NAN, np.float64(1)], ">", 0)]
    record.save("2_ablation", tmp_path, parameters, criteria, runs=frame)
    content = record.read("2_ablation", tmp_path)
    assert content["parameters"] == {"SEEDS": [0, 1], "LAMS": [0.5, 0.25]}
    assert content["criteria"] == [criteria[0] | {"measured": [None, 1.0]}]
    pd.testing.assert_frame_equal(content["tables"]["runs"], frame, rtol=0, atol=0)


def test_a_whole_run_writes_where_it_is_told_to_and_says_of_which_commit(tmp_path, monkeypatch):
    """That at the start of the run: "-dirty" if what computes had changed since, or was new."""
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RUN", {})
    monkeypatch.setenv("FIGURES", "figures")
    with pytest.raises(ValueError, match="QUICK"):
        record.begin_run(quick=True)
    assert record.begin_run() == tmp_path / "figures"
    assert record.RUN["commit"] == "unknown"
    for name in ("helpers.py", ".gitignore", "lab/a.py", "figures/a.json", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("build/")
    for words in ("init -q", "add .", "commit -q -m first"):
        record.git("-c", "user.name=a", "-c", "user.email=b@c", *words.split())
    commit = record.git("describe", "--always").strip()
    for name, end in {"figures/a.json": "", "figures/b.json": "", "lab/b.py": "-dirty"}.items():
        (tmp_path / name).write_text("new")
        assert record.begin_run(folder="build/figures") == tmp_path / "build/figures"
        assert record.RUN["commit"] == commit + end


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    versions = []
    for _ in range(2):
        fig, axis = plt.subplots(figsize=(1, 1))
        axis.plot([1, 2])
        record.save_figure(fig, "a", tmp_path)
        versions.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert versions[0] == versions[1] and sorted(versions[0]) == ["a.pdf", "a.png"]
    assert b"CreationDate" not in versions[0]["a.pdf"]  # which two files of a second share


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(show, "display", lambda content, **more: calls.append((content, more)))
    return calls


def test_numbers_of_seeds_and_their_table(displayed):
    assert show.mean_and_deviation([1621, 1802, 1983], 0) == "1,802 ± 181"
    for values, text in {(0.5, 0.5): "0.50", (-0.0001,): "0.00", (1, NAN): "–"}.items():
        assert show.mean_and_deviation(values, 2) == text
    frame = pd.DataFrame({"run": list("BAB"), "l0": [1, 5, 3], "dead": [0, 7, 0]})
    columns, paper = {"dead": ("dead, %", 0, 100), "l0": ("L0", 2)}, {"A": {"l0": "17.10"}}
    show.table(show.summary(frame, "run", columns, paper))
    lines = ["".join(content.data.split(" ")) for content, _ in displayed]
    assert lines[0].splitlines()[2:] == ["|B|0|2.00±1.41|", "|A|700|5.00(17.10)|"]


def test_a_criterion_holds_if_all_its_numbers_do_and_hides_none_that_is_missing(displayed):
    for comparison, holds in {">=": True, ">": False, "<=": True, "<": False}.items():
        assert record.criterion("a", 0.9, comparison, 0.9)["holds"] == holds
    for values, text in {(2, 1.23456): "1.23 to 2", (1, 0.8): "fails", (1, NAN): "nan"}.items():
        (row,) = show.criteria([("a", pd.Series(values), ">", 0.9)])
        assert row["holds"] is (values[1] > 0.9) and text in displayed[-1][0].data


def test_a_reader_gets_controls_and_a_saved_notebook_the_defaults(displayed, monkeypatch):
    def draw(power=2, color="red"):
        fig, _ = plt.subplots(figsize=(1, 1))
        fig.alt = f"{color} {power}"
        return fig

    for live in (False, True):
        monkeypatch.setattr(show, "live", lambda live=live: live)
        show.interactive(draw, power=(0, 4, 1), color=["red", "blue"])
    (_, metadata), *_, (controls, _) = displayed
    assert metadata == {"metadata": {"image/png": {"alt": "red 2"}}} and not plt.get_fignums()
    slider, menu, _ = controls.children
    assert (slider.max, slider.value, slider.continuous_update) == (4, 2, False)
    menu.value, slider.value = "blue", 1
    assert displayed[-1][0].alt == "blue 1"


def test_images_of_a_user_are_pixels_and_labels_or_refused(tmp_path, monkeypatch):
    x, y, x_test, _ = data.load_images()
    assert x.shape == (60_000, 784) and x_test.shape == (10_000, 784)
    assert y[:5].tolist() == [5, 0, 4, 1, 9] and x.mean().item() == pytest.approx(0.1307, abs=1e-4)
    X = np.random.default_rng(0).integers(0, 256, (9, 4, 4), dtype=np.uint8)
    images = {"x_train": X, "y_train": np.arange(9), "x_test": X[:5], "y_test": np.arange(5)}
    np.savez_compressed(tmp_path / "mine.npz", **images)
    x, y, x_test, y_test = data.load_images(tmp_path / "mine.npz")  # training rows are mixed
    assert sorted(y) == [*range(9)] != y.tolist() and y_test.tolist() == [*range(5)]
    close(torch.cat([x, x_test]) * 255, torch.from_numpy(X[[*y, *y_test]]).flatten(1).float())
    wrong = {"x_test": X[:5] / 255}, {"x_test": X[:5, :3, :3]}, {"y_train": np.arange(8)}
    for changed in (*wrong, {"x_train": X[:, :3], "x_test": X[:5, :3]}):
        np.savez(tmp_path / "mine.npz", **images | changed)
        with pytest.raises(ValueError, match=f"DATA: {tmp_path}"):
            data.load_images(tmp_path / "mine.npz")
    monkeypatch.setattr(data, "ROOT", tmp_path)  # where nothing is
    for file, load in (("mnist.npz", data.load_images), ("corpus.txt", data.load_documents)):
        with pytest.raises(ValueError, match=f"git checkout -- data/{file}"):
            load()
