"""SentencePiece unigram: ids of the `tokenizers` package, sentencepiece's normaliser, and hostile tables."""

import contextlib
import itertools
import os
import random
import struct

import pytest
import vocab
from helpers import tiny_model
from helpers.charsmap import charsmap
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

import edgellm
import edgellm._core as core
from edgellm import tokenizer as text_tokenizer

SHARE = 20 if "EDGELLM_SANITIZED" in os.environ else 1
MARK = "▁"
CHARACTERS = MARK + "aeioustn'01\n.é中😀"
FORMS = {"\t": " ", "\u3000": " ", "ﬁ": "fi", "①": "1", "A": "a", "e\u0301": "é", "ﷺ": "a b  c", "\u200b": ""}
MAP = charsmap(FORMS)


def parts(seed, letters=CHARACTERS, bytes_too=False):
    """Tokens, types and scores of a random vocabulary; the unknown token is number 2."""
    rng = random.Random(seed)
    pieces = set(letters)
    while len(pieces) < 600:
        pieces.add("".join(rng.choices(letters, k=rng.randint(2, 5))))
    pieces = {p for p in pieces if MARK not in p[1:]} - {"😀"}
    tokens = ["<pad>", "</s>", "<unk>", *sorted(pieces)]
    types = [3, 3, 2, *[1] * len(pieces)]
    if bytes_too:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        types += [6] * 256
    return tokens, types, [0.0, 0.0, 0.0, *(-rng.uniform(1, 12) for _ in tokens[3:])]


def ours(tokens, types, scores, **options):
    """Our tokenizer of such a vocabulary."""
    scores = [struct.unpack("f", struct.pack("f", score))[0] for score in scores]
    options = {"unk": 2, "add_space_prefix": 1, "scores": scores, **options}
    return core.Tokenizer(tokens, types, [], "", model="t5", **options)


def peer(tokens, types, scores, space=True):
    """The package's tokenizer."""
    rows = [(t, struct.unpack("f", struct.pack("f", s))[0]) for t, s in zip(tokens, scores, strict=True)]
    made = Tokenizer(models.Unigram(rows, unk_id=2, byte_fallback=6 in types))
    steps = [normalizers.Prepend(MARK)] if space else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", MARK)])
    made.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


def texts_of(count, seed):
    letters = CHARACTERS.replace(MARK, "  zA")
    rng = random.Random(seed)
    own = ["".join(rng.choices(letters, k=rng.randint(0, 40))) for _ in range(count // 2)]
    return own + vocab.texts(count - len(own), seed)


@pytest.mark.parametrize(("bytes_too", "space"), [(False, True), (True, True), (False, False)])
def test_ids_equal_the_package(bytes_too, space):
    made = parts(1, bytes_too=bytes_too)
    mine, theirs = ours(*made, add_space_prefix=int(space)), peer(*made, space)
    texts = texts_of(8_000 // SHARE, seed=2)
    wanted = [row.ids for row in theirs.encode_batch_fast(texts)]
    found = [mine.encode(text) for text in texts]
    assert [row for row in zip(texts, found, wanted, strict=True) if row[1] != row[2]][:3] == []
    back = [mine.decode(ids, at_start=False) for ids in wanted]
    assert back == theirs.decode_batch(wanted, skip_special_tokens=False)


def spell(text, remove_extra):
    """What the normaliser makes of a text: the longest key first, then the rules about spaces."""
    out = ""
    while text:
        key = max((k for k in FORMS if text.startswith(k)), key=len, default=text[0])
        out, text = out + FORMS.get(key, key), text[len(key) :]
    return " " + " ".join(w for w in out.split(" ") if w) if remove_extra and out.strip(" ") else out


@pytest.mark.parametrize("remove_extra", [True, False])
def test_normaliser_replaces_the_longest_key(remove_extra):
    made = parts(3, bytes_too=True)
    plain = ours(*made, add_space_prefix=0)
    normal = ours(
        *made, charsmap=MAP, remove_extra_whitespaces=remove_extra, add_space_prefix=int(remove_extra)
    )
    rng = random.Random(4)
    units = [*FORMS, *CHARACTERS.replace(MARK, " "), "\u0301", "\u00ef"]
    for text in itertools.chain(
        FORMS, ("".join(rng.choices(units, k=rng.randint(0, 30))) for _ in range(3000))
    ):
        wanted = spell(text, remove_extra)
        assert normal.encode(text) == ([] if remove_extra and not wanted.strip(" ") else plain.encode(wanted))


def test_normaliser_is_the_one_of_the_package():
    theirs = normalizers.Precompiled(MAP)
    made = parts(3, bytes_too=True)
    normal, plain = ours(*made, charsmap=MAP), ours(*made)
    for text in ["a\tb", "ﬁne①", "TEAse", "\u3000x", "ﷺ", "no"]:
        assert normal.encode(text) == plain.encode(theirs.normalize_str(text))


@given(text=st.text())
def test_any_text_comes_back(text):
    mine = ours(*parts(5, bytes_too=True))
    ids = mine.encode(text)
    assert mine.decode(ids) == text.replace(MARK, " ")
    stream = text_tokenizer.StreamDecoder(mine)
    assert "".join([*map(stream.push, ids), stream.finish()]) == mine.decode(ids)


@pytest.mark.parametrize("unit", ["a", " ", "中", "z", "ﷺ", "e\u0301"])
def test_megabyte_of_one_character_is_encoded(unit):
    runs = [letter * n for letter in "ae中" for n in range(1, 200)]
    scores = [0.0] * 3 + [-1.0 - (i * 7919) % 613 / 100 for i in range(len(runs))]
    types = [3, 3, 2, *[1] * len(runs)]
    mine = ours(["<pad>", "</s>", "<unk>", *runs], types, scores, charsmap=MAP)
    text = unit * (1_000_000 // len(unit.encode()))
    assert len(mine.encode(text)) <= 6 * len(text)


@pytest.mark.parametrize("seed", range(40))
def test_hostile_normaliser_is_refused_or_harmless(seed):
    rng = random.Random(seed)
    made = parts(6, bytes_too=True)
    spoilt = bytearray(MAP)
    for _ in range(rng.randint(1, 60)):
        spoilt[rng.randrange(len(spoilt) - 1)] = rng.choice((0, 1, 4, 127, 128, 255, rng.randrange(256)))
    spoilt = bytes(spoilt)[: rng.choice((len(spoilt), rng.randrange(len(spoilt))))]
    text = "".join(rng.choices([*FORMS, "a", " ", "é"], k=5000))
    with contextlib.suppress(edgellm.FormatError):
        mine = ours(*made, charsmap=spoilt)
        assert max(mine.encode(text), default=0) < mine.vocab_size


def test_looping_normaliser_takes_linear_time():
    """One unit that is its own child by "a", so that a key never ends."""
    units = [ord("a") << 10] * 256
    units[0] = (ord("a") ^ 1) << 10
    units[1] = ord("a") | ord("a") << 10
    looping = struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + b"x\0"
    mine = ours(*parts(6), charsmap=looping)
    assert len(mine.encode("a" * 300_000)) > 1


@pytest.mark.parametrize(
    "bad",
    [
        b"\1",
        b"\0\0\0\0x\0",
        b"\4\0\0\0abcd",
        b"\4\0\0\0abcdx",
        b"\3\0\0\0abcdx\0",
        b"\xff\xff\xff\xff" + b"x" * 9,
    ],
)
def test_damaged_normaliser_is_refused(bad):
    with pytest.raises(edgellm.FormatError, match="map of characters"):
        ours(*parts(6), charsmap=bad)


def test_long_replacement_is_not_applied():
    """Normalising cannot make a text much longer than it is."""
    made = parts(6, bytes_too=True)
    mine = ours(*made, charsmap=charsmap({"a": "e" * 12, "i": "e" * 13}), add_space_prefix=0)
    assert mine.encode("a") == ours(*made, add_space_prefix=0).encode("e" * 12)
    assert mine.encode("i") == ours(*made, add_space_prefix=0).encode("i")


def test_file_gives_the_same_tokenizer_as_its_edge_image(tmp_path):
    gguf = tiny_model.write(tmp_path / "a.gguf", metadata=tiny_model.unigram_entries(MAP))
    edgellm.convert(gguf, tmp_path / "a.edge", machine="portable")
    alone = text_tokenizer.load(gguf)
    assert (alone.bos_id, alone.eos_id, alone.unk_id, alone.pad_id) == (None, 1, 2, 0)
    assert (alone.add_bos, alone.add_eos) == (False, True)
    assert alone.encode("", add_special=True) == [1]
    with edgellm.load(gguf) as a, edgellm.load(tmp_path / "a.edge") as b:
        for text in ["the cat is in", " A\t\tb ﬁ", *texts_of(200, seed=3)]:
            for flags in ({}, {"add_special": True, "parse_special": True}):
                ids = a.tokenizer.encode(text, **flags)
                assert b.tokenizer.encode(text, **flags) == alone.encode(text, **flags) == ids
        assert a.tokenizer.decode(a.tokenizer.encode("  the \u3000 cat ")) == "the cat"
