"""The verbs that run a model, on a tiny one: what they print, and what bad input gets."""

import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgellm
from edgellm import cli
from edgellm.cli import bench
from edgellm.cli import chat as chat_verb
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


class Parrot:
    """A model that repeats the last message, and holds three messages at most."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.interrupt = False

    def stream_chat(self, messages: list[dict[str, str]], **_: object) -> Iterator[str]:
        if len(messages) > 3:
            raise edgellm.ContextError("full")
        self.asked.append([message["content"] for message in messages])
        return self._speak(messages[-1]["content"])

    def _speak(self, text: str) -> Iterator[str]:
        yield text.upper()
        if self.interrupt:
            raise KeyboardInterrupt
        yield "!"
        timings = edgellm.Timings(1, 2, 0.1, 0.1, 0.1)
        return edgellm.Completion(text.upper() + "!", [1, 2], timings, "stop")


def converse(parrot: Parrot, monkeypatch: pytest.MonkeyPatch, *lines: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return chat_verb._converse(parrot, [], {})  # type: ignore[arg-type]  # only stream_chat is called


def test_chat_remembers_and_forgets_the_oldest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parrot = Parrot()
    assert converse(parrot, monkeypatch, "a", "", "b", "c", "/new", "d", "/exit", "e") == 0
    assert parrot.asked == [["a"], ["a", "A!", "b"], ["b", "B!", "c"], ["d"]]
    told = capsys.readouterr()
    assert told.out == "A!\nB!\nC!\nD!\n"
    assert "forgot the 2 oldest messages" in told.err


def test_chat_keeps_what_was_said_when_an_answer_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parrot = Parrot()
    parrot.interrupt = True
    assert converse(parrot, monkeypatch, "a", "b") == 0
    assert parrot.asked == [["a"], ["a", "A", "b"]]
    assert "[stopped]" in capsys.readouterr().err


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
