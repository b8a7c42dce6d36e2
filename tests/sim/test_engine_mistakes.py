"""Mistakes of strategies: each is an error that names the class, the request, the file and the line."""

import pytest
from engine_world import LARGE, SMALL, log, request, simulated

from edgellm import sim
from edgellm.sim.engine.run import StrategyError

#: Bodies of handle(self, req, here); the mistake is in the line that is marked.
BODIES = {
    "yield 3  # here": "yielded 3",
    "yield here.run  # here": "it is a function: call it",
    "yield self.work  # here": "it is a function: call it",
    "yield None  # here": "yielded None",
    "yield [here.run(sim.Compute(1.0))]  # here": "cannot be waited for",
    "yield sim.gather(sim.sleep(1), 5)  # here": "yielded 5",
    "yield from self.deep(here)": "yielded 'deep'",
    "raise KeyError('oops')  # here": "KeyError",
    "yield here.run(sim.Prefill('huge:q4_0', 1))  # here": "no model variant 'huge:q4_0'",
    "yield here.run(sim.Prefill(req.model, -1))  # here": "0 or more",
    "yield here.run(sim.Prefill(req.model, 1.5))  # here": "whole",
    "yield here.run(sim.Decode(req.model, '3'))  # here": "whole",
    "yield here.run(sim.Step(req.model, (1, 2), (0,)))  # here": "one context for each",
    "yield here.run(sim.Step(req.model, (0,), (0,)))  # here": "out of range",
    "yield here.run(sim.Compute(-1))  # here": "ops",
    "yield here.run(sim.Compute(1.0), repeat=-1)  # here": "repeat",
    "yield here.run(sim.Compute(1.0), priority=99)  # here": "priority",
    "yield here.run(prefill)  # here": "NameError",
    "yield here.send('nowhere', 'p', None, 1)  # here": "nowhere",
    "yield here.send('cloud', 'p', None, -1)  # here": "nbytes",
    "yield here.send('cloud', 'p', None, float('inf'))  # here": "nbytes",
    "yield here.call('cloud', 'x', None, 1, data_class='secrets')  # here": "data_class",
    "yield here.reserve(-5)  # here": "nbytes",
    "here.try_reserve(-5)  # here": "nbytes",
    "here.spawn(self.work)  # here": "call the function",
    "here.provide('x', 3)  # here": "a service is a function",
    "yield sim.sleep(float('nan'))  # here": "sleep",
    "yield sim.sleep(-1)  # here": "sleep",
    "yield sim.within(sim.sleep(1), -1)  # here": "within",
    "yield sim.race()  # here": "something to wait for",
    "req.finish(); req.finish()  # here": "already settled",
    "req.finish(); req.reject('no')  # here": "already settled",
    "req.finish(model='huge:q4_0')  # here": "no model variant",
    "req.confidence('huge:q4_0')  # here": "no model variant",
    "self.cloud.running  # here": "cannot look at what runs on cloud/server",
    "yield self.cloud.send(here.name, 'p', None, 1)  # here": "cannot send on cloud/server",
    "yield self.cloud.run(sim.Compute(1.0))  # here": "cannot run work on cloud/server",
    "here.open(req.model, 'hello')  # here": "needs a real model",
    "raise SystemExit(3)  # here": "SystemExit",
    "while True: yield sim.sleep(0)  # here": "never lets simulated time pass",
}

TEXT = """
from edgellm import sim

class Wrong(sim.Strategy):
    def setup(self, fleet):
        self.cloud = fleet["cloud/server"]

    def work(self, here):
        yield sim.sleep(1)

    def deep(self, here):
        yield sim.sleep(1)
        yield 'deep'  # here

    def handle(self, req, here):
        {body}
        yield sim.sleep(1)
"""


def wrong(path, text):
    """The class Wrong of a file, and the number of its marked line."""
    path.write_text(text)
    space = {"__name__": "wrong"}
    exec(compile(text, str(path), "exec"), space)
    numbers = [i for i, line in enumerate(text.splitlines(), 1) if "# here" in line]
    return space["Wrong"], numbers


@pytest.mark.parametrize("body", BODIES)
def test_mistake_names_class_request_and_line(body, tmp_path):
    cls, numbers = wrong(tmp_path / "mine.py", TEXT.format(body=body))
    number = numbers[-1] if "# here" in body else numbers[0]
    with pytest.raises(StrategyError) as caught:
        simulated(cls(), request(7))
    head, text = str(caught.value).split("\n")[0], str(caught.value)
    assert head.startswith("strategy Wrong raised ")
    assert "on request 7 ('question' at home/device0)" in head
    assert f"(mine.py, line {number})" in head
    assert BODIES[body] in text
    assert f'"{tmp_path / "mine.py"}", line {number}' in text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("fleet['nowhere']", "nowhere"),
        ("fleet.place('huge:q4_0', on='cloud/server')", "no model variant"),
        ("fleet.place('small:q4_0', on='clod/server')", "clod/server"),
        ("fleet['cloud/server'].spawn(self.handle)", "call the function"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_mistake_in_setup_names_its_line(body, text, tmp_path):
    source = "\n\nfrom edgellm import sim\nclass Wrong(sim.Strategy):\n    def setup(self, fleet):\n"
    cls, (number,) = wrong(tmp_path / "mine.py", f"{source}        {body}  # here\n")
    with pytest.raises(
        StrategyError, match=rf"strategy Wrong raised .* \(mine.py, line {number}\)"
    ) as caught:
        simulated(cls())
    assert text in str(caught.value)


def test_handler_that_never_yields_is_told_so(tmp_path):
    for body, text in (("req.finish()", "without yielding"), ("return [1]", "must be a generator")):
        head = (
            "from edgellm import sim\nclass Wrong(sim.Strategy):\n    def handle(self, req, here):  # here\n"
        )
        source = f"{head}        {body}\n"
        cls, (number,) = wrong(tmp_path / "mine.py", source)
        with pytest.raises(StrategyError, match=rf"{text}.*\(mine.py, line {number}\)"):
            simulated(cls())


def test_handler_that_only_rejects_need_not_yield():
    class Picky(sim.Strategy):
        def handle(self, req, here):
            req.reject("not today")

    assert simulated(Picky()).requests["reason"] == ["not today"]


def test_deadlock_says_who_waits_for_what(tmp_path):
    source = (
        TEXT.replace("{body}", "yield sim.Event('the harvest')  # here")
        .replace(
            'self.cloud = fleet["cloud/server"]',
            "fleet['cloud/server'].spawn(self.wait(fleet['cloud/server']), daemon=True)",
        )
        .replace(
            "def work(self, here):",
            "def wait(self, here):\n        yield here.inbox('jobs')\n\n    def work(self, here):",
        )
    )
    cls, numbers = wrong(tmp_path / "mine.py", source)
    with pytest.raises(StrategyError) as caught:
        simulated(cls(), request(3), request(4, 1.0))
    text = str(caught.value)
    assert text.startswith("strategy Wrong never finishes request 3 ('question' at home/device0): ")
    assert f"it waits for Event('the harvest') (mine.py, line {numbers[-1]})" in text
    assert "2 such requests" in text
    assert "wait on cloud/server waits for Queue('jobs at cloud/server') (mine.py, line 9)" in text


def test_handler_that_forgets_to_finish_is_told_so(tmp_path):
    source = TEXT.replace("{body}", "pass").replace(
        "def handle(self, req, here):", "def handle(self, req, here):  # here"
    )
    cls, numbers = wrong(tmp_path / "mine.py", source)
    with pytest.raises(StrategyError, match=rf"without req.finish\(\) .* \(mine.py, line {numbers[-1]}\)"):
        simulated(cls(), request(3))


def test_handler_that_goes_on_for_ever_is_told_so(tmp_path):
    cls, numbers = wrong(tmp_path / "mine.py", TEXT.format(body="while True: yield sim.sleep(60)  # here"))
    with pytest.raises(StrategyError, match=rf"goes on for ever|\(mine.py, line {numbers[-1]}\)"):
        simulated(cls(), request(3))


def test_call_that_nobody_answers_is_a_deadlock():
    def handle(req, here, log):
        yield here.call("gateway", "quiet", None, 0)

    def setup(fleet):
        fleet["home/gateway"].inbox("quiet")

    with pytest.raises(StrategyError, match="waits for the reply of 'quiet' from home/gateway"):
        log(handle, setup=setup)


def test_overload_is_no_mistake():
    def handle(req, here, log):
        yield here.run(sim.Compute(6000.0))

    def result():
        from engine_world import Script

        return simulated(Script(handle), request(0), request(1)).requests

    assert list(result()["status"]) == ["unfinished"] * 2
    assert set(result()["reason"]) == {"not finished when the simulation ended"}


def test_busy_loop_is_stopped_where_it_is(tmp_path):
    source = TEXT.format(body="while True: pass  # here").replace(
        "class Wrong(sim.Strategy):", "class Wrong(sim.Strategy):\n    max_think_s = 0.3"
    )
    cls, (_, number) = wrong(tmp_path / "mine.py", source)
    with pytest.raises(StrategyError, match=rf"simulated time stood still at 0 s \(mine.py, line {number}\)"):
        simulated(cls())


def test_tasks_without_end_at_one_date_are_stopped():
    def handle(req, here, log):
        while True:
            here.spawn(one())
            yield sim.sleep(0)

    def one():
        yield sim.sleep(0)

    with pytest.raises(StrategyError, match="never lets simulated time pass"):
        log(handle)


def test_call_replied_to_twice_is_a_mistake():
    def setup(fleet):
        gateway = fleet["home/gateway"]
        gateway.spawn(serve(gateway), daemon=True)

    def serve(here):
        call = yield here.inbox("twice")
        call.reply()
        call.reply()

    def handle(req, here, log):
        yield here.call("gateway", "twice", None, 0)

    with pytest.raises(StrategyError, match=r"replied to before \(test_engine_mistakes.py, line \d+\)"):
        log(handle, setup=setup)


def test_large_and_small_are_variants_of_this_world():
    assert {SMALL, LARGE} == {"small:q4_0", "large:q4_0"}
