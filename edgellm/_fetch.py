"""Bring one file from an address to this machine: resumed after a break, one at a time, nothing half-written.

Nothing here knows what the file is for. Addresses come from the user or from pip; the rooms above check
the content against a SHA-256.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from edgellm._progress import Progress, amount_text

CHUNK_BYTES = 1 << 18
TRIES = 4  # in a row without a new byte, before a download gives up


class ModelError(Exception):
    """A model cannot be had: not known, not reachable, damaged, or its terms were not accepted."""


class Refused(ModelError):
    """The server answered, and the answer was no: another client may have the right to ask."""


class _Redirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise ModelError(f"{plain_address(req.full_url)} sends us on to an address that is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener(certificates: str | None = None, proxy: str | None = None) -> urllib.request.OpenerDirector:
    """Make an opener with the user's certificates and proxy; it never steps down from https.

    Parameters
    ----------
    certificates : str or None
        A file or folder of trusted certificates; None takes those of the system.
    proxy : str or None
        Address of a proxy; None takes the environment's (``HTTPS_PROXY`` and the like).

    Raises
    ------
    ModelError
        If `certificates` cannot be read.
    """
    try:
        context = ssl.create_default_context()
        if certificates:
            folder = os.path.isdir(certificates)
            context.load_verify_locations(
                cafile=None if folder else certificates, capath=certificates if folder else None
            )
    except (OSError, ssl.SSLError) as error:
        raise ModelError(f"the certificates in {certificates} cannot be read: {error}") from None
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context), _Redirect()]
    if proxy:
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    made = urllib.request.build_opener(*handlers)
    made.addheaders = [("User-Agent", "edgellm")]
    return made


def plain_address(url: str) -> str:
    """Return an address without the name, password and query that it may carry.

    Examples
    --------
    >>> plain_address("https://me:secret@host.example/a/b.whl?token=1")
    'https://host.example/a/b.whl'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def download(
    url: str,
    part: Path,
    *,
    title: str,
    limit_bytes: int,
    shown: bool = True,
    by: urllib.request.OpenerDirector | None = None,
) -> None:
    """Download `url` into `part`, continuing behind the bytes that are already there.

    Parameters
    ----------
    url : str
        An http or https address.
    part : Path
        The file to fill; what is in it is taken as the beginning of the download. The caller checks its
        SHA-256 afterwards.
    title : str
        Name for the progress display.
    limit_bytes : int
        A download that would grow past this is refused.
    shown : bool
        Whether to show progress.
    by : urllib.request.OpenerDirector or None
        Made by `opener`; None makes the default one.

    Raises
    ------
    Refused
        If the server says no.
    ModelError
        If the connection breaks again and again; `part` keeps what had come.
    """
    by = by or opener()
    failures = 0
    while True:
        before = _size(part)
        try:
            if _download_once(url, part, title, limit_bytes, shown, by):
                return
            reason: object = "the connection closed early"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise Refused(f"{plain_address(url)}: the server said {error.code} {error.reason}") from None
            reason = f"the server said {error.code} {error.reason}"
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise Refused(f"{plain_address(url)}: its certificate is not trusted here") from None
            reason = error.reason
        except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = error or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
        if failures >= TRIES:
            have = amount_text(_size(part), None, "B")
            raise ModelError(
                f"{plain_address(url)} cannot be downloaded: {reason} ({have} kept; the next try continues)"
            )
        time.sleep(0.2 * 2**failures)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _download_once(
    url: str, part: Path, title: str, limit_bytes: int, shown: bool, by: urllib.request.OpenerDirector
) -> bool:
    """Ask for what is missing and append it; True when all of it is there."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = by.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing behind our last byte: whole, or not of this file
            if _total_of_range(error.headers) == have:
                return True
            part.unlink()
            return False
        raise
    with answer:
        if have and not (answer.status == 206 and _start_of_range(answer.headers) == have):
            if answer.status == 206:
                part.unlink()
                return False
            have = 0  # this server cannot continue: from the beginning
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdigit() else None
        if (total or 0) > limit_bytes:
            raise ModelError(f"{plain_address(url)} holds {total} bytes: more than {limit_bytes}")
        if total is not None:
            require_space(part.parent, total - have)
        bar = Progress(title, total, start=have, shown=shown)
        with open(part, "ab" if have else "wb") as out, bar:
            while chunk := answer.read(CHUNK_BYTES):
                have += len(chunk)
                if have > limit_bytes:
                    raise ModelError(f"{plain_address(url)} sends more than {limit_bytes} bytes")
                out.write(chunk)
                bar.advance(len(chunk))
    return total is None or have == total


def _start_of_range(headers: Message) -> int | None:
    unit, _, rest = headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else None


def _total_of_range(headers: Message) -> int | None:
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise ModelError unless `folder` has room for `needed_bytes` more."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise ModelError(
            f"{folder} has {free_bytes / 1e6:.0f} MB left, and {needed_bytes / 1e6:.0f} MB are needed"
        )


def sha256_of(path: Path, *, title: str = "", shown: bool = False) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file, Progress(title, _size(path), shown=shown) as bar:
        while chunk := file.read(CHUNK_BYTES * 4):
            digest.update(chunk)
            bar.advance(len(chunk))
    return digest.hexdigest()


@contextlib.contextmanager
def temporary(folder: Path, suffix: str = ".tmp") -> Iterator[tuple[IO[bytes], Path]]:
    """Open a new file in `folder` that is gone afterwards, unless it was renamed.

    Yields
    ------
    file, path : binary file, Path
    """
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-", suffix=suffix)
    path = Path(name)
    try:
        with open(descriptor, "wb") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def only_one(path: Path, waiting: str = "", poll_s: float = 0.1) -> Iterator[None]:
    """Hold the lock of the file `path`: a second process, or thread, waits here until the first has left.

    `waiting` is what to say on standard error when there is a wait.
    """
    with open(path, "a+b") as file:
        said = False
        while not _try_lock(file):
            if waiting and not said:
                print(waiting, file=sys.stderr, flush=True)
                said = True
            time.sleep(poll_s)
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
