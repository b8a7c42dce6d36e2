"""The same ids as the `tokenizers` package from the same merges, and the same text back."""

import os
import random
import subprocess
import sys

import pytest
import vocab
from hypothesis import given
from hypothesis import strategies as st

POINTS = [chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000]
NAMES = sorted(vocab.PEERS)
# The sanitizers' run looks for errors in C, not for other ids, and is ten times slower.
SHARE = 20 if "EDGELLM_SANITIZED" in os.environ else 1


def differences(ours, peer, texts):
    """(text, our ids, the package's ids) of every text on which they differ."""
    wanted = peer.encode_batch_fast(texts)
    found = [(text, ours.encode(text), want.ids) for text, want in zip(texts, wanted, strict=True)]
    return [row for row in found if row[1] != row[2]]


@pytest.mark.weights
def test_ids_of_smollm2_equal_the_package_on_100000_texts(smollm2):
    real = vocab.of_file(smollm2)
    texts = vocab.texts(120_000 // SHARE, seed=1)
    assert len(set(texts)) >= 100_000 // SHARE  # short ones repeat
    assert differences(real.ours(), real.peer(), texts)[:3] == []


@pytest.mark.weights
def test_ids_of_smollm2_equal_the_package_on_every_code_point(smollm2):
    real = vocab.of_file(smollm2)
    texts = ["".join(POINTS[i : i + 64]) for i in range(0, len(POINTS), 64)][::SHARE]
    assert differences(real.ours(), real.peer(), texts)[:3] == []


@pytest.mark.weights
def test_text_of_smollm2_equals_the_package(smollm2):
    real = vocab.of_file(smollm2)
    ours, peer = real.ours(), real.peer()
    ids = [ours.encode(text) for text in vocab.texts(5_000 // SHARE, seed=2)]
    assert [ours.decode(row) for row in ids] == peer.decode_batch(ids)


@pytest.mark.parametrize("name", NAMES)
def test_ids_of_each_pre_tokenizer_equal_the_package(name):
    small = vocab.small()
    assert differences(small.ours(name), small.peer(name), vocab.texts(12_000 // SHARE, seed=4))[:3] == []


HARD = st.text(st.one_of(st.sampled_from(" \n\r\t'sStTrRvVmMlLdDſ0９a中=._"), st.characters(codec="utf-8")))


@pytest.mark.parametrize("name", NAMES)
def test_ids_where_cases_and_marks_meet_equal_the_package(name):
    rng = random.Random(8)
    letters = "aaAAsSlLǅʰ中\u0301\u0301'// \n\r!1\u200d"
    texts = ["".join(rng.choices(letters, k=rng.randint(1, 16))) for _ in range(12_000 // SHARE)]
    small = vocab.small()
    assert differences(small.ours(name), small.peer(name), texts)[:3] == []


@pytest.mark.parametrize("name", NAMES)
@given(text=HARD)
def test_ids_of_any_text_equal_the_package(name, text):
    small = vocab.small()
    assert differences(small.ours(name), small.peer(name), [text]) == []


@given(text=HARD)
def test_decode_undoes_encode_where_every_byte_has_a_token(text):
    tokenizer = vocab.small().ours()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@pytest.mark.skipif(SHARE > 1, reason="runs no C of ours")
@pytest.mark.parametrize(("arguments", "header"), [([], "unicode_table.h"), (["case"], "unicode_case.h")])
def test_classes_of_all_code_points_equal_the_package(root, arguments, header):
    """The tables in git are what the package's own classes give."""
    script = root / "csrc" / "text" / "gen_unicode.py"
    command = [sys.executable, str(script), *arguments]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert made == script.with_name(header).read_text(encoding="utf-8")
