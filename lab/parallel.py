"""Jobs side by side, one a core, and the bar that shows how far they are."""

import contextvars
import os
import sys
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import joblib
import torch
import tqdm.auto
from threadpoolctl import threadpool_limits

# Of the `side_by_side` that runs a job: an event that interrupts it, and whom to tell of an epoch
_pool = contextvars.ContextVar("pool", default=(threading.Event(), lambda: None))


def side_by_side(jobs, title, total_epochs=None):
    """Run functions at the same time, one a core: their results, in the order of the jobs.

    Each has one torch thread. That is faster than one after the other with all threads, for the
    tensors are small, and results do not depend on the number of cores. If a job fails or is
    interrupted, those that train end after their current step, and keep what they learned; others
    end when they are done.
    title: of the progress bar, None for no bar. The bar counts jobs; or, where the jobs train,
    total_epochs, those of all of them.
    """
    threads, interrupted = torch.get_num_threads(), threading.Event()
    pool = ThreadPoolExecutor(joblib.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))
    total, unit = (len(jobs), "job") if total_epochs is None else (total_epochs, "epoch")
    with threadpool_limits(1), progress_bar(title, total, unit) as bar:
        torch.set_num_threads(1)
        context = contextvars.copy_context()
        context.run(_pool.set, (interrupted, bar.update if total_epochs else lambda: None))
        running = [pool.submit(context.copy().run, job) for job in jobs]
        for job in running if total_epochs is None else []:
            job.add_done_callback(lambda _: bar.update())
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            failed = [job for job in running if job.done() and job.exception()]
            return [job.result() for job in failed or running]
        finally:  # also on Ctrl-C
            interrupted.set()
            try:
                pool.shutdown(cancel_futures=True)
            finally:  # also on a second Ctrl-C
                torch.set_num_threads(threads)


def tell_epoch():
    """Move the bar of the `side_by_side` that runs this job by an epoch."""
    _pool.get()[1]()


def stop_if_interrupted():
    """Raise KeyboardInterrupt in a job whose `side_by_side` was interrupted, or has failed."""
    if _pool.get()[0].is_set():
        raise KeyboardInterrupt


def progress_bar(title, total, unit):
    """A bar in scripts and live notebooks; under `make` on its terminal, and in no saved output."""
    terminal = os.environ.get("PROGRESS", "")
    look = {"total": total, "desc": title, "unit": unit, "leave": False}
    look |= {"mininterval": 0, "miniters": 1}  # updates are few, and the last is to be seen
    if title and Path(terminal).is_char_device() and os.access(terminal, os.W_OK):
        return tqdm.tqdm(**look, file=open(terminal, "w", encoding="utf-8"))
    live = {"JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"} & {*os.environ}
    saved = terminal or ("ipykernel" in sys.modules and not live)
    return tqdm.auto.tqdm(**look, disable=bool(saved or not title))
