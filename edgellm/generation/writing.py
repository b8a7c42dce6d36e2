"""What a `Model` can write: the methods that continue a prompt, and those that judge a text."""

from __future__ import annotations

import math
import operator
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from edgellm.generation.drivers import complete, drain, pieces, tokens
from edgellm.generation.request import Grammar, Options, Place, Request
from edgellm.generation.results import Completion, Token

if TYPE_CHECKING:
    from edgellm.model import Model
    from edgellm.prefix_cache import PrefixCache
    from edgellm.session import Overflow

Prompt = str | Sequence[int]


class Writing:
    """Part of `edgellm.Model`: text from prompts."""

    def _ids(self, prompt: Prompt, parse_special: bool) -> list[int]:
        if isinstance(prompt, str):
            model = cast("Model", self)
            return model.tokenizer.encode(prompt, add_special=True, parse_special=parse_special)
        return [int(i) for i in prompt]

    def _tokens(
        self, ids: list[int], max_tokens: int, options: Options
    ) -> Generator[Token, None, Completion]:
        request = Request.of(cast("Model", self), max_tokens, options)
        return tokens(cast("Model", self), ids, request, Place.of(options))

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
        grammar: str | Grammar | None = None,
        json_schema: dict[str, Any] | bool | str | None = None,
        draft: str | Model | None = None,
        logprobs: int | None = None,
        logit_bias: Mapping[int, float] | None = None,
        kv: str | None = None,
        overflow: Overflow = "error",
        cache: PrefixCache | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
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
        grammar : str or Grammar, optional
            The text is one of this grammar: GBNF, or what `edgellm.grammar` made of it. It is always
            complete, however few tokens there are.
        json_schema : dict, bool or str, optional
            The text is JSON that is valid against this schema.
        draft : {"lookup"} or Model, optional
            Guess tokens ahead and verify several at once: from where the text has been before, or by a
            smaller model with the same vocabulary. The text stays the same; repetitive text comes faster.
        logprobs : int, optional
            Give the log-probability of each token, and so many of the likeliest beside it (0: none).
        logit_bias : dict of int to float, optional
            Added to the logits of these ids; -inf forbids a token, inf forbids all others wherever the
            token is allowed.
        kv : {"f16", "f32", "q8_0"}, optional
            What keys and values are rounded to; `default_kv` if not given.
        overflow : {"error", "shift"}
            With "shift" a full context drops its older half and the text goes on; that leaves the arithmetic
            contract. Otherwise the text ends there.
        cache : PrefixCache, optional
            Take the beginning of the prompt from there as far as it is known; leave prompt and text there.
        presence_penalty, frequency_penalty : float
            Taken off the logit of a token that was generated before: once, and for each time that it was.

        Returns
        -------
        completion : Completion
            `.text`, `.ids`, `.timings`, `.finish_reason` ("stop" or "length"), `.logprobs`, `.speculation`.

        Raises
        ------
        ContextError
            If the prompt does not fit in the context.
        ValueError
            If an argument is out of range, `max_tokens` cannot hold a text of the grammar, or `logit_bias`
            forbids every token that the grammar allows.
        KeyboardInterrupt
            On Ctrl-C, within one token.

        Examples
        --------
        >>> import edgellm
        >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m:
        ...     m.generate("The capital of France is", max_tokens=4).text.strip()
        'Paris.'
        """
        options: Options = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repeat_penalty": repeat_penalty,
            "seed": seed,
            "stop": stop,
            "context": context,
            "grammar": grammar,
            "json_schema": json_schema,
            "draft": draft,
            "logprobs": logprobs,
            "logit_bias": logit_bias,
            "kv": kv,
            "overflow": overflow,
            "cache": cache,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
        }
        return drain(self._tokens(self._ids(prompt, parse_special), max_tokens, options))

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
        return pieces(self._tokens(self._ids(prompt, parse_special), max_tokens, options))

    def stream_tokens(
        self,
        prompt: Prompt,
        max_tokens: int = 256,
        parse_special: bool = False,
        **options: Unpack[Options],
    ) -> Iterator[Token]:
        """As `stream`, token by token: yields each `Token` as it is chosen."""
        return self._tokens(self._ids(prompt, parse_special), max_tokens, options)

    def completions(
        self,
        prompt: Prompt,
        n: int,
        max_tokens: int = 256,
        parse_special: bool = False,
        **options: Unpack[Options],
    ) -> list[Completion]:
        """Several texts of one prompt, which is evaluated once; they are generated together.

        Completion i draws from random stream i of the seed, so the first is that of `generate`, and more of
        them do not change the ones before. Parameters and errors as `generate`.
        """
        if operator.index(n) < 1:
            raise ValueError(f"completions: n must be at least 1, got {n}")
        model = cast("Model", self)
        request = Request.of(model, max_tokens, options)
        requests = [replace(request, stream=i) for i in range(n)]
        return complete(model, self._ids(prompt, parse_special), requests, Place.of(options))

    async def agenerate(
        self,
        prompt: Prompt,
        max_tokens: int = 256,
        parse_special: bool = False,
        **options: Unpack[Options],
    ) -> Completion:
        """As `generate`, for asyncio: other tasks go on meanwhile.

        Cancelling the task ends the generation within one step and gives its memory back.
        """
        from edgellm.generation import aio

        model = cast("Model", self)
        request = Request.of(model, max_tokens, options)
        return await aio.complete(model, self._ids(prompt, parse_special), request, Place.of(options))

    def astream(
        self,
        prompt: Prompt,
        max_tokens: int = 256,
        parse_special: bool = False,
        **options: Unpack[Options],
    ) -> AsyncGenerator[str, None]:
        """As `stream`, for ``async for``; see `agenerate`. Arguments are checked at the call."""
        from edgellm.generation import aio

        model = cast("Model", self)
        request = Request.of(model, max_tokens, options)
        ids, place = self._ids(prompt, parse_special), Place.of(options)
        place.room(model, ids, max_tokens)
        return aio.pieces(model, ids, request, place)

    def embed(
        self,
        texts: str | Sequence[str] | Sequence[Sequence[int]],
        pooling: str = "mean",
        normalize: bool = True,
    ) -> NDArray[np.float32]:
        """Vectors whose directions say how alike texts are.

        Parameters
        ----------
        texts : str, or (n,) sequence of str or of sequences of int
            Texts, encoded as prompts are, or their token ids. One str counts as one text.
        pooling : {"mean", "last"}
            Over the hidden states of all tokens (after the final norm), or that of the last.
        normalize : bool
            Scale to length 1.

        Returns
        -------
        vectors : (n, width) ndarray of float32
            The same bits alone or with others, on every machine.

        Raises
        ------
        ContextError
            If a text is longer than what the model was trained for.
        ValueError
            If a text has no tokens, or an argument is unknown.

        Notes
        -----
        A decoder is not trained for this: its vectors are useful, but those of a model for embeddings are
        better.
        """
        from edgellm.generation.embedding import embed

        each = [texts] if isinstance(texts, str) else texts
        return embed(cast("Model", self), [self._ids(text, False) for text in each], pooling, normalize)

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
        model = cast("Model", self)
        size = model._default_context() if context is None else context
        ids = model.tokenizer.encode(text) if isinstance(text, str) else list(text)
        if size < 2 or len(ids) < 2:
            raise ValueError(f"perplexity: {len(ids)} tokens in windows of {size}: nothing can be scored")
        session = model.session(size)
        total, scored = 0.0, 0
        for start in range(0, len(ids), size):
            session.truncate(0)
            logprob, _, _ = session.score(ids[start : start + size])
            total += math.fsum(logprob)  # exact, so that the sum is the same on every machine
            scored += len(logprob)
        surprise = -total / scored
        return math.exp(surprise) if surprise < 709.0 else math.inf  # exp would raise above 709.78
