"""The ``edgellm`` command: verbs, exit codes and one-line errors."""

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from edgellm import cli, models


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def raising(error: BaseException) -> Callable[[str], types.ModuleType]:
    """A verb whose run raises `error`."""
    module = types.ModuleType("verb")

    def run(_: object) -> int:
        raise error

    module.__dict__.update(NAME="pull", HELP="help", add_arguments=lambda parser: None, run=run)
    return lambda verb: module


def test_every_verb_keeps_its_contract() -> None:
    for verb in cli._verbs_here():
        module = cli._module(verb)
        assert verb == module.NAME
        assert module.HELP
        assert callable(module.add_arguments)
        assert callable(module.run)


@pytest.mark.parametrize("verb", cli._verbs_here())
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert f"usage: edgellm {verb}" in capsys.readouterr().out


def test_help_and_version_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr()
    assert all(f"  {verb} " in told.out for verb in cli._verbs_here())
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgellm ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage: edgellm VERB"),
        (["pul"], "did you mean `pull`?"),
        (["--frobnicate"], "there is no verb"),
        (["pull"], "name a model"),
        (["pull", "--list", "smollm2-135m"], "takes no model"),
        (["pull", "--no-such-option"], "unrecognized arguments"),
        (["pull", "smollm2-135m", "--sha256", "0"], "--sha256 is for addresses"),
    ],
)
def test_bad_usage_is_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.gguf"), 1, "a.gguf: No such file or directory"),
        (ValueError("bad\nvalue"), 1, "edgellm: error: bad value"),
        (MemoryError("plan says 9 bytes"), 1, "not enough memory: plan says 9 bytes"),
        (ZeroDivisionError("division by zero"), 1, "internal error: ZeroDivisionError: division by zero"),
        (models.ModelError("offline"), 1, "edgellm: error: offline"),
        (ImportError("No module named 'pandas'"), 1, "optional part of edgellm is not installed"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "_module", raising(error))
    assert cli.main(["pull"]) == code
    err = capsys.readouterr().err
    assert told in err
    assert "Traceback" not in err
    assert err.strip().count("\n") == 0


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_module", raising(ZeroDivisionError("x")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["pull", "--debug"])


def test_pull_of_an_unknown_model_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", "smollm2-136m"]) == 1
    assert "did you mean smollm2-135m?" in capsys.readouterr().err


def test_pull_list_tells_size_licence_and_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", "--list"]) == 0
    table = capsys.readouterr().out
    assert cli.main(["pull", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(models.KNOWN)
    assert rows["smollm2-135m"]["licence"] == "Apache-2.0"
    assert rows["smollm2-135m"]["terms"] is None
    assert rows["gemma-3-270m"]["terms"].startswith("https://")
    for row in rows.values():
        assert row["path"] is None
        assert all(text in table for text in (row["name"], row["licence"], row["use"]))


def test_pull_of_a_model_with_terms_is_refused_where_nobody_can_be_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert cli.main(["pull", "gemma-3-270m"]) == 1
    assert "--accept-licence" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_traceback() -> None:
    script = "import sys; from edgellm.cli import main; sys.exit(main(['pull', '--list']))"
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(0.3);" + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from edgellm.cli import main; main(['--help']);"
        "print([m for m in ('pandas', 'matplotlib', 'pyarrow', 'torch', 'edgellm.sim', 'jinja2', 'tqdm')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
