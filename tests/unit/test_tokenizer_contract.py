"""What a tokenizer promises beyond its ids: special tokens, long texts, errors that name what is wrong."""

import threading

import numpy as np
import pytest
import vocab

import edgellm._core as core

BYTES = vocab.byte_alphabet()
END, START, STOP, STUB, TOOL = range(5)  # of vocab.SPECIALS


@pytest.fixture(scope="module")
def tokenizer():
    return vocab.small().ours(bos=START, eos=STOP, add_bos=True)


def test_control_text_is_plain_unless_asked(tokenizer):
    text = "a<|im_end|>b"
    assert STOP not in tokenizer.encode(text)
    assert tokenizer.encode(text, parse_special=True) == [
        *tokenizer.encode("a"),
        STOP,
        *tokenizer.encode("b"),
    ]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_user_defined_token_is_always_found(tokenizer):
    assert TOOL in tokenizer.encode("x<tool>y")
    assert tokenizer.encode("<tool>", parse_special=True) == [TOOL]


def test_longest_special_token_wins(tokenizer):
    assert tokenizer.encode("<|im_start|><|im<|im_end|>", parse_special=True) == [START, STUB, STOP]
    assert tokenizer.encode("<|im_stop", parse_special=True)[0] == STUB


def test_last_special_token_of_a_text_counts():
    """And without parse_special the last user-defined one, however many there are."""
    letters = [BYTES[b] for b in range(256)]
    control, user, plain = [3] * 3000, [4] * 3000, [1] * 256
    for types, found, hidden in ((control + user, 5999, 5999), (user + control, 5999, 2999)):
        tok = core.Tokenizer(["q"] * 6000 + letters, types + plain, [], "smollm")
        assert tok.encode("q" * 3000, parse_special=True) == [found] * 3000
        assert tok.encode("q") == [hidden]
    tok = core.Tokenizer(["q"] * 6000 + letters, control * 2 + plain, [], "smollm")
    assert tok.encode("q", parse_special=True) == [5999]
    assert tok.encode("q") == [6000 + letters.index("q")]


def test_special_tokens_of_the_package_are_found_alike():
    small = vocab.small()
    ours, peer = small.ours(), small.peer()
    peer.add_special_tokens(vocab.SPECIALS[:4])
    peer.add_tokens(vocab.SPECIALS[4:])
    texts = [t.replace("=", "<|im_start|>").replace("_", "<tool>") for t in vocab.texts(4_000, seed=5)]
    wanted = [row.ids for row in peer.encode_batch_fast(texts)]
    assert [ours.encode(text, parse_special=True) for text in texts] == wanted


def test_add_special_puts_bos_first(tokenizer):
    assert tokenizer.encode("a", add_special=True) == [START, *tokenizer.encode("a")]
    assert tokenizer.encode("", add_special=True) == [START]
    assert tokenizer.encode("") == []
    both = vocab.small().ours(bos=START, eos=STOP, add_bos=True, add_eos=True)
    assert both.encode("", add_special=True) == [START, STOP]


def test_skip_special_leaves_control_tokens_out(tokenizer):
    ids = [START, *tokenizer.encode("hi"), STOP]
    assert tokenizer.decode(ids) == "<|im_start|>hi<|im_end|>"
    assert tokenizer.decode(ids, skip_special=True) == "hi"


def test_facts_are_those_given(tokenizer):
    assert tokenizer.vocab_size == len(vocab.small().tokens)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id) == (
        START,
        STOP,
        None,
        None,
    )
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|im": 3}
    assert tokenizer.end_ids == [END, STOP]
    assert tokenizer.memory_bytes > 10_000


def test_byte_without_token_is_dropped_as_by_the_package():
    small = vocab.small()
    gone = {BYTES[0x04], BYTES[0xE4]}
    kept = [t for t in small.tokens if not gone & set(t)]
    merges = [m for m in small.merges if not gone & set(m)]
    lacking = vocab.Vocab(kept, [1] * len(kept), merges)
    for text in ("a\x04b", "\x04", "中e中\x04 s"):
        assert lacking.ours().encode(text) == lacking.peer().encode(text).ids


@pytest.mark.parametrize("unit", ["a", " ", "中", "ab", "!"])
def test_megabyte_of_one_character_is_encoded(unit):
    """A quadratic merge would need hours for these."""
    tokenizer = vocab.small().ours("llama-bpe")
    text = unit * (1_000_000 // len(unit.encode()))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_threads_share_a_tokenizer(tokenizer):
    texts = vocab.texts(40, seed=6)
    texts = [t * 200 for t in texts]
    wanted = [tokenizer.encode(t) for t in texts]
    found = {}

    def work(name):
        found[name] = [tokenizer.encode(t) for t in texts]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(4)] == [wanted] * 4


def test_lone_surrogate_is_an_error(tokenizer):
    with pytest.raises(UnicodeEncodeError, match="surrogates"):
        tokenizer.encode("a\ud800b")


@pytest.mark.parametrize(
    ("ids", "message"), [([0, 10**6], r"ids\[1\] is 1000000"), ([-1], r"ids\[0\] is -1"), ([2**70], "ids")]
)
def test_decode_names_an_id_out_of_range(tokenizer, ids, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.decode(ids)


@pytest.mark.parametrize("ids", ["abc", b"abc", [1.5], 7])
def test_decode_takes_only_integers(tokenizer, ids):
    with pytest.raises(TypeError):
        tokenizer.decode(ids)


def test_decode_takes_arrays_and_repairs_cut_characters(tokenizer):
    ids = tokenizer.encode("x😀")
    assert tokenizer.decode(np.array(ids)) == "x😀"
    assert tokenizer.decode([vocab.small().tokens.index(BYTES[0xF0])]) == "\ufffd"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("bad", [-1, 10**6, 2**40])
def test_token_bytes_names_an_id_out_of_range(tokenizer, bad):
    with pytest.raises(ValueError, match=str(bad)):
        tokenizer.token_bytes(bad)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pre": "klingon"}, ValueError, "'klingon'"),
        ({"model": "bert"}, ValueError, "'bert'"),
        ({"tokens": []}, ValueError, "empty"),
        ({"merges": ["ab"]}, ValueError, "merge 0"),
        ({"merges": ["a b", "a z"]}, ValueError, "merge 1, 'a z'"),
        ({"merges": [" "]}, ValueError, "merge 0"),
        ({"merges": [""]}, ValueError, "merge 0"),
        ({"bos": 3}, ValueError, "bos id 3"),
        ({"eos": -2}, ValueError, "eos id -2"),
        ({"token_types": [1, 1]}, ValueError, "token_types has 2"),
        ({"token_types": [1, 1, 9]}, ValueError, "token 2 has the unknown type 9"),
        ({"tokens": ["a", 1, "ab"]}, TypeError, r"tokens\[1\]"),
    ],
)
def test_contradictory_vocabulary_is_refused(change, error, message):
    parts = {"tokens": ["a", "b", "ab"], "token_types": None, "merges": ["a b"], "pre": "gpt-2"}
    assert core.Tokenizer(**parts).encode("ab") == [2]
    with pytest.raises(error, match=message):
        core.Tokenizer(**{**parts, **change})


def test_token_texts_may_be_any_bytes():
    tokenizer = core.Tokenizer([b"\xff\xfe", b"", b"a\x00", "a", "<0x0A>"], [1, 3, 4, 1, 6], [], "gpt-2")
    assert tokenizer.encode("a\x00a", parse_special=True) == [2, 3]
    assert [tokenizer.token_bytes(i) for i in range(5)] == [b"\xff\xfe", b"", b"a\x00", b"a", b"\n"]
