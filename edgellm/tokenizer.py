"""Text to token ids and back: the tokenizer of a model, and text out of ids that arrive one by one.

A model's tokenizer is `model.tokenizer`; it is made in C from the vocabulary of the model file. The pieces
inside which byte-level BPE may merge depend on the pre-tokenizer that the file names: "smollm" (and
"starcoder"), "gpt-2", "llama-bpe" ("llama3"), "qwen2" ("deepseek-r1-qwen") and "default" are known. Ids are
those of the `tokenizers` package for the same merges. Three things to know:

- a lone surrogate in a `str` is a `UnicodeEncodeError`, because it has no UTF-8;
- bytes for which the vocabulary has no token are dropped (SmolLM2 lacks six control characters and what no
  valid UTF-8 holds), as the package does;
- no Unicode normalisation is applied, as in llama.cpp.
"""

from __future__ import annotations

import codecs

from edgellm._core import Tokenizer

_SPECIAL_TYPES = (2, 3)  # unknown and control, which `decode` skips too

__all__ = ["StreamDecoder", "Tokenizer"]


class StreamDecoder:
    """Turn ids into text as they come, holding back bytes until their character is whole.

    The concatenation of all answers of `push` and of one `finish` equals `tokenizer.decode(ids)`.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose ids these are.
    skip_special : bool
        Leave control tokens out of the text.

    Examples
    --------
    >>> letters = Tokenizer([b"\\xc3", b"\\xa9", "!"], [4, 4, 1], [], "gpt-2")
    >>> stream = StreamDecoder(letters)
    >>> [stream.push(0), stream.push(1), stream.push(2)]
    ['', 'é', '!']
    >>> stream.push(0), stream.finish()
    ('', '\\ufffd')
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
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
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """What is left: nothing, or U+FFFD for a character that was cut. Ready for a new text afterwards."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
