"""lab/report.py: numbers in words, settings, and what is written down of a run."""

import torch

from lab import report


def test_numbers_settings_and_memory(monkeypatch):
    """0.410 stands beside 0.538; neither K nor functions are settings; a Mac counts bytes."""
    assert [report.number(v, 3) for v in (0.41, 1.05, [2, 1.5])] == [
        "0.410",
        "1.05",
        "1.50 to 2.00",
    ]
    assert report.parameters({"RATE": 0.1, "K": 64, "ADAM": torch.optim.Adam}) == {"RATE": 0.1}
    monkeypatch.setattr("resource.getrusage", lambda _: type("usage", (), {"ru_maxrss": 2**30}))
    for platform, gigabytes in (("darwin", 1), ("linux", 1024)):
        monkeypatch.setattr("sys.platform", platform)
        assert report._peak_memory() == gigabytes
