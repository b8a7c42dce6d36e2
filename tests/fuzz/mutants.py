"""Broken GGUF files, made from good ones by chance; run as a program, it feeds them to the engine.

    python mutants.py FOLDER SEED FIRST COUNT

Mutant number i of a seed is always the same file. The program ends with 0 only if each mutant was either
read or refused with one of the stated exceptions; a crash, a hang or another exception ends it otherwise,
and the mutant stays in FOLDER.
"""

import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import family_seeds
from feeding import feed
from helpers import tiny_model
from helpers.charsmap import charsmap

import edgellm
from edgellm import _core

REFUSALS = (_core.FormatError, ValueError, OSError)
CONVERT_EVERY = 10
EXTREMES = (
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
)


class Seedling:
    """A good file, and where its numbers stand."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes()
        parsed = _core.gguf_parse(self.raw, len(self.raw), path.name)
        assert not isinstance(parsed, int)
        _, _, self.data, entries, tensors = parsed
        self.wide = [8, 16]  # offsets of 64-bit numbers: the counts, lengths, extents, data offsets
        self.narrow = [4]  # offsets of 32-bit numbers: version, types, numbers of dimensions
        self.scalars: list[tuple[int, int]] = []  # (offset, bytes) of every number in the metadata
        for key, kind, element, count, begin, end in entries:
            head = begin - (16 if kind == 9 else 4)
            self.narrow.append(head)
            self.wide.append(head - len(key.encode()) - 8)
            if kind == 9:
                self.narrow.append(head + 4)
                self.wide.append(head + 8)
            if element == 8:
                self.wide.append(begin)
            elif count:
                self.scalars.append((begin, (end - begin) // count))
        at = self.header_end = max(entry[5] for entry in entries)
        self.tensors: list[tuple[int, int]] = []  # where the description of each tensor begins and ends
        for name, _, shape, _, _ in tensors:
            dims = at + 8 + len(name.encode())
            last = dims + 4 + 8 * len(shape)
            self.wide += [at, *range(dims + 4, last, 8), last + 4]
            self.narrow += [dims, last]
            self.tensors.append((at, last + 12))
            at = last + 12


def flip_bits(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    for _ in range(rng.randint(1, 8)):
        raw[rng.randrange(seed.data)] ^= 1 << rng.randrange(8)


def set_bytes(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    for _ in range(rng.randint(1, 4)):
        raw[rng.randrange(len(raw))] = rng.choice((0, 1, 9, 127, 128, 255))


def cut(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    del raw[rng.randrange(len(raw)) if rng.random() < 0.5 else rng.randrange(seed.data) :]


def cut_out(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    at = rng.randrange(seed.data)
    del raw[at : at + rng.choice((1, 4, 8, rng.randrange(1, 400)))]


def repeat(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    at = rng.randrange(seed.data)
    raw[at:at] = raw[at : at + rng.choice((1, 4, 8, rng.randrange(1, 400)))]


def some_number(rng: random.Random, old: int) -> int:
    near = old + rng.choice((-33, -32, -8, -1, 1, 8, 32, 33))
    return rng.choice((near, old * 2, old * 32, 2**64 - old, rng.getrandbits(rng.randint(1, 64)), *EXTREMES))


def change_wide(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.choice(seed.wide)
        (old,) = struct.unpack_from("<Q", raw, at)
        struct.pack_into("<Q", raw, at, some_number(rng, old) % 2**64)


def change_narrow(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    at = rng.choice(seed.narrow)
    number = rng.randrange(45) if rng.random() < 0.7 else rng.choice(EXTREMES)
    struct.pack_into("<I", raw, at, number % 2**32)


def change_metadata(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    """Valid files with absurd sizes, rates and token numbers."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, width = rng.choice(seed.scalars)
        number = some_number(rng, int.from_bytes(raw[at : at + width], "little"))
        if rng.random() < 0.2:  # NaN, infinity, zero and a negative number, where it is a float
            number = rng.choice((0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000, 0xBF800000))
        raw[at : at + width] = (number % 256**width).to_bytes(width, "little")


def swap_counts(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    raw[8:16], raw[16:24] = raw[16:24], raw[8:16]


def swap_numbers(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    a, b = rng.choice(seed.wide), rng.choice(seed.wide)
    raw[a : a + 8], raw[b : b + 8] = raw[b : b + 8], raw[a : a + 8]


def swap_tensors(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    """Two tensors change their extents, types and places, or one takes over the other's description."""
    (a, a_end), (b, b_end) = sorted(rng.sample(seed.tensors, 2))
    tail = rng.choice((12, 8, 28))
    one, other = bytes(raw[a_end - tail : a_end]), bytes(raw[b_end - tail : b_end])
    raw[a_end - tail : a_end] = other
    if rng.random() < 0.7:
        raw[b_end - tail : b_end] = one
    else:
        raw[b:b_end] = raw[a:a_end]


def spoil_data(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    """Weights of random bytes: scales that are NaN, infinite, subnormal."""
    at = rng.randrange(seed.data, len(raw))
    spoilt = rng.choice((b"\xff", b"\x00", b"\x7c\xfc", None))
    length = min(len(raw) - at, rng.choice((2, 64, 5000, len(raw))))
    raw[at : at + length] = rng.randbytes(length) if spoilt is None else (spoilt * length)[:length]


MUTATIONS: tuple[Callable[[random.Random, bytearray, Seedling], None], ...] = (
    flip_bits, set_bytes, cut, cut_out, repeat, change_wide, change_wide, change_narrow, change_narrow,
    change_metadata, change_metadata, swap_counts, swap_numbers, swap_tensors, spoil_data,
)  # fmt: skip


def mutant(seeds: list[Seedling], seed: int, number: int) -> tuple[str, bytes]:
    """Name of the mutation and the file of mutant `number`."""
    rng = random.Random(f"{seed}/{number}")
    chosen = rng.choice(seeds)
    mutation = rng.choice(MUTATIONS)
    raw = bytearray(chosen.raw)
    mutation(rng, raw, chosen)
    return mutation.__name__, bytes(raw)


def seedlings(folder: Path) -> list[Seedling]:
    small = {"layers": 1, "width": 32, "ffn": 32, "kv_heads": 2, "context": 64}
    kinds = [
        {"quant": "q4_0"},
        {"quant": "q8_0", "tied": False, "alignment": 64},
        {"quant": "f16", "types": {"attn_q": "q5_1", "ffn_up": "q4_1", "ffn_down": "iq4_nl"}},
        {
            "quant": "q4_k",
            "width": 256,
            "ffn": 256,
            "heads": 8,
            "types": {"ffn_up": "q6_k", "attn_v": "tq1_0"},
        },
        {"quant": "q8_0", "metadata": tiny_model.spm_entries()},
        {"quant": "q8_0", "metadata": tiny_model.unigram_entries(charsmap({"\t": " ", "ﬁ": "fi"}))},
    ]
    llamas = [tiny_model.write(folder / f"good-{i}.gguf", **small | kind) for i, kind in enumerate(kinds)]
    return [Seedling(path) for path in (*llamas, *family_seeds.write(folder))]


def try_everything(path: Path) -> str:
    """How far a file comes: "refused", "header" (read, but no model), "model" (ran some tokens)."""
    try:
        header = edgellm.gguf.read(path)
    except REFUSALS:
        header = None
    else:
        for key, value in header.metadata.items():
            header.kind(key), header.raw_value(key), repr(value)
            if isinstance(value, edgellm.gguf.Strings):
                list(value)
    try:
        with edgellm.load(path, threads=1) as model:
            assert header is not None, "load takes what gguf.read refuses"
            model.session(context=8).eval([1, 2, 3])
            model.tokenizer.decode(model.tokenizer.encode("<|im_start|>The 12 cats é", parse_special=True))
            assert not model.perplexity([1, 2, 3, 4], context=4) < 0.0
            model.generate([1, 2], max_tokens=2)
            model.chat([{"role": "user", "content": "hé"}], max_tokens=1)
    except REFUSALS:
        return "refused" if header is None else "header"
    return "model"


def try_to_convert(path: Path) -> None:
    """A conversion works or leaves nothing."""
    target = path.with_suffix(".converted")
    try:
        edgellm.convert(path, target, "q4_1")
    except REFUSALS:
        assert not target.exists()
    else:
        edgellm.gguf.read(target)
        target.unlink()
    assert not list(path.parent.glob("*.part"))


def attempt(path: Path, number: int) -> str:
    outcome = try_everything(path)
    if number % CONVERT_EVERY == 0:
        try_to_convert(path)
    return outcome


if __name__ == "__main__":
    feed("gguf", seedlings, mutant, attempt, ("refused", "header", "model"))
