"""lab/runs.py and lab/data.py: what is run side by side, saved, shown, and compared."""

import copy
import json
import math
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lab import NOTEBOOKS, ROOT, data, runs

NAN = math.nan


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(runs, "display", lambda content, **more: calls.append((content, more)))
    return calls


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setenv("OUTPUT", "out")
    return tmp_path / "out"


def test_each_item_has_its_result_by_one_thread():
    def one(k):
        return -k, torch.get_num_threads()

    before = torch.get_num_threads()
    found = runs.run_in_parallel(one, [3, 1, 2], "items")
    assert found == {k: (-k, 1) for k in (3, 1, 2)} and [*found] == [3, 1, 2]
    assert torch.get_num_threads() == before


def test_a_large_tensor_is_shared_once_and_arrives_whole():
    x = torch.arange(1_000_000.0)
    assert runs._share(x)[1][0] is runs._share(x)[1][0]
    other = copy.deepcopy(x)
    other += 5
    assert runs._share(other)[1][0][0] == 5 and runs._share(x)[1][0][0] == 0
    found = runs.run_in_parallel(lambda k: k * float(x.sum()), range(3), "sums")
    assert found[2] == pytest.approx(2 * float(x.sum()))


def test_an_error_of_one_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        runs.run_in_parallel(lambda k: 1 / k, [1, 0, 2], "errors")


def test_ctrl_c_ends_all():
    script = """
import signal, time
from lab import runs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
print("begun", flush=True)
runs.run_in_parallel(lambda k: time.sleep(60), range(9), "sleeping")
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]


def test_results_are_read_as_they_were_saved(folder):
    frame = pd.DataFrame({"method": ["λ", "b"], "seed": [0, 0], "l0": [3e-15, NAN], "dead": [3, 0]})
    run = runs.Run("a", SEEDS=[0, np.int64(1)])
    with pytest.raises(ValueError, match="two rows"):
        run.save(results=frame.assign(method="b"))
    run.save(results=frame)
    assert json.loads((folder / "a.json").read_text("utf-8"))["parameters"] == {"SEEDS": [0, 1]}
    back = runs.read_tables("a", "out")["results"]
    pd.testing.assert_frame_equal(back, frame, rtol=0, atol=0)


def test_a_run_names_its_commit_and_whether_what_computes_has_changed(folder, tmp_path):
    (tmp_path / "lab").mkdir()
    for words in ("init -q", "commit -q -m first --allow-empty"):
        runs.git("-c", "user.name=a", "-c", "user.email=b@c", *words.split())
    commit = runs.git("describe", "--always").strip()
    (tmp_path / "figures.txt").write_text("new")
    assert runs.Run("a").commit == commit
    (tmp_path / "lab/b.py").write_text("new")
    assert runs.Run("a").commit == f"{commit}-dirty"


def test_numbers_of_seeds_and_their_table(displayed):
    assert runs.mean_and_deviation([1621, 1802, 1983], 0) == "1,802 ± 181"
    for values, text in {(0.5, 0.5): "0.50", (-0.0001,): "0.00", (1, NAN): "–"}.items():
        assert runs.mean_and_deviation(values, 2) == text
    assert runs.lowest_to_highest([0.984, 0.921, 0.95], 2) == "0.92 to 0.98"
    assert runs.lowest_to_highest([0.984, 0.983], 2) == "0.98"
    frame = pd.DataFrame({"run": list("BAB"), "l0": [1, 5, 3], "dead": [0, 7, 0]})
    columns, paper = {"dead": ("dead units", 0), "l0": ("L0", 2)}, {"A": {"l0": "17.10"}}
    runs.show_summary("run", frame, "run", columns, paper=paper)
    frame["seed"] = ["0", "0", "1"]
    runs.show_summary("run, seed", frame, ["run", "seed"], {"l0": ("L0", 0)})
    runs.show_ranges("run; seed", frame, "run", "seed", "l0", 0)
    tables = [table.data.replace(" ", "").splitlines() for table, _ in displayed]
    assert tables[0][2:] == ["|B|0|2.00±1.41|", "|A|7|5.00(17.10)|"]
    assert tables[1][2:] == ["|B,0|1|", "|A,0|5|", "|B,1|3|"]
    assert tables[2] == ["|run;seed|0|1|", tables[2][1], "|B|1|3|", "|A|5|–|"]


def test_criteria_hold_if_all_numbers_compare_so_and_nan_never_does(folder, displayed):
    run = runs.Run("a")
    cases = {">=": True, ">": False, "<=": True, "<": False}
    run.show_criteria([("a", 0.9, comparison, 0.9) for comparison in cases])
    assert [row["holds"] for row in run.criteria] == [*cases.values()]
    run.show_criteria([("b", pd.Series([2, 1.23456]), ">", 0.9), ("c", [1, NAN], ">", 0.9)])
    assert [row["holds"] for row in run.criteria] == [True, False]
    assert "1.23 to 2" in displayed[-1][0].data and "**fails**" in displayed[-1][0].data
    assert run.criteria[-1]["measured"] == [1, None]


def test_a_reader_gets_controls_and_a_saved_notebook_the_defaults(displayed, monkeypatch):
    def draw(power=2, color="red"):
        fig, _ = plt.subplots(figsize=(1, 1))
        fig.alt = f"{color} {power}"
        return fig

    for by_hand in (False, True):
        monkeypatch.setattr(runs, "BY_HAND", by_hand)
        runs.show_with_controls(draw, power=(0, 4, 1), color=["red", "blue"])
    (figure, _), *_, (controls, _) = displayed
    slider, menu, _ = controls.children
    assert (figure.alt, slider.max, slider.value) == ("red 2", 4, 2)
    menu.value, slider.value = "blue", 1
    assert displayed[-1][0].alt == "blue 1" and not plt.get_fignums()


# --- Whether a run agrees with the record ---------------------------------------------------------


def a_run(rows, bound=0.89, holds=True, **parameters):
    criteria = [
        {"claim": "Good.", "comparison": ">", "bound": bound, "measured": [1.0], "holds": holds}
    ]
    return {"parameters": parameters, "criteria": criteria, "tables": {"results": rows}}


def of_seeds(column, values, method="a"):
    return [{"method": method, "seed": seed, column: v} for seed, v in enumerate(values)]


def differ(column, there, here):
    compared = runs.differences_from_record(
        a_run(of_seeds(column, there)), a_run(of_seeds(column, here))
    )
    return bool(compared.differs.loc["results", "a", column])


@pytest.mark.parametrize(
    "column, there, near, far",
    [
        ("classifier", 90, 89.6, 89.4),
        ("recovered", 80, 78.1, 77.9),
        ("parameters", 50240, 50240, 50241),
        ("explained", 50, 51.9, 52.1),
        ("best explained", 50, 51.9, 52.1),
        ("formula share", 30, 31.9, 32.1),
        ("active", 10, 10.29, 10.305),
        ("dead", 3, 4, 5),
        ("agreement", 0.95, 0.931, 0.929),
        ("redundancy", 0.3, 0, -0.3),
        ("epoch", 30, 31, 32),
        ("value", 3e-15, 9e-15, 2e-6),
        ("width", -10.5, -10.8, -10.9),
    ],
)
def test_each_column_has_its_tolerance(column, there, near, far):
    assert not differ(column, [there], [near]) and differ(column, [there], [far])


def test_a_mean_of_seeds_is_held_closer_but_may_move_by_its_own_error():
    apart = [49, 50, 51]  # two errors are 2 * sqrt(2 / 3) = 1.63
    assert [differ("entropy", apart, [50 - d] * 3) for d in (1.6, 1.7)] == [False, True]
    for column in ("classifier", "explained", "best explained"):
        assert differ(column, [50] * 3, [51.5] * 3)  # a point and a half
        assert not differ(column, [50] * 3, [50.2] * 3)
        assert [differ(column, apart, [50 - d] * 3) for d in (1.3, 1.5)] == [False, True]
    assert differ("active", [10, 10], [10])


def test_rows_are_told_apart_and_what_is_missing_or_new_differs():
    A, B, C = (of_seeds("active", [n], m)[0] for m, n in (("a", 5), ("b", 9), ("c", 7)))
    compared = runs.differences_from_record(a_run([A, B]), a_run([C, A]))
    assert compared.differs.groupby("which").any().to_dict() == {
        "Good.": False,
        "a": False,
        "b": True,
        "c": True,
    }
    for changed in (a_run([A], bound=0.88), a_run([A], holds=False)):
        assert runs.differences_from_record(a_run([A]), changed).differs.sum() == 1
    nothing = [A | {"active": None}]
    assert not runs.differences_from_record(
        a_run(nothing + [B]), a_run(nothing + [B])
    ).differs.any()
    assert runs.differences_from_record(a_run([A, B]), a_run(nothing + [B])).differs.any()


def test_the_exit_status_is_zero_if_all_notebooks_were_compared_and_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()

    def status(*contents):  # of notebooks, and of the language model
        for name, content in zip([*NOTEBOOKS, "language"], contents):
            path = tmp_path / f"figures/{name}.json"
            content = content and content | ({"criteria": []} if name == "language" else {})
            path.write_text(json.dumps(content)) if content else path.unlink(missing_ok=True)
        return runs.check_against_record()

    same, again = a_run(of_seeds("active", [5])), a_run(of_seeds("active", [5.01]))
    worse, other = a_run(of_seeds("active", [6])), a_run(of_seeds("active", [5]), K=9)
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b@c commit -q -m record"):
        assert status(same, same, same, same) == 1  # without git, and the record itself
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    for last in (None, same, other):
        assert status(again, again, again, last) == 0 and status(again, again, last, again) == 1
    assert status(again, again, again, worse) == 1 and status(worse, again, again, again) == 1


# --- Data -----------------------------------------------------------------------------------------


def test_images_of_a_user_are_pixels_and_labels_or_refused(tmp_path):
    assert data.load_images()[1][:5].tolist() == [5, 0, 4, 1, 9]  # MNIST in its order
    X, path = np.arange(9 * 16, dtype=np.uint8).reshape(9, 4, 4), tmp_path / "mine.npz"
    images = {"x_train": X, "y_train": np.arange(9), "x_test": X[:5], "y_test": np.arange(5)}
    np.savez_compressed(path, **images)
    x, y, x_test, y_test = data.load_images(path)
    assert sorted(y) == [*range(9)] != y.tolist() and y_test.tolist() == [*range(5)]  # y is mixed
    pixels = torch.from_numpy(X[[*y, *y_test]]).flatten(1).float()
    torch.testing.assert_close(torch.cat([x, x_test]) * 255, pixels)
    wrong = [{"x_test": X[:5] / 255}, {"x_test": X[:5, :3, :3]}, {"y_train": np.arange(8)}]
    wrong.append({"y_test": np.zeros((5, 2), int)})
    for changed in (*wrong, {"x_train": X[:, :3], "x_test": X[:5, :3]}):
        np.savez(path, **images | changed)
        with pytest.raises(ValueError, match=f"DATA: {path}"):
            data.load_images(path)


def test_a_thousand_clothes_and_the_corpus_are_there():
    clothes = data.load_clothes()
    assert clothes.shape == (1000, 784) and 0.2 < float(clothes.mean()) < 0.4
    assert len(data.load_documents()) == 95
