"""A model file in, the same model in another format out: GGUF (requantized) or edge image (packed)."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgellm import _core
from edgellm._atomic import replacing
from edgellm._progress import Progress
from edgellm.conversion.gguf_writer import GgufWriter
from edgellm.gguf import Header, Tensor, check_regular, read_exactly, read_open
from edgellm.quant import QUANTIZABLE, TYPES

__all__ = ["PROVENANCE_KEY", "Conversion", "convert"]

PROVENANCE_KEY = "edgellm.requantized_from"
"""Metadata key of a file whose weights went through an earlier, coarser format: that format's name."""

_FLOATS = ("f32", "f16", "bf16")
_EMBEDDINGS = ("token_embd.weight", "output.weight")
_POSITIONS = "position_embd.weight"  # learned, small, and added as they are
_CHUNK_VALUES = 1 << 22  # values in work at a time: 16 MiB of float32
_MOST = {"f32": float("inf"), "bf16": 3.3895314e38}  # largest value that stays finite; others: float16's
_F16_MOST = 65504.0

_PACKED = "convert: an edge image is packed for good; requantize the GGUF that it was made from"

# general.file_type: llama_ftype of llama.cpp's include/llama.h.
_FILE_TYPES = {
    "f32": 0, "f16": 1, "bf16": 32, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9, "q8_0": 7,
    "tq1_0": 36, "tq2_0": 37,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `convert` did.

    Attributes
    ----------
    path : str
        The file written.
    quant : str
        The format asked for.
    types : dict of str to str
        The format of every tensor written.
    bytes_in, bytes_out : int
        Sizes of both files.
    requantized_from : str or None
        The value of `PROVENANCE_KEY` in the file written.
    """

    path: str
    quant: str
    types: dict[str, str]
    bytes_in: int
    bytes_out: int
    requantized_from: str | None


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    quant: str | None = None,
    *,
    embedding: str | None = None,
    machine: str | None = None,
    version: int = 0,
    sign: object = None,
    progress: bool | Callable[[int, int], None] = False,
) -> Conversion:
    """Write a model file: a GGUF with its weights in another format, or an edge image for deployment.

    An edge image is written if `machine` is given or `dst` ends in ``.edge``: weights packed as the kernels
    read them, tokenizer and chat template, plan, a SHA-256 of every part, and a signature if `sign` is given.

    Which tensor gets which format:

    - tensors of one dimension (norms, biases) and learned positions are float32;
    - the token embedding and the output head get `embedding`, all other matrices `quant`;
    - a matrix whose rows are no multiple of a block of 256 gets ``"q4_0"`` in place of ``"tq1_0"`` and
      ``"tq2_0"``, and one whose rows are no multiple of 32 gets ``"f16"``;
    - a matrix that has its format already is copied unchanged.

    Metadata is kept, but for ``general.file_type`` and ``general.quantization_version``. If weights were
    in a quantized format before and are rounded again, ``edgellm.requantized_from`` names that format,
    such as ``"Q4_1"``: quality then differs from that of a file made from the original weights.

    Parameters
    ----------
    src : path-like
        A GGUF file, or the name of a known model. For an edge image also an edge image, whose packed weights
        are then kept: only machine, version and signature are new.
    dst : path-like
        The file to write. It appears only when complete; an existing file is replaced then.
    quant : str or None
        One of `edgellm.quant.QUANTIZABLE`, in any case; ``"f32"`` dequantizes. None, for an edge image, keeps
        every tensor's format.
    embedding : str or None
        The format of embedding and head; None for `quant`, or ``"q8_0"`` where `quant` is coarser, as the
        usual quantizer of GGUF files does: logits suffer most from a coarse head.
    machine : {"portable", "x86-avx2", "x86-avx512", "aarch64"} or None
        What the image asks of the machine that loads it; the packed bytes are the same for all. None is
        ``"portable"``.
    version : int
        Version of the image, 0 to 2**32 - 1, for `min_version` of `edgellm.load`.
    sign : path-like, bytes or Ed25519PrivateKey, optional
        Private key that signs the image: a PEM file, 32 bytes, or a key of `cryptography`.
    progress : bool or callable
        True shows a bar; a callable gets (bytes read, bytes to read).

    Returns
    -------
    conversion : Conversion

    Raises
    ------
    ValueError
        If a format is unknown or cannot be made, or `dst` is `src`; if `machine`, `version` or `sign` is out
        of range, or given for a GGUF.
    FormatError
        If `src` is malformed, or a tensor has values that are not finite or too large for the format.
    OSError
        If a file cannot be read or written.
    ImportError
        If `sign` is given and the package `cryptography` is not installed (the extra ``verify``).

    Notes
    -----
    One chunk of rows is in memory at a time (about 50 MB in all). Rounding is that of
    `edgellm.quant.quantize`.

    Examples
    --------
    >>> edgellm.convert("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2.q8_0.gguf", "q8_0")  # doctest: +SKIP
    >>> edgellm.convert("smollm2-135m", "x.edge", machine="x86-avx2", sign="key.pem")  # doctest: +SKIP
    """
    source, target = _source(src), os.fspath(dst)
    check_regular(source)
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ValueError(f"convert: dst is src ({source}); give the new file another name")
    if machine is not None or target.endswith(".edge"):
        return _convert_to_image(source, target, quant, embedding, machine, version, sign, progress)
    if version != 0 or sign is not None:
        raise ValueError("convert: version and sign are for edge images; a GGUF carries neither")
    if quant is None:
        raise ValueError(f"convert: quant is needed for a GGUF; possible are {', '.join(QUANTIZABLE)}")
    quant = _quant_name("quant", quant)
    if _core.edge_open(source, False) is not None:
        raise ValueError(_PACKED)
    embedding = _head_type(quant) if embedding is None else _quant_name("embedding", embedding)

    with open(source, "rb", buffering=0) as file, contextlib.ExitStack() as stack:
        header = read_open(file.fileno(), source)
        types = {tensor.name: _new_type(tensor, quant, embedding) for tensor in header.tensors}
        report = _reporter(progress, os.path.basename(target), header, stack)
        origin = _origin(header, types)
        writer = _writer(header, types, quant, origin)
        with replacing(target) as out:
            writer.write(
                out, (_data(file.fileno(), source, t, types[t.name], report) for t in header.tensors)
            )
            bytes_out = out.tell()
    return Conversion(target, quant, types, header.file_bytes, bytes_out, origin)


def _source(src: str | os.PathLike[str]) -> str:
    """A file as it is named, or that of a known model."""
    source = os.fspath(src)
    if os.path.lexists(source) or os.path.basename(source) != source or "." in source:
        return source
    from edgellm import models

    return os.fspath(models.resolve(source))


def _convert_to_image(
    source: str,
    target: str,
    quant: str | None,
    embedding: str | None,
    machine: str | None,
    version: int,
    sign: object,
    progress: bool | Callable[[int, int], None],
) -> Conversion:
    from edgellm.conversion import edge

    machine, version = edge.check_machine(machine or "portable"), edge.check_version(version)
    key = None
    if sign is not None:
        from edgellm._signing import private_key

        key = private_key(sign)
    if quant is None and embedding is not None:
        raise ValueError("convert: embedding is of use with quant only")
    title = os.path.basename(target)
    with contextlib.ExitStack() as stack:

        def begin(total: int) -> Callable[[int], None]:
            return _report_to(progress, title, total, stack)

        image = _core.edge_open(source, False)
        if image is not None:
            if quant is not None:
                raise ValueError(
                    "convert: an edge image is packed for good; requantize the GGUF it came from"
                )
            types, bytes_out = edge.rewrite_image(image, source, target, machine, version, key, begin)
            origin = image.info["requantized_from"]
            return Conversion(target, _most(types), types, os.path.getsize(source), bytes_out, origin)
        if quant is not None:
            between = os.path.join(os.path.dirname(target), f".{title[:100]}.{secrets.token_hex(4)}.gguf")
            stack.callback(Path(between).unlink, missing_ok=True)
            made = convert(source, between, quant, embedding=embedding, progress=progress)
            types, bytes_out = edge.write_image(between, target, machine, version, key, begin)
            return replace(made, path=target, types=types, bytes_out=bytes_out)
        types, bytes_out = edge.write_image(source, target, machine, version, key, begin)
        with open(source, "rb", buffering=0) as file:
            before = read_open(file.fileno(), source).metadata.get(PROVENANCE_KEY)
        origin = before if isinstance(before, str) else None
        return Conversion(target, _most(types), types, os.path.getsize(source), bytes_out, origin)


def _most(types: dict[str, str]) -> str:
    """The format that most matrices have."""
    matrices = [type for name, type in types.items() if "norm" not in name] or ["f32"]
    return max(sorted(set(matrices)), key=matrices.count)


def _quant_name(argument: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"convert: {argument} must be a string such as 'q4_0', got {name.__class__.__name__}")
    if name.lower() not in QUANTIZABLE:
        what = "can be read, not made" if name.lower() in TYPES else "is unknown"
        raise ValueError(f"convert: {argument} {name[:40]!r} {what}; possible are {', '.join(QUANTIZABLE)}")
    return name.lower()


def _head_type(quant: str) -> str:
    return quant if TYPES[quant].bits_per_value >= TYPES["q8_0"].bits_per_value else "q8_0"


def _new_type(tensor: Tensor, quant: str, embedding: str) -> str:
    if len(tensor.shape) == 1 or tensor.name == _POSITIONS:
        return "f32"
    wanted = embedding if tensor.name in _EMBEDDINGS else quant
    for name in (wanted, "q4_0"):
        if tensor.shape[-1] % TYPES[name].block_values == 0:
            return name
    return "f16"


def _origin(header: Header, types: dict[str, str]) -> str | None:
    """The format that weights were rounded to before: by bytes, most of those that are rounded again."""
    changed: dict[str, int] = {}
    for tensor in header.tensors:
        if tensor.type not in _FLOATS and types[tensor.name] != tensor.type:
            changed[tensor.type] = changed.get(tensor.type, 0) + tensor.nbytes
    before = header.metadata.get(PROVENANCE_KEY)
    chain = [before] if isinstance(before, str) and before else []
    if changed:
        chain.append(max(changed, key=lambda name: changed[name]).upper())
    return ", ".join(chain) or None


def _writer(header: Header, types: dict[str, str], quant: str, origin: str | None) -> GgufWriter:
    writer = GgufWriter(header.alignment)
    for key in header.metadata:
        writer.add_raw(key, header.raw_value(key))
    writer.add("general.file_type", _FILE_TYPES[quant], "u32")
    writer.add("general.quantization_version", 2, "u32")
    if origin is not None:
        writer.add(PROVENANCE_KEY, origin, "string")
    for tensor in header.tensors:
        writer.add_tensor(tensor.name, types[tensor.name], tensor.shape)
    return writer


def _data(
    descriptor: int, path: str, tensor: Tensor, type: str, report: Callable[[int], None]
) -> Iterator[bytes]:
    """The new bytes of a tensor, some rows at a time."""
    info = TYPES[tensor.type]
    # Chunks are whole blocks of both formats: 256 is a multiple of every block.
    per_chunk = _CHUNK_VALUES // info.block_values * info.block_bytes
    for begin in range(0, tensor.nbytes, per_chunk):
        raw = read_exactly(descriptor, tensor.offset + begin, min(per_chunk, tensor.nbytes - begin), path)
        yield raw if type == tensor.type else _round(raw, tensor, type)
        report(len(raw))


def _round(raw: bytes, tensor: Tensor, type: str) -> bytes:
    values = _core.dequantize(raw, tensor.type)
    most = float(np.abs(values).max())
    if not np.isfinite(most):
        raise _core.FormatError(f"tensor {tensor.name!r} has values that are not finite")
    if most > _MOST.get(type, _F16_MOST):
        raise _core.FormatError(f"tensor {tensor.name!r} has a value of {most:g}, too large for {type}")
    return _core.quantize(values, type)


def _reporter(
    progress: bool | Callable[[int, int], None], title: str, header: Header, stack: contextlib.ExitStack
) -> Callable[[int], None]:
    return _report_to(progress, title, sum(tensor.nbytes for tensor in header.tensors), stack)


def _report_to(
    progress: bool | Callable[[int, int], None], title: str, total: int, stack: contextlib.ExitStack
) -> Callable[[int], None]:
    if not callable(progress):
        return stack.enter_context(Progress(title, total, shown=progress)).advance
    tell, done = progress, 0

    def report(amount: int) -> None:
        nonlocal done
        done += amount
        tell(done, total)

    return report
