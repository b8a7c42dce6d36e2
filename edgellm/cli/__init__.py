"""The ``edgellm`` command: one file per verb, imported only when it is asked for.

A verb is a module of this package with ``NAME``, ``HELP``, ``add_arguments(parser)`` and
``run(args) -> int``. It imports nothing heavy at its top, raises on failure and returns 0 on success;
this file turns exceptions into one line on standard error and an exit code: 2 for bad usage, 1 for a
failure, 130 for Ctrl-C, 141 when the reader of our output has gone.
"""

import argparse
import difflib
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType

VERBS = (
    "pull", "inspect", "convert", "run", "chat", "embed", "serve", "bench", "doctor", "calibrate", "simulate",
)  # fmt: skip


class UsageError(Exception):
    """The command line is well formed but makes no sense: exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments after the program's name; None takes those of this process.

    Returns
    -------
    code : int
        0, 1 (failure), 2 (bad usage), 130 (Ctrl-C) or 141 (output closed).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows few characters is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse: 0 after --help, 2 after bad usage
        return leaving.code if isinstance(leaving.code, int) else 1
    except KeyboardInterrupt:
        print("\nedgellm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UsageError as error:
        print(f"edgellm: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            raise
        print(f"edgellm: error: {_describe(error)}", file=sys.stderr)
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), end="", file=sys.stderr)
        return 2
    verb, rest = arguments[0], arguments[1:]
    if verb in ("-h", "--help", "help"):
        if verb == "help" and rest and rest[0] in _verbs_here():
            return _dispatch([rest[0], "--help"])
        print(_overview(), end="")
        return 0
    if verb in ("-V", "--version"):
        import edgellm

        print(f"edgellm {edgellm.__version__}")
        return 0
    here = _verbs_here()
    if verb not in here:
        near = difflib.get_close_matches(verb, here, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"verbs: {', '.join(here)}"
        raise UsageError(f"there is no verb {verb!r} ({hint})")
    module = _module(verb)
    parser = argparse.ArgumentParser(prog=f"edgellm {verb}", description=str(module.HELP))
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(rest)))


def _verbs_here() -> list[str]:
    """Verbs that this build has: a build without the testbed lacks its verbs."""
    return [verb for verb in VERBS if importlib.util.find_spec(f"edgellm.cli.{verb}") is not None]


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"edgellm.cli.{verb}")


def _overview() -> str:
    here = _verbs_here()
    width = max(map(len, here))
    lines = [f"  {verb:<{width}}  {_module(verb).HELP}" for verb in here]
    return "\n".join(
        [
            "usage: edgellm VERB ...",
            "",
            "Language models on constrained devices, and where in a fleet to run them.",
            "",
            *lines,
            "",
            "`edgellm VERB --help` tells more. --version prints the version.",
            "",
        ]
    )


def _one_line(error: BaseException) -> str:
    head, _, rest = str(error).partition("\n\n")  # after the first paragraph, some errors carry a traceback
    return " ".join(head.split()) + (" (--debug shows where)" if rest else "")


def _describe(error: Exception) -> str:
    """One line for an exception; only the kinds that mean "your input" go without the exception's name.

    Examples
    --------
    >>> _describe(FileNotFoundError(2, "No such file or directory", "a.gguf"))
    'a.gguf: No such file or directory'
    >>> _describe(ZeroDivisionError("division by zero"))
    'internal error: ZeroDivisionError: division by zero (--debug shows where)'
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = _one_line(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return f"not enough memory: {text}"
    if isinstance(error, ImportError):
        return f"{text} (an optional part of edgellm is not installed; see the README)"
    ours = type(error).__module__.partition(".")[0] == "edgellm"
    if ours or isinstance(error, ValueError | TypeError | OSError | OverflowError):
        return text
    return f"internal error: {type(error).__name__}: {text} (--debug shows where)"
