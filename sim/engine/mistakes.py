"""Mistakes of strategies, said so that their author finds them: class, request, file and line."""

from __future__ import annotations

import linecache
import os
import signal
import sysconfig
import traceback
from collections.abc import Iterator
from types import CodeType, GeneratorType
from typing import TYPE_CHECKING, Any

from edgellm.sim.strategy.groups import first, gather, within
from edgellm.sim.strategy.protocol import Event, Queue, every, sleep, until

from .calls import RemoteCall
from .errors import StrategyError

if TYPE_CHECKING:
    from .request import Request
    from .simulation import Simulation
    from .task import Task

_SIM = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: Files of ours that are strategies all the same.
_STRATEGIES = tuple(
    os.path.join(_SIM, part)
    for part in (
        "examples",
        *(os.path.join("strategy", f"{n}.py") for n in ("local", "gateway", "cloud", "cascade")),
    )
)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def theirs(path: str) -> bool:
    """Whether a file is the author's, not ours and no library."""
    if path.startswith(_STRATEGIES):
        return True
    return not path.startswith((_SIM, *_LIBRARIES)) and not path.startswith("<frozen")


def lines_of(script: Any) -> list[tuple[str, int, str]]:
    """(file, line, function) where a suspended generator stands, and those that it yields from."""
    found = []
    while isinstance(script, GeneratorType) and script.gi_frame is not None:
        code = script.gi_code
        found.append((code.co_filename, script.gi_frame.f_lineno, code.co_qualname))
        script = script.gi_yieldfrom
    return found


def _short(lines: list[tuple[str, int, str]]) -> str:
    """The innermost line of the author's, as "(file.py, line 3)" with a space before; "" if there is none."""
    own = [
        line for line in lines if theirs(line[0]) and line[::2] != ("<string>", "__init__")
    ]  # dataclasses'
    return f" ({os.path.basename(own[-1][0])}, line {own[-1][1]})" if own else ""


def _listing(lines: list[tuple[str, int, str]]) -> str:
    text = ""
    for path, number, name in lines:
        text += f'  File "{path}", line {number}, in {name}\n'
        source = linecache.getline(path, number).strip()
        text += f"    {source}\n" if source else ""
    return text


def of_request(request: Request | None) -> str:
    """ " on request 7 ('question' at home3/device)"; "" for none."""
    return "" if request is None else f" on request {request.id} ({request.kind!r} at {request.node})"


def raised(
    sim: Simulation,
    error: BaseException,
    request: Request | None,
    script: Any = None,
    code: CodeType | None = None,
) -> StrategyError:
    """Return what to say of an exception that a strategy raised.

    Parameters
    ----------
    sim : Simulation
    error : BaseException
    request : Request or None
        Which it was working for.
    script : generator or None
        What yielded a thing that raised: it is not in the traceback.
    code : code or None
        What to blame where nothing else is known.
    """
    frames = [(f.filename, f.lineno or 0, f.name) for f in traceback.extract_tb(error.__traceback__)]
    where, trace = _short(frames), "".join(traceback.format_exception(error))
    if not where:
        lines = lines_of(script)
        if not lines and code is not None:
            lines = [(code.co_filename, code.co_firstlineno, code.co_qualname)]
        where = _short(lines)
        trace += f"It was caused by what the strategy did here:\n{_listing(lines)}" if lines else ""
    return StrategyError(
        f"strategy {type(sim.strategy).__name__} raised {type(error).__name__}{of_request(request)} "
        f"at {sim.now:.6g} s: {error}{where}\n\n{trace}"
    )


# What never comes to its end.


def _waits(task: Task) -> str:
    """ "still": nothing will wake it by itself; "clock": only time will; "works": it gets somewhere."""
    return "still" if task.finished else _kind(task.awaits)


def _kind(x: Any) -> str:
    if isinstance(x, Event | Queue):
        return "still"
    if isinstance(x, sleep | until | every | within):
        return "clock"
    if isinstance(x, gather | first):
        kinds = {_kind(part) for part in x.parts}
        return "works" if "works" in kinds else "clock" if "clock" in kinds else "still"
    if isinstance(x, RemoteCall):
        return "still" if x.in_inbox else "works"
    if isinstance(x, GeneratorType):
        return "works"
    return _waits(x) if hasattr(x, "awaits") else "works"


def unfinished(sim: Simulation) -> StrategyError | None:
    """Return what to say where requests can never be finished, and nothing but the strategy is to blame.

    That is: at the end nothing computes, nothing is on its way, and no task waits for a date, so that what
    is not settled waits for something that nobody will bring about, or its handler has ended. Where tasks
    wait for dates, it is said only if they never finished a single request. Where nodes or links went down,
    requests may be lost: they are counted.
    """
    left = [r for r in sim.rows.open.values() if not r.settled and not r.abandoned]
    if not left or sim.outages.happened:
        return None
    tasks = [task for state in sim.nodes.values() for task in state.tasks]
    if any(_waits(task) == "works" for task in tasks):
        return None
    of: dict[Request, list[Task]] = {}
    for task in tasks:
        if task.request is not None:
            of.setdefault(task.request, []).append(task)
    if not any(_waits(task) == "clock" for task in tasks):
        return _never(sim, left[0], of.get(left[0], []), len(left), tasks)
    # a task with a clock may bring about anything, but if it never did?
    return None if len(sim.rows) else _never(sim, left[0], of.get(left[0], []), len(left), tasks)


def _never(
    sim: Simulation, request: Request, own: list[Task], count: int, tasks: list[Task]
) -> StrategyError:
    code = type(sim.strategy).handle.__code__
    head = f"strategy {type(sim.strategy).__name__} never finishes{of_request(request)[3:]}: "
    if own:
        lines = lines_of(own[0].script)
        text = f"it waits for {own[0].awaits!r}{_short(lines)}"
    else:
        lines = [(code.co_filename, code.co_firstlineno, code.co_qualname)]
        text = f"handle() ended without req.finish() or req.reject(){_short(lines)}"
    what = (
        "nothing is due that could go on with it" if not own or _waits(own[0]) == "still" else "it never ends"
    )
    others = "".join(
        f"  {task.name} on {task.node.name} waits for {task.awaits!r}{_short(lines_of(task.script))}\n"
        for task in [t for t in tasks if t.request is not request][:10]
    )
    return StrategyError(
        f"{head}{text}; {what} ({count} such request{'s' if count > 1 else ''} at {sim.now:.6g} s)\n\n"
        f"{_listing(lines)}{'Other tasks:' + chr(10) + others if others else ''}"
    )


class Watchdog:
    """Stops a strategy that computes for too long without letting simulated time pass.

    It counts processor time, so that a busy machine does not change what happens.
    """

    def __init__(self, sim: Simulation, limit_s: float) -> None:
        self._sim, self._limit_s = sim, limit_s
        self._seen: tuple[float, int] = (-1.0, -1)
        self._still = 0

    def __enter__(self) -> Watchdog:
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, self._limit_s / 2.0, self._limit_s / 2.0)
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)

    def _look(self, number: int, frame: Any) -> None:
        del number
        seen = (self._sim.now, self._sim.pulse)
        self._still = self._still + 1 if seen == self._seen else 0
        self._seen = seen
        if self._still >= 2:
            raise TimeoutError(_stood_still(self._sim, self._limit_s, frame))


def _stood_still(sim: Simulation, limit_s: float, frame: Any) -> str:
    lines = list(_frames(frame))[::-1]
    return (
        f"computed for {limit_s:g} s of processor time while simulated time stood still at {sim.now:.6g} s"
        f"{_short(lines)}; a strategy that needs longer sets `max_think_s`"
    )


def _frames(frame: Any) -> Iterator[tuple[str, int, str]]:
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname
        frame = frame.f_back
