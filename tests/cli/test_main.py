from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import click
import pytest

from rasr.cli import main as cli
from rasr.errors import PictureError, UsageError

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Replace the verb 'doctor' by a function."""

    def install(body: Callable[[], object]) -> None:
        command = click.command(name="doctor")(body)
        monkeypatch.setattr(cli.Verbs, "get_command", lambda self, ctx, name: command if name == "doctor" else None)

    return install


def exit_code(*argv: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(argv))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_every_verb_has_help_that_ends_in_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.rasr.get_command(click.Context(cli.rasr), name)
    verbs = [(name, sub) for sub in command.commands] if isinstance(command, click.Group) else [(name,)]
    for words in verbs:
        assert exit_code(*words, "--help") == 0
        text = capsys.readouterr().out
        assert "Examples:" in text, words
        assert "rasr " in text.rstrip().splitlines()[-1], words


def test_no_arguments_lists_the_verbs(run_rasr: Run) -> None:
    done = run_rasr("--help")
    assert done.returncode == 0
    for name, line in cli.VERBS.items():
        assert f"{name} {line}" in " ".join(done.stdout.split())


def test_an_unknown_verb_is_usage(run_rasr: Run) -> None:
    done = run_rasr("restaur")
    assert done.returncode == 2
    assert "restaur" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("error", "code"), [(PictureError("a.png is empty."), 1), (UsageError("No such preset."), 2)])
def test_a_rasr_error_is_one_line_and_its_exit_code(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def body() -> None:
        raise error

    verb(body)
    assert exit_code("doctor") == code
    assert capsys.readouterr().err == f"rasr: {error}\n"


def test_ctrl_c_exits_130(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    verb(body)
    assert exit_code("doctor") == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(verb: Callable[..., None]) -> None:
    def body() -> None:
        raise ZeroDivisionError

    verb(body)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_a_verb_may_return_its_exit_code(verb: Callable[..., None]) -> None:
    verb(lambda: 1)
    assert exit_code("doctor") == 1
