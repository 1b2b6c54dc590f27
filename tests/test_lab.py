"""lab/ against scikit-learn, brute force, plain loops, and numbers made by hand."""

import json
import math
import signal
import subprocess
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
from lab import NOTEBOOKS, check, data, measures, parallel, record, show

D, K, NAN, close = 6, 5, math.nan, torch.testing.assert_close


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Of another scale and other correlations, so that any other pairing of them gives other numbers
TRAIN, TEST = normal(300, D), 0.7 * normal(200, D, seed=1) @ normal(D, D, seed=2) + 0.4
Y_TRAIN, Y_TEST = (TRAIN[:, :3].argmax(1), TEST[:, :3].argmax(1))
MODEL, SAE = h.Encoder(D, K, mean=torch.ones(D), seed=1), h.SparseAutoencoder(D, K, seed=1)


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
    W, V = model.W.detach(), h.best_decoder(model, x)[0]
    step = -torch.autograd.grad(h.decoder_free_loss(model, x), model.W)[0]
    directions = measures.unit_directions(model, h.decoder_free_loss, x)
    close(directions, {"decoder row": V, "step": step, "weights": W})

    def median(A, B, pairs):
        values = torch.stack([torch.cosine_similarity(A[i], B[j], dim=0) for i, j in pairs])
        return pytest.approx(values.median().item(), abs=1e-5)

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


def test_ctrl_c_ends_all_that_tick_and_those_that_wait(monkeypatch):
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: 3)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    begun, waited, ticking = time.time(), [], threading.Barrier(3)

    def run(item):
        if item not in ("stop", "a", "b"):
            return waited.append(time.sleep(0.01))
        ticking.wait()
        while item != "stop" and time.time() < begun + 10:
            time.sleep(0.001)
            parallel.tick()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        parallel.side_by_side(run, ["stop", "a", "b", *range(100)], "runs")
    signal.signal(signal.SIGINT, before)
    assert time.time() < begun + 5 and len(waited) < 50


def test_results_are_read_as_they_were_saved_if_their_rows_can_be_told_apart(tmp_path):
    frame = pd.DataFrame({"method": ["λ", "b"], "seed": [0, 0], "l0": [3e-15, NAN], "dead": [3, 0]})
    wrong = {"same": frame.assign(method="b"), "KEYS": frame.rename(columns={"method": "loss"})}
    for reason, table in (wrong | {'column "seed"': frame.drop(columns="seed")}).items():
        with pytest.raises(ValueError, match=f"table runs.*{reason}"):
            record.save("a", tmp_path, {}, [], runs=table)
    criteria = [record.criterion("It is good.", [NAN, np.float64(1)], ">", 0)]
    record.save("a", tmp_path, {"SEEDS": [0, np.int64(1)]}, criteria, runs=frame)
    content = record.read("a", tmp_path)
    assert content["parameters"] == {"SEEDS": [0, 1]}
    assert content["criteria"] == [criteria[0] | {"measured": [None, 1.0]}]
    pd.testing.assert_frame_equal(content["tables"]["runs"], frame, rtol=0, atol=0)


def test_a_run_writes_where_it_is_told_to_and_says_of_which_commit(tmp_path, monkeypatch):
    """That at its start, and "-dirty" if what computes had changed since, or was new."""
    monkeypatch.setattr(record, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="QUICK"):
        record.begin_run(quick=True, folder="figures")
    (tmp_path / "lab").mkdir()
    for words in ("init -q", "commit -q -m first --allow-empty"):
        record.git("-c", "user.name=a", "-c", "user.email=b@c", *words.split())
    commit = record.git("describe", "--always").strip()
    for name, end in {"figures/a.json": "", "lab/b.py": "-dirty"}.items():
        assert record.begin_run(folder="figures") == tmp_path / "figures"
        (tmp_path / name).write_text("new")
        record.begin_run()
        assert record.RUN["commit"] == commit + end


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(show, "display", lambda content, **more: calls.append((content, more)))
    return calls


def test_numbers_of_seeds_their_table_and_criteria(displayed):
    assert show.mean_and_deviation([1621, 1802, 1983], 0) == "1,802 ± 181"
    for values, text in {(0.5, 0.5): "0.50", (-0.0001,): "0.00", (1, NAN): "–"}.items():
        assert show.mean_and_deviation(values, 2) == text
    frame = pd.DataFrame({"run": list("BAB"), "l0": [1, 5, 3], "dead": [0, 7, 0]})
    columns, paper = {"dead": ("dead, %", 0, 100), "l0": ("L0", 2)}, {"A": {"l0": "17.10"}}
    show.table(show.summary(frame, "run", columns, paper))
    lines = displayed[0][0].data.replace(" ", "").splitlines()
    assert lines[2:] == ["|B|0|2.00±1.41|", "|A|700|5.00(17.10)|"]
    for comparison, holds in {">=": True, ">": False, "<=": True, "<": False}.items():
        assert record.criterion("a", 0.9, comparison, 0.9)["holds"] == holds
    for values, text in {(2, 1.23456): "1.23 to 2", (-2, 1): "fails", (1, NAN): "nan"}.items():
        (row,) = show.criteria([("a", pd.Series(values), ">", 0.9)])
        assert row["holds"] is (values[0] == 2) and text in displayed[-1][0].data


def test_a_reader_gets_controls_and_a_saved_notebook_the_defaults(displayed, monkeypatch):
    def draw(power=2, color="red"):
        fig, _ = plt.subplots(figsize=(1, 1))
        fig.alt = f"{color} {power}"
        return fig

    monkeypatch.setattr(parallel, "TERMINAL", None)
    terminal = {"VSCODE_PID": "1", "TERM_PROGRAM": "vscode"}  # of VS Code, no front end
    for names in (terminal, {"VSCODE_PID": "1"}):
        monkeypatch.setattr(show.os, "environ", names)
        show.interactive(draw, power=(0, 4, 1), color=["red", "blue"])
    (figure, _), *_, (controls, _) = displayed
    slider, menu, _ = controls.children
    assert (figure.alt, slider.max, slider.value) == ("red 2", 4, 2)
    menu.value, slider.value = "blue", 1
    assert displayed[-1][0].alt == "blue 1" and not plt.get_fignums()


def test_images_of_a_user_are_pixels_and_labels_or_refused(tmp_path):
    assert data.load_images()[1][:5].tolist() == [5, 0, 4, 1, 9]  # MNIST in its order
    X, path = np.arange(9 * 16, dtype=np.uint8).reshape(9, 4, 4), tmp_path / "mine.npz"
    images = {"x_train": X, "y_train": np.arange(9), "x_test": X[:5], "y_test": np.arange(5)}
    np.savez_compressed(path, **images)
    x, y, x_test, y_test = data.load_images(path)
    assert sorted(y) == [*range(9)] != y.tolist() and y_test.tolist() == [*range(5)]  # y is mixed
    close(torch.cat([x, x_test]) * 255, torch.from_numpy(X[[*y, *y_test]]).flatten(1).float())
    wrong = {"x_test": X[:5] / 255}, {"x_test": X[:5, :3, :3]}, {"y_train": np.arange(8)}
    for changed in (*wrong, {"x_train": X[:, :3], "x_test": X[:5, :3]}):
        np.savez(path, **images | changed)
        with pytest.raises(ValueError, match=f"DATA: {path}"):
            data.load_images(path)


# --- lab/check.py, on runs made by hand ---------------------------------------------------------

A, B, C = ({"loss": name, "seed": 0, "l0": l0} for name, l0 in {"a": 5, "b": 9, "c": 7}.items())


def a_run(seconds=1, claim="Good.", measured=(0.9, 0.92), comparison=">", bound=0.89, **changed):
    criteria = [record.criterion(claim, measured, comparison, bound)]
    content = {"parameters": {"K": changed.get("K", 64)}, "criteria": criteria}
    content["environment"] = {"commit": "1234567", "seconds": seconds}
    return content | {"tables": {"runs": changed.get("rows", [A, B])}}


CASES = """classifier 90 89.6 89.4; recovered 80 78.1 77.9; parameters 50240 50240 50241;
explained 0.5 0.519 0.521; explained_best 0.5 0.519 0.521; l0 10 10.29 10.305; dead 3 4 5;
agreement 0.99 0.981 0.979; redundancy 0.3 0 -0.3; step and other rows 0.001 -0.02 -0.03;
living units 67 69 70; epoch 3 3.09 3.5; width 3e-15 9e-15 2e-6; width -10.5 -10.8 -10.9"""


def test_each_column_has_its_tolerance_and_only_the_records_own_spread_allows_more():
    for case in CASES.split(";"):
        column, *numbers = case.strip().rsplit(maxsplit=3)
        for n in (1, 3):
            there, near, far = (dict.fromkeys(range(n), float(number)) for number in numbers)
            assert check.agree(there, near, column) and not check.agree(there, far, column)
            assert not check.agree(there, there | {3: there[0]}, column)
    alike, apart = {0: 90.0, 1: 90.0, 2: 90.0}, {0: 89.0, 1: 90.0, 2: 91.0}
    for shift, same in {1.6: True, 1.7: False}.items():  # two errors are 2 * sqrt(2 / 3) = 1.63
        assert check.agree(apart, {s: 90 - shift for s in apart}, "classifier") == same
        assert not check.agree(alike, {s: apart[s] - shift for s in apart}, "classifier")


@pytest.mark.parametrize(
    "changed, starts",
    [
        ({"rows": [C, B, A]}, ["runs, c, l0: nothing in the record, 7 in your run"]),
        ({"rows": [A]}, ["runs, b, l0: 9 in the record, nothing in your run"]),
        ({"rows": [A, B | {"l0": 9.9}]}, ["runs, b, l0: 9 in the record, 9.9"]),
        ({"bound": 0.88}, ["criterion, Good., >: 0.89 in the record, 0.88"]),
        ({"measured": (0.88, 0.92)}, ["note: by a hair, criterion, Good., holds"]),
        ({"measured": (float("nan"), 0.92)}, ["criterion, Good., holds"]),
    ],
)
def test_what_differs_is_named_and_no_number_moves_to_another_row(changed, starts):
    lines = [*filter(None, check.compare(a_run(), a_run(2, **changed))[1:])]
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))


def test_the_exit_status_is_zero_if_all_notebooks_were_compared_and_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()

    def status(*runs):  # of notebooks, and of the language model
        for name, run in zip([*NOTEBOOKS, "language"], runs):
            path = tmp_path / f"figures/{name}.json"
            path.write_text(json.dumps(run)) if run else path.unlink(missing_ok=True)
        return check.check()

    same, run, worse = a_run(), a_run(2), a_run(2, rows=[A])
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b@c commit -q -m record"):
        assert status(same, same, same, same) == 1  # without git, and the record itself
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    for other in (None, same, a_run(2, K=9)):
        assert status(run, run, run, other) == 0 and status(run, run, other, run) == 1
    assert [status(run, run, *last) for last in ((run, run), (run, worse), (worse, run))] == [
        0,
        1,
        1,
    ]
