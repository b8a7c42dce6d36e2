"""Writes a normaliser as sentencepiece compiles it: a double array of keys, and the texts they become."""

import struct
from collections.abc import Mapping

LEAF, VALUE = 1 << 8, 1 << 31


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """The bytes of `tokenizer.ggml.precompiled_charsmap` for some keys, none of them empty."""
    texts = b""
    trie: dict[int, dict] = {}
    for key, value in replacements.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)  # no key has a zero byte
        texts += value.encode() + b"\0"

    units = {0: 0}
    waiting = [(0, trie)]
    while waiting:
        at, node = waiting.pop()
        offset = 1
        while any(at ^ offset ^ byte in units for byte in node):
            offset += 1
        units[at] |= offset << 10 | (LEAF if 0 in node else 0)
        for byte, child in node.items():
            units[at ^ offset ^ byte] = VALUE | child if byte == 0 else byte
        waiting += [(at ^ offset ^ byte, child) for byte, child in node.items() if byte != 0]
    array = b"".join(struct.pack("<I", units.get(i, 0)) for i in range(max(units) + 1))
    return struct.pack("<I", len(array)) + array + texts
