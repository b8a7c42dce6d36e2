"""Live sessions: the tokens are the engine's, the time is the cost model's."""

from pathlib import Path

import pytest
from engine_world import in_child
from test_strategies_docs import MODEL, scenario

import edgellm
from edgellm import sim
from edgellm.sim.engine.run import RunTask, StrategyError

PROMPT = "The capital of France is"

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason="needs `edgellm pull smollm2-135m`")


class Talk(sim.Strategy):
    """Prints what it gets, once."""

    said = False

    def handle(self, req, here):
        if not self.said:
            self.said = True
            yield from self.talk(req, here)
        req.reject("done")

    def talk(self, req, here):
        session = here.open(req.model, PROMPT)
        start_s = here.now
        read = yield session.prefill()
        done = yield session.decode(8)
        alone_s = here.now - start_s
        print(session.ids[session.prompt_tokens :], session.prompt_tokens, read.tokens, done.tokens)
        print(alone_s, session.confidence, session.ended, repr(session.text))
        try:
            yield sim.within(session.decode(40), 4.5 * done.seconds / 8)
        except sim.TimedOut as error:
            print(error.done.tokens, len(session.ids) - session.prompt_tokens - 8)
        good = yield session.decode(4)
        print(session.ids[session.prompt_tokens :], good.tokens)
        print((yield session.verify([1, 2])), len(session.ids))
        session.close()


def test_live_session_says_what_the_engine_says_in_the_time_of_the_cost_model():
    world = scenario(weights="smollm2-135m")
    result = in_child(RunTask(world, Talk(), 1, {}))
    lines = result.output.splitlines()
    path = next(Path(MODEL).glob("*.gguf"))
    with edgellm.load(path) as model:
        prompt = model.tokenizer.encode(PROMPT, add_special=True)
        whole = list(model.generate(PROMPT, max_tokens=20, temperature=0.0).ids)
    assert lines[0] == f"{whole[:8]} {len(prompt)} {len(prompt)} 8"
    seconds, confidence, ended, text = lines[1].split(" ", 3)
    node = world.fleet.node("home0/device")
    cost_s = world.work_time_s(node, sim.Prefill("small", len(prompt)))
    cost_s += world.work_time_s(node, sim.Decode("small", 8, len(prompt)))
    assert float(seconds) == pytest.approx(cost_s, rel=1e-6)
    assert 0.0 < float(confidence) <= 1.0
    assert (ended, text[0]) == ("False", "'")
    assert lines[2] == "4 4"  # what was not completed is forgotten
    assert lines[3] == f"{whole[:16]} 4"
    assert lines[4] == f"0 {len(prompt) + 17}"  # both drafts are wrong: only the model's own token stays


def test_live_session_needs_weights_and_its_order():
    class Early(sim.Strategy):
        def handle(self, req, here):
            session = here.open(req.model, PROMPT)
            yield session.decode(1)

    with pytest.raises(StrategyError, match=r'give \[models."small"\] a key `weights`'):
        in_child(RunTask(scenario(), Early(), 1, {}))
    with pytest.raises(StrategyError, match=r"yield session.prefill\(\)"):
        in_child(RunTask(scenario(weights="smollm2-135m"), Early(), 1, {}))
    with pytest.raises(StrategyError, match=r"cannot load 'nowhere.gguf'"):
        in_child(RunTask(scenario(weights="nowhere.gguf"), Early(), 1, {}))
