"""Print the requirements in pyproject.toml: the package's own and those of the extras given, or --build."""

import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extras: list[str]) -> list[str]:
    """Return requirement lines of `project` (the [project] table), in order, without repetition.

    Raises
    ------
    KeyError
        If an extra is not in the table.
    """
    lines = list(project["dependencies"])  # type: ignore[call-overload]  # TOML is untyped
    optional: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]  # likewise
    for extra in extras:
        lines += optional[extra]
    return list(dict.fromkeys(lines))


if __name__ == "__main__":
    table = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--build"]:
        lines = table["build-system"]["requires"]
    else:
        lines = requirements(table["project"], sys.argv[1:])
    print("\n".join(lines))
