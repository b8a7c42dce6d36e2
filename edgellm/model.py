"""Models and sessions: the front door of the engine."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Unpack

from edgellm import _core, cpu
from edgellm.generation import ChatCompletion, Completion, Options, Sampling, drain, stream
from edgellm.session import Session
from edgellm.shape import ModelConfig, Plan

Prompt = str | Sequence[int]
KV_TYPES = {"f16": 0, "f32": 1}  # numbers of el_kv_type
MICRO_BATCH = 128  # tokens evaluated together: enough to amortise unpacking, small enough for Ctrl-C
DEFAULT_CONTEXT = 2048


class Model:
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
        kv : {"f16", "f32"}, optional
            What keys and values are rounded to; `default_kv` if not given.

        Raises
        ------
        ValueError
            If `context` is outside what the model was trained for, or `kv` is unknown.
        """
        parts = self._core.plan(self._default_context() if context is None else context, self._kv_number(kv))
        own = 0 if parts["image"] else self.tokenizer.memory_bytes
        sizes = {f"{name}_bytes": size for name, size in parts.items()}
        return Plan(**sizes, tokenizer_bytes=own, program_bytes=_program_bytes())

    def session(self, context: int | None = None, kv: str | None = None) -> Session:
        """Start a conversation with an empty cache.

        Parameters
        ----------
        context, kv
            As `plan`.

        Raises
        ------
        ValueError
            As `plan`, or if the model is closed.
        MemoryError
            If model and session together pass the `max_bytes` of `load`, or memory is refused.
        """
        plan = self.plan(context, kv)
        if self.max_bytes is not None and plan.total_bytes > self.max_bytes:
            raise MemoryError(
                f"session: {plan.total_bytes} bytes are needed (model {plan.model_bytes} + cache "
                f"{plan.kv_bytes} + session {plan.session_bytes}), max_bytes is {self.max_bytes}"
            )
        size = self._default_context() if context is None else context
        return Session(self._core, size, self._kv_number(kv))

    def session_from_bytes(self, state: bytes, context: int | None = None, kv: str | None = None) -> Session:
        """A session as `Session.to_bytes` saved it; `kv` as it was then.

        Raises
        ------
        ValueError
            If the saved cache is of another type than `kv`.
        FormatError
            If the bytes are damaged or belong to another model.
        ContextError
            If the saved tokens do not fit in `context`.
        """
        session = self.session(context, kv)
        session._core.load_bytes(state)
        return session

    def _kv_number(self, kv: str | None) -> int:
        try:
            return KV_TYPES[self._default_kv if kv is None else kv]
        except (KeyError, TypeError):
            raise ValueError(f"kv: unknown cache type {kv!r} (known: {', '.join(KV_TYPES)})") from None

    def _ids(self, prompt: Prompt, parse_special: bool) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt, add_special=True, parse_special=parse_special)
        return [int(i) for i in prompt]

    def generate(
        self,
        prompt: Prompt,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        context: int | None = None,
        parse_special: bool = False,
    ) -> Completion:
        """Continue a prompt.

        Parameters
        ----------
        prompt : str or (n,) sequence of int
            Text, encoded with the special tokens that the model wants in front, or token ids.
        max_tokens : int
            Most tokens to generate.
        temperature : float
            0 takes the most likely token; otherwise logits are divided by it before sampling.
        top_k, top_p, min_p, repeat_penalty
            Filters of the sampler; the defaults (0, 1, 0, 1) leave them out.
        seed : int
            With the position it decides every random number: same seed, same text, on every machine.
        stop : str or sequence of str
            The text ends before the first of these.
        context : int, optional
            Positions of the cache; by default just what prompt and `max_tokens` need.
        parse_special : bool
            Whether texts of control tokens in `prompt` become those tokens. Leave it off for text
            that you do not control.

        Returns
        -------
        completion : Completion
            `.text`, `.ids`, `.timings`, `.finish_reason` ("stop" or "length").

        Raises
        ------
        ContextError
            If the prompt does not fit in the context.
        ValueError
            If an argument is out of range.
        KeyboardInterrupt
            On Ctrl-C, within one token.

        Examples
        --------
        >>> import edgellm
        >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m:
        ...     m.generate("The capital of France is", max_tokens=4).text.strip()
        'Paris.'
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repeat_penalty, seed)
        ids = self._ids(prompt, parse_special)
        return drain(stream(self, ids, max_tokens, sampling, stop, context))

    def _stream(self, ids: list[int], max_tokens: int, options: Options) -> Generator[str, None, Completion]:
        rest: dict[str, Any] = dict(options)
        stop, context = rest.pop("stop", ()), rest.pop("context", None)
        return stream(self, ids, max_tokens, Sampling(**rest), stop, context)

    def stream(
        self,
        prompt: Prompt,
        max_tokens: int = 256,
        parse_special: bool = False,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """As `generate`, piece by piece: yields text as soon as it is sure.

        The pieces joined are `generate(...).text`. Closing the iterator ends the generation. The
        generator's return value (`StopIteration.value`, `yield from`) is the `Completion`.
        """
        return self._stream(self._ids(prompt, parse_special), max_tokens, options)

    def _chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        from edgellm.chat import encode_chat

        if self.chat_template is None:
            raise ValueError("chat: the model file has no chat template; use generate()")
        return encode_chat(self.tokenizer, self.chat_template, list(messages))

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        **options: Unpack[Options],
    ) -> ChatCompletion:
        """Answer a conversation, rendered by the model's own chat template.

        What messages contain is always encoded as plain text: a message cannot forge a turn.

        Parameters
        ----------
        messages : sequence of {"role": ..., "content": ...}
            Roles as the template knows them: "system", "user", "assistant".
        max_tokens, **options
            As `generate`: temperature, top_k, top_p, min_p, repeat_penalty, seed, stop, context.

        Returns
        -------
        completion : ChatCompletion
            A `Completion` with `.message`, ready to be appended to `messages`.

        Raises
        ------
        ValueError
            If a message is malformed, or the model has no chat template.
        ContextError
            If the conversation does not fit in the context.
        """
        done = drain(self._stream(self._chat_ids(messages), max_tokens, options))
        return ChatCompletion(done.text, done.ids, done.timings, done.finish_reason)

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """As `chat`, piece by piece; see `stream`."""
        return self._stream(self._chat_ids(messages), max_tokens, options)

    def perplexity(self, text: Prompt, context: int | None = None) -> float:
        """exp of the mean negative log-probability per scored token.

        The text is cut into windows of `context` tokens, stride `context`; each starts with an empty
        cache, and every token after the first of a window is scored.

        Parameters
        ----------
        text : str or (n,) sequence of int
            Text or token ids; at least 2 tokens.
        context : int, optional
            Tokens per window; 2048, or what the model was trained for if that is less.

        Raises
        ------
        ValueError
            If nothing can be scored, or `context` is out of range.

        Notes
        -----
        Source: the usual definition for fixed-length models without overlap, as llama.cpp's
        perplexity tool computes it when every token of a window is scored.
        """
        size = self._default_context() if context is None else context
        ids = self.tokenizer.encode(text) if isinstance(text, str) else list(text)
        if size < 2 or len(ids) < 2:
            raise ValueError(f"perplexity: {len(ids)} tokens in windows of {size}: nothing can be scored")
        session = self.session(size)
        total, scored = 0.0, 0
        for start in range(0, len(ids), size):
            session.truncate(0)
            logprob, _, _ = session.score(ids[start : start + size])
            total += math.fsum(logprob)  # exact, so that the sum is the same on every machine
            scored += len(logprob)
        surprise = -total / scored
        return math.exp(surprise) if surprise < 709.0 else math.inf  # exp would raise above 709.78


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
        A GGUF file of the Llama family, or an edge image (`edgellm.convert`).
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
    if isa is not None:
        cpu.kernels(isa)  # ValueError before the file is looked for
    name = os.fspath(path)
    count = cpu.count() if threads is None else threads
    loose = not exact and isa in (None, "amx") and "amxbf16" in cpu.kernels(exact=False).values()
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
