"""Call a function in a forked child: SimGrid can be started once in a process."""

import os
import pickle
from collections.abc import Callable
from typing import Any


def in_child(call: Callable[..., Any], *args: Any) -> Any:
    """Return what the call returns in a child, or raise RuntimeError with what it raises."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = pickle.dumps((True, call(*args)))
        except BaseException as error:
            answer = pickle.dumps((False, repr(error)))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise RuntimeError(f"the child ended with status {status}")
    fine, value = pickle.loads(answer)
    if not fine:
        raise RuntimeError(value)
    return value
