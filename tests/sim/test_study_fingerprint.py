"""What a strategy is, for those who keep results: code counts, lines and order of making do not."""

import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict, deque
from functools import partial

import numpy as np
import pytest

from edgellm import sim
from edgellm.sim.fingerprint import fingerprint

CELL = '''
import math
import numpy as np
from edgellm import sim

LIMITS = {"a": 1.0, "b": {3, 1, 2}}
TABLE = np.arange(4.0)

def helper(x):
    return x + LIMITS["a"] + TABLE[0]

class Base(sim.Strategy):
    def model_of(self, req):
        return req.model

class Mine(Base):
    """Words."""

    def __init__(self, threshold=0.5):
        self.threshold = threshold
        self.seen = {}

    def handle(self, req, here):
        def inner(y):
            return helper(y) * math.pi
        if inner(self.threshold) > 2:
            yield here.run(sim.Prefill(self.model_of(req), req.prompt_tokens))
        req.finish()
'''


def of(source: str, expression: str = "Mine()") -> str:
    scope = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(source), "cell", "exec"), scope)
    return fingerprint(eval(expression, scope))


def test_the_same_text_again_is_the_same():
    assert of(CELL) == of(CELL) == of("# a comment\n\n\n" + CELL.replace('"""Words."""', '"""Other."""'))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("> 2", "> 3"),
        ("* math.pi", "* math.e"),
        ('{"a": 1.0', '{"a": 1.5'),
        ("{3, 1, 2}", "{3, 1, 4}"),
        ("np.arange(4.0)", "np.arange(5.0)"),
        ("return x + LIMITS", "return x - LIMITS"),
        ("return req.model", "return req.kind"),
        ("threshold=0.5", "threshold=0.6"),
        ("self.seen = {}", "self.seen = {1: 2}"),
    ],
)
def test_what_changes_what_it_does_changes_it(old, new):
    assert CELL.count(old) == 1
    assert of(CELL) != of(CELL.replace(old, new))


def test_what_a_notebook_calls_as_an_attribute_is_called_does_not_count():
    cell = CELL.replace("yield ", "yield here.elsewhere and ", 1)
    assert cell != CELL
    assert of(cell) == of(f"elsewhere = open\n{cell}") == of(f"elsewhere = 3\n{cell}")


def test_parameters_count():
    assert of(CELL, "Mine(0.7)") != of(CELL, "Mine(0.5)") == of(CELL)
    assert fingerprint(sim.Cascade(threshold=0.4)) != fingerprint(sim.Cascade(threshold=0.5))
    assert fingerprint(sim.Cascade()) == fingerprint(sim.Cascade())


def test_another_process_finds_the_same(tmp_path):
    script = tmp_path / "cell.py"
    script.write_text(
        CELL + "\nfrom edgellm.sim.fingerprint import fingerprint\nprint(fingerprint(Mine()))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_things_that_hold_themselves_end():
    loop = []
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)
    assert fingerprint([1, [2]]) != fingerprint([1, 2]) != fingerprint([12])
    assert fingerprint(partial(pow, 2)) == fingerprint(partial(pow, 2)) != fingerprint(partial(pow, 3))
    assert fingerprint(OrderedDict(a=1)) != fingerprint(OrderedDict(a=2))
    assert fingerprint(deque([1])) != fingerprint(deque([2]))
    assert fingerprint(threading.Lock()) == fingerprint(threading.Lock())
    assert fingerprint(np.float64(1.0)) != fingerprint(np.float32(1.0))
