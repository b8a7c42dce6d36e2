"""Beginnings that several conversations share, so that they are evaluated once."""

from __future__ import annotations

import threading
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from edgellm.session import KV_NAMES, Session

if TYPE_CHECKING:
    from edgellm import _core
    from edgellm.model import Model

BLOCK = 64  # tokens of a block: EL_STATE_BLOCK
_OVERHEAD_BYTES = 1024  # of a block's own objects; measured, rounded up

_Key = tuple[int, bytes]  # number of the block before it (0: none), its tokens


@dataclass(slots=True)
class _Block:
    number: int
    all: bytes  # layers that see everything
    windowed: bytes | None  # layers with a sliding window, where they still held it

    @property
    def nbytes(self) -> int:
        return len(self.all) + len(self.windowed or b"") + _OVERHEAD_BYTES


def _key(before: int, ids: Sequence[int], index: int) -> _Key:
    return before, array("i", ids[index * BLOCK : (index + 1) * BLOCK]).tobytes()


class PrefixCache:
    """Keys and values of beginnings that have been evaluated, for new sessions of one model.

    Blocks of 64 tokens are kept by the exact tokens up to their end, and those not used for longest go first.
    A restored session has the bits of one that evaluated the same tokens. May be used from several threads.

    Where layers have a sliding window, what they held early is gone when a session has moved on, so a
    beginning can be restored up to where it was saved, and not much before: save when the part to be shared
    has been evaluated.

    Parameters
    ----------
    model : Model
    max_bytes : int
        Most memory to take. It counts as taken in the model's own `max_bytes`, from now until `close` or
        until nobody refers to the cache any more.
    kv : {"f16", "f32", "q8_0"}, optional
        Type of the sessions' caches; the model's `default_kv` if not given.

    Attributes
    ----------
    hits, misses : int
        Calls of `load` that restored something, and that did not.

    Raises
    ------
    ValueError
        If `max_bytes` is negative or `kv` unknown.
    MemoryError
        If it does not fit in the model's `max_bytes`.

    Examples
    --------
    >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m:
    ...     cache = edgellm.PrefixCache(m, max_bytes=100_000_000)
    ...     ids = m.tokenizer.encode("You are a helpful assistant. " * 20)
    ...     with m.session(context=256) as first:
    ...         _ = first.eval(ids)
    ...         cache.save(first, ids)
    ...     second = m.session(context=256)
    ...     cache.load(second, ids), second.position
    (64, 64)
    """

    def __init__(self, model: Model, max_bytes: int, kv: str | None = None) -> None:
        if max_bytes < 0:
            raise ValueError(f"prefix cache: max_bytes is {max_bytes}, but cannot be negative")
        self._kv = model._kv_number(kv)
        self._model = model._core
        model._reserve(max_bytes)
        self._release = weakref.finalize(self, model._reserve, -max_bytes)
        self._release.atexit = False
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()  # a block comes before the one it follows
        self._numbers = 0
        self._nbytes = 0

    @property
    def kv(self) -> str:
        """Type of the caches that it serves."""
        return KV_NAMES[self._kv]

    @property
    def nbytes(self) -> int:
        """Memory taken; at most `max_bytes`."""
        return self._nbytes

    def __len__(self) -> int:
        """Blocks held."""
        return len(self._blocks)

    def __repr__(self) -> str:
        return f"<edgellm.PrefixCache: {len(self)} blocks, {self._nbytes} of {self.max_bytes} bytes>"

    def load(self, session: Session, ids: Sequence[int]) -> int:
        """Restore as much of the beginning of `ids` as is known into an empty session.

        Parameters
        ----------
        session : Session
            Of this model and cache type, at position 0.
        ids : (n,) sequence of int
            What the session is to hold; ``ids[returned:]`` is left to be evaluated, at least one token.

        Returns
        -------
        positions : int
            Tokens restored: a multiple of 64, less than n, 0 if nothing is known.

        Raises
        ------
        ValueError
            If the session is not empty, of another model or cache type, or closed.
        """
        self._check(session)
        core = session._core
        if core.position != 0:
            raise ValueError(f"prefix cache: the session holds {core.position} tokens already")
        with self._lock:
            chain = self._find(ids, min(max(len(ids) - 1, 0), core.context) // BLOCK)
            while chain:
                first = core.first_window(len(chain))
                if all(block.windowed is not None for _, block in chain[first:]):
                    break
                chain.pop()
            self._touch([key for key, _ in chain])
            self.hits += bool(chain)
            self.misses += not chain
        if chain:
            blocks = [block for _, block in chain]
            core.fill(tuple(block.all for block in blocks), tuple(block.windowed for block in blocks))
            session._note(ids[: len(chain) * BLOCK])
        return len(chain) * BLOCK

    def save(self, session: Session, ids: Sequence[int]) -> None:
        """Keep what a session holds, in whole blocks of 64 tokens, as far as there is room.

        Parameters
        ----------
        session : Session
            Of this model and cache type.
        ids : (n,) sequence of int
            All the tokens that it holds.

        Raises
        ------
        ValueError
            If `ids` are not as many as it holds, or it is of another model or cache type, or closed.
        """
        self._check(session)
        core = session._core
        if core.position != len(ids):
            raise ValueError(f"prefix cache: {len(ids)} tokens for a session that holds {core.position}")
        with self._lock:
            self._touch([key for key, _ in self._find(ids, len(ids) // BLOCK)])
            chain: dict[_Key, None] = {}
            before = 0
            for i in range(len(ids) // BLOCK):
                key = _key(before, ids, i)
                chain[key] = None
                block = self._blocks.get(key)
                if block is None:
                    block = self._put(core, key, i, chain)
                elif block.windowed is None:
                    self._complete(core, block, i, chain)
                if block is None:
                    del chain[key]
                    break
                before = block.number
            self._touch(list(chain))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._blocks.clear()
            self._nbytes = 0

    def close(self) -> None:
        """Forget everything, and no longer count in the model's `max_bytes`; nothing is kept from now on."""
        self.clear()
        self.max_bytes = 0
        self._release()

    def __enter__(self) -> PrefixCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, session: Session) -> None:
        if session._core.model is not self._model:
            raise ValueError("prefix cache: the session belongs to another model")
        if session._core.kv != self._kv:
            raise ValueError(f"prefix cache: it is for caches of {self.kv}, the session's is {session.kv}")

    def _find(self, ids: Sequence[int], most: int) -> list[tuple[_Key, _Block]]:
        """The known blocks that `ids` begins with, at most so many."""
        chain: list[tuple[_Key, _Block]] = []
        before = 0
        for i in range(most):
            key = _key(before, ids, i)
            block = self._blocks.get(key)
            if block is None:
                break
            chain.append((key, block))
            before = block.number
        return chain

    def _touch(self, chain: Sequence[_Key]) -> None:
        """Note a use. The last block first, so that none is older than one that follows it."""
        for key in reversed(chain):
            self._blocks.move_to_end(key)

    def _make_room(self, needed: int, spared: Container[_Key]) -> bool:
        """Drop the oldest blocks until so many bytes fit; False if only the spared ones are left."""
        while self._nbytes + needed > self.max_bytes:
            oldest = next(iter(self._blocks), None)
            if oldest is None or oldest in spared:
                return False
            self._nbytes -= self._blocks.pop(oldest).nbytes
        return True

    def _put(self, core: _core.Session, key: _Key, index: int, spared: Container[_Key]) -> _Block | None:
        """Copy a block out of a session; None where the session lost it, or there is no room."""
        whole, windowed = core.block_out(index, False), core.block_out(index, True)
        if whole is None:
            return None
        block = _Block(self._numbers + 1, whole, windowed)
        if not self._make_room(block.nbytes, spared):
            return None
        self._numbers += 1
        self._blocks[key] = block
        self._nbytes += block.nbytes
        return block

    def _complete(self, core: _core.Session, block: _Block, index: int, spared: Container[_Key]) -> None:
        """Add the part with windows to a block that was saved without it."""
        windowed = core.block_out(index, True)
        if windowed is not None and self._make_room(len(windowed), spared):
            block.windowed = windowed
            self._nbytes += len(windowed)
