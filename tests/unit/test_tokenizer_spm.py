"""SentencePiece: ids of the `tokenizers` package and of the format's own rule, and text that comes back."""

import os
import random
import threading

import pytest
import spm_vocab
import vocab
from helpers import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from spm_vocab import BYTE, CONTROL, NORMAL, UNKNOWN, USER, SpmVocab

import edgellm
import edgellm._core as core
from edgellm import tokenizer as text_tokenizer

SHARE = 20 if "EDGELLM_SANITIZED" in os.environ else 1
FORMS = [(True, True), (True, False), (False, True)]


def hard_texts(count: int, seed: int) -> list[str]:
    """Texts of the small vocabulary's own characters, mixed with those of every other kind."""
    rng = random.Random(seed)
    letters = spm_vocab.CHARACTERS.replace(spm_vocab.MARK, "  ▁ze\U0001f3f3")
    own = ["".join(rng.choices(letters, k=rng.randint(0, 40))) for _ in range(count // 2)]
    return own + vocab.texts(count - len(own), seed)


@pytest.mark.parametrize(("bytes_too", "space"), FORMS)
def test_ids_and_text_equal_the_package(bytes_too, space):
    small = spm_vocab.small(bytes_too, space)
    ours, peer = small.ours(), small.peer()
    texts = hard_texts(12_000 // SHARE, seed=1)
    wanted = [row.ids for row in peer.encode_batch_fast(texts)]
    found = [ours.encode(text) for text in texts]
    assert [row for row in zip(texts, found, wanted, strict=True) if row[1] != row[2]][:3] == []
    back = peer.decode_batch(wanted, skip_special_tokens=False)
    assert [row for row in zip(wanted, map(ours.decode, wanted), back, strict=True) if row[1] != row[2]][
        :3
    ] == []


@pytest.mark.parametrize("seed", range(30))
def test_ids_follow_the_rule_whatever_the_vocabulary(seed):
    made = spm_vocab.anything(seed)
    ours = made.ours()
    rng = random.Random(seed + 1000)
    letters = "".join(t for t, kind in zip(made.tokens, made.types, strict=True) if kind == NORMAL) + " z"
    for _ in range(200):
        text = "".join(rng.choices(letters, k=rng.randint(0, 30)))
        assert ours.encode(text) == made.slow_encode(text)


@given(text=st.text())
def test_any_text_comes_back(text):
    ours = spm_vocab.small().ours()
    ids = ours.encode(text)
    assert ours.decode(ids) == text.replace(spm_vocab.MARK, " ")
    stream = text_tokenizer.StreamDecoder(ours)
    assert "".join([*map(stream.push, ids), stream.finish()]) == ours.decode(ids)


def test_space_in_front_belongs_to_the_start_of_a_text():
    ours = spm_vocab.small().ours()
    ids = ours.encode("nest")
    assert ours.decode(ids) == "nest"
    assert ours.decode(ids, at_start=False) == " nest"
    assert ours.decode(ours.encode(" nest")) == " nest"
    assert b"".join(map(ours.token_bytes, ids)) == b" nest"
    stream = text_tokenizer.StreamDecoder(ours, at_start=False)
    assert "".join(map(stream.push, ids)) == " nest"
    assert ours.encode("") == []
    assert spm_vocab.small(True, False).ours().decode(ids) == " nest"


def test_space_stands_after_each_special_token():
    ours = spm_vocab.small().ours()
    ids = ours.encode("es<s>es", parse_special=True)
    assert ids == [*ours.encode("es"), 1, *ours.encode("es")]
    assert ours.decode(ids) == "es<s> es"
    assert ours.decode([1, *ours.encode("es")], skip_special=True) == "es"


def test_start_is_added_unless_the_file_says_no():
    small = spm_vocab.small()
    assert small.ours(add_bos=True).encode("a", add_special=True)[0] == 1
    assert small.ours(add_bos=False).encode("a", add_special=True)[0] != 1


def test_control_and_byte_tokens_cannot_be_spelt():
    """Merging "<" and "s>" would forge a control token, as it does elsewhere."""
    tokens = ["<unk>", "<s>", "</s>", "<0x41>", "<", "s>", "<0", "<0x", "<0x4", "1>"]
    types = [UNKNOWN, CONTROL, CONTROL, BYTE, *[NORMAL] * 6]
    ours = SpmVocab(tokens, types, [0.0] * 10, False).ours()
    assert ours.encode("<s>") == [4, 5]
    assert ours.encode("<s>", parse_special=True) == [1]
    assert ours.encode("<0x41>") == [8, 9]
    assert ours.encode("A") == [3]
    assert ours.token_bytes(3) == b"A"


def test_user_defined_token_is_always_found():
    small = spm_vocab.small(True, False)
    tokens, types = [*small.tokens, "   ", "\n\n"], [*small.types, USER, USER]
    ours = SpmVocab(tokens, types, [*small.scores, 0.0, 0.0], False).ours()
    runs = [len(tokens) - 2, len(tokens) - 1]
    assert ours.encode("a   e\n\n") == [*ours.encode("a"), runs[0], *ours.encode("e"), runs[1]]
    assert ours.decode(ours.encode("a    e\n\n\n")) == "a    e\n\n\n"


def test_turns_of_phi3_take_in_the_spaces_after_them():
    small = spm_vocab.small()
    tokens, types = [*small.tokens, "<|user|>"], [*small.types, CONTROL]
    made = SpmVocab(tokens, types, [*small.scores, 0.0])
    turn = len(tokens) - 1
    striking = made.ours(strip_after_special=True)
    assert striking.encode("<|user|> \n\u3000 es", parse_special=True) == [turn, *made.ours().encode("es")]
    assert striking.encode("<s> es", parse_special=True) == [1, *made.ours().encode(" es")]
    assert made.ours().encode("<|user|> es", parse_special=True) == [turn, *made.ours().encode(" es")]


@pytest.mark.parametrize("unit", ["a", " ", "▁", "中", "ae", "z", "\n"])
def test_megabyte_of_one_character_is_encoded(unit):
    """Tokens of growing runs, so that a text merges, in an order that takes a quadratic merge hours."""
    runs = [letter * n for letter in "a▁z中" for n in range(1, 200)]
    scores = [0.0] * 3 + [float((i * 7919) % 613) for i in range(len(runs))]
    made = SpmVocab(["<unk>", "<s>", "</s>", *runs], [2, 3, 3, *[1] * len(runs)], scores, False)
    text = unit * (200_000 // len(unit))
    assert len(made.ours().encode(text)) <= len(text)


def test_threads_share_a_tokenizer():
    ours = spm_vocab.small().ours()
    texts = [t * 50 for t in hard_texts(40, seed=6)]
    wanted = [ours.encode(t) for t in texts]
    found = {}

    def work(name):
        found[name] = [ours.encode(t) for t in texts]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(4)] == [wanted] * 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": [0.0, 0.0]}, ValueError, "scores has 2"),
        ({"scores": [0.0] * 4 + [float("nan")]}, ValueError, "score of token 4 is not finite"),
        ({"scores": [0.0] * 4 + [float("-inf")]}, ValueError, "score of token 4 is not finite"),
        ({"scores": [0.0] * 4 + ["x"]}, TypeError, "real number"),
        ({"tokens": ["<unk>", "a", "b", "ab", "a" * 1100]}, ValueError, "token 4 has 1100 bytes"),
        ({"model": "t6"}, ValueError, "'t6'"),
    ],
)
def test_contradictory_vocabulary_is_refused(change, error, message):
    parts = {"tokens": ["<unk>", "a", "b", "ab", "c"], "token_types": None, "merges": [], "pre": ""}
    parts |= {"model": "llama", "add_space_prefix": 0}
    assert core.Tokenizer(**parts).encode("ab") == [3]
    with pytest.raises(error, match=message):
        core.Tokenizer(**{**parts, **change})


def test_odd_vocabularies_have_a_meaning():
    """Empty and equal texts, bytes that are no UTF-8, no types: the last of equals counts."""
    tokens = [b"", "a", "a", b"\xff\xfe", "<0x41>", "ba", "▁", ""]
    ours = core.Tokenizer(tokens, None, [], "", model="llama", add_space_prefix=0)
    assert ours.encode("a aA") == [2, 6, 2, 4]
    assert ours.encode("ba") == [5]
    assert ours.decode([0, 3, 7, 6]) == "\ufffd\ufffd "
    assert ours.encode("b") == []  # neither byte tokens nor an unknown one


def test_file_gives_the_same_tokenizer_as_its_edge_image(tmp_path):
    gguf = tiny_model.write(tmp_path / "a.gguf", metadata=tiny_model.spm_entries())
    edgellm.convert(gguf, tmp_path / "a.edge", machine="portable")
    alone = text_tokenizer.load(gguf)
    assert (alone.bos_id, alone.eos_id, alone.unk_id) == (1, 2, 0)
    assert alone.add_bos
    assert alone.add_space_prefix
    with edgellm.load(gguf) as a, edgellm.load(tmp_path / "a.edge") as b:
        assert b.plan().tokenizer_bytes == 0
        for text in ["the cat is in", " a\n\n中", *hard_texts(200, seed=3)]:
            for flags in ({}, {"add_special": True, "parse_special": True}):
                ids = a.tokenizer.encode(text, **flags)
                assert b.tokenizer.encode(text, **flags) == alone.encode(text, **flags) == ids
                assert b.tokenizer.decode(ids) == a.tokenizer.decode(ids)
        assert b.tokenizer.encode("the cat")[:1] == [259 + 5]
