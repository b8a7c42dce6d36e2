"""What a grammar promises beside its masks: errors that name a place, rollback, threads, bounded time."""

import contextlib
import random
import threading

import numpy as np
import pytest
from helpers.random_schemas import random_schema, small_tokenizer, walk
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import GrammarError
from edgellm.grammar import JSON, from_gbnf, from_json_schema, schema_to_gbnf

TOKENIZER = small_tokenizer()

REFUSED = {
    'root ::= "a" b': "line 1, column 14: a rule that is used and not defined: b",
    "root ::= a\na ::= b\nb ::= a": "can never end",
    'root ::= a | "x"\na ::= root "y"': "left recursion, which never ends: root -> a -> root",
    'root ::= e root | "x"\ne ::= "y"?': "rule 'root': left recursion, which never ends: root -> root",
    'root ::= "x" root': "rule 'root': the rule can never end",
    'other ::= "x"': "no rule 'root'",
    'root ::= "x': "the text ends within a literal",
    "root ::= [b-a]": "runs backwards",
    "root ::= []": "a class that no character matches",
    'root ::= "\\q"': "an unknown escape",
    'root ::= "\\uD800"': "names no Unicode character",
    "root ::= ( [a]": "'(' without ')'",
    "root ::= *": "a repetition of nothing",
    "root ::= [a]{3,2}": "more at least than at most",
    "root ::= [a]{9999999}": "a number over 1048576",
    "root ::= [a])": "unexpected text",
    'root ::= "a"\nroot ::= "b"': "line 2, column 1, rule 'root': the rule is defined twice",
    "root ::= " + "(" * 300 + '"a"' + ")" * 300: "more than 200 groups",
    'root ::= "a"' + "*" * 20: "a repetition of a repetition",
    "root ::= <none>": "no special token",
    "root ::= !<end>": "negated tokens",
    "root ::= r0"
    + "".join(f'\nr{i} ::= r{i + 1} | "{i:030}"' for i in range(400))
    + '\nr400 ::= "x"': "begin with each",
}


@pytest.mark.parametrize("text", REFUSED)
def test_grammar_is_refused_with_place_and_reason(text):
    with pytest.raises(GrammarError) as refused:
        from_gbnf(TOKENIZER, text)
    assert REFUSED[text] in str(refused.value)


SUMS = r"""
root ::= (sum "=" ws term "\n")+
sum ::= term ([-+*/] term)*
term ::= name | num | "(" ws sum ")" ws
name ::= [a-z] [a-z0-9_]* ws
num ::= [0-9]+ ws
ws ::= [ \t\n]*
"""
MOVES = r"""
root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | piece | "O-O" "-O"?) [+#]?
piece ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
"""
LINES = r"""
root ::= item+  # a list
item ::= "- " [^\r\n\x0b\x85\u2028]+ "\n"
"""
PROGRAM = r"""
root ::= func*
func ::= type name "(" (type name)? ")" "{" stat* "}"
type ::= "int" ws | "char" ws
stat ::=
    ( type name ws "=" ws expr ";" ) |
    ( "while" "(" expr ")" "{" stat* "}" ("else" "{" stat* "}")? )
name ::= [a-zA-Z_] [a-zA-Z_0-9]*
expr ::= name | "-" expr | "(" ws expr ws ")"
ws ::= ([ \t\n]+)
"""
USUAL = [  # of the kinds that users of llama.cpp bring
    (SUMS, "a+( 3*b) =1\n"),
    (SUMS, "x=2\ny = 3 \n"),
    (MOVES, "1. e4 e5\n2. Nf3 Nc6\n3. O-O exd8=Q#\n"),
    (LINES, "- one\n- zwei é\n"),
    (PROGRAM, "int main(char x){while(-y){int a = (\tb );}else{}}"),
]


@pytest.mark.parametrize(("text", "sample"), USUAL)
def test_grammar_of_a_usual_kind_reads_its_texts(text, sample):
    matcher = from_gbnf(TOKENIZER, text).matcher()
    for byte in sample.encode():
        matcher.accept(byte)
    assert matcher.complete


def test_grammar_of_sets_that_explode_is_read_by_stacks():
    matcher = from_gbnf(TOKENIZER, 'root ::= [ab]* "a" [ab]{20}').matcher()
    for byte in b"abab" * 5 + b"a":
        matcher.accept(byte)
    assert matcher.complete


def test_control_tokens_come_only_where_they_are_named():
    end = TOKENIZER.special_tokens["<|im_end|>"]
    matcher = from_gbnf(TOKENIZER, 'root ::= "a" <|im_end|> "b"').matcher()
    matcher.accept(ord("a"))
    assert matcher.forced(5) == [end, ord("b")]
    plain = from_gbnf(TOKENIZER, "root ::= .{10}").matcher()
    with pytest.raises(GrammarError, match="not allowed"):
        plain.accept(end)


def test_rollback_and_copy_give_the_same_masks():
    matcher = from_json_schema(TOKENIZER, JSON).matcher()
    rng = np.random.default_rng(0)

    def mask(m) -> bytes:
        logits = np.zeros(TOKENIZER.vocab_size, np.float32)
        m.mask(logits)
        return logits.tobytes()

    masks = [mask(matcher)]
    for _ in range(60):
        token = int(rng.choice(np.flatnonzero(np.frombuffer(masks[-1], np.float32) == 0)))
        if token in TOKENIZER.end_ids:
            break
        matcher.accept(token)
        masks.append(mask(matcher))
    other = matcher.copy()
    for before in reversed(masks[:-1]):
        other.rollback(1)
        assert mask(other) == before
    assert mask(matcher) == masks[-1]
    assert other.length == 0
    with pytest.raises(ValueError, match="cannot be taken back"):
        other.rollback(1)


def test_token_that_is_refused_changes_nothing():
    matcher = from_gbnf(TOKENIZER, 'root ::= "ab" "c"').matcher()
    with pytest.raises(GrammarError, match="is not allowed here"):
        matcher.accept(ord("b"))
    with pytest.raises(ValueError, match="is not in 0"):
        matcher.accept(10**6)
    assert (matcher.length, matcher.shortest) == (0, 3)


def test_mask_checks_its_row():
    matcher = from_gbnf(TOKENIZER, 'root ::= "a"').matcher()
    with pytest.raises(TypeError, match="float32"):
        matcher.mask(np.zeros(TOKENIZER.vocab_size))
    with pytest.raises(ValueError, match="one writable row"):
        matcher.mask(np.zeros((2, TOKENIZER.vocab_size), np.float32))
    with pytest.raises(ValueError, match="fewer than"):
        matcher.mask(np.zeros(3, np.float32))
    with pytest.raises(GrammarError, match="needs up to 1 more and 0 are left"):
        matcher.mask(np.zeros(TOKENIZER.vocab_size, np.float32), 0)


def test_threads_share_a_grammar():
    grammar = from_json_schema(TOKENIZER, {"type": "array", "items": {"type": "string", "maxLength": 9}})
    alone = [walk(TOKENIZER, grammar.matcher(), np.random.default_rng(i), 60) for i in range(8)]
    fresh = from_json_schema(TOKENIZER, {"type": "array", "items": {"type": "string", "maxLength": 9}})
    found: list[bytes] = [b""] * 8

    def run(i: int) -> None:
        found[i] = walk(TOKENIZER, fresh.matcher(), np.random.default_rng(i), 60)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "root ::= ",
                "a ::= ",
                '"x"',
                "[a-c]",
                "a ",
                "root",
                "(",
                ")",
                "|",
                "*",
                "?",
                "{2,}",
                "{30}",
                "\n",
                "é",
                "<[3]>",
                "\\",
            ]
        ),
        max_size=30,
    )
)
def test_any_grammar_works_or_is_refused(parts):
    with contextlib.suppress(GrammarError):
        matcher = from_gbnf(TOKENIZER, "".join(parts)).matcher()
        matcher.mask(np.zeros(TOKENIZER.vocab_size, np.float32))


KEYWORDS = [
    "type",
    "enum",
    "properties",
    "items",
    "anyOf",
    "allOf",
    "oneOf",
    "$ref",
    "minimum",
    "maxLength",
    "pattern",
    "not",
]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["string", "object", "#", "#/items", "(a|b)*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON_VALUES)
def test_any_json_is_a_schema_or_refused(schema):
    with contextlib.suppress(GrammarError):
        schema_to_gbnf(schema)


def test_schemas_of_many_references_stay_small():
    rng = random.Random(5)
    defs = {
        f"d{i}": {"anyOf": [random_schema(rng, 1), {"$ref": f"#/$defs/d{(i + 1) % 40}"}]} for i in range(40)
    }
    with pytest.raises(GrammarError, match="refers to itself"):
        schema_to_gbnf({"$ref": "#/$defs/d0", "$defs": defs})
