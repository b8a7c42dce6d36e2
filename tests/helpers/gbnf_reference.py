"""GBNF the slow way: a text is read by writing out everything that may still come.

A grammar is a dict of rules; an expression is a tuple:

    ("bytes", b"ab")  ("class", ((97, 122), ...))  ("rule", "name")
    ("seq", (x, y))   ("alt", (x, y))              ("rep", x, min, max or None)

A text has been read so far if some sequence of expressions is left that can follow it. No automaton, no
counting, no sharing: that is what makes it a specification to test the compiled one against.
"""

import random
from collections.abc import Iterator

NEVER = 1 << 30


def gbnf(rules: dict) -> str:
    """The grammar as text."""
    return "\n".join(f"{name} ::= {_text(x)}" for name, x in rules.items())


def _char(point: int, special: str) -> str:
    if point < 32 or point > 126:
        return f"\\x{point:02X}" if point < 256 else f"\\U{point:08X}"
    return "\\" + chr(point) if chr(point) in special else chr(point)


def _text(x: tuple) -> str:
    kind = x[0]
    if kind == "bytes":
        return '"' + "".join(_char(ord(c), '"\\') for c in x[1].decode()) + '"'
    if kind == "class":
        return "[" + "".join(f"{_char(a, '[]^-')}-{_char(b, '[]^-')}" for a, b in x[1]) + "]"
    if kind == "rule":
        return x[1]
    if kind == "seq":
        return "(" + " ".join(map(_text, x[1])) + ")"
    if kind == "alt":
        return "(" + " | ".join(map(_text, x[1])) + ")"
    _, inner, low, high = x
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
    return f"({_text(inner)})" + (short or f"{{{low},{'' if high is None else high}}}")


class Reader:
    """The ways in which a text may go on: sequences of expressions that are left."""

    def __init__(self, rules: dict, tokens: frozenset[int]) -> None:
        self.rules = rules
        self.lengths = dict.fromkeys(rules, NEVER)
        self.tokens = tokens  # bytes that are tokens: only these count for the shortest end
        for _ in range(len(rules) + 1):
            self.lengths = {name: self.shortest_of(x) for name, x in rules.items()}

    def shortest_of(self, x: tuple) -> int:
        """Bytes of the shortest text of an expression, each of them a token."""
        kind = x[0]
        if kind == "bytes":
            return len(x[1]) if self.tokens.issuperset(x[1]) else NEVER
        if kind == "class":
            sizes = (
                len(chr(p).encode())
                for a, b in x[1]
                for p in range(a, b + 1)
                if self.tokens.issuperset(chr(p).encode())
            )
            return min(sizes, default=NEVER)
        if kind == "rule":
            return self.lengths[x[1]]
        if kind == "seq":
            return min(NEVER, sum(map(self.shortest_of, x[1])))
        if kind == "alt":
            return min(map(self.shortest_of, x[1]))
        return min(NEVER, x[2] * self.shortest_of(x[1])) if x[2] else 0

    def start(self) -> frozenset:
        return frozenset([(("rule", "root"),)])

    def _open(self, ways: frozenset) -> Iterator[tuple[int, int, tuple]]:
        """Every (low, high, rest): a byte low..high may come, and then the rest. (-1, -1, ()): the end."""
        todo, seen = list(ways), set(ways)

        def add(way: tuple) -> None:
            if way not in seen:
                seen.add(way)
                todo.append(way)

        while todo:
            way = todo.pop()
            if not way:
                yield -1, -1, ()
                continue
            x, rest = way[0], way[1:]
            if x[0] == "bytes":
                if x[1]:
                    yield x[1][0], x[1][0], (("bytes", x[1][1:]), *rest)
                else:
                    add(rest)
            elif x[0] == "class":
                for a, b in x[1]:
                    for p in range(a, b + 1):
                        raw = chr(p).encode()
                        yield raw[0], raw[0], (("bytes", raw[1:]), *rest)
            elif x[0] == "rule":
                add((self.rules[x[1]], *rest))
            elif x[0] == "seq":
                add((*x[1], *rest))
            elif x[0] == "alt":
                for y in x[1]:
                    add((y, *rest))
            else:
                _, inner, low, high = x
                if low == 0:
                    add(rest)
                if high != 0:
                    more = ("rep", inner, max(low - 1, 0), None if high is None else high - 1)
                    add((inner, more, *rest))

    def step(self, ways: frozenset, byte: int) -> frozenset:
        """What is left after one more byte."""
        return frozenset(rest for low, high, rest in self._open(ways) if low <= byte <= high)

    def read(self, ways: frozenset, text: bytes) -> frozenset:
        for byte in text:
            ways = self.step(ways, byte)
        return ways

    def complete(self, ways: frozenset) -> bool:
        return any(low < 0 for low, _, _ in self._open(ways))

    def shortest(self, ways: frozenset) -> int:
        return min((self.shortest_of(("seq", way)) for way in ways), default=NEVER)


def random_grammar(rng: random.Random) -> dict:
    """A grammar without left recursion, over the letters a, b, c and two longer characters."""
    names = ["root", *(f"r{i}" for i in range(rng.randrange(4)))]

    def leaf() -> tuple:
        if rng.random() < 0.5:
            return ("bytes", "".join(rng.choices("abcé€", k=rng.randint(0, 3))).encode())
        low = rng.choice([97, 97, 98, 0xE8, 0x20AB])
        return ("class", ((low, low + rng.randint(0, 2)),))

    def expression(depth: int, first: int) -> tuple:
        """`first`: rules from this one on may stand where nothing has been read."""
        kind = rng.choice(["leaf", "leaf", "seq", "seq", "alt", "rep", "rule"]) if depth else "leaf"
        if kind == "seq":
            head = leaf() if rng.random() < 0.5 else expression(depth - 1, first)
            solid = head[0] == "class" or (head[0] == "bytes" and head[1])
            return (
                "seq",
                (head, *(expression(depth - 1, 0 if solid else first) for _ in range(rng.randint(0, 2)))),
            )
        if kind == "alt":
            return ("alt", tuple(expression(depth - 1, first) for _ in range(rng.randint(1, 3))))
        if kind == "rep":
            low = rng.choice([0, 0, 1, 2, 3, 30])
            high = rng.choice([None, low, low + 1, low + 2, low + 40])
            return ("rep", expression(depth - 1, first), low, high if high != 0 else 1)
        if kind == "rule" and first < len(names):
            return ("rule", names[rng.randrange(first, len(names))])
        return leaf()

    return {name: expression(3, i + 1) for i, name in enumerate(names)}
