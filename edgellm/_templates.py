"""Chat templates other than ChatML, through jinja2 in a sandbox. Imported only when one is met.

The template comes with the model file, so it is hostile until it has ended: besides jinja2's own sandbox
there is one budget per rendering for loop rounds and calls, one for characters, and only the filters that
chat templates use. What a loop may do is bounded by wrapping its iterable, what an operator may grow by
looking at its operands first.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from edgellm._core import FormatError

MAX_TEMPLATE_CHARS = 1 << 17
MAX_STEPS = 200_000  # loop rounds and calls of one rendering
MAX_CHARS = 1 << 24  # of all that one rendering builds
MAX_RANGE = 10_000
MAX_BITS = 1024  # of an int

_FILTERS = """
abs capitalize count d default dictsort e escape first float int items join last length list lower map max min
reject rejectattr replace reverse round safe select selectattr sort string sum title tojson trim unique upper
"""
_Sized = (str, list, tuple)
_GLOBALS = frozenset({"dict", "namespace"})
_GROWING = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill", "translate", "replace"})


class Refusal(Exception):
    """The template's own `raise_exception`: the messages are not what it can show."""


class _Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.chars = MAX_CHARS

    def spend(self, steps: int, chars: int) -> None:
        """Take from both, or end the rendering."""
        self.steps -= steps
        self.chars -= chars
        if self.steps < 0 or self.chars < 0:
            raise SecurityError("the template does not end within its limits")

    def measure(self, value: object) -> None:
        """Spend the size that `value` has as text, however deep or shared its parts are."""
        stack = [value]
        while stack:
            item = stack.pop()
            self.spend(1, len(item) if isinstance(item, str) else 8)
            if isinstance(item, Mapping):
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                self.spend(len(item), 0)
                stack.extend(item)


class _Bounds(NodeTransformer):
    """Put the budget into a syntax tree: around what loops walk over and what `~` joins."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise jinja2.TemplateSyntaxError("recursive loops are not supported", node.lineno)
        self.generic_visit(node)
        shown = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        cost = nodes.Const(shown, lineno=node.lineno)
        node.iter = nodes.Filter(node.iter, "_rounds", [cost], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_concat", [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """`{% generation %}`, with which training marks the answer: its body."""

    tags = {"generation"}  # noqa: RUF012  # the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2 as `transformers` sets it up for chat templates, within a budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, source: str) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            optimized=False,
            cache_size=0,
            finalize=self._shown,
        )
        self.budget = _Budget()
        self.source_chars = len(source)
        own = {"join": self._join, "replace": self._replace, "tojson": self._tojson, "string": self._string}
        self.filters = {name: f for name, f in self.filters.items() if name in _FILTERS.split()} | own
        self.filters |= {"_rounds": self._rounds, "_concat": self._concat}
        self.globals = {name: g for name, g in self.globals.items() if name in _GLOBALS}
        self.globals |= {"range": self._range, "raise_exception": _refuse}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounds().visit(super()._parse(source, name, filename))
        return tree

    def _shown(self, value: object) -> object:
        self.budget.measure(value)
        return value

    def _rounds(self, items: Iterable[object], shown_chars: int) -> list[object]:
        out: list[object] = []
        for item in items:
            self.budget.spend(1, shown_chars)
            out.append(item)
        return out

    def _concat(self, parts: list[object]) -> str:
        self.budget.measure(parts)
        return "".join(map(str, parts))

    def _string(self, value: object) -> str:
        self.budget.measure(value)
        return str(value)

    def _join(self, value: Iterable[object], d: str = "", attribute: str | None = None) -> str:
        picked = [self.getitem(item, attribute) if attribute else item for item in value]
        self.budget.measure(picked)
        self.budget.spend(0, len(picked) * len(str(d)))
        return str(d).join(map(str, picked))

    def _replace(self, s: object, old: str, new: str, count: int = -1) -> str:
        text = str(s)
        self.budget.spend(1, (text.count(old) + 1) * len(new) + len(text))
        return text.replace(old, new, count)

    def _tojson(
        self,
        x: object,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        if indent is not None and not 0 <= indent <= 16:
            raise SecurityError(f"tojson: indent {indent} is not in 0..16")
        self.budget.measure(x)
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def _range(self, *args: int) -> range:
        rounds = range(*args)
        if len(rounds) > MAX_RANGE:
            raise SecurityError(f"range({', '.join(map(str, args))}) is longer than {MAX_RANGE}")
        return rounds

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in {"format", "format_map"}:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str) and re.search(r"\*|\d{3}", left):
            raise SecurityError(f"format {left[:40]!r} is refused")
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, _Sized) and isinstance(times, int):
                    self.budget.spend(0, len(many) * max(times, 0))
        if operator == "+" and isinstance(left, _Sized) and isinstance(right, _Sized):
            self.budget.spend(0, len(left) + len(right))
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (abs(right) if operator == "**" else 1)
            if max(bits, right.bit_length()) > MAX_BITS:
                raise SecurityError(f"the numbers of {operator!r} are too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend(1, self.source_chars if isinstance(obj, Macro) else 0)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            self._check_method(owner, obj.__name__, [*args, *kwargs.values()])
        return super().call(context, obj, *args, **kwargs)

    def _check_method(self, owner: str, name: str, args: Sequence[Any]) -> None:
        if name == "join":
            parts = list(args[0]) if args else []
            self.budget.measure(parts)
            self.budget.spend(0, len(parts) * len(owner))
        elif name in _GROWING:
            longest = max((a if isinstance(a, int) else len(str(a)) for a in args), default=8)
            self.budget.spend(
                0, (len(owner) + 1) * max(longest, 8) if name != "center" else len(owner) + longest
            )
        else:
            self.budget.spend(0, len(owner))


def _refuse(message: object = "") -> NoReturn:
    raise Refusal(str(message)[:500])


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    bos: str,
    eos: str,
    tools: Sequence[Mapping[str, Any]] | None,
    today: datetime.date | None,
) -> str:
    """Render a template as `transformers` does, within limits.

    Raises
    ------
    FormatError
        If the template is longer than MAX_TEMPLATE_CHARS, is no jinja2, fails, or runs beyond its limits.
    ValueError
        If the template itself refuses the messages.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise FormatError(f"chat template: {len(template)} characters, at most {MAX_TEMPLATE_CHARS} are read")
    given: dict[str, Any] = {
        "messages": [dict(message) for message in messages],
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos,
        "eos_token": eos,
        "tools": None if tools is None else [dict(tool) for tool in tools],
    }
    if today is not None:
        clock: Callable[[str], str] = today.strftime
        given["strftime_now"] = clock
    pieces = []
    room = MAX_CHARS
    try:
        for piece in _Environment(template).from_string(template).generate(given):
            room -= len(piece)
            if room < 0:
                raise SecurityError(f"the text has more than {MAX_CHARS} characters")
            pieces.append(piece)
    except Refusal as refusal:
        raise ValueError(f"chat template: {refusal}") from None
    except jinja2.TemplateSyntaxError as error:
        raise FormatError(f"chat template, line {error.lineno}: {error.message}") from None
    except Exception as error:  # the template's own doing, whatever it is
        raise FormatError(f"chat template: {type(error).__name__}: {str(error)[:200]}") from None
    return "".join(pieces)
