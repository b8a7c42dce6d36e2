"""Broken edge images, made from good ones by chance; run as a program, it feeds them to the engine.

    python mutants_edge.py FOLDER SEED FIRST COUNT

As mutants.py: each mutant is used or refused; a crash, a hang or another exception ends the program.
"""

import random
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import family_seeds
from feeding import feed
from helpers import tiny_model
from helpers.charsmap import charsmap
from mutants import EXTREMES, REFUSALS, some_number

import edgellm
from edgellm import _core


class Seedling:
    """A good image, and where its parts stand."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes()
        image = _core.edge_open(str(path), False)
        assert image is not None
        self.sections = [(offset, nbytes) for offset, nbytes, _ in image.sections]
        self.weights = self.sections[-1][0]


def flip_bits(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    for _ in range(rng.randint(1, 8)):
        raw[rng.randrange(seed.weights)] ^= 1 << rng.randrange(8)


def _filled(section: tuple[int, int]) -> bool:
    return section[1] > 0  # GPT-2 has no frequencies


def change_head(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    """Numbers of the header, the table of sections and the small sections."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        start, nbytes = rng.choice([(0, 640), *filter(_filled, seed.sections[:4]), seed.sections[5]])
        width, code = rng.choice(((4, "<I"), (8, "<Q")))
        at = start + rng.randrange(nbytes // width) * width
        (old,) = struct.unpack_from(code, raw, at)
        struct.pack_into(code, raw, at, some_number(rng, old) % 256**width)


def change_tables(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    """Ids, ranks and offsets of the tokenizer that are small enough to pass for sound ones."""
    start, nbytes = seed.sections[4]
    for _ in range(rng.choice((1, 3, 20, 200))):
        at = start + (rng.randrange(nbytes // 4) if rng.random() < 0.9 else rng.randrange(32)) * 4
        number = rng.choice((rng.randrange(300), rng.randrange(45), 0, 0xFFFFFFFF, rng.choice(EXTREMES)))
        struct.pack_into("<I", raw, at, number % 2**32)


def swap_tables(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    """Sound indices in the wrong order."""
    start, nbytes = seed.sections[4]
    for _ in range(rng.choice((1, 5, 50))):
        a, b = (start + 128 + rng.randrange((nbytes - 128) // 4) * 4 for _ in range(2))
        raw[a : a + 4], raw[b : b + 4] = raw[b : b + 4], raw[a : a + 4]


def cut_or_grow(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    if rng.random() < 0.5:
        del raw[rng.randrange(len(raw)) :]
    else:
        raw += rng.randbytes(rng.choice((1, 64, 4096)))
    if rng.random() < 0.5 and len(raw) > 24:  # and the header says so
        struct.pack_into("<Q", raw, 16, len(raw))


def cut_out(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    at = rng.randrange(seed.weights)
    nbytes = rng.choice((1, 8, 64, 128))
    del raw[at : at + nbytes]
    if rng.random() < 0.5:
        raw += bytes(nbytes)


def spoil_weights(rng: random.Random, raw: bytearray, seed: Seedling) -> None:
    at = rng.randrange(seed.weights, len(raw))
    length = min(len(raw) - at, rng.choice((2, 64, 5000, len(raw))))
    raw[at : at + length] = rng.choice(
        (rng.randbytes(length), b"\xff" * length, (b"\x00\xfc" * length)[:length])
    )


MUTATIONS = (
    flip_bits, change_head, change_head, change_head, change_tables, change_tables, swap_tables, cut_or_grow,
    cut_out, spoil_weights,
)  # fmt: skip


def seedlings(folder: Path) -> list[Seedling]:
    small = {"layers": 1, "width": 32, "ffn": 32, "kv_heads": 2, "context": 64}
    kinds = (
        {"quant": "q4_0", "metadata": {"tokenizer.ggml.pre": ("llama-bpe", "string")}},
        {"quant": "q4_0", "metadata": tiny_model.spm_entries()},
        {"quant": "q4_0", "metadata": tiny_model.unigram_entries(charsmap({"\t": " ", "ﬁ": "fi"}))},
        {"quant": "f16", "tied": False, "types": {"attn_q": "q5_1", "ffn_up": "q4_1", "ffn_down": "iq4_nl"}},
        {
            "quant": "q4_k",
            "width": 256,
            "ffn": 256,
            "heads": 8,
            "types": {"ffn_up": "q6_k", "attn_v": "q2_k"},
        },
    )
    llamas = [tiny_model.write(folder / f"good-{i}.gguf", **small | kind) for i, kind in enumerate(kinds)]
    made = []
    for i, gguf in enumerate([*llamas, *family_seeds.write(folder)]):
        edgellm.convert(gguf, gguf.with_suffix(".edge"), version=i)
        made.append(Seedling(gguf.with_suffix(".edge")))
    return made


def mutant(seeds: list[Seedling], seed: int, number: int) -> tuple[str, bytes]:
    """Name of the mutation and the file of mutant `number`."""
    rng = random.Random(f"edge/{seed}/{number}")
    chosen = rng.choice(seeds)
    mutation = rng.choice(MUTATIONS)
    raw = bytearray(chosen.raw)
    mutation(rng, raw, chosen)
    return mutation.__name__, bytes(raw)


def try_everything(path: Path, resident: bool) -> str:
    try:
        with edgellm.load(path, threads=1, resident=resident) as model:
            repr(model.info), model.plan(context=8), model.tokenizer.special_tokens
            model.session(context=8).eval([1, 2, 3])
            ids = model.tokenizer.encode("<|im_start|>The 12 cats in on and é\xff", parse_special=True)
            assert len(ids) < 60
            model.tokenizer.decode(ids)
            model.generate([1, 2], max_tokens=2)
    except REFUSALS:
        return "refused"
    return "model"


def attempt(path: Path, number: int) -> str:
    return try_everything(path, resident=number % 2 == 0)


if __name__ == "__main__":
    feed("edge", seedlings, mutant, attempt, ("refused", "model"))
