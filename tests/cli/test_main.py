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


@pytest.mark.parametrize(
    ("words", "meant"),
    [("restaur", "restore"), ("gallery ad", "add"), ("models lst", "list"), ("dataset chek", "check")],
)
def test_a_mistyped_verb_is_asked_back(words: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*words.split()) == 2
    assert f"No such command '{words.rsplit(maxsplit=1)[-1]}'. Did you mean '{meant}'?" in capsys.readouterr().err


def test_a_verb_unlike_any_other_gets_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("xyzzy") == 2
    assert f"There are: {', '.join(cli.VERBS)}." in capsys.readouterr().err


def test_a_mistyped_option_is_asked_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("restore", "a.png", "--galery", "x") == 2
    assert "'--gallery'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("rasr re", {"restore"}),
        ("rasr restore --preset sd21-", {"sd21-osediff", "sd21-pisasr"}),
        ("rasr search --encoder dino", {"dinov2-small", "dinov2-base", "dinov2-large"}),
        ("rasr demo --preset bi", {"bicubic"}),
        ("rasr restore --thr", {"--threads"}),
    ],
)
def test_the_shell_completes(run_rasr: Run, words: str, offered: set[str]) -> None:
    done = run_rasr(_RASR_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offered


def test_help_says_how_to_turn_completion_on(run_rasr: Run) -> None:
    assert "_RASR_COMPLETE=bash_source rasr" in run_rasr("--help").stdout
    assert "_rasr_completion" in run_rasr(_RASR_COMPLETE="bash_source").stdout


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
