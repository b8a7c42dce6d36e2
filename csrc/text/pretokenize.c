/* The regexes of the pre-tokenizers, by hand: each function is one of them, tried alternative by alternative.
 * All run in O(length of the piece), except that a run of spaces may be read twice. */
#include "text/pretokenize.h"

#include <string.h>

#include "text/unicode.h"

enum {
    LETTER = 1u << EL_CHAR_LETTER,
    NUMBER = 1u << EL_CHAR_NUMBER,
    SPACE = 1u << EL_CHAR_SPACE,
    PUNCT = 1u << EL_CHAR_PUNCT,
    DIGIT = 1u << EL_CHAR_DIGIT,
    SYMBOL = (1u << EL_CHAR_OTHER) | PUNCT | DIGIT
};  // SYMBOL: [^\s\p{L}\p{N}]

/* Class bit of the character at s, its length in *len; 0 at the end of the text. */
static unsigned class_at(const uint8_t *s, size_t n, size_t *len)
{
    uint32_t point;
    *len = 0;
    if (n == 0) return 0;
    *len = el_utf8_next(s, n, &point);
    return 1u << el_unicode_class(point);
}

/* End of the longest run of characters of these classes that starts at `pos`. */
static size_t skip_run(const uint8_t *s, size_t n, size_t pos, unsigned classes)
{
    size_t len;
    while (pos < n && (class_at(s + pos, n - pos, &len) & classes) != 0) pos += len;
    return pos;
}

static size_t skip_newlines(const uint8_t *s, size_t n, size_t pos)
{
    while (pos < n && (s[pos] == '\r' || s[pos] == '\n')) pos++;
    return pos;
}

/* 's|'t|'re|'ve|'m|'ll|'d at s: its length, or 0. */
static size_t contraction(const uint8_t *s, size_t n, int fold_case)
{
    static const char *const tails[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (n < 2 || s[0] != '\'') return 0;

    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        const size_t len = strlen(tails[i]);
        size_t same = 0;
        while (same < len && same + 1 < n) {
            const uint8_t c = s[same + 1];
            const uint8_t folded = fold_case && c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
            if (folded != (uint8_t)tails[i][same]) break;
            same++;
        }
        if (same == len) return len + 1;
    }
    // the long s, U+017F, is an s to a regex that folds case
    if (fold_case && n >= 3 && s[1] == 0xC5 && s[2] == 0xBF) return 3;
    return 0;
}

/* \s+(?!\S)|\s+ for s[0] a space: all of the run at the end of the text, else all but its last character. */
static size_t spaces(const uint8_t *s, size_t n)
{
    size_t len;
    size_t last = 0;
    size_t pos = 0;
    while (pos < n && class_at(s + pos, n - pos, &len) == SPACE) {
        last = pos;
        pos += len;
    }
    return pos < n && last > 0 ? last : pos;
}

/* GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t split_gpt2(const uint8_t *s, size_t n)
{
    size_t len;
    const size_t contracted = contraction(s, n, 0);
    if (contracted > 0) return contracted;

    const size_t skip = s[0] == ' ' ? 1 : 0;
    const unsigned kind = class_at(s + skip, n - skip, &len);
    if (kind == LETTER || kind == NUMBER) return skip_run(s, n, skip + len, kind);
    if (kind != 0 && kind != SPACE) return skip_run(s, n, skip + len, SYMBOL);
    return spaces(s, n);
}

/* Llama 3 and Qwen 2, which differ in how many digits stay together:
 * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
 * \s+(?!\S)|\s+ */
static size_t split_modern(const uint8_t *s, size_t n, size_t max_digits)
{
    size_t len;
    const size_t contracted = contraction(s, n, 1);
    if (contracted > 0) return contracted;

    const unsigned first = class_at(s, n, &len);
    if (first == LETTER) return skip_run(s, n, len, LETTER);
    if (first == NUMBER) {
        size_t pos = len;
        for (size_t i = 1; i < max_digits && class_at(s + pos, n - pos, &len) == NUMBER; i++) pos += len;
        return pos;
    }

    size_t next_len;
    const unsigned second = class_at(s + len, n - len, &next_len);
    if (second == LETTER && s[0] != '\r' && s[0] != '\n') return skip_run(s, n, len, LETTER);

    if ((first & SYMBOL) != 0) return skip_newlines(s, n, skip_run(s, n, len, SYMBOL));
    if (s[0] == ' ' && (second & SYMBOL) != 0) return skip_newlines(s, n, skip_run(s, n, 1, SYMBOL));

    // \s*[\r\n]+: through the last newline of the run of spaces, if it has one
    const size_t run = skip_run(s, n, 0, SPACE);
    size_t newline = run;
    while (newline > 0 && s[newline - 1] != '\r' && s[newline - 1] != '\n') newline--;
    return newline > 0 ? newline : spaces(s, n);
}

static size_t split_llama3(const uint8_t *s, size_t n) { return split_modern(s, n, 3); }
static size_t split_qwen2(const uint8_t *s, size_t n) { return split_modern(s, n, 1); }

/* A run of characters that `inside` accepts, or a run that it does not. */
static size_t split_runs(const uint8_t *s, size_t n, int (*inside)(const uint8_t *s, size_t n, size_t *len))
{
    size_t len;
    const int kind = inside(s, n, &len);
    size_t pos = len;
    while (pos < n && inside(s + pos, n - pos, &len) == kind) pos += len;
    return pos;
}

static int is_number(const uint8_t *s, size_t n, size_t *len) { return class_at(s, n, len) == NUMBER; }

static int is_numeric(const uint8_t *s, size_t n, size_t *len)
{
    return (class_at(s, n, len) & (NUMBER | DIGIT)) != 0;
}

/* [\p{P}\$\+<=>\^~\|]: punctuation, and the ASCII symbols but the backquote */
static int is_mark(const uint8_t *s, size_t n, size_t *len)
{
    return class_at(s, n, len) == PUNCT || (s[0] != 0 && s[0] < 0x80 && strchr("$+<=>^~|", s[0]) != NULL);
}

/* Each numeric character by itself, what is between them together. */
static size_t split_digits(const uint8_t *s, size_t n)
{
    size_t len;
    if (is_numeric(s, n, &len)) return len;
    size_t pos = len;
    while (pos < n && !is_numeric(s + pos, n - pos, &len)) pos += len;
    return pos;
}

static size_t split_marks(const uint8_t *s, size_t n) { return split_runs(s, n, is_mark); }
static size_t split_numbers(const uint8_t *s, size_t n) { return split_runs(s, n, is_number); }

/* [0-9][0-9][0-9], and what is between such triples */
static size_t split_triples(const uint8_t *s, size_t n)
{
    size_t digits = 0;
    for (size_t pos = 0; pos < n; pos++) {
        digits = s[pos] >= '0' && s[pos] <= '9' ? digits + 1 : 0;
        if (digits == 3) return pos == 2 ? 3 : pos - 2;
    }
    return n;
}

static const el_pre pres[] = {
    {"default", {split_marks, split_gpt2, split_numbers, split_triples}, 0, 0},
    {"gpt-2", {split_gpt2}, 0, 0},
    {"smollm", {split_digits, split_gpt2}, 0, 0},
    {"starcoder", {split_digits, split_gpt2}, 0, 0},
    {"llama-bpe", {split_llama3}, 1, 1},
    {"llama3", {split_llama3}, 1, 1},
    {"qwen2", {split_qwen2}, 0, 0},
    {"deepseek-r1-qwen", {split_qwen2}, 0, 0},
};

const el_pre *el_pre_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof pres / sizeof pres[0]; i++) {
        if (strlen(pres[i].name) == len && memcmp(pres[i].name, name, len) == 0) return &pres[i];
    }
    return NULL;
}

void el_pre_start(el_pre_walk *walk, const el_pre *pre, const uint8_t *s, size_t n)
{
    *walk = (el_pre_walk){.pre = pre, .s = s, .n = n};
}

int el_pre_next(el_pre_walk *walk, size_t *start, size_t *end)
{
    const size_t pos = walk->pos;
    if (pos == walk->n) return 0;

    // a stage cuts anew where its last piece ended, and goes on with it otherwise
    size_t limit = walk->n;
    for (size_t i = 0; i < EL_PRE_STAGES && walk->pre->stages[i] != NULL; i++) {
        if (walk->ends[i] == pos) walk->ends[i] = pos + walk->pre->stages[i](walk->s + pos, limit - pos);
        limit = walk->ends[i];
    }
    *start = pos;
    *end = limit;
    walk->pos = limit;
    return 1;
}
