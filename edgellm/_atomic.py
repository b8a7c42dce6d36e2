"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside `path`, and rename it once it is complete and on disk.

    If the body raises (Ctrl-C included), the temporary file goes and `path` stays as it was.

    Parameters
    ----------
    path : path-like
        Where the file is to appear; an existing file is replaced in one step.

    Yields
    ------
    file : binary file
        Open for writing.

    Raises
    ------
    OSError
        If the folder does not exist or is not writable, `path` is a folder, or the disk is full.

    Examples
    --------
    >>> with replacing("answer.bin") as file:
    ...     _ = file.write(b"42")
    >>> open("answer.bin", "rb").read()
    b'42'
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target}: is a folder")
    if target.is_symlink():
        target = target.resolve()
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    file = open(part, "xb")  # noqa: SIM115  # closed before the rename, and on any way out
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(part, target)
    except BaseException:
        file.close()
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; file systems that cannot are left as they are."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
