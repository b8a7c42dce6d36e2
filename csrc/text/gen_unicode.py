"""Write `unicode_table.h`, the classes that pre-tokenizers ask for, or `unicode_case.h`, the case of letters.

The oracle is the `tokenizers` package itself (its regex engine for letter, number, space and punctuation,
its `Digits` step for the newer number table), because identity with it is what is promised and the Unicode
version of Python's `unicodedata` changes with the interpreter. Run it with `tokenizers` installed:

    python csrc/text/gen_unicode.py > csrc/text/unicode_table.h
    python csrc/text/gen_unicode.py case > csrc/text/unicode_case.h
"""

from __future__ import annotations

import sys
import textwrap

import tokenizers
from tokenizers import Regex, pre_tokenizers

OTHER, LETTER, NUMBER, SPACE, PUNCT, DIGITS_ONLY, MARK, SYMBOL = range(8)
NO_CASE, UPPER, LOWER = range(3)
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(regex: str) -> set[int]:
    """Code points that the package's regex engine puts into a class."""
    text = "".join(map(chr, POINTS))
    left = pre_tokenizers.Split(Regex(regex), "removed").pre_tokenize_str(text)
    return set(POINTS) - {ord(c) for piece, _ in left for c in piece}


def numeric() -> set[int]:
    """Code points that the package's digit splitter cuts out."""
    text = "--".join(map(chr, POINTS))
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text)
    return {ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "-"}


def classes() -> list[int]:
    """Class of every code point; surrogates are OTHER."""
    out = [OTHER] * 0x110000
    for c in numeric():
        out[c] = DIGITS_ONLY
    known = ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE), (r"\p{P}", PUNCT))
    for regex, value in (*known, (r"\p{M}", MARK), (r"\p{S}", SYMBOL)):
        for c in members(regex):
            if out[c] != OTHER and not (value == NUMBER and out[c] == DIGITS_ONLY):
                raise SystemExit(f"U+{c:04X} is in two classes")
            out[c] = value
    return out


def cases() -> list[int]:
    """Case of every code point."""
    out = [NO_CASE] * 0x110000
    for regex, value in ((r"[\p{Lu}\p{Lt}]", UPPER), (r"\p{Ll}", LOWER)):
        for c in members(regex):
            out[c] = value
    return out


def main(case: bool) -> None:
    """Print the header."""
    table = cases() if case else classes()
    name, what = ("case", "case") if case else ("table", "class")
    count = "EL_UNICODE_CASE_RUNS" if case else "EL_UNICODE_RUNS"
    array = "el_unicode_case_runs" if case else "el_unicode_runs"
    shift = 2 if case else 3
    starts = [c for c in range(0x110000) if c == 0 or table[c] != table[c - 1]]
    words = ", ".join(f"0x{c << shift | table[c]:x}" for c in starts)
    body = "\n".join(textwrap.wrap(words, 104, initial_indent="    ", subsequent_indent="    "))
    guard = f"EL_TEXT_UNICODE_{name.upper()}_H"
    sys.stdout.write(
        "/* Written by csrc/text/gen_unicode.py"
        f" from tokenizers {tokenizers.__version__}; edit that, not this.\n"
        f" * Each word is (first code point of a run << {shift}) | {what} of the run;"
        f" {'cases' if case else 'classes'} are in unicode.h. */\n"
        f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n"
        f"#define {count} {len(starts)}u\n\n"
        "// clang-format off\n"
        f"static const uint32_t {array}[{count}] = {{\n"
        f"{body},\n}};\n// clang-format on\n\n#endif\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:] == ["case"])
