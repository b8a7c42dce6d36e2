"""The verbs that run a model, on a tiny one: what they print, and what bad input gets."""

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import cli
from edgellm.cli import _answers, bench
from edgellm.cli._dialogue import Dialogue
from tests.helpers import tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model.write(tmp_path_factory.mktemp("cli") / "tiny.gguf"))


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_run_streams_the_text_of_generate(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    with edgellm.load(tiny) as model:
        want = model.generate("the cat", max_tokens=12)
    assert cli.main(["run", tiny, "the cat", "--max-tokens", "12"]) == 0
    told = capsys.readouterr()
    assert told.out == want.text + "\n"
    assert "tokens read" in told.err
    found = run_json(capsys, "run", tiny, "the cat", "--max-tokens", "12", "--threads", "1")
    assert (found["text"], found["ids"]) == (want.text, want.ids)
    assert found["timings"]["generated_tokens"] == len(want.ids)


def test_run_repeats_itself_for_a_seed_only(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", tiny, "the", "--max-tokens", "24", "--temperature", "1.5"]
    texts = [run_json(capsys, *arguments, "--seed", seed)["ids"] for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]


def test_run_reads_the_prompt_from_standard_input(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat"))
    assert run_json(capsys, "run", tiny, "-", "--max-tokens", "2")["prompt"] == "the cat"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["the " * 300], 1, "do not fit"),
        (["the", "--context", "2000000"], 1, "context"),
        (["the cat", "--context", "1"], 1, "do not fit in a context of 1"),
        (["the", "--temperature", "-1"], 1, "temperature"),
        (["the", "--temperature", "nan"], 1, "temperature"),
        (["the", "--top-p", "2"], 1, "top_p"),
        (["the", "--max-tokens", "0"], 1, "max_tokens"),
        (["the", "--threads", "0"], 1, "threads"),
        (["the", "--isa", "sse9"], 1, "sse9"),
        (["the", "--max-bytes", "1000"], 1, "1000"),
        (["the", "--stop", ""], 1, "stop"),
        (["the", "--max-tokens", "many"], 2, "invalid int value"),
        ([""], 2, "the prompt is empty"),
        ([], 2, "required: prompt"),
    ],
)
def test_run_names_what_is_wrong(
    tiny: str, arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", tiny, *arguments]) == code
    err = capsys.readouterr().err
    assert told in err
    assert "internal error" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("verb", [["run", "{}", "hello"], ["inspect", "{}"], ["bench", "{}"], ["chat", "{}"]])
@pytest.mark.parametrize("keep", [0, 3, 4, 100, 5000, -1])
def test_a_truncated_file_is_one_line_and_exit_code_1(
    tiny: str, verb: list[str], keep: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(tiny).read_bytes()[:keep])
    assert cli.main([part.format(cut) for part in verb]) == 1
    err = capsys.readouterr().err
    assert "cut.gguf" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metadata": {"general.architecture": ("mamba", "string")}}, "mamba"),
        ({"metadata": {"llama.block_count": (99, "u32")}}, "blk."),
        ({"metadata": {"llama.attention.head_count": (0, "u32")}}, "head_count"),
    ],
)
def test_a_model_that_cannot_run_is_named(
    changes: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tiny_model.write(tmp_path / "odd.gguf", **changes))
    assert cli.main(["run", path, "hello"]) == 1
    assert told in capsys.readouterr().err
    assert cli.main(["inspect", path]) == 0  # what is in it can still be told


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["run", "{}", "hi"], ["inspect", "{}"], ["bench", "{}"], ["chat", "{}"]):
        assert cli.main([part.format(tmp_path / "none.gguf") for part in verb]) == 1
        assert "none.gguf" in capsys.readouterr().err


def test_inspect_counts_what_is_in_the_file(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "inspect", tiny, "--tensors")
    assert found["architecture"] == "llama"
    assert found["file"]["bytes"] == Path(tiny).stat().st_size
    assert found["metadata"]["llama.block_count"] == {"kind": "u32", "value": 2}
    assert found["metadata"]["tokenizer.ggml.tokens"]["count"] == len(tiny_model.vocabulary())
    assert len(found["tensors"]) == found["file"]["tensors"]
    assert sum(row["bytes"] for row in found["types"].values()) == sum(t["bytes"] for t in found["tensors"])
    assert cli.main(["inspect", tiny, "--tensors"]) == 0
    page = capsys.readouterr().out
    assert "blk.1.ffn_down.weight" in page
    assert "1e-05" in page


def test_inspect_shows_nothing_that_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = {"general.name": ("a\x1b[2Jb\nc" + "x" * 9999, "string"), "odd.number": (float("nan"), "f32")}
    path = str(tiny_model.write(tmp_path / "odd.gguf", metadata=hostile))
    assert cli.main(["inspect", path]) == 0
    page = capsys.readouterr().out
    assert "a?[2Jb?cxxx" in page
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) < 300
    found = run_json(capsys, "inspect", path)
    assert found["metadata"]["odd.number"]["value"] is None  # JSON has no NaN


def test_bench_reports_medians_per_thread_count(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(
        capsys, "bench", tiny, "--threads", "1,2", "--prompt", "8", "--tokens", "4", "--repeat", "3"
    )
    assert [row["threads"] for row in found["measured"]] == [1, 2]
    for row in found["measured"]:
        for kind in ("prefill", "decode"):
            assert 0 < row[kind]["slowest"] <= row[kind]["tokens_per_s"] <= row[kind]["fastest"]
    assert found["machine"]["cores"] >= 1
    assert found["model"] == "tiny.gguf"
    assert cli.main(["bench", tiny, "--threads", "1", "--prompt", "4", "--tokens", "2", "--repeat", "1"]) == 0
    assert "prefill tok/s" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--threads", "0"], ["--threads", "a"], ["--repeat", "0"]])
def test_bench_with_nothing_to_do_is_bad_usage(
    tiny: str, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", tiny, *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_rates_are_of_the_median_time() -> None:
    assert bench.rates(30, [3.0, 1.0, 2.0]) == {"tokens_per_s": 15.0, "slowest": 10.0, "fastest": 30.0}


def test_chat_answers_one_message(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    with edgellm.load(tiny) as model:
        want = model.chat([{"role": "user", "content": "the cat"}], max_tokens=8).text
    assert cli.main(["chat", tiny, "--message", "the cat", "--max-tokens", "8"]) == 0
    assert capsys.readouterr().out == want + "\n"
    assert run_json(capsys, "chat", tiny, "--message", "the cat", "--max-tokens", "8")["text"] == want


def test_chat_without_a_template_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_model.write(tmp_path / "plain.gguf", metadata={"tokenizer.chat_template": None}))
    assert cli.main(["chat", path, "--message", "hi"]) == 1
    assert "no chat template" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--json"], ["--message", " "]])
def test_chat_with_nothing_to_say_is_bad_usage(tiny: str, option: list[str]) -> None:
    assert cli.main(["chat", tiny, *option]) == 2


def converse(tiny: str, monkeypatch: pytest.MonkeyPatch, *lines: str, options: tuple[str, ...] = ()) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return cli.main(["chat", tiny, "--max-tokens", "6", *options])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The contents of the messages of each turn."""
    seen: list[list[str]] = []
    answer = Dialogue.answer

    def noting(self: Dialogue, messages: Any) -> Any:
        tokens = answer(self, messages)
        seen.append([message["content"] for message in messages])
        return tokens

    monkeypatch.setattr(Dialogue, "answer", noting)
    return seen


def test_chat_says_what_chat_says_turn_by_turn(
    tiny: str, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The session that is kept between turns changes nothing."""
    assert converse(tiny, monkeypatch, "the cat", "", "on the mat", "and") == 0
    told = capsys.readouterr().out
    messages: list[dict[str, str]] = []
    want = ""
    with edgellm.load(tiny) as model:
        for question in ("the cat", "on the mat", "and"):
            messages.append({"role": "user", "content": question})
            messages.append(model.chat(messages, max_tokens=6).message)
            want += messages[-1]["content"] + "\n"
    assert told == want
    assert [len(turn) for turn in asked] == [1, 3, 5]


def test_chat_evaluates_only_what_its_session_lacks(tiny: str) -> None:
    with edgellm.load(tiny) as model:
        dialogue = Dialogue(model, {"max_tokens": 6, "context": 200})
        messages = [{"role": "user", "content": "the cat"}]
        for turn in range(3):
            said = "".join(token.text for token in dialogue.answer(messages))
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "on"}]
            assert (dialogue.kept > 10) == (turn > 0)
        assert dialogue.kept > 40
        other = dialogue.answer([{"role": "user", "content": "a cat"}])
        assert 0 < dialogue.kept < 40  # the template's beginning
        assert "".join(t.text for t in other) == model.chat([{"role": "user", "content": "a cat"}], 6).text


def test_chat_forgets_the_oldest_where_the_context_is_full(
    tiny: str, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["the cat", "on the mat", "and so on", "a cat", "the mat"]
    assert converse(tiny, monkeypatch, *lines, options=("--context", "120", "--system", "Be.")) == 0
    assert "forgot the 2 oldest messages" in capsys.readouterr().err
    assert all(turn[0] == "Be." for turn in asked)
    assert len(asked[-1]) < 10


def test_chat_shifts_a_full_context_where_asked(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--context", "70", "--overflow", "shift", "--max-tokens", "60")
    assert converse(tiny, monkeypatch, "the cat", "/stats", "on", options=options) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) >= 2
    held = int(told.err.split(" tokens held")[0].rpartition(" ")[2])
    assert 0 < held <= 70


def test_chat_commands_do_what_they_say(
    tiny: str,
    asked: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = tmp_path / "talk.json"
    lines = [
        "a",
        "/reset",
        "b",
        "/system Be.",
        "c",
        "/stats",
        f"/save {kept}",
        "/save",
        "/what",
        "/exit",
        "d",
    ]
    assert converse(tiny, monkeypatch, *lines) == 0
    assert asked == [["a"], ["b"], ["Be.", "c"]]
    told = capsys.readouterr().err
    assert "[3 messages, " in told
    assert "/save needs the name of a file" in told
    assert "/reset          start over" in told
    assert [message["role"] for message in json.loads(kept.read_text())] == ["system", "user", "assistant"]


def test_chat_keeps_what_was_said_when_an_answer_is_stopped(
    tiny: str, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgellm.generation import Generation

    take, steps = Generation.take, iter(range(100))

    def stopped(self: Any, logits: Any) -> Any:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return take(self, logits)

    monkeypatch.setattr(Generation, "take", stopped)
    assert converse(tiny, monkeypatch, "the cat", "on the mat") == 0
    told = capsys.readouterr()
    assert "[stopped]" in told.err
    assert len(asked) == 2
    assert asked[1][1] == told.out.split("\n")[0]  # the second question comes after what was said


def test_probabilities_are_lines_where_there_is_no_terminal(
    tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", tiny, "the cat", "--max-tokens", "3", "--logprobs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()[:3]
    for line in lines:
        chosen, text, *others = line.split("  ")
        assert 0.0 < float(chosen) <= 1.0
        json.loads(text.strip())
        assert len([other for other in others if other]) == 2
    found = run_json(capsys, "run", tiny, "the cat", "--max-tokens", "3", "--logprobs", "2")
    assert [len(token["top"]) for token in found["logprobs"]] == [2, 2, 2]
    assert cli.main(["run", tiny, "the", "--logprobs", "21"]) == 2


def test_colours_of_a_terminal_end_on_each_line() -> None:
    assert _answers._coloured("a\nb", -9.0) == "\x1b[30;48;5;203ma\x1b[0m\n\x1b[30;48;5;203mb\x1b[0m"
    assert _answers._coloured("sure", 0.0) == "sure"


def test_draft_changes_no_text_and_is_told(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = run_json(capsys, "run", tiny, "the cat", "--max-tokens", "24")
    for draft in ("lookup", tiny):
        found = run_json(capsys, "run", tiny, "the cat", "--max-tokens", "24", "--draft", draft)
        assert found["ids"] == plain["ids"]
        assert found["speculation"]["accepted"] <= found["speculation"]["drafted"]
    assert cli.main(["run", tiny, "the cat", "--draft", tiny, "--kv", "f32"]) == 0
    assert "guesses right" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--kv", "q9"], 1, "unknown cache type 'q9'"),
        (["--draft", "none.gguf"], 1, "none.gguf"),
        (["--json-schema", "{"], 1, "--json-schema: no JSON"),
        (["--json-schema", "none.json"], 1, "none.json"),
        (["--json-schema", "{" + '"a":{' * 5000], 1, "--json-schema"),
        (["--grammar", "none.gbnf"], 1, "none.gbnf"),
        (["--grammar", "a", "--json-schema", "{}"], 2, "not allowed with"),
        (["--overflow", "wrap"], 2, "invalid choice"),
    ],
)
def test_what_is_asked_of_a_text_is_checked(
    tiny: str, options: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", tiny, "the", "--max-tokens", "4", *options]) == code
    err = capsys.readouterr().err
    assert told in err
    assert "internal error" not in err


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What `edgellm.doctor` gives, without the examination."""

    ok: bool
    features: tuple[str, ...] = ("avx2",)

    def __str__(self) -> str:
        return "All is well" if self.ok else "SOMETHING IS WRONG"


@pytest.mark.parametrize("ok", [True, False])
def test_doctor_tells_scripts_by_its_exit_code(
    ok: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = Verdict(ok)
    monkeypatch.setitem(vars(edgellm), "doctor", lambda: verdict)
    assert cli.main(["doctor"]) == (0 if ok else 1)
    assert capsys.readouterr().out == f"{verdict}\n"
    assert cli.main(["doctor", "--json"]) == (0 if ok else 1)
    assert json.loads(capsys.readouterr().out) == {"ok": ok, "features": ["avx2"]}


def test_run_gives_several_continuations(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", tiny, "the cat", "--max-tokens", "5", "--temperature", "1", "--n", "3"]
    found = run_json(capsys, *arguments)["completions"]
    with edgellm.load(tiny) as model:
        want = model.completions("the cat", 3, max_tokens=5, temperature=1.0)
    assert [one["ids"] for one in found] == [one.ids for one in want]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == "".join(f"{one.text}\n" for one in want)
    assert cli.main([*arguments, "--n", "0"]) == 2


def test_embed_writes_lines_json_or_a_file(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with edgellm.load(tiny) as model:
        want = model.embed(["the cat", "on"])
        raw = model.embed(["the cat", "on"], pooling="last", normalize=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\non\n"))
    assert cli.main(["embed", tiny]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["index"] for line in lines] == [0, 1]
    assert np.array_equal(np.array([line["embedding"] for line in lines], np.float32), want)
    found = run_json(capsys, "embed", tiny, "the cat", "on", "--pooling", "last", "--raw")
    assert np.array_equal(np.array(found["embeddings"], np.float32), raw)
    out = tmp_path / "vectors.npy"
    assert cli.main(["embed", tiny, "the cat", "on", "--output", str(out)]) == 0
    assert np.array_equal(np.load(out), want)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli.main(["embed", tiny]) == 2
    assert cli.main(["embed", tiny, ""]) == 1


def test_text_follows_a_schema_or_grammar(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    text = json.dumps(schema | {"additionalProperties": False})
    (tmp_path / "lamp.json").write_text(text)
    for given in (text, str(tmp_path / "lamp.json")):
        found = run_json(capsys, "run", tiny, "the", "--max-tokens", "40", "--json-schema", given)
        assert set(json.loads(found["text"])) == {"on"}
    (tmp_path / "date.gbnf").write_text('root ::= [0-9] "-" [0-9]')
    arguments = ["--message", "the", "--max-tokens", "9", "--grammar", str(tmp_path / "date.gbnf")]
    answer = run_json(capsys, "chat", tiny, *arguments)["text"]
    assert (len(answer), answer[1]) == (3, "-")
    assert cli.main(["run", tiny, "the", "--json-schema", '{"type": "lamp"}']) == 1
    assert "#/type" in capsys.readouterr().err
