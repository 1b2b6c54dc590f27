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

_interrupted, _bars = threading.Event(), []


def side_by_side(function, items, title, epochs=None):
    """{item: function(item)}, computed at the same time, one item a core.

    Each has one thread of torch: with tensors as small as ours this is faster than one after the
    other with all threads, and results do not depend on the number of cores.
    title: of a bar that counts items; or epochs, so many in all, of which `tick` tells. On Ctrl-C,
    or if one fails, those that call `tick` end after their epoch, others when they are done.
    """
    items = list(items)
    total, unit = (len(items), "run") if epochs is None else (epochs, "epoch")
    threads = torch.get_num_threads()
    _interrupted.clear()
    pool = ThreadPoolExecutor(joblib.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))
    with threadpool_limits(1), _bar(title, total, unit) as bar:
        _bars.append(bar)
        torch.set_num_threads(1)
        running = [pool.submit(function, item) for item in items]
        for run in running if epochs is None else []:
            run.add_done_callback(lambda _: bar.update())
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            failed = [run for run in running if run in done and run.exception()]
            return dict(zip(items, [run.result() for run in failed or running]))
        finally:  # also on Ctrl-C
            _interrupted.set()
            try:
                pool.shutdown(cancel_futures=True)
            finally:  # also on a second Ctrl-C
                torch.set_num_threads(threads)
                _interrupted.clear()
                _bars.remove(bar)


def tick(_=None):
    """Move the bar by an epoch: `fit(..., after_epoch=tick)`. Ends a run that was interrupted."""
    if _interrupted.is_set():
        raise KeyboardInterrupt
    for bar in _bars[-1:]:
        bar.update()


@contextlib.contextmanager
def _bar(title, total, unit):
    """A bar in scripts and live notebooks; under `make` on its terminal, and in no saved output."""
    terminal = os.environ.get("PROGRESS", "")
    look = {"total": total, "desc": title, "unit": unit, "leave": False}
    look |= {"mininterval": 0, "miniters": 1}  # updates are few, and the last is to be seen
    with contextlib.ExitStack() as stack:
        if Path(terminal).is_char_device() and os.access(terminal, os.W_OK):
            file = stack.enter_context(open(terminal, "w", encoding="utf-8"))
            yield stack.enter_context(tqdm.tqdm(**look, file=file))
        else:
            live = {"JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"} & {*os.environ}
            saved = bool(terminal or ("ipykernel" in sys.modules and not live))
            yield stack.enter_context(tqdm.auto.tqdm(**look, disable=saved))
