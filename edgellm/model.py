"""Models and sessions: the front door of the engine."""

from __future__ import annotations

import functools
import os
import threading
from types import TracebackType
from typing import Any

from edgellm import _core, cpu
from edgellm.generation.conversation import Conversing
from edgellm.generation.writing import Writing
from edgellm.session import KV_TYPES, Overflow, Session
from edgellm.shape import ModelConfig, Plan

MICRO_BATCH = 128  # tokens evaluated together: enough to amortise unpacking, small enough for Ctrl-C
DEFAULT_CONTEXT = 2048


class Model(Writing, Conversing):
    """A language model in memory. Made by `edgellm.load`; a context manager.

    Attributes
    ----------
    config : ModelConfig
    tokenizer : Tokenizer
        `encode(text, add_special=False, parse_special=False) -> list[int]`, `decode(ids) -> str`.
    path : str
    threads : int
    exact : bool
        Whether logits keep the arithmetic contract: False only after ``load(..., exact=False)`` on a
        machine with kernels outside it.
    """

    def __init__(self, core: _core.Model, path: str, threads: int, max_bytes: int | None) -> None:
        self._core = core
        self.path = path
        self.threads = threads
        self.max_bytes = max_bytes
        self.exact = True
        self.config = ModelConfig(**core.config)
        self.tokenizer = core.tokenizer
        self._default_kv = "f32" if set(core.info["types"]) == {"f32"} else "f16"
        self._memory = threading.RLock()  # over what is alive; a collected cache may enter it again
        self._cache_bytes = 0  # what prefix caches may take

    @property
    def isa(self) -> str:
        """Best instruction set in use, such as ``"avx512vnni"``."""
        return self._core.isa

    @property
    def info(self) -> dict[str, Any]:
        """What the file says of itself: name, licence, chat_template, bytes by tensor type."""
        return self._core.info

    @property
    def chat_template(self) -> str | None:
        """The template of the file, if it has one."""
        template: str | None = self._core.info["chat_template"]
        return template

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._core.closed

    def close(self) -> None:
        """Give back memory and threads; sessions of this model raise ValueError from now on."""
        self._core.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.isa}, {self.threads} threads"
        return f"<edgellm.Model {os.path.basename(self.path)!r}: {state}>"

    def _default_context(self) -> int:
        return min(DEFAULT_CONTEXT, self.config.context)

    @property
    def default_kv(self) -> str:
        """Cache type of a session that asks for none: "f32" if every matrix is float32, else "f16"."""
        return self._default_kv

    def plan(self, context: int | None = None, kv: str | None = None) -> Plan:
        """Exact memory, by part, of this model with one session.

        Parameters
        ----------
        context : int, optional
            Positions of the session; 2048, or what the model was trained for if that is less.
        kv : {"f16", "f32", "q8_0"}, optional
            What keys and values are rounded to; `default_kv` if not given. "q8_0" takes little more than half
            of "f16" (docs/numerics.md has the error).

        Raises
        ------
        ValueError
            If `context` is outside what the model was trained for, or `kv` is unknown.
        """
        parts = self._core.plan(self._default_context() if context is None else context, self._kv_number(kv))
        own = 0 if parts["image"] else self.tokenizer.memory_bytes
        sizes = {f"{name}_bytes": size for name, size in parts.items()}
        return Plan(**sizes, tokenizer_bytes=own, program_bytes=_program_bytes())

    def session(
        self,
        context: int | None = None,
        kv: str | None = None,
        overflow: Overflow = "error",
        keep: int = 0,
    ) -> Session:
        """Start a conversation with an empty cache.

        Parameters
        ----------
        context, kv
            As `plan`.
        overflow : {"error", "shift"}
            When the context is full: an error, or the older half of the tokens is dropped and the rest
            evaluated again. That is outside the arithmetic contract: what follows depends on when.
        keep : int
            Tokens at the beginning that a shift leaves alone, such as a system prompt.

        Raises
        ------
        ValueError
            As `plan`, if `overflow` or `keep` is out of range, or if the model is closed.
        MemoryError
            If the model, all its sessions that are alive, its prefix caches and this session together pass
            the `max_bytes` of `load`, or memory is refused.
        """
        size = self._default_context() if context is None else context
        return Session(self, self._open(size, self._kv_number(kv), "session"), overflow, keep)

    def session_from_bytes(self, state: bytes, context: int | None = None, kv: str | None = None) -> Session:
        """A session as `Session.to_bytes` saved it.

        Parameters
        ----------
        state : bytes
            Any bytes: what is not the state of a session of this model is refused.
        context : int, optional
            Positions of the session; as `plan`, and at least what was saved.
        kv : str, optional
            The type that the cache is expected to have.

        Raises
        ------
        ValueError
            If the saved cache is of another type than `kv`.
        FormatError
            If the bytes are damaged or belong to another model.
        ContextError
            If the saved tokens do not fit in `context`.
        MemoryError
            As `session`.
        """
        number, position = _core.state_facts(state)
        if position > self.config.context:
            raise _core.FormatError(
                f"session_from_bytes: {position} tokens, the model's context is {self.config.context}"
            )
        if context is None:
            context = max(self._default_context(), position)
        core = self._open(context, number if kv is None else self._kv_number(kv), "session_from_bytes")
        core.load_bytes(state)
        return Session(self, core)

    @property
    def live_bytes(self) -> int:
        """Memory of the sessions that are alive, and what the prefix caches may take."""
        return self._core.live_bytes + self._cache_bytes

    def _admit(self, needed: int, parts: str, where: str) -> None:
        """Refuse what would pass `max_bytes` together with all that is alive; `_memory` is held."""
        if self.max_bytes is None:
            return
        model, sessions, caches = self.plan(1).model_bytes, self._core.live_bytes, self._cache_bytes
        total = model + sessions + caches + needed
        if total > self.max_bytes:
            raise MemoryError(
                f"{where}: {total} bytes are needed (model {model} + sessions alive {sessions} + prefix "
                f"caches {caches} + {parts}), max_bytes is {self.max_bytes}"
            )

    def _open(self, context: int, kv: int, where: str) -> _core.Session:
        """An empty session, if it fits."""
        parts = self._core.plan(context, kv)
        with self._memory:
            self._admit(
                parts["kv"] + parts["session"], f"cache {parts['kv']} + session {parts['session']}", where
            )
            return _core.Session(self._core, context, kv)

    def _reserve(self, nbytes: int) -> None:
        """Set memory aside for a prefix cache, or give it back where `nbytes` is negative."""
        with self._memory:
            if nbytes > 0:
                self._admit(nbytes, f"prefix cache {nbytes}", "prefix cache")
            self._cache_bytes += nbytes

    def _kv_number(self, kv: str | None) -> int:
        try:
            return KV_TYPES[self._default_kv if kv is None else kv]
        except (KeyError, TypeError):
            raise ValueError(f"kv: unknown cache type {kv!r} (known: {', '.join(KV_TYPES)})") from None


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    isa: str | None = None,
    exact: bool = True,
    max_bytes: int | None = None,
    resident: bool = False,
    verify: object = None,
    min_version: int | None = None,
) -> Model:
    """Read a model file and pack it for this machine.

    Parameters
    ----------
    path : str or path
        A GGUF file of a known family, or an edge image (`edgellm.convert`).
    threads : int, optional
        Threads to use; by default all that this process may run on.
    isa : str, optional
        Cap: every operation takes its best kernel at or below it (`edgellm.cpu.runnable_isas()`).
    exact : bool
        False allows kernels outside the arithmetic contract (docs/numerics.md) where this machine has them:
        prefill in bf16 on tiles, other bits. Elsewhere it changes nothing. `Model.exact` says which it is.
    max_bytes : int, optional
        Refuse a model, or later a session, whose plan passes this many bytes.
    resident : bool
        Copy an edge image into memory of its own, in huge pages, rather than use it from a map. It loads
        slower, decodes faster, and does not mind if the file is truncated later. Weights read from a GGUF
        are always resident.
    verify : path-like, bytes or Ed25519PublicKey, optional
        Public key (a PEM file, 32 bytes, or a key of `cryptography`): the image's signature and the hash of
        every part are checked before anything of it is used.
    min_version : int, optional
        Refuse an image of an older version.

    Returns
    -------
    model : Model

    Raises
    ------
    FormatError
        If the file is malformed, or of an architecture or type that we do not have; if an image is for
        another machine, older than `min_version`, or not what `verify` asks for.
    ValueError
        If an argument is out of range, or this machine cannot run `isa`.
    ImportError
        If `verify` is given and the package `cryptography` is not installed (the extra ``verify``).
    MemoryError
        If the plan passes `max_bytes`, or memory is refused.
    OSError
        If the file cannot be read.

    Notes
    -----
    A GGUF is copied while it is packed and is not needed afterwards. An edge image is used where it lies: if
    another program truncates the file meanwhile, the system kills the process that reads beyond its end
    (SIGBUS), and bytes changed after `verify` are not seen. Replace images by renaming a new file over them,
    as `convert` does, or load with ``resident=True``.
    """
    if max_bytes is not None and max_bytes <= 0:
        raise ValueError(f"load: max_bytes must be positive, got {max_bytes}")
    # This also checks `isa`, before the file is looked for.
    loose = "amxbf16" in cpu.kernels(isa, exact=exact).values()
    name = os.fspath(path)
    count = cpu.count() if threads is None else threads
    batch = (2 if loose else 1) * MICRO_BATCH  # rounding weights to bf16 takes longer than decoding them
    try:
        image = _core.edge_open(name, resident)
        if image is None and (verify is not None or min_version is not None):
            raise _core.FormatError(
                f"load: {name}: no edge image, so without the signature and version asked for"
            )
        if image is not None:
            _admit(image, name, verify, min_version)
        source = name if image is None else image
        core = _core.Model(source, count, isa, batch, max_bytes or 0, not loose)
    except OSError:
        os.stat(name)  # FileNotFoundError and its like, where that is what was wrong
        raise
    model = Model(core, name, count, max_bytes)
    model.exact = not loose
    needed = model.plan(context=1).model_bytes  # with tokenizer and program
    if max_bytes is not None and needed > max_bytes:
        model.close()
        raise MemoryError(f"load: the model needs {needed} bytes, max_bytes is {max_bytes}")
    return model


@functools.cache
def _program_bytes() -> int:
    return os.path.getsize(_core.__file__)


def _admit(image: _core.EdgeImage, name: str, verify: object, min_version: int | None) -> None:
    """Refuse an image whose origin or version is not what the caller asked for."""
    version = image.facts["version"]
    if verify is not None:
        from edgellm._signing import check_image

        check_image(image, verify, name)
    if min_version is not None and version < min_version:
        raise _core.FormatError(f"load: {name}: version {version} is older than {min_version}")
