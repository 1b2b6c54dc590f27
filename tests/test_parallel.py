"""lab/parallel.py: runs side by side, how they end, and the bar that shows how far they are."""

import os
import pty
import re
import signal
import sys
import threading
import time
from collections import Counter

import pytest
import torch

from lab import parallel
from lab.parallel import side_by_side, tick


@pytest.fixture(autouse=True)
def cores(request, monkeypatch):
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: getattr(request, "param", 2))


@pytest.fixture(autouse=True)
def two_threads():
    """Which the caller has, and has again when all is done, or not done."""
    torch.set_num_threads(2)
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == 2


@pytest.mark.parametrize("cores", [1, 2, 9], indirect=True)
def test_results_are_in_the_order_of_items_and_each_run_has_one_thread(cores):
    def run(delay):
        time.sleep(delay)
        return delay, torch.get_num_threads()

    delays = [0.03, 0.0, 0.01]
    found = side_by_side(run, iter(delays), "runs")
    assert [*found.items()] == [(delay, (delay, 1)) for delay in delays]


# --- How runs end -------------------------------------------------------------------------------


def fail():
    raise ZeroDivisionError


def press_ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.fixture
def python_interrupt():
    """A shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_interrupt")
@pytest.mark.parametrize("cores", [3], indirect=True)
@pytest.mark.parametrize(
    "end, error", [(fail, ZeroDivisionError), (press_ctrl_c, KeyboardInterrupt)]
)
def test_a_failure_or_an_interrupt_ends_all_that_tick_and_those_that_wait(end, error):
    ticks, waited, begun = Counter(), [], time.time()

    def run(item):
        if item in range(100):
            time.sleep(0.01)
            waited.append(item)
            return
        while item != "ends" and time.time() < begun + 10:
            time.sleep(0.001)
            ticks[item] += 1
            tick()
        while ticks["a"] < 3 or ticks["b"] < 3:
            time.sleep(0.001)
        end()

    with pytest.raises(error):
        side_by_side(run, ["a", "ends", "b", *range(100)], "runs", epochs=1000)
    assert time.time() < begun + 5 and len(waited) < 50
    seen = ticks.copy()
    time.sleep(0.05)
    assert ticks == seen
    tick()  # the next training is not stopped
    assert side_by_side(lambda _: tick(), ["next"], "runs") == {"next": None}


# --- The bar ------------------------------------------------------------------------------------


def run_three():
    side_by_side(lambda _: None, range(3), "runs")


@pytest.mark.parametrize("cores", [1], indirect=True)  # so that the bar is drawn in order
@pytest.mark.parametrize(
    "kernel, variables, shown",
    [
        (False, {}, True),  # a script
        (True, {"JPY_SESSION_NAME": "a.ipynb"}, True),  # a live notebook
        (True, {}, False),  # one that is executed to be saved
        (False, {"PROGRESS": "no terminal"}, False),  # `make` without a terminal
        (True, {"PROGRESS": "", "COLAB_RELEASE_TAG": "1"}, True),
    ],
)
def test_a_bar_is_shown_but_in_no_saved_output(
    kernel, variables, shown, cores, monkeypatch, capsys
):
    for name in ("PROGRESS", "JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if kernel:
        monkeypatch.setitem(sys.modules, "ipykernel", pytest)
    run_three()
    side_by_side(lambda n: [tick() for _ in range(n)], [1, 3], "epochs", epochs=4)
    out, err = capsys.readouterr()
    drawn = [("runs", f"{done}/3") for done in range(4)]
    drawn += [("epochs", f"{done}/4") for done in range(5)]
    assert re.findall(r"(runs|epochs): .*?(\d/\d)", err) == (drawn if shown else [])
    assert out == ""


def test_under_make_the_bar_is_on_its_terminal_which_is_closed_again(monkeypatch, capsys):
    ours, terminal = pty.openpty()
    monkeypatch.setenv("PROGRESS", os.ttyname(terminal))
    run_three()  # what tqdm opens once is open
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        run_three()
    assert len(os.listdir("/dev/fd")) <= before and capsys.readouterr() == ("", "")
    assert b"3/3" in os.read(ours, 10_000)
    os.close(ours)
    os.close(terminal)


def test_threads_of_openmp_and_of_mkl_are_given_back():
    torch.set_num_threads(2)
    side_by_side(lambda item: item, [1, 2], "runs")
    counts = re.findall(r"max_threads\(\) : (\d+)", torch.__config__.parallel_info())
    assert {*counts} == {"2"}
