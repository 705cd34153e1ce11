from experiments.waiting import waiting


def test_what_is_done_is_said_on_a_terminal_alone(capsys, monkeypatch):
    with waiting("reading"):
        pass
    assert not capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    with waiting("reading"):
        pass
    assert "reading" in capsys.readouterr().out
    monkeypatch.setenv("LOCAL_RANK", "1")
    with waiting("reading"):
        pass
    assert not capsys.readouterr().out
