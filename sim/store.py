"""Runs in Parquet files: one file for a study, or a folder with one file for each run.

Everything is written to a temporary file and renamed, so that what a killed process leaves behind can be
read. Columns are read when they are asked for: a study of a hundred million requests fits into memory.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.sim.columns import REQUEST_COLUMNS, SCHEMA
from edgellm.sim.extras import require
from edgellm.sim.quality import write_atomically
from edgellm.sim.runs import OF_RUN, Run

_META = b"edgellm.study"
_KINDS = {column.name: column.kind for column in REQUEST_COLUMNS}
_STUDY_FILE = "study.json"
_ROW_GROUP = 1 << 20


class StudyError(ValueError):
    """A study that cannot be made, read or shown as asked; the message says why."""


class Columns(Mapping[str, NDArray[Any]]):
    """The columns of rows `start` to `stop` of a Parquet file, each read anew when it is asked for."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.path, self.start, self.stop = path, start, stop

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in _KINDS or name in OF_RUN:
            raise KeyError(name)
        return read_column(self.path, name, self.start, self.stop)

    def __iter__(self) -> Iterator[str]:
        return (name for name in _KINDS if name not in OF_RUN)

    def __len__(self) -> int:
        return len(_KINDS) - len(OF_RUN)


def read_column(path: Path, name: str, start: int, stop: int) -> NDArray[Any]:
    """Return rows `start` to `stop` of one column; equal texts are one object.

    Raises
    ------
    StudyError
        If the file has gone or is damaged.
    """
    pa, parquet = require("pyarrow"), require("pyarrow.parquet")
    texts = [name] if _KINDS[name] == "str" else []
    try:
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            groups: list[int] = []
            first = at = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if at < stop and at + rows > start:
                    first = at if not groups else first
                    groups.append(group)
                at += rows
            chunks = file.read_row_groups(groups, columns=[name]).column(0)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StudyError(f"{path}: cannot be read any more: {str(error).splitlines()[0]}") from None
    part = chunks.slice(start - first, stop - start)
    if not texts:
        return np.asarray(part.to_numpy())
    decoded = [_decoded(chunk) for chunk in part.chunks]
    return np.concatenate(decoded) if decoded else np.empty(0, dtype=object)


def _decoded(chunk: Any) -> NDArray[Any]:
    values = np.array([*chunk.dictionary.to_pylist(), ""], dtype=object)
    found: NDArray[Any] = values[chunk.indices.to_numpy()]
    return found


def write_runs(path: Path, runs: Iterable[Run], metadata: Mapping[str, Any]) -> None:
    """Write runs to one Parquet file, one after the other, with the metadata of a study.

    The same runs give the same bytes, with the same version of pyarrow.
    """
    pa, parquet = require("pyarrow"), require("pyarrow.parquet")
    types = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
    schema = pa.schema(
        [pa.field(c.name, types[c.kind], nullable=False) for c in REQUEST_COLUMNS],
        metadata={_META: json.dumps(metadata, allow_nan=False)},
    )
    texts = [c.name for c in REQUEST_COLUMNS if c.kind == "str"]
    with (
        _replacing(path) as temporary,
        parquet.ParquetWriter(
            temporary, schema, compression="zstd", compression_level=3, version="2.6",
            data_page_version="1.0", use_dictionary=texts,
        ) as writer,
    ):  # fmt: skip
        for run in runs:
            count = len(run.requests["id"])
            for at in range(0, count, _ROW_GROUP):
                rows = slice(at, min(at + _ROW_GROUP, count))
                arrays = [_array(pa, run, c.name, types[c.kind], rows) for c in REQUEST_COLUMNS]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_ROW_GROUP)


def _array(pa: Any, run: Run, name: str, kind: Any, rows: slice) -> Any:
    if name in OF_RUN:
        return pa.repeat(pa.scalar(getattr(run, name), kind), rows.stop - rows.start)
    return pa.array(run.requests[name][rows], kind)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def run_record(run: Run) -> dict[str, Any]:
    """Return what is kept of a run beside its rows; JSON types only."""
    return {
        "strategy": run.strategy, "base_model": run.base_model, "seed": run.seed,
        "requests": len(run.requests["id"]), "nodes": run.nodes, "links": run.links,
        "simulated_s": run.simulated_s, "events": run.events, "trace": run.trace,
    }  # fmt: skip


def read_file(path: Path) -> tuple[dict[str, Any], tuple[Run, ...]]:
    """Return the metadata and the runs of a file that `write_runs` wrote; rows stay where they are.

    Raises
    ------
    StudyError
        If the file cannot be read, is no study, or has another schema version.
    """
    pa, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            data = json.loads((file.schema_arrow.metadata or {})[_META])
            check_schema(path, data)
            missing = set(_KINDS) - set(file.schema_arrow.names)
            if missing:
                raise StudyError(f"{path}: not a study of edgellm (no column {min(missing)!r} in it)")
            seeds = file.read(columns=["seed"]).column(0).to_numpy()
        runs, start = [], 0
        for record in data["runs"]:
            stop = start + int(record["requests"])
            if not np.all(seeds[start:stop] == record["seed"]):
                raise StudyError(f"{path}: rows do not match the runs of the metadata")
            own = {k: v for k, v in record.items() if k != "requests"}
            runs.append(Run(requests=Columns(Path(path), start, stop), **own))
            start = stop
        if start != len(seeds):
            raise StudyError(f"{path}: {len(seeds)} rows, the metadata has {start}")
        return data, tuple(runs)
    except StudyError:
        raise
    except KeyError as error:
        raise StudyError(f"{path}: not a study of edgellm (no {error.args[0]!r} in it)") from None
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise StudyError(f"{path}: cannot be read as a study: {str(error).splitlines()[0]}") from None


def check_schema(path: Path, data: Mapping[str, Any]) -> None:
    """Refuse a study of another layout.

    Raises
    ------
    StudyError
        If it has another schema version.
    """
    if data["schema"] != SCHEMA:
        raise StudyError(f"{path}: study of schema {data['schema']}, this version reads {SCHEMA}")


class Store:
    """A folder with one Parquet file for each run, and what the study is about.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{folder}: cannot hold runs: {error.strerror or error}") from None

    def file(self, key: str) -> Path:
        """Return where the run of a key is, or would be."""
        return self.folder / f"{key}.parquet"

    def get(self, key: str) -> Run | None:
        """Return a run that is there whole, else None."""
        if not self.file(key).is_file():
            return None
        try:
            _, runs = read_file(self.file(key))
        except StudyError:
            return None  # made anew
        return runs[0] if len(runs) == 1 else None

    def put(self, key: str, run: Run) -> Run:
        """Write a run and return it with its rows left in the file."""
        write_runs(self.file(key), [run], {"schema": SCHEMA, "runs": [run_record(run)]})
        kept = self.get(key)
        assert kept is not None, "a run that was just written can be read"
        return kept

    def describe(self, data: Mapping[str, Any]) -> None:
        """Write what `Study.load` needs to read the folder as a study: metadata and the keys of its runs."""
        text = json.dumps(data, allow_nan=False, indent=1)
        write_atomically(self.folder / _STUDY_FILE, text.encode())

    @classmethod
    def read(cls, folder: Path) -> tuple[dict[str, Any], tuple[Run, ...]]:
        """Return the metadata and those runs of a folder that are finished.

        Raises
        ------
        StudyError
            If it holds no study.
        """
        try:
            data = json.loads((folder / _STUDY_FILE).read_text(encoding="utf-8"))
            check_schema(folder, data)
            store = cls(folder)
            found = [store.get(str(key)) for key in data["keys"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            if isinstance(error, StudyError):
                raise
            raise StudyError(f"{folder}: holds no study ({type(error).__name__}: {error})") from None
        runs = tuple(run for run in found if run is not None)
        data["interrupted"] = len(runs) < len(found)
        return data, runs
