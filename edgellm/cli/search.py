"""``edgellm simulate --search``: the Pareto front of a space of choices."""

import argparse
import json
import math
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgellm.cli import UsageError

_KEYS = {"objectives", "trials", "seed", "space"}


def run(args: argparse.Namespace, seeds: Sequence[int] | None, executor: Any) -> int:
    """Search, print the front, and write the table and the figure where asked."""
    from edgellm import sim
    from edgellm.sim.extras import require

    out, figure = (Path(p) if p else None for p in (args.out, args.report))
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {out}: the table of a search is a .csv or a .parquet file")
    if figure is not None and figure.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"--report {figure}: the figure of a search is an .svg, .png or .pdf file")
    if figure is not None:
        require("matplotlib.figure")
    wanted = _read(Path(args.search))
    options: dict[str, Any] = {key: wanted[key] for key in ("objectives", "trials", "seed") if key in wanted}
    if seeds is not None:
        options["seeds"] = seeds
    found = sim.search(
        args.scenario,
        wanted["space"],
        workers=args.workers,
        executor=executor,
        store=args.store,
        quality=args.quality,
        **options,
    )
    names = [*dict.fromkeys(("strategy", *found.choices)), *found.objectives]
    front = [{name: point[name] for name in names} for point in found.front()]
    if args.json:
        print(json.dumps([{k: _plain(v) for k, v in point.items()} for point in front], allow_nan=False))
    elif front:
        print(require("pandas").DataFrame(front).to_string(index=False, na_rep=""))
        print(f"{len(found.points)} points tried, {len(front)} on the front")
    if out is not None:
        _write_table(found.table(), out)
    if figure is not None:
        found.plot().savefig(figure)
    if found.interrupted:
        print("edgellm: interrupted; what had ended was kept", file=sys.stderr)
        return 130
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    if not isinstance(data.get("space"), dict):
        raise ValueError(f"{path}: a table [space] is missing")
    for key, kind in (("objectives", list), ("trials", int), ("seed", int)):
        if key in data and not isinstance(data[key], kind):
            raise ValueError(f"{path}: {key}: expected {'a list' if kind is list else 'a whole number'}")
    return data


def _write_table(table: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
