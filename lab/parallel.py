"""Runs side by side, one a core, and their bar."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import joblib
import torch
import tqdm.auto
from threadpoolctl import threadpool_limits

# `make` names its terminal, "" if it has none: there the bar is drawn, and not in a saved notebook
TERMINAL = os.environ.get("PROGRESS")
_of_thread = threading.local()


def side_by_side(function, items, title=""):
    """Return {item: function(item)}, computed one item a core in the order given, each with one
    thread of torch: with tensors as small as ours this is faster than one after the other, and does
    not depend on the number of cores. Long ones should come first.

    Raises RuntimeError, which names the item that fails. On Ctrl-C, or when one fails, the others
    end where they call `tick`.
    """
    items, over, threads = list(items), threading.Event(), torch.get_num_threads()

    def begin():
        _of_thread.over = over
        torch.set_num_threads(1)

    pool, done = ThreadPoolExecutor(joblib.cpu_count(), initializer=begin), {}
    try:
        with threadpool_limits(1), _bar(title, len(items)) as bar:
            torch.set_num_threads(1)
            runs = {pool.submit(function, item): item for item in items}
            for run in as_completed(runs):
                try:
                    done[runs[run]] = run.result()
                except Exception as error:
                    raise RuntimeError(f"{title}, {runs[run]}: {error!r}") from error
                bar.update()
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    return {item: done[item] for item in items}


def tick(_=None):
    """End `fit(..., after_epoch=tick)` by KeyboardInterrupt when its `side_by_side` is over."""
    over = getattr(_of_thread, "over", None)
    if over and over.is_set():
        raise KeyboardInterrupt


def _bar(title, total):
    bar = {"desc": title, "total": total, "leave": False, "mininterval": 0}
    if TERMINAL is None:
        return tqdm.auto.tqdm(**bar)
    return tqdm.tqdm(**bar, file=open(TERMINAL, "w") if TERMINAL else None, disable=not TERMINAL)
