from experiments.terminal import terminal, waiting


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


def test_lines_are_said_as_they_are(capsys):
    line = f"wrote runs/x[old]/:cat:/{'long' * 97}/3.5"
    terminal().print(line)
    assert capsys.readouterr().out == f"{line}\n"
