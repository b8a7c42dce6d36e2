"""llama.cpp behind a pipe; runs in an environment with llama-cpp-python (see README.md).

Reads one JSON request per line and answers each with one JSON line. Nothing of edgellm is imported: this
is the other side of a comparison. Requests, by their "do":

- ``open``: model, context, ubatch, threads, flash (bool) -> context is replaced by a new one
- ``tokenize``: text -> ids (no special tokens added or parsed)
- ``score``: ids (.npy), windows, out (.npz) -> per window of `context` tokens, log-probability of every
  token after the first and the most likely token at its place
- ``prefill``: tokens, repeat -> seconds of each repetition
- ``decode``: tokens, repeat, start -> seconds of each repetition of that many single steps behind `start`
"""

import ctypes
import json
import sys
import time
from typing import Any

import llama_cpp as lc
import numpy as np


@lc.llama_log_callback
def _silent(level: int, text: bytes, data: Any) -> None:
    if level == 4:  # errors
        sys.stderr.write(text.decode("utf-8", "replace"))


class Peer:
    """One model and one context."""

    def __init__(self) -> None:
        self.model: Any = None
        self.context: Any = None
        self.path = ""

    def open(self, model: str, context: int, ubatch: int, threads: int, flash: bool) -> dict[str, Any]:
        """Make the context that later requests use."""
        if self.context is not None:
            lc.llama_free(self.context)
        if self.path != model:
            params = lc.llama_model_default_params()
            params.n_gpu_layers = 0
            self.model = lc.llama_model_load_from_file(model.encode(), params)
            if not self.model:
                raise SystemExit(f"llama.cpp cannot load {model}")
            self.path = model
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, context, ubatch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1 if flash else 0
        params.no_perf = True
        self.context = lc.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context")
        self.length = context
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.model))
        self.batch = lc.llama_batch_init(context, 0, 1)
        return {"version": lc.__version__, "system": lc.llama_print_system_info().decode()}

    def tokenize(self, text: str) -> dict[str, Any]:
        """Token ids of a text."""
        raw = text.encode()
        out = (lc.llama_token * (len(raw) + 16))()
        count = lc.llama_tokenize(
            lc.llama_model_get_vocab(self.model), raw, len(raw), out, len(out), False, False
        )
        return {"ids": list(out[:count])}

    def _fill(self, ids: np.ndarray, start: int, all_logits: bool) -> None:
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i] = int(token)
            self.batch.pos[i] = start + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = all_logits or i == len(ids) - 1

    def _clear(self) -> None:
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)

    def _decode(self) -> None:
        if lc.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama.cpp could not decode")

    def score(self, ids: str, windows: int, out: str) -> dict[str, Any]:
        """Log-probabilities of windows of ids, as `edgellm.Model.perplexity` scores them."""
        tokens = np.load(ids)
        logprob = np.empty((windows, self.length - 1))
        top = np.empty((windows, self.length - 1), np.int32)
        for w in range(windows):
            window = tokens[w * self.length : (w + 1) * self.length]
            self._clear()
            self._fill(window, 0, True)
            self._decode()
            raw = lc.llama_get_logits(self.context)
            rows = np.ctypeslib.as_array(
                ctypes.cast(raw, ctypes.POINTER(ctypes.c_float)), (self.length, self.vocab)
            )[:-1].astype(np.float64)
            peak = rows.max(axis=1, keepdims=True)
            total = np.log(np.exp(rows - peak).sum(axis=1)) + peak[:, 0]
            logprob[w] = rows[np.arange(self.length - 1), window[1:]] - total
            top[w] = rows.argmax(axis=1)
        np.savez(out, logprob=logprob, top=top)
        return {}

    def prefill(self, tokens: int, repeat: int) -> dict[str, Any]:
        """Time of one evaluation of `tokens` tokens, from an empty cache."""
        ids = np.arange(tokens) % (self.vocab - 1000) + 500
        seconds = []
        for _ in range(repeat):
            self._clear()
            self._fill(ids, 0, False)
            begin = time.perf_counter()
            self._decode()
            lc.llama_synchronize(self.context)
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds}

    def decode(self, tokens: int, repeat: int, start: int) -> dict[str, Any]:
        """Time of `tokens` steps of one token behind a prompt of `start` tokens."""
        ids = np.arange(start + tokens) % (self.vocab - 1000) + 500
        seconds = []
        for _ in range(repeat):
            self._clear()
            self._fill(ids[:start], 0, False)
            self._decode()
            begin = time.perf_counter()
            for i in range(start, start + tokens):
                self._fill(ids[i : i + 1], i, True)
                self._decode()
                lc.llama_get_logits(self.context)
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds}


def main() -> None:
    """Answer requests until standard input ends."""
    lc.llama_log_set(_silent, ctypes.c_void_p(0))
    lc.llama_backend_init()
    peer = Peer()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(peer, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
