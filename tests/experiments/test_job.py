"""Runs in processes of their own."""

import signal
from types import SimpleNamespace

import pytest

from experiments import job


def test_who_is_told_to_end_waits_for_the_run(tmp_path, monkeypatch):
    """As under a scheduler, which tells both; a run that was killed would lose what it is writing."""
    monkeypatch.setattr(job.HydraConfig, "get", lambda: SimpleNamespace(launcher={}))

    def end(*_):
        raise SystemExit(1)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    written = tmp_path / "written"
    with pytest.raises(SystemExit):
        job.run_subprocess(["timeit", "-n1", "-r1", f"import time; time.sleep(1); open({str(written)!r}, 'w').close()"])
    signal.signal(signal.SIGALRM, before)
    assert written.exists()
