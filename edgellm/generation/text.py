"""From tokens to text that is sure."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.tokenizer import StreamDecoder, Tokenizer, starts_anew


class Assembler:
    """Turns tokens into text that is sure: whole characters, and no beginning of a stop string."""

    __slots__ = ("_decoder", "_held", "_reserve", "_stop", "stopped")

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._decoder = StreamDecoder(tokenizer, at_start=starts_anew(tokenizer, prompt))
        self._stop = stop
        self._held = ""
        self._reserve = max((len(s) for s in stop), default=1) - 1
        self.stopped = False

    def push(self, token: int) -> str:
        """Text that became sure with this token."""
        piece = self._decoder.push(token)
        return self._release(piece, self._reserve) if self._stop else piece

    def finish(self) -> str:
        """What is left when no token follows."""
        return self._release(self._decoder.finish(), 0)

    def _cut(self) -> int:
        """Index of the first stop string in what is held, or -1."""
        found = [at for at in (self._held.find(s) for s in self._stop) if at >= 0]
        return min(found, default=-1)

    def _release(self, piece: str, reserve: int) -> str:
        self._held += piece
        at = self._cut()
        if at >= 0:
            self.stopped = True
            ready, self._held = self._held[:at], ""
            return ready
        cut = len(self._held) - reserve
        ready, self._held = self._held[: max(cut, 0)], self._held[max(cut, 0) :]
        return ready


def vocabulary(tokenizer: Tokenizer) -> bytes:
    """A digest of all tokens, in order, and of those that end a text."""
    import hashlib

    digest = hashlib.sha256(repr(tokenizer.end_ids).encode())
    for i in range(tokenizer.vocab_size):
        token = tokenizer.token_bytes(i)
        digest.update(len(token).to_bytes(4, "little") + token)
    return digest.digest()
