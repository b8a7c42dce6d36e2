/* The regexes of the pre-tokenizers, by hand: each function is one of them, tried alternative by alternative.
 * All run in O(length of the piece), except that a run of spaces may be read twice. */
#include "text/pretokenize.h"

#include <stdbool.h>
#include <string.h>

#include "text/unicode.h"

enum {
    LETTER = 1u << EL_CHAR_LETTER,
    NUMBER = 1u << EL_CHAR_NUMBER,
    SPACE = 1u << EL_CHAR_SPACE,
    PUNCT = 1u << EL_CHAR_PUNCT,
    DIGIT = 1u << EL_CHAR_DIGIT,
    MARK = 1u << EL_CHAR_MARK,
    SYMBOL = (1u << EL_CHAR_OTHER) | (1u << EL_CHAR_SYMBOL) | PUNCT | DIGIT | MARK
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

/* What differs between the regexes that descend from GPT-4's. */
typedef struct modern {
    size_t max_digits;  // that stay together
    unsigned letters;  // classes of a word
    bool contractions;  // 's and the like are pieces
    const char *closes;  // characters that may follow [^\s\p{L}\p{N}]+ in its piece
} modern;

static size_t skip_digits(const uint8_t *s, size_t n, size_t pos, size_t most)
{
    size_t len;
    for (size_t i = 0; i < most && class_at(s + pos, n - pos, &len) == NUMBER; i++) pos += len;
    return pos;
}

static size_t skip_any(const uint8_t *s, size_t n, size_t pos, const char *chars)
{
    while (pos < n && s[pos] != 0 && strchr(chars, s[pos]) != NULL) pos++;
    return pos;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+, for s[0] a space: through the last newline of the run, if it has one. */
static size_t lines(const uint8_t *s, size_t n)
{
    size_t newline = skip_run(s, n, 0, SPACE);
    while (newline > 0 && s[newline - 1] != '\r' && s[newline - 1] != '\n') newline--;
    return newline > 0 ? newline : spaces(s, n);
}

/* What comes after words and numbers, for letters L:  ?[^\s\p{N}L]+[closes]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t split_rest(const uint8_t *s, size_t n, unsigned letters, const char *closes)
{
    size_t len;
    const unsigned symbols = SYMBOL & ~letters;
    const size_t skip = s[0] == ' ' ? 1 : 0;
    if ((class_at(s + skip, n - skip, &len) & symbols) != 0)
        return skip_any(s, n, skip_run(s, n, skip + len, symbols), closes);
    return lines(s, n);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?L+|\p{N}{1,max}|... */
static size_t split_modern(const uint8_t *s, size_t n, const modern *form)
{
    size_t len;
    size_t next_len;
    const size_t contracted = form->contractions ? contraction(s, n, 1) : 0;
    if (contracted > 0) return contracted;

    const unsigned first = class_at(s, n, &len);
    if ((first & form->letters) != 0) return skip_run(s, n, len, form->letters);
    if (first == NUMBER) return skip_digits(s, n, 0, form->max_digits);
    const unsigned second = class_at(s + len, n - len, &next_len);
    if ((second & form->letters) != 0 && s[0] != '\r' && s[0] != '\n')
        return skip_run(s, n, len, form->letters);
    return split_rest(s, n, form->letters, form->closes);
}

static size_t split_llama3(const uint8_t *s, size_t n)
{
    return split_modern(s, n, &(modern){3, LETTER, true, "\r\n"});
}

static size_t split_qwen2(const uint8_t *s, size_t n)
{
    return split_modern(s, n, &(modern){1, LETTER, true, "\r\n"});
}

static size_t split_qwen35(const uint8_t *s, size_t n)
{
    return split_modern(s, n, &(modern){1, LETTER | MARK, true, "\r\n"});
}

static size_t split_seed(const uint8_t *s, size_t n)
{
    return split_modern(s, n, &(modern){1, LETTER, true, ""});
}

static size_t split_uncontracted(const uint8_t *s, size_t n)
{
    return split_modern(s, n, &(modern){1, LETTER, false, "\r\n"});
}

enum {
    UPPER = 1,
    LOWER = 2
};  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], [\p{Ll}\p{Lm}\p{Lo}\p{M}]; many are in both

static unsigned cases_at(const uint8_t *s, size_t n, size_t *len)
{
    uint32_t point;
    *len = 0;
    if (n == 0) return 0;
    *len = el_utf8_next(s, n, &point);
    const el_char_class kind = el_unicode_class(point);
    if (kind != EL_CHAR_LETTER) return kind == EL_CHAR_MARK ? UPPER | LOWER : 0;
    const el_char_case letter = el_unicode_case(point);
    return letter == EL_CASE_NONE ? UPPER | LOWER : letter == EL_CASE_UPPER ? UPPER : LOWER;
}

static size_t skip_cases(const uint8_t *s, size_t n, size_t pos, unsigned cases)
{
    size_t len;
    while ((cases_at(s + pos, n - pos, &len) & cases) != 0) pos += len;
    return pos;
}

/* End of UPPER*LOWER+ at `start`, as a regex finds it that gives back what it took too much, or 0. Also, in
 * `*upper`, the end of UPPER*. */
static size_t cased_word(const uint8_t *s, size_t n, size_t start, size_t *upper)
{
    size_t len;
    size_t both_end = 0;  // of the last character of UPPER* that is in LOWER as well
    size_t pos = start;
    for (unsigned cases; ((cases = cases_at(s + pos, n - pos, &len)) & UPPER) != 0;) {
        pos += len;
        if ((cases & LOWER) != 0) both_end = pos;
    }
    *upper = pos;
    const size_t end = skip_cases(s, n, pos, LOWER);
    return end > pos ? end : both_end;
}

/* Tekken and GPT-4o, for an optional tail:
 * [^\r\n\p{L}\p{N}]?UPPER*LOWER+tail|[^\r\n\p{L}\p{N}]?UPPER+LOWER*tail|\p{N}{1,max}|
 *  ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t split_cased(const uint8_t *s, size_t n, size_t max_digits, bool tails)
{
    size_t len, upper, unused;
    const unsigned first = class_at(s, n, &len);
    if (first == NUMBER) return skip_digits(s, n, 0, max_digits);
    const size_t prefix = first == LETTER || s[0] == '\r' || s[0] == '\n' ? 0 : len;

    size_t end = cased_word(s, n, prefix, &upper);
    if (end == 0 && prefix > 0) end = cased_word(s, n, 0, &unused);  // a mark may start a word
    if (end == 0 && upper > prefix)
        end = upper;  // then LOWER* is empty, or the first alternative had matched
    if (end > 0) return end + (tails ? contraction(s + end, n - end, 1) : 0);
    return split_rest(s, n, LETTER, "\r\n/");
}

static size_t split_tekken(const uint8_t *s, size_t n) { return split_cased(s, n, 1, false); }
static size_t split_gpt4o(const uint8_t *s, size_t n) { return split_cased(s, n, 3, true); }

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

/* Names as llama.cpp gives them, which checks by a hash of ids that a model's own tokenizer has the regex. */
static const el_pre pres[] = {
    {"default", {split_marks, split_gpt2, split_numbers, split_triples}, 0, 0},
    {"gpt-2", {split_gpt2}, 0, 0},
    {"phi-2", {split_gpt2}, 0, 0},
    {"mpt", {split_gpt2}, 0, 0},
    {"olmo", {split_gpt2}, 0, 0},
    {"jais", {split_gpt2}, 0, 0},
    {"gigachat", {split_gpt2}, 0, 0},
    {"mellum", {split_gpt2}, 0, 0},
    {"exaone4", {split_gpt2}, 0, 0},
    {"trillion", {split_gpt2}, 0, 0},
    {"a.x-4.0", {split_gpt2}, 0, 0},
    {"granite-docling", {split_gpt2}, 0, 0},
    {"smollm", {split_digits, split_gpt2}, 0, 0},
    {"starcoder", {split_digits, split_gpt2}, 0, 0},
    {"refact", {split_digits, split_gpt2}, 0, 0},
    {"command-r", {split_digits, split_gpt2}, 0, 0},
    {"codeshell", {split_digits, split_gpt2}, 0, 0},
    {"exaone", {split_digits, split_gpt2}, 0, 0},
    {"minerva-7b", {split_digits, split_gpt2}, 0, 0},
    {"mellum2", {split_digits, split_gpt2}, 0, 0},
    {"llama-bpe", {split_llama3}, 1, 1},
    {"llama3", {split_llama3}, 1, 1},
    {"llama-v3", {split_llama3}, 1, 1},
    {"falcon3", {split_llama3}, 1, 1},
    {"falcon-h1", {split_llama3}, 1, 1},
    {"pixtral", {split_llama3}, 1, 1},
    {"midm-2.0", {split_llama3}, 1, 1},
    {"lfm2", {split_llama3}, 1, 1},
    {"dbrx", {split_llama3}, 0, 0},
    {"smaug-bpe", {split_llama3}, 0, 0},
    {"chatglm-bpe", {split_llama3}, 0, 0},
    {"glm4", {split_llama3}, 1, 0},
    {"qwen2", {split_qwen2}, 0, 0},
    {"deepseek-r1-qwen", {split_qwen2}, 0, 0},
    {"megrez", {split_qwen2}, 0, 0},
    {"stablelm2", {split_qwen2}, 0, 0},
    {"hunyuan", {split_qwen2}, 0, 0},
    {"solar-open", {split_qwen2}, 0, 0},
    {"grok-2", {split_qwen2}, 0, 0},
    {"kormo", {split_qwen2}, 0, 0},
    {"f2llmv2", {split_qwen2}, 0, 0},
    {"qwen35", {split_qwen35}, 0, 0},
    {"seed-coder", {split_seed}, 0, 0},
    {"ufakzeka", {split_uncontracted}, 0, 0},
    {"tekken", {split_tekken}, 1, 1},
    {"gpt-4o", {split_gpt4o}, 0, 0},
    {"llama4", {split_gpt4o}, 0, 0},
    {"kanana2", {split_gpt4o}, 0, 0},
    {"minimax-m2", {split_gpt4o}, 0, 0},
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
