"""The model files of a comparison: the shipped one, others made from it, and random ones of another width.

All engines read the same file. What takes long is made once and kept beside the models in the user's cache.
"""

import os
from pathlib import Path

import edgellm
from edgellm import models
from edgellm.conversion.sample import Tiny
from edgellm.conversion.sample import write as write_sample
from edgellm.gguf import read

from .peers import Engine

SMOLLM = ("q4_0", "q4_1", "q8_0", "q4_k_m")
#: At width 768; q4_0, q4_1 and q8_0 are measured on the real model.
WIDE = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "tq1_0", "tq2_0", "q5_0", "q5_1")
WIDE_SHAPE = Tiny(width=768, ffn=2048, heads=12, kv_heads=4, layers=8, context=1024)
FTYPE_Q4_K_M = 15  # enum llama_ftype of llama.cpp's include/llama.h


ROOT = Path(__file__).resolve().parents[2]


class Unavailable(Exception):
    """A file cannot be made here; the message says why."""


def folder() -> Path:
    """Where made files are kept."""
    return models.cache_folder().parent / "compare"


def smollm(quant: str, work: Path, peer: Engine | None, threads: int) -> Path:
    """SmolLM2-135M in a format.

    ``q4_1`` is the file as shipped; ``q4_0`` and ``q8_0`` are requantized from it by `edgellm.convert`;
    ``q4_k_m`` by llama.cpp's own quantizer, from the shipped weights as float32.

    Raises
    ------
    Unavailable
        If only the missing peer could make it.
    """
    shipped = models.resolve("smollm2-135m")
    if quant == "q4_1":
        return shipped
    made = work / f"smollm2-135m.{quant}.gguf"
    if made.exists():
        return made
    work.mkdir(parents=True, exist_ok=True)
    if quant != "q4_k_m":
        edgellm.convert(shipped, made, quant=quant)
        return made
    if peer is None:
        raise Unavailable("llama.cpp, which makes this file, is not built")
    wide, part = work / "smollm2-135m.f32.gguf", work / f"{made.name}.part"
    try:
        edgellm.convert(shipped, wide, quant="f32")
        peer.ask(
            "quantize", source=str(wide), target=str(part), ftype=FTYPE_Q4_K_M, pure=False, threads=threads
        )
        os.replace(part, made)
    finally:
        wide.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return made


def wide(quant: str, work: Path) -> Path:
    """A random model of width 768, every matrix in one format (valid blocks, random bits)."""
    made = work / f"random-768.{quant}.gguf"
    if not made.exists():
        work.mkdir(parents=True, exist_ok=True)
        part = work / f"{made.name}.part"
        write_sample(part, WIDE_SHAPE, quant=quant)
        os.replace(part, made)
    return made


def edge(source: Path, work: Path) -> Path:
    """The edge image of a file for this machine, made anew: its layout may change with the engine.

    Raises
    ------
    Unavailable
        If this version writes no edge images.
    """
    isas = edgellm.cpu.runnable_isas()
    machine = "portable"
    for isa, name in (("neon", "aarch64"), ("avx2", "x86-avx2"), ("avx512vnni", "x86-avx512")):
        if isa in isas:
            machine = name
    work.mkdir(parents=True, exist_ok=True)
    made = work / f"{source.stem}.edge"
    try:
        edgellm.convert(source, made, machine=machine)  # type: ignore[call-arg, unused-ignore]  # older versions lack it
    except TypeError:
        raise Unavailable("this version of edgellm writes no edge images") from None
    return made


def token_work(path: Path) -> tuple[int, float]:
    """What one token needs of a GGUF, whoever computes it.

    Returns
    -------
    bytes : int
        Of all matrices that take part in a product when one token is decoded, as the file holds them.
    operations : float
        Two per weight of the layers: the products of one token of a prompt (the head serves only the last).
    """
    tensors = [t for t in read(path).tensors if len(t.shape) == 2]
    tied = not any(t.name == "output.weight" for t in tensors)
    used = [t for t in tensors if t.name != "token_embd.weight" or tied]
    layers = [t for t in tensors if t.name.startswith("blk.")]
    return sum(t.nbytes for t in used), 2.0 * sum(t.shape[0] * t.shape[1] for t in layers)
