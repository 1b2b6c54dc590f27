"""lab/parallel.py: what is run side by side, and how tensors get there."""

import io
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from joblib.externals.loky.backend import reduction

from lab import ROOT, parallel


def test_each_item_has_its_result():
    """Equal items, too, and such as have no hash."""
    assert parallel.run_in_parallel(lambda k: -k[0], [[3], [1], [1]], "items") == [-3, -1, -1]


def test_each_is_measured_under_its_key():
    models = {("a", 0): 1, ("a", 1): 2, ("b", 0): 3}
    table = parallel.measure_each(models, lambda m: {"double": 2 * m}, ["method", "seed"], "title")
    assert table.index.names == ["method", "seed"]
    assert table.double.to_dict() == {("a", 0): 2, ("a", 1): 4, ("b", 0): 6}


def arrived(tensor):
    buffer = io.BytesIO()
    reduction.dump(tensor, buffer)
    return pickle.loads(buffer.getvalue())


def test_a_large_tensor_is_sent_as_one_array_and_arrives_as_it_is():
    square = torch.rand(400, 400)
    assert parallel._share(square)[1][0] is parallel._share(square)[1][0]
    assert arrived(square).equal(square)
    square.t_()  # the same memory and shape, read another way
    assert arrived(square).equal(square)
    square += 5
    assert arrived(square).equal(square)
    learned = torch.rand(400, 400, requires_grad=True)
    assert arrived(learned).requires_grad and arrived(learned).equal(learned)
    found = parallel.run_in_parallel(lambda k: k * float(square.sum()), range(3), "sums")
    assert found[2] == pytest.approx(2 * float(square.sum()))


def test_an_error_of_one_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        parallel.run_in_parallel(lambda k: 1 / k, [1, 0, 2], "errors")


def test_a_terminal_that_closes_ends_no_run(monkeypatch, tmp_path):
    monkeypatch.setattr(parallel, "RUN_BY_HAND", False)
    for terminal in ("", str(tmp_path / "gone" / "pts"), "/dev/full"):
        monkeypatch.setattr(parallel, "PROGRESS_TERMINAL", terminal)
        assert parallel.run_in_parallel(abs, [-1, 2], "numbers") == [1, 2]


def test_ctrl_c_ends_all():
    script = """
import signal, time
from lab import parallel
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
print("begun", flush=True)
parallel.run_in_parallel(lambda k: time.sleep(60), range(9), "sleeping")
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]
