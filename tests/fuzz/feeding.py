"""The main program of the folder: mutants of one kind of file, fed to the engine one after the other."""

import faulthandler
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HANG_S = 30
ADDRESS_SPACE_BYTES = 3 << 30


def feed(
    suffix: str,
    seedlings: Callable[[Path], list[Any]],
    mutant: Callable[[list[Any], int, int], tuple[str, bytes]],
    attempt: Callable[[Path, int], str],
    outcomes: Sequence[str],
) -> None:
    """Take ``FOLDER SEED FIRST COUNT`` from the command line and give each mutant to `attempt`.

    `mutant(seedlings, seed, number)` makes the name of a mutation and a file; `attempt(path, number)` names
    one of `outcomes`, which are counted and printed. A hang, a crash or an exception ends the program with
    another exit code than 0, names the mutant and leaves it in FOLDER.
    """
    faulthandler.enable()
    folder, (seed, first, count) = Path(sys.argv[1]), map(int, sys.argv[2:5])
    if "EDGELLM_SANITIZED" not in os.environ:  # a sanitizer reserves terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    seeds = seedlings(folder)
    seen: Counter[str] = Counter()
    for number in range(first, first + count):
        name, raw = mutant(seeds, seed, number)
        path = folder / f"mutant-{seed}-{number}-{name}.{suffix}"
        path.write_bytes(raw)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        try:
            seen[attempt(path, number)] += 1
        except BaseException:
            print(f"mutant {number} of seed {seed} ({name})", file=sys.stderr)
            raise
        path.unlink()
    faulthandler.cancel_dump_traceback_later()
    print(*(f"{outcome}={seen[outcome]}" for outcome in outcomes))
