"""Text to token ids and back: the tokenizer of a model, and text out of ids that arrive one by one.

A model's tokenizer is `model.tokenizer`, made in C from the vocabulary of the model file as docs/text.md
describes: byte-level BPE or SentencePiece. Ids are those of the `tokenizers` package for the same
vocabulary. Four things to know:

- a lone surrogate in a `str` is a `UnicodeEncodeError`, because it has no UTF-8;
- bytes for which a byte-level vocabulary has no token are dropped (SmolLM2 lacks six control characters and
  what no valid UTF-8 holds), as the package does;
- no Unicode normalisation is applied to BPE, as in llama.cpp;
- SentencePiece may put a space in front of a text (`add_space_prefix`), which `decode` takes away again. Ids
  that go on from other ids, such as an answer to a prompt, are decoded with ``at_start=False``.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from edgellm import _core
from edgellm._core import Tokenizer

_SPECIAL_TYPES = (2, 3)  # unknown and control, which `decode` skips too
_USER_DEFINED = 4

__all__ = ["StreamDecoder", "Tokenizer", "load", "starts_anew"]


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a GGUF file, without its weights.

    Parameters
    ----------
    path : path-like
        A GGUF file of any architecture; one that holds nothing but a vocabulary will do.

    Raises
    ------
    FormatError
        If the file is malformed, or its tokenizer is of a kind that is not supported; the message names it.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> tokenizer = load("model.gguf")  # doctest: +SKIP
    >>> tokenizer.decode(tokenizer.encode("Hello"))  # doctest: +SKIP
    'Hello'
    """
    from edgellm import gguf

    gguf.check_regular(path)
    with open(path, "rb", buffering=0) as file:
        header = gguf.read_open(file.fileno(), os.fspath(path))
        head_bytes = min(header.data_offset, header.file_bytes)
        raw = gguf.read_exactly(file.fileno(), 0, head_bytes, os.fspath(path))
    return _core.gguf_tokenizer(raw, header.file_bytes, Path(path).name)


def starts_anew(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether text that follows these ids is encoded as at a start: after nothing, and after a special token.

    So an answer in a chat begins without the space that a vocabulary may put in front, and the rest of a
    sentence with the space that parts them.

    Examples
    --------
    >>> tokenizer = Tokenizer(["<unk>", "<s>", "</s>", "a"], [2, 3, 3, 1], [], "", model="llama")
    >>> starts_anew(tokenizer, []), starts_anew(tokenizer, [3, 1]), starts_anew(tokenizer, [1, 3])
    (True, True, False)
    """
    if len(ids) == 0:
        return True
    known = 0 <= ids[-1] < tokenizer.vocab_size  # whoever evaluates an id says that there is none
    return known and tokenizer.token_type(ids[-1]) in (*_SPECIAL_TYPES, _USER_DEFINED)


class StreamDecoder:
    """Turn ids into text as they come, holding back bytes until their character is whole.

    The concatenation of all answers of `push` and of one `finish` equals `tokenizer.decode(ids)` with
    the same options.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose ids these are.
    skip_special : bool
        Leave control tokens out of the text.
    at_start : bool
        The ids begin a text, so that the space is taken away which `encode` may have put in front. False for
        ids that go on from others.

    Examples
    --------
    >>> letters = Tokenizer([b"\\xc3", b"\\xa9", "!"], [4, 4, 1], [], "gpt-2")
    >>> stream = StreamDecoder(letters)
    >>> [stream.push(0), stream.push(1), stream.push(2)]
    ['', 'é', '!']
    >>> stream.push(0), stream.finish()
    ('', '\\ufffd')
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = False, at_start: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._strips = at_start and tokenizer.add_space_prefix
        self._strip = self._strips
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Text that became whole with this id, often one word, possibly empty.

        Raises
        ------
        ValueError
            If the id is not in the vocabulary.
        """
        if self._skip_special and self._tokenizer.token_type(token_id) in _SPECIAL_TYPES:
            return ""
        data = self._tokenizer.token_bytes(token_id)
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def finish(self) -> str:
        """What is left: nothing, or U+FFFD for a character that was cut. Ready for a new text afterwards."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        self._strip = self._strips
        return rest
