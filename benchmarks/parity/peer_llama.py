"""llama.cpp behind the pipe of `serving.py`; runs in an environment with llama-cpp-python (see README.md).

Nothing of edgellm is imported: this is the other side of a comparison. Requests, by their "do" (ids are lists
of token ids, times are those of `serving.timed`):

- ``open``: model, context, ubatch, threads, flash, repack, mmap, sequences, cpus, kv ("f16" or "f32") -> the
  context is replaced by a new one, the model only if it or how it is held changes
- ``tokenize``: text, special -> ids (no special tokens parsed, and added only where `special` is set)
- ``score``: ids (.npy), windows, out (.npz) -> per window of `context` tokens, log-probability of every
  token after the first and the most likely token at its place
- ``logits``: ids, out (.npy) -> (tokens, vocab) float32 logits of one sequence
- ``prefill``, ``decode``, ``batch``, ``load``: as in peer_edgellm.py
- ``quantize``: source, target, ftype, pure -> llama.cpp's own quantizer
- ``memory``: -> resident bytes
"""

import ctypes
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from serving import pin, serve, timed

NEWEST_POLL = 50  # ggml's own default: a waiting thread spins for a while, then sleeps
MAPPED, READ = 1, 0  # LLAMA_LOAD_MODE_MMAP, LLAMA_LOAD_MODE_NONE
CACHE_TYPES = {"f32": 0, "f16": 1}  # enum ggml_type


class ThreadpoolParams(ctypes.Structure):
    """ggml_threadpool_params of ggml.h."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class Peer:
    """One model and one context."""

    def __init__(self) -> None:
        self.lc: Any = None
        self.model: Any = None
        self.context: Any = None
        self.pool: Any = None
        self.held: tuple[Any, ...] = ()
        self.buffers: dict[str, float] = {}

    def _library(self) -> Any:
        """llama_cpp, imported by the first request that needs it: what a process held before is known."""
        if self.lc is None:
            import llama_cpp as lc

            @lc.llama_log_callback
            def heard(level: int, text: bytes, data: Any) -> None:
                if level == 4:  # errors
                    sys.stderr.write(text.decode("utf-8", "replace"))
                elif b"model buffer size" in text:
                    name, _, size = text.decode("utf-8", "replace").partition("model buffer size =")
                    self.buffers[name.split()[-1]] = float(size.split()[0])

            self.lc, self._heard = lc, heard
            lc.llama_log_set(heard, ctypes.c_void_p(0))
            lc.llama_backend_init()
        return self.lc

    def about(self) -> dict[str, Any]:
        """Version, and what it was built for."""
        lc = self._library()
        return {"version": lc.__version__, "system": lc.llama_print_system_info().decode()}

    def _load(self, model: str, repack: bool, mmap: bool) -> Any:
        lc = self._library()
        params = lc.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = repack  # what its command line tools do unless told --no-repack
        params.load_mode = MAPPED if mmap else READ
        self.buffers = {}
        loaded = lc.llama_model_load_from_file(model.encode(), params)
        if not loaded:
            raise SystemExit(f"llama.cpp cannot load {model}")
        return loaded

    def _context(
        self, model: Any, context: int, ubatch: int, threads: int, flash: bool, count: int, kv: str = "f16"
    ) -> Any:
        lc = self._library()
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context * count, count
        params.n_batch, params.n_ubatch = max(context, ubatch), ubatch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1 if flash else 0
        params.type_k = params.type_v = CACHE_TYPES[kv]
        params.no_perf = True
        made = lc.llama_init_from_model(model, params)
        if not made:
            raise SystemExit("llama.cpp cannot make a context")
        return made

    def _attach_threads(self, threads: int) -> None:
        """Give the context threads that stay, as llama.cpp's tools do; else each graph starts new ones."""
        ggml = ctypes.CDLL(self._beside("libggml-base"))
        cpu = ctypes.CDLL(self._beside("libggml-cpu"))
        ggml.ggml_threadpool_params_init.argtypes = [ctypes.POINTER(ThreadpoolParams), ctypes.c_int]
        cpu.ggml_threadpool_new.argtypes = [ctypes.POINTER(ThreadpoolParams)]
        cpu.ggml_threadpool_new.restype = ctypes.c_void_p
        cpu.ggml_threadpool_free.argtypes = [ctypes.c_void_p]
        attach = self.lc.llama_cpp._lib.llama_attach_threadpool
        attach.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        attach.restype = None
        params = ThreadpoolParams()
        ggml.ggml_threadpool_params_init(params, threads)
        if (params.n_threads, params.poll) != (threads, NEWEST_POLL):
            raise SystemExit("ggml_threadpool_params has another layout than this script knows")
        self.pool = cpu.ggml_threadpool_new(params)
        attach(self.context, self.pool, self.pool)
        self._free_pool = cpu.ggml_threadpool_free

    def _beside(self, stem: str) -> str:
        from pathlib import Path

        folder = Path(self.lc.__file__).parent / "lib"
        return str(next(path for path in sorted(folder.iterdir()) if path.name.startswith(stem)))

    def open(
        self,
        model: str,
        context: int,
        ubatch: int,
        threads: int,
        flash: bool = True,
        repack: bool = False,
        mmap: bool = True,
        sequences: int = 1,
        cpus: Iterable[int] | None = None,
        stay: bool = True,
        kv: str = "f16",
    ) -> dict[str, Any]:
        """Make the context that later requests use."""
        lc = self._library()
        self._drop_context()
        pin(cpus)
        if self.held != (model, repack, mmap):
            self.close()
            self.model = self._load(model, repack, mmap)
            self.held = (model, repack, mmap)
        self.context = self._context(self.model, context, ubatch, threads, flash, sequences, kv)
        if threads > 1 and stay:
            self._attach_threads(threads)
        self.length, self.sequences = context, sequences
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.model))
        self.batch_ = lc.llama_batch_init(max(context, sequences), 0, 1)
        return {**self.about(), "buffers_mib": self.buffers}

    def _drop_context(self) -> None:
        if self.context is not None:
            self.lc.llama_batch_free(self.batch_)
            self.lc.llama_free(self.context)
            self.context = None
        if self.pool is not None:
            self._free_pool(self.pool)
            self.pool = None

    def close(self) -> dict[str, Any]:
        """Free model and context."""
        self._drop_context()
        if self.model is not None:
            self.lc.llama_model_free(self.model)
            self.model, self.held = None, ()
        return {}

    def tokenize(self, text: str, special: bool = False) -> dict[str, Any]:
        """Token ids of a text; `special` adds what the model expects around one."""
        raw = text.encode()
        out = (self.lc.llama_token * (len(raw) + 16))()
        vocab = self.lc.llama_model_get_vocab(self.model)
        count = self.lc.llama_tokenize(vocab, raw, len(raw), out, len(out), special, False)
        return {"ids": list(out[:count])}

    def _fill(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Set the batch to (token, position, sequence, whether logits are wanted) of each row."""
        batch = self.batch_
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted

    def _fill_prompt(self, ids: Sequence[int], sequence: int = 0, all_logits: bool = False) -> None:
        last = len(ids) - 1
        self._fill([(int(t), i, sequence, all_logits or i == last) for i, t in enumerate(ids)])

    def _clear(self) -> None:
        self.lc.llama_memory_clear(self.lc.llama_get_memory(self.context), True)

    def _decode(self) -> None:
        if self.lc.llama_decode(self.context, self.batch_) != 0:
            raise SystemExit("llama.cpp could not decode")

    def _decode_and_wait(self) -> None:
        self._decode()
        self.lc.llama_get_logits(self.context)  # waits for the result

    def _logits(self, rows: int) -> np.ndarray:
        raw = self.lc.llama_get_logits(self.context)
        return np.ctypeslib.as_array(ctypes.cast(raw, ctypes.POINTER(ctypes.c_float)), (rows, self.vocab))

    def logits(self, ids: list[int], out: str) -> dict[str, Any]:
        """Logits of one sequence, from an empty cache."""
        self._clear()
        self._fill_prompt(ids, all_logits=True)
        self._decode()
        np.save(out, self._logits(len(ids)))
        return {}

    def score(self, ids: str, windows: int, out: str) -> dict[str, Any]:
        """Log-probabilities of windows of ids, as `edgellm.Model.perplexity` scores them."""
        tokens = np.load(ids)
        logprob = np.empty((windows, self.length - 1))
        top = np.empty((windows, self.length - 1), np.int32)
        for w in range(windows):
            window = tokens[w * self.length : (w + 1) * self.length]
            self._clear()
            self._fill_prompt(window, all_logits=True)
            self._decode()
            rows = self._logits(self.length)
            for at in range(self.length - 1):  # row by row: a vocabulary may have 262,144 tokens
                row = rows[at].astype(np.float64)
                peak = row.max()
                total = np.log(np.exp(row - peak).sum()) + peak
                logprob[w, at] = row[window[at + 1]] - total
                top[w, at] = row.argmax()
        np.savez(out, logprob=logprob, top=top)
        return {}

    def prefill(self, ids: list[int]) -> dict[str, float]:
        """Time one evaluation of a prompt, from an empty cache."""
        self._clear()
        self._fill_prompt(ids)
        return timed(self._decode_and_wait)

    def decode(self, ids: list[int], start: int) -> dict[str, float]:
        """Time single steps behind the start of a prompt."""
        self._clear()
        self._fill_prompt(ids[:start])
        self._decode_and_wait()

        def steps() -> None:
            for i in range(start, len(ids)):
                self._fill(((ids[i], i, 0, True),))
                self._decode_and_wait()

        return timed(steps)

    def batch(self, ids: list[int], start: int, steps: int) -> dict[str, float]:
        """Time steps of all sequences together; sequence i has the prompt shifted by i."""
        self._clear()
        for i in range(self.sequences):
            self._fill_prompt(ids[i : i + start], sequence=i)
            self._decode_and_wait()

        def work() -> None:
            for step in range(start, start + steps):
                self._fill([(ids[step + i], step, i, True) for i in range(self.sequences)])
                self._decode_and_wait()

        return timed(work)

    def load(
        self, model: str, threads: int, repeat: int, context: int, repack: bool, mmap: bool
    ) -> dict[str, Any]:
        """Time loads of a file; with the context it is ready for the first token."""
        self.close()
        loads, ready = [], []
        for _ in range(repeat):
            held: list[Any] = []
            load = timed(lambda held=held: held.append(self._load(model, repack, mmap)))  # type: ignore[misc]  # a default argument binds the list of this turn
            made = timed(
                lambda held=held: held.append(self._context(held[0], context, 512, threads, True, 1))  # type: ignore[misc]  # as above
            )
            self.lc.llama_free(held[1])
            self.lc.llama_model_free(held[0])
            loads.append(load)
            ready.append({key: load[key] + made[key] for key in load})
        return {"load": loads, "ready": ready}

    def quantize(self, source: str, target: str, ftype: int, pure: bool, threads: int) -> dict[str, Any]:
        """Write a GGUF in another format. `ftype` is one of enum llama_ftype."""
        lc = self._library()
        params = lc.llama_model_quantize_default_params()
        params.ftype, params.pure, params.nthread = ftype, pure, threads
        status = lc.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
        if status != 0:
            raise SystemExit(f"llama.cpp cannot quantize {source} (status {status})")
        return {}


if __name__ == "__main__":
    serve(Peer())
