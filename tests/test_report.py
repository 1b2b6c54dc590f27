"""lab/report.py: numbers in words, settings, and what is written down of a run."""

from lab import report


def test_numbers_settings_and_memory(monkeypatch):
    """0.410 stands beside 0.538; neither K nor functions are settings; a Mac counts bytes."""
    assert [report.number(v, 3) for v in (0.41, 1.05, [2, 1.5])] == [
        "0.410",
        "1.05",
        "1.50 to 2.00",
    ]
    assert report.parameters({"RATE": 1, "L0": 4, "A_B": len, "PARAMETERS": {}}) == {"RATE": 1}
    monkeypatch.setattr("resource.getrusage", lambda _: type("usage", (), {"ru_maxrss": 2**30}))
    for platform, gigabytes in (("darwin", 1), ("linux", 1024)):
        monkeypatch.setattr("sys.platform", platform)
        assert report._peak_memory() == gigabytes
