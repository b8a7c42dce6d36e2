"""How good each model variant of a study is: measured by our engine, or cited and labelled so.

Measured means: the quantized model is really run over an evaluation text, and three things are kept per
scored position: the log-probability of the observed token, the most probable token, and its probability.
From them come the perplexity, the top-1 agreement with the file as it was published, and the distribution of
confidence that `req.confidence(model)` draws from. The engine is used through its public names only.

Notes
-----
Perplexity: windows of `context` tokens, stride `context`, every token after the first of a window scored;
exp(-mean(ln p(observed))). Source: DESIGN.md section 4, as `Model.perplexity`.
Confidence of an answer: the geometric mean of the top-1 probability over `CONFIDENCE_TOKENS` positions
in a row.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

METHOD = 1  # version of what is computed here: part of the cache key
CONFIDENCE_TOKENS = 32  # positions in one "answer"
CONFIDENCE_STRIDE = 8
QUANTILES = 101
MODES = ("measure", "cached", "refresh", "off")
BUILT_IN_TEXTS = ("smart_home", "tinyshakespeare")
MIN_TOKENS = 64


class QualityError(RuntimeError):
    """A quality that a study needs could not be had; the message names the model and says what to do."""


class Engine(Protocol):
    """The part of `edgellm` that is used here; tests pass a small fake."""

    __numerics__: Any

    def load(self, path: Path) -> Any: ...
    def convert(self, src: Path, dst: Path, *, quant: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Text:
    """An evaluation text and how it is to be used."""

    name: str
    content: str
    tokens: int  # at most so many are used
    context: int  # window, in tokens
    kv: str  # KV cache type

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of one model variant.

    Attributes
    ----------
    variant : str
        Name of the variant in the scenario.
    perplexity, perplexity_se : float
        On the evaluation text, and its standard error (from the spread over positions). NaN if unknown.
    agreement, agreement_se : float
        Share of positions whose most probable token is that of the published file; 1 for that file itself.
    scored : int
        Positions scored; 0 if not measured.
    label : str
        "measured", "measured, requantized from Q4_1", "cited: ...", or "not measured: ...".
    confidence : tuple of float
        `QUANTILES` sorted quantiles of the confidence of an answer, in [0, 1].
    confidence_label : str
        "measured", or "guess: uniform on [0, 1]".
    """

    variant: str
    perplexity: float = math.nan
    perplexity_se: float = math.nan
    agreement: float = math.nan
    agreement_se: float = math.nan
    scored: int = 0
    label: str = "not measured"
    confidence: tuple[float, ...] = tuple(float(v) for v in np.linspace(0.0, 1.0, QUANTILES))
    confidence_label: str = "guess: uniform on [0, 1]"

    @property
    def measured(self) -> bool:
        """Whether the engine measured it in this study (or a cached study with the same inputs)."""
        return self.scored > 0

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold: NaN becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Quality":
        """Undo `to_json`."""
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in data.items()}
        return cls(**values | {"confidence": tuple(data["confidence"])})


@dataclass(frozen=True, slots=True)
class Scores:
    """What is kept of one pass over the text.

    Attributes
    ----------
    nll : (n,) ndarray of float64
        -ln p(observed token), one per scored position.
    top1 : (n,) ndarray of int64
        Most probable token; the lowest id among equals.
    top1_probability : (n,) ndarray of float64
    """

    nll: NDArray[np.float64]
    top1: NDArray[np.int64]
    top1_probability: NDArray[np.float64]


def read_text(name: str, folder: Path | None = None) -> str:
    """Return an evaluation text: one of `BUILT_IN_TEXTS`, or a UTF-8 file.

    Parameters
    ----------
    name : str
        Name of a built-in text, or a path; a relative one starts from `folder`.
    folder : Path or None
        Folder of the scenario file.

    Raises
    ------
    QualityError
        If there is no such text or it is not UTF-8.

    Examples
    --------
    >>> read_text("tinyshakespeare")[:14]
    'First Citizen:'
    """
    path = (
        Path(__file__).parent / "data" / f"{name}.txt"
        if name in BUILT_IN_TEXTS
        else (folder or Path()) / name
    )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise QualityError(f"quality.text: {path} is not UTF-8 text") from None
    except OSError as error:
        known = ", ".join(BUILT_IN_TEXTS)
        raise QualityError(
            f"quality.text: cannot read {name!r} ({error.strerror}); built in: {known}"
        ) from None


def score(
    model: Any, ids: Sequence[int], context: int, kv: str, tick: Callable[[int], object] | None = None
) -> Scores:
    """Run a model over token ids and keep what quality needs.

    Parameters
    ----------
    model : edgellm.Model
    ids : sequence of int
        At least 2.
    context : int
        Window, in tokens, >= 2.
    kv : str
        KV cache type.
    tick : callable or None
        Told how many tokens are done after each window.

    Returns
    -------
    Scores
        n = len(ids) minus the number of windows.

    Raises
    ------
    QualityError
        If a logit is not finite.
    """
    nll: list[NDArray[np.float64]] = []
    top1: list[NDArray[np.int64]] = []
    prob: list[NDArray[np.float64]] = []
    session = model.session(context=context, kv=kv)
    for start in range(0, len(ids), context):
        window = list(ids[start : start + context])
        if len(window) < 2:
            break
        session.truncate(0)
        logits = np.asarray(session.eval(window, logits="all"))[:-1]  # (len(window) - 1, v)
        observed = np.asarray(window[1:])
        for row in range(0, len(observed), 64):  # in slices, so that temporaries stay small
            part, want = logits[row : row + 64], observed[row : row + 64]
            best = part.argmax(axis=1)
            index = np.arange(len(want))
            peak = part[index, best]
            log_sum = np.log(np.exp(part - peak[:, None]).sum(axis=1, dtype=np.float64))
            nll.append(log_sum - (part[index, want].astype(np.float64) - peak))
            top1.append(best.astype(np.int64))
            prob.append(np.exp(-log_sum))
        if tick is not None:
            tick(len(window))
    scores = Scores(np.concatenate(nll), np.concatenate(top1), np.concatenate(prob))
    if not np.all(np.isfinite(scores.nll)):
        raise QualityError("the model gave logits that are not finite on the evaluation text")
    return scores


def confidence_quantiles(top1_probability: NDArray[np.float64]) -> tuple[float, ...]:
    """Return sorted quantiles of the confidence of an answer.

    Parameters
    ----------
    top1_probability : (n,) ndarray of float64
        Probability of the most probable token at each position, in (0, 1].

    Returns
    -------
    tuple of `QUANTILES` floats
        Of the geometric mean over windows of `CONFIDENCE_TOKENS` (all of them if n is smaller), every
        `CONFIDENCE_STRIDE` positions; rounded to 4 decimals, because NumPy's exp is not canonical.

    Examples
    --------
    >>> confidence_quantiles(np.full(64, 0.25))[50]
    0.25
    """
    width = min(CONFIDENCE_TOKENS, len(top1_probability))
    logs = np.log(top1_probability)
    starts = range(0, len(logs) - width + 1, CONFIDENCE_STRIDE)
    means = np.exp([float(logs[s : s + width].mean()) for s in starts])
    points = np.quantile(means, np.linspace(0.0, 1.0, QUANTILES))
    return tuple(round(float(v), 4) for v in points)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return where measurements are kept: `cache_dir`, else edgellm/quality under the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir)
    from edgellm import models

    return models.cache_folder().with_name("quality")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_key(model_sha256: str, quant: str, text: Text, numerics: object) -> str:
    """Return the name of a measurement: it depends on everything that could change its result."""
    parts = {
        "method": METHOD,
        "model_sha256": model_sha256,
        "quant": quant,
        "text_sha256": text.sha256,
        "tokens": text.tokens,
        "context": text.context,
        "kv": text.kv,
        "numerics": str(numerics),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary file in the same folder, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_record(path: Path) -> dict[str, Any] | None:
    # A record that cannot be used, for whatever reason, is one that is not there.
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        arrays = (
            np.asarray(record["top1"], dtype=np.int64),
            np.asarray(record["confidence"], dtype=np.float64),
        )
        numbers = float(record["nll"]) + float(record["nll_se"])
        usable = arrays[0].ndim == 1 and arrays[0].size > 0 and arrays[1].shape == (QUANTILES,)
        return record if usable and math.isfinite(numbers) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measure_record(
    engine: Engine, weights: Path, quant: str, shipped: str, text: Text, tick: Callable[[int], object] | None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgellm-quality-") as folder:
        path = weights
        if quant != shipped:
            path = Path(folder) / f"{weights.stem}.{quant}.gguf"
            engine.convert(weights, path, quant=quant)
        model = engine.load(path)
        try:
            ids = model.tokenizer.encode(text.content)[: text.tokens]
            if len(ids) < MIN_TOKENS:
                raise QualityError(
                    f"quality.text: {text.name!r} has {len(ids)} tokens, fewer than {MIN_TOKENS}"
                )
            scores = score(model, ids, text.context, text.kv, tick)
        finally:
            model.close()
    return {
        # rounded: NumPy's exp is not canonical, its last bits may differ between machines
        "nll": round(float(scores.nll.mean()), 6),
        "nll_se": round(float(scores.nll.std(ddof=1) / math.sqrt(len(scores.nll))), 6),
        "top1": scores.top1.tolist(),
        "confidence": list(confidence_quantiles(scores.top1_probability)),
    }


@dataclass(frozen=True, slots=True)
class Wanted:
    """One variant whose quality is to be measured."""

    variant: str
    weights: Path
    quant: str  # as GGUF users write it, lower case
    shipped: str  # quantization of the weights file


def measure(
    wanted: Iterable[Wanted],
    text: Text,
    *,
    engine: Engine,
    mode: str = "measure",
    cache_dir: str | Path | None = None,
    tick: Callable[[int], object] | None = None,
) -> dict[str, Quality]:
    """Measure variants on a text; what was measured before is taken from the cache.

    Parameters
    ----------
    wanted : iterable of Wanted
    text : Text
    engine : Engine
        The `edgellm` package.
    mode : {"measure", "cached", "refresh"}
        "cached" never runs a model; "refresh" ignores what is cached.
    cache_dir : path or None
        See `cache_folder`.
    tick : callable or None
        Progress, in tokens; cached measurements count, too.

    Returns
    -------
    dict of str to Quality
        In "cached" mode, variants that were never measured are labelled "not measured".
    """
    folder = cache_folder(cache_dir)
    hashes: dict[Path, str] = {}
    records: dict[tuple[Path, str], dict[str, Any] | None] = {}

    def record_of(weights: Path, quant: str, shipped: str) -> dict[str, Any] | None:
        if (weights, quant) in records:
            return records[weights, quant]
        if weights not in hashes:
            hashes[weights] = file_sha256(weights)
        path = folder / f"{cache_key(hashes[weights], quant, text, engine.__numerics__)}.json"
        record = None if mode == "refresh" else _read_record(path)
        if record is None and mode != "cached":
            record = _measure_record(engine, weights, quant, shipped, text, tick)
            write_atomically(path, json.dumps(record, sort_keys=True).encode())
        elif tick is not None:
            tick(text.tokens)
        records[weights, quant] = record
        return record

    out: dict[str, Quality] = {}
    for want in wanted:
        published = record_of(want.weights, want.shipped, want.shipped)
        record = record_of(want.weights, want.quant, want.shipped)
        if record is None:
            out[want.variant] = Quality(want.variant, label="not measured: nothing cached")
            continue
        quality = _quality_of(want.variant, record, published)
        if want.quant != want.shipped:
            quality = replace(quality, label=f"measured, requantized from {want.shipped.upper()}")
        out[want.variant] = quality
    return out


def _quality_of(variant: str, record: dict[str, Any], published: dict[str, Any] | None) -> Quality:
    ours = np.asarray(record["top1"])
    agreement = math.nan
    if published is not None and len(published["top1"]) == len(ours):
        agreement = float(np.mean(ours == np.asarray(published["top1"])))
    perplexity = math.exp(record["nll"])
    return Quality(
        variant=variant,
        perplexity=perplexity,
        perplexity_se=perplexity * record["nll_se"],  # delta method
        agreement=agreement,
        agreement_se=math.sqrt(max(agreement * (1 - agreement), 0.0) / len(ours)),
        scored=len(ours),
        label="measured",
        confidence=tuple(record["confidence"]),
        confidence_label="measured",
    )
