"""``edgellm chat``: talk with an instruction-tuned model."""

import argparse
import contextlib
import json
import sys
from typing import Any

from edgellm._atomic import replacing
from edgellm.cli import UsageError
from edgellm.cli._answers import (
    add_answer_arguments,
    answer_options,
    completion_facts,
    finish,
    show,
    timings_line,
)
from edgellm.cli._dialogue import Dialogue
from edgellm.cli._model import add_generation_arguments, add_model_arguments, generation, load

NAME = "chat"
HELP = "talk with a model: interactively, or one question with --message"

COMMANDS = """\
/reset          start over
/system TEXT    start over with these instructions; without a text: with none
/stats          what the conversation holds and how fast the last answer was
/save FILE      write the conversation as JSON
/help           show this
/exit, Ctrl-D   leave; Ctrl-C stops an answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm chat``."""
    add_model_arguments(parser)
    parser.add_argument("--message", metavar="TEXT", help="ask this, print the answer and leave; - reads it")
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model")
    add_generation_arguments(parser, max_tokens=512)
    add_answer_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm chat``; answers go to standard output, all else to standard error."""
    if args.json and args.message is None:
        raise UsageError("--json needs --message")
    message = sys.stdin.read() if args.message == "-" else args.message
    if message is not None and not message.strip():
        raise UsageError("the message is empty")
    with answer_options(args) as options, load(args, args.threads) as model:
        talk = Talk(Dialogue(model, {**generation(args), **options}), args.system, args.logprobs is not None)
        if message is None:
            return _converse(talk)
        talk.ask(message)
        tokens = talk.dialogue.answer(talk.messages)
        if args.json:
            done = finish(tokens)
            print(json.dumps({"model": args.model, "messages": talk.messages, **completion_facts(done)}))
            return 0
        done = show(tokens, talk.logprobs)
        print()
        print(timings_line(done), file=sys.stderr)
    return 0


class Talk:
    """What was said, and how answers are shown."""

    def __init__(self, dialogue: Dialogue, system: str | None, logprobs: bool = False) -> None:
        self.dialogue = dialogue
        self.logprobs = logprobs
        self.last: Any = None
        self.reset(system)

    def reset(self, system: str | None) -> None:
        """Forget all that was said; start with these instructions, if any."""
        self.system = system
        self.messages = [{"role": "system", "content": system}] if system else []
        self.keep = len(self.messages)

    def ask(self, question: str) -> None:
        """Add what the user says."""
        self.messages.append({"role": "user", "content": question})

    def answer(self) -> None:
        """Show the answer to the last message, and remember it.

        Where the conversation no longer fits, its oldest turns are forgotten, the instructions never.
        """
        from edgellm import ContextError

        dropped = 0
        while True:
            try:
                tokens = self.dialogue.answer(self.messages)
                break
            except ContextError:
                if len(self.messages) - self.keep < 3:
                    self.messages.pop()
                    raise
                del self.messages[self.keep : self.keep + 2]
                dropped += 2
        if dropped:
            print(f"[forgot the {dropped} oldest messages: the context is full]", file=sys.stderr)
        said: list[str] = []
        try:
            self.last = show(_noting(tokens, said), self.logprobs)
            print()
            print(timings_line(self.last), file=sys.stderr)
        except KeyboardInterrupt:
            tokens.close()
            print()
            print("[stopped]", file=sys.stderr)
        self.messages.append({"role": "assistant", "content": "".join(said)})


def _noting(tokens: Any, said: list[str]) -> Any:
    """The same tokens; their text is added to `said`."""
    while True:
        try:
            token = next(tokens)
        except StopIteration as end:
            return end.value
        said.append(token.text)
        yield token


def _converse(talk: Talk) -> int:
    """Read questions and answer them until the end of input."""
    from edgellm import EdgellmError

    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # importing it gives input() a history and line editing
        print("/help shows what else there is; Ctrl-D leaves.", file=sys.stderr)
    while True:
        try:
            line = input("> " if terminal else "").strip()
        except EOFError:
            return 0
        except KeyboardInterrupt:
            print(file=sys.stderr)
            continue
        if line.startswith("/"):
            if not _command(talk, line):
                return 0
        elif line:
            talk.ask(line)
            try:
                talk.answer()
            except EdgellmError as error:  # one question too long is no end of the conversation
                if not terminal:
                    raise
                print(f"edgellm: error: {error}", file=sys.stderr)


def _command(talk: Talk, line: str) -> bool:
    """Do what a line that begins with / asks for; False to leave."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name in ("/exit", "/quit"):
        return False
    if name in ("/reset", "/new"):
        talk.reset(talk.system)
    elif name == "/system":
        talk.reset(rest or None)
    elif name == "/stats":
        dialogue = talk.dialogue
        print(
            f"[{len(talk.messages)} messages, {dialogue.position} tokens held, "
            f"{dialogue.kept} of them kept for the last answer]",
            file=sys.stderr,
        )
        if talk.last is not None:
            print(timings_line(talk.last), file=sys.stderr)
    elif name == "/save":
        _save(talk, rest)
    else:
        print(COMMANDS, file=sys.stderr)
    return True


def _save(talk: Talk, path: str) -> None:
    if not path:
        print("/save needs the name of a file", file=sys.stderr)
        return
    try:
        with replacing(path) as file:
            file.write(json.dumps(talk.messages, ensure_ascii=False, indent=1).encode("utf-8"))
    except OSError as error:
        print(f"{path}: {error.strerror or error}", file=sys.stderr)
