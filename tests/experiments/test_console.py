from experiments.console import make_console, spinner


def test_what_is_done_is_said_on_a_terminal_alone(capsys, monkeypatch):
    with spinner("reading"):
        pass
    assert not capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    with spinner("reading"):
        pass
    assert "reading" in capsys.readouterr().out
    monkeypatch.setenv("LOCAL_RANK", "1")
    with spinner("reading"):
        pass
    assert not capsys.readouterr().out


def test_lines_are_said_as_they_are(capsys):
    line = f"wrote runs/x[old]/:cat:/{'long' * 97}/3.5"
    make_console().print(line)
    assert capsys.readouterr().out == f"{line}\n"
