"""Runs side by side, one a core, and the bar that shows how far they are."""

import contextlib
import os
import sys
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import joblib
import torch
import tqdm.auto
from threadpoolctl import threadpool_limits


class _Here(threading.local):
    calls = ()  # of `side_by_side` that this thread works for, the innermost first


_here = _Here()


class _Call:
    over = False  # or interrupted

    def __init__(self, bar, by_epoch):
        self.bar, self.by_epoch = bar, by_epoch  # what the bar counts: epochs, or items


def side_by_side(function, items, title, epochs=None):
    """{item: function(item)}, computed at the same time, one item a core. Calls may be nested.

    Each has one thread of torch: with tensors as small as ours this is faster than one after the
    other with all threads, and results do not depend on the number of cores.
    title: of a bar that counts items; or epochs, so many in all, of which `tick` tells. On Ctrl-C,
    or if one fails, those that call `tick` end after their epoch, others when they are done.
    """
    items, threads = list(items), torch.get_num_threads()
    with threadpool_limits(1), _bar(title, epochs, len(items)) as bar:
        call = _Call(bar, epochs is not None)
        calls = (call, *_here.calls)
        pool = ThreadPoolExecutor(joblib.cpu_count(), initializer=_work_for, initargs=(calls,))
        torch.set_num_threads(1)
        running = [pool.submit(_run, function, item) for item in items]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            for run in running:
                if run in done:
                    run.result()  # raises what it has raised
            return dict(zip(items, [run.result() for run in running]))
        finally:  # also on Ctrl-C
            call.over = True
            try:
                pool.shutdown(cancel_futures=True)
            finally:  # also on a second Ctrl-C
                torch.set_num_threads(threads)


def tick(_=None):
    """Move the bar by an epoch: `fit(..., after_epoch=tick)`. Ends a run that was interrupted."""
    _go_on()
    for call in _here.calls[:1]:
        call.bar.update(int(call.by_epoch))


def _work_for(calls):
    _here.calls = calls
    torch.set_num_threads(1)


def _run(function, item):
    _go_on()
    result, call = function(item), _here.calls[0]
    call.bar.update(int(not call.by_epoch))
    return result


def _go_on():
    """Raise KeyboardInterrupt if a call that this thread works for is over."""
    if any(call.over for call in _here.calls):
        raise KeyboardInterrupt


def live():
    """Whether somebody looks at this notebook: it is open in a front end, and no run of `make`."""
    front_ends = {"JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"}
    return "PROGRESS" not in os.environ and not front_ends.isdisjoint(os.environ)


@contextlib.contextmanager
def _bar(title, epochs, n_items):
    """A bar in scripts and live notebooks; under `make` on its terminal, and in no saved output."""
    terminal = os.environ.get("PROGRESS", "")
    total, unit = (n_items, "run") if epochs is None else (epochs, "epoch")
    look = {"total": total, "desc": title, "unit": unit, "leave": False}
    look |= {"mininterval": 0, "miniters": 1}  # updates are few, and the last is to be seen
    with contextlib.ExitStack() as stack:
        if Path(terminal).is_char_device() and os.access(terminal, os.W_OK):
            file = stack.enter_context(open(terminal, "w", encoding="utf-8"))
            yield stack.enter_context(tqdm.tqdm(**look, file=file))
        else:
            script = "PROGRESS" not in os.environ and "ipykernel" not in sys.modules
            yield stack.enter_context(tqdm.auto.tqdm(**look, disable=not (script or live())))
