"""SQL over the tables of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.sim.extras import require
from edgellm.sim.store import Columns, StudyError

if TYPE_CHECKING:
    import pandas as pd

    from edgellm.sim.study import Study


def query(study: Study, sql: str) -> pd.DataFrame:
    """Return what a query gives; see `Study.query`."""
    duckdb = require("duckdb")
    with duckdb.connect() as connection:
        files = _files(study)
        if files is None:
            connection.register("requests", study.requests())
        else:
            connection.read_parquet(files).create_view("requests")
        for name in ("nodes", "links", "failures", "quality", "constants"):
            connection.register(name, getattr(study, name)())
        runs = [
            {"strategy": r.strategy, "base_model": r.base_model, "seed": r.seed,
             "simulated_s": r.simulated_s, "events": r.events}
            for r in study.runs
        ]  # fmt: skip
        connection.register("runs", require("pandas").DataFrame(runs))
        try:
            answer: Any = connection.execute(sql).df()
        except duckdb.Error as error:
            raise StudyError(f"query: {str(error).splitlines()[0]}") from None
    frame: pd.DataFrame = answer
    return frame


def _files(study: Study) -> list[str] | None:
    """Return the files that hold the rows of the study and no others, None where some are in memory."""
    paths: dict[Path, int] = {}
    for run in study.runs:
        if not isinstance(run.requests, Columns):
            return None
        paths[run.requests.path] = paths.get(run.requests.path, 0) + 1
    return [str(path) for path in paths] or None
