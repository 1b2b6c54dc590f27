"""Runs what is independent side by side, one process for each core, with a bar of progress."""

import os

import joblib
import pandas as pd
import torch
import tqdm.auto
from joblib.externals.loky.backend import reduction

# `make` names the terminal on which bars are drawn, or "" if there is none
PROGRESS_TERMINAL = os.environ.get("PROGRESS", "")
RUN_BY_HAND = "PROGRESS" not in os.environ
MIN_SHARED_ENTRIES = 100_000  # entries


def _share(tensor):
    """Tell joblib how to send a tensor to its processes: a large one always as the same array of
    its memory, or it would be written into shared memory again for each item."""
    if tensor.requires_grad or tensor.device.type != "cpu" or tensor.numel() < MIN_SHARED_ENTRIES:
        return tensor.__reduce_ex__(2)
    now = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
    if getattr(tensor, "sent", (None,))[0] != now:
        tensor.sent = now, tensor.numpy()
    return torch.from_numpy, (tensor.sent[1],)


reduction.register(torch.Tensor, _share)


def run_in_parallel(function, items, title):
    """Return [function(item) for item in items], each computed by one core, in as many processes as
    there are cores; long ones should come first. With tensors as small as ours, this is faster than
    one after the other with all cores, and does not depend on their number.
    """
    items = list(items)
    with joblib.Parallel(joblib.cpu_count(), return_as="generator", mmap_mode="c") as pool:
        results = pool(joblib.delayed(_with_one_thread)(function, item) for item in items)
        return list(_with_progress(results, title, len(items)))


def measure_each(models, measure, keys, title):
    """Return a DataFrame with a row measure(model), a dict, for each of {key: model}; the index
    has the key, a tuple whose parts are named by keys, such as ["loss", "seed"]."""
    index = pd.MultiIndex.from_tuples(models, names=keys)
    return pd.DataFrame(run_in_parallel(measure, models.values(), title), index)


def _with_one_thread(function, item):
    torch.set_num_threads(1)
    return function(item)


def _with_progress(results, title, total):
    style = {"desc": title, "total": total, "leave": False}
    if RUN_BY_HAND:
        return tqdm.auto.tqdm(results, **style)
    try:
        terminal = open(PROGRESS_TERMINAL, "w")
    except OSError:  # there is none, or it has been closed
        return results
    return tqdm.tqdm(results, **style, file=_Terminal(terminal))


class _Terminal:
    """A terminal that may be closed while a run goes on in the background."""

    def __init__(self, terminal):
        self.terminal = terminal

    def write(self, text):
        try:
            self.terminal.write(text)
            self.terminal.flush()
        except OSError:
            pass

    def flush(self):
        pass
