"""lab/parallel.py: runs side by side, how they end, and the bar that shows how far they are."""

import contextlib
import os
import pty
import re
import select
import signal
import sys
import threading
import time
from collections import Counter

import pytest
import torch

from lab import parallel
from lab.parallel import live, side_by_side, tick


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Of OpenMP and of MKL, which the caller has again when all is done, or not done."""
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: 3)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    torch.set_num_threads(2)
    yield
    left = {*re.findall(r"max_threads\(\) : (\d+)", torch.__config__.parallel_info())}
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, before)
    assert left == {"2"}


def test_results_are_in_the_order_of_items_and_each_run_has_one_thread(monkeypatch):
    def run(delay):
        time.sleep(delay)
        return delay, torch.get_num_threads()

    for cores in (1, 2, 9):
        monkeypatch.setattr(parallel.joblib, "cpu_count", lambda cores=cores: cores)
        found = side_by_side(run, iter([0.03, 0.0, 0.01]), "runs")
        assert [*found.items()] == [(delay, (delay, 1)) for delay in (0.03, 0.0, 0.01)]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failure_or_ctrl_c_ends_all_that_tick_and_those_that_wait(error, nested):
    ticks, waited, begun = Counter(), [], time.time()

    def run(item):
        time.sleep(0.01)
        if item in range(100):
            return waited.append(item)
        while item != "ends" and time.time() < begun + 10:
            time.sleep(0.001)
            ticks[item] += 1
            tick()
        while ticks["a"] < 3 or ticks["b"] < 3:
            time.sleep(0.001)
        if error is ZeroDivisionError:
            raise error
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def runs(items):
        side_by_side(run, items, "runs", epochs=1000)

    items = [("ends",), ("a", "b"), (*range(100),)]
    with pytest.raises(error):
        side_by_side(runs, items, "calls") if nested else runs(sum(items, ()))
    assert time.time() < begun + 5 and len(waited) < 50
    tick()  # the next training is not stopped
    assert side_by_side(lambda _: tick(), ["next"], "runs") == {"next": None}


@pytest.mark.parametrize("epochs, count", [(4, "4"), (None, "2")])  # of ticks, of items
def test_a_call_that_fails_leaves_those_around_and_beside_it_alone(epochs, count, capsys):
    def inner(item):
        tick()
        time.sleep(0.05)  # until both are here
        if item == "bad":
            raise ZeroDivisionError
        time.sleep(0.05)
        tick()

    def outer(item):
        tick()
        with contextlib.suppress(ZeroDivisionError):
            side_by_side(inner, [item], item, epochs=2)
        tick()

    side_by_side(outer, ["bad", "good"], "outer", epochs)
    drawn = re.findall(r"(\w+): .*?(\d)(?:/\d|run|epoch) \[", capsys.readouterr().err)
    assert dict(sorted(drawn)) == {"bad": "1", "good": "2", "outer": count}


@pytest.mark.parametrize(
    "kernel, variables, shown",
    [
        (False, {}, True),  # a script
        (True, {"JPY_SESSION_NAME": "a.ipynb"}, True),  # a live notebook
        (True, {}, False),  # one that is executed to be saved
        (False, {"PROGRESS": "no terminal"}, False),
        (True, {"PROGRESS": "", "VSCODE_PID": "1"}, False),  # `make` without a terminal
    ],
)
def test_a_bar_is_shown_but_in_no_saved_output(kernel, variables, shown, monkeypatch, capsys):
    for name in ("PROGRESS", "JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "ipykernel", pytest)
    kernel or monkeypatch.delitem(sys.modules, "ipykernel")
    side_by_side(lambda n: [tick() for _ in range(n)], [1, 3], "epochs", epochs=4)
    out, err = capsys.readouterr()
    assert (out, "epochs: 100%" in err, err != "") == ("", shown, shown)
    assert live() == (kernel and shown)


def test_under_make_the_bar_is_on_its_terminal(monkeypatch, capsys):
    ours, terminal = pty.openpty()
    monkeypatch.setenv("PROGRESS", os.ttyname(terminal))
    side_by_side(lambda _: None, range(3), "runs")
    drawn = b""
    while b"3/3" not in drawn and select.select([ours], [], [], 5)[0]:  # it comes in parts
        drawn += os.read(ours, 10_000)
    assert b"3/3" in drawn and capsys.readouterr() == ("", "")
    for file in (ours, terminal):
        os.close(file)
