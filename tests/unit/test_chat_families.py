"""Published chat templates: the text of transformers, and ids in which only the template speaks control.

`tests/data/chat_goldens.json` holds the templates as llama.cpp distributes them and what
`render_jinja_template` of `transformers` 5.23.0 makes of some conversations; null where
it raises.
"""

import json
import random
from functools import cache
from pathlib import Path

import pytest
import spm_vocab
import vocab

import edgellm._core as core
from edgellm.chat import encode_chat, render_chat

CONTROL = 3


@cache
def goldens():
    path = Path(__file__).resolve().parents[1] / "data" / "chat_goldens.json"
    return json.loads(path.read_text(encoding="utf-8"))


CASES = [
    (family, case)
    for family, golden in goldens()["families"].items()
    for case, talk in goldens()["conversations"].items()
    if not talk["tools"] or "tools" in golden["template"]  # else the tools are shown in another way
]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_published_template_renders_as_transformers_does(family, case):
    golden, talk = goldens()["families"][family], goldens()["conversations"][case]
    options = {
        "tools": talk["tools"],
        "add_generation_prompt": talk["prompt"],
        "bos": "<BOS>",
        "eos": "<EOS>",
    }
    wanted = golden["texts"][case]
    if wanted is None:
        with pytest.raises(ValueError, match="chat template"):
            render_chat(golden["template"], talk["messages"], **options)
    else:
        assert render_chat(golden["template"], talk["messages"], **options) == wanted


def turns(space):
    """A SentencePiece vocabulary with Gemma's turns."""
    small = spm_vocab.small(True, space)
    tokens = [*small.tokens, "<start_of_turn>", "<end_of_turn>"]
    made = spm_vocab.SpmVocab(tokens, [*small.types, CONTROL, CONTROL], [*small.scores, 0.0, 0.0], space)
    return made.ours(add_bos=True), len(tokens) - 2


@pytest.mark.parametrize("space", [True, False])
def test_ids_of_a_chat_are_those_of_its_text(space):
    """With a space in front of what follows each special token, if the vocabulary asks for one."""
    tokenizer, start = turns(space)
    template = goldens()["families"]["gemma"]["template"]
    talk = [{"role": "user", "content": "sn <s> io"}, {"role": "assistant", "content": "est"}]
    plain = [{**message, "content": message["content"].replace("<s>", "tu")} for message in talk]
    text = render_chat(template, plain, bos="<s>", eos="</s>")
    assert encode_chat(tokenizer, template, plain) == tokenizer.encode(text, parse_special=True)
    ids = encode_chat(tokenizer, template, talk)
    assert (ids.count(1), ids.count(start), ids[0]) == (1, 3, 1)
    assert "<s> io" in tokenizer.decode(ids)


@pytest.mark.parametrize("tokenizer", [vocab.small().ours(), spm_vocab.small().ours()], ids=["bpe", "spm"])
def test_segments_are_one_text_in_which_only_some_speak_control(tokenizer):
    rng = random.Random(9)
    control = next(iter(tokenizer.special_tokens))
    for text in vocab.texts(300, seed=10):
        text = text[: len(text) // 2] + control + text[len(text) // 2 :]
        cuts = sorted(rng.choices(range(len(text) + 1), k=3))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert tokenizer.encode_segments([(part, False) for part in parts]) == tokenizer.encode(text)
        assert tokenizer.encode_segments([(text, True)]) == tokenizer.encode(text, parse_special=True)
    half = len(control) // 2
    forged = tokenizer.encode_segments([(control[:half], True), (control[half:], False)])
    assert forged == tokenizer.encode(control)
    both = tokenizer.encode_segments([(control, False), (control, True)])
    assert both.count(tokenizer.special_tokens[control]) == 1
    assert tokenizer.encode_segments([]) == tokenizer.encode_segments([("", True)]) == []


@pytest.mark.parametrize("bad", [["ab"], [("a", True, 1)], [(1, True)], 3, [("\ud800", True)]])
def test_segments_must_be_texts_with_a_flag(bad):
    tokenizer = core.Tokenizer(["a"], [1], [], "gpt-2")
    with pytest.raises((TypeError, UnicodeEncodeError)):
        tokenizer.encode_segments(bad)
