/* The tokenizer's C interface on random bytes, and with each allocation failing in turn.
 * Linked with --wrap for malloc, calloc and realloc; the sanitizers watch for leaks. Exit code 0 if all holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgellm/tokenizer.h"
#include "text/tables.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);

static long allowed = -1;  // allocations until one fails; -1: none fails

static int fails(void)
{
    if (allowed < 0) return 0;
    if (allowed == 0) return 1;
    allowed--;
    return 0;
}

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n) { return fails() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : __real_realloc(p, n); }

static uint32_t state = 1;
static uint32_t draw(uint32_t below)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

#define N_TOKENS 264
#define MARK "\xe2\x96\x81"  // a space, as SentencePiece writes it
static char texts[256][4];
static el_view tokens[N_TOKENS];
static int32_t types[N_TOKENS];
static const char *const extra[] = {"ab", "abab", "Ġa", "Ġab", "<s>", "<s><", "\xff\xfe", "é!"};
static el_view merges[] = {{"a b", 3}, {"ab ab", 5}, {"Ġ a", 4}, {"Ġa b", 5}};

/* Tokens of all bytes in GPT-2's alphabet, some merges, and special tokens of odd bytes. */
static el_vocab_source source_of(const char *pre)
{
    unsigned others = 0;
    for (unsigned b = 0; b < 256; b++) {
        const int printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        const unsigned point = printable ? b : 0x100 + others++;
        const int wide = point >= 0x80;
        texts[b][0] = (char)(wide ? 0xC0 | point >> 6 : point);
        texts[b][1] = (char)(0x80 | (point & 0x3F));
        tokens[b] = (el_view){texts[b], wide ? 2 : 1};
        types[b] = EL_TOKEN_NORMAL;
    }
    for (size_t i = 0; i < 8; i++) {
        tokens[256 + i] = (el_view){extra[i], strlen(extra[i])};
        types[256 + i] = i < 4 ? EL_TOKEN_NORMAL : i < 6 ? EL_TOKEN_CONTROL : EL_TOKEN_USER_DEFINED;
    }
    return (el_vocab_source){.model = {"gpt2", 4},
                             .pre = {pre, strlen(pre)},
                             .tokens = tokens,
                             .n_tokens = N_TOKENS,
                             .types = types,
                             .merges = merges,
                             .n_merges = 4,
                             .bos = 260,
                             .eos = 261,
                             .eot = -1,
                             .unk = -1,
                             .pad = -1,
                             .add_bos = 1,
                             .add_eos = 1};
}

/* The same for SentencePiece: byte tokens, a few merges, special tokens of odd bytes. */
static el_vocab_source spm_source(const char *model, int space)
{
    static char bytes[256][8];
    static const char *const more[] = {"ab",  "abab", MARK "a",   MARK,
                                       "<s>", "<s><", "\xff\xfe", "\xe4\xb8\xad!"};
    static float scores[N_TOKENS];
    for (unsigned b = 0; b < 256; b++) {
        (void)snprintf(bytes[b], sizeof bytes[b], "<0x%02X>", b);
        tokens[b] = (el_view){bytes[b], 6};
        types[b] = EL_TOKEN_BYTE;
    }
    for (size_t i = 0; i < 8; i++) {
        tokens[256 + i] = (el_view){more[i], strlen(more[i])};
        types[256 + i] = i < 4 ? EL_TOKEN_NORMAL : i < 6 ? EL_TOKEN_CONTROL : EL_TOKEN_USER_DEFINED;
        scores[256 + i] = -(float)i;
    }
    return (el_vocab_source){.model = {model, strlen(model)},
                             .tokens = tokens,
                             .n_tokens = N_TOKENS,
                             .types = types,
                             .scores = scores,
                             .bos = 260,
                             .eos = 261,
                             .eot = -1,
                             .unk = -1,
                             .pad = -1,
                             .add_bos = 1,
                             .add_eos = 1,
                             .add_space_prefix = space};
}

/* Every byte comes back, whatever the bytes are. */
static int round_trip(const el_tokenizer *tok, const char *text, size_t n, unsigned flags)
{
    int32_t *ids;
    size_t count, at = 0;
    el_error err;
    if (el_tokenizer_encode(tok, text, n, flags, &ids, &count, &err) != EL_OK) return 0;
    for (size_t i = 0; i < count; i++) {
        el_view token;
        if (el_tokenizer_token(tok, ids[i], &token, &err) != EL_OK) return 0;
        if (token.size > n - at || memcmp(token.data, text + at, token.size) != 0) return 0;
        at += token.size;
    }
    el_ids_free(ids);
    return at == n;
}

enum { MOST_IDS = 12 * 256 + 5, MOST_SCRATCH = 256 * 128 };

/* Encoding into the caller's memory gives the same ids, allocates nothing, and says what is too small. */
static int same_without_allocation(const el_tokenizer *tok, const char *text, size_t n, unsigned flags)
{
    static uint64_t scratch[MOST_SCRATCH / 8];
    int32_t *ids, into[MOST_IDS];
    size_t count, written = 0;
    el_error err;
    if (el_tokenizer_encode(tok, text, n, flags, &ids, &count, &err) != EL_OK) return 0;

    allowed = 0;
    const size_t needed = el_tokenizer_scratch_bytes(tok, n), room = el_tokenizer_max_ids(tok, n);
    el_status st = el_tokenizer_encode_into(tok, text, n, flags, into, room, &written, scratch, needed, &err);
    int fine = needed <= sizeof scratch && room <= MOST_IDS && st == EL_OK && written == count;
    fine = fine && (count == 0 || memcmp(into, ids, count * sizeof *ids) == 0);
    st = el_tokenizer_encode_into(tok, text, n, flags, into, count, &written, scratch, needed, &err);
    fine = fine && st == EL_OK && written == count;  // exactly enough
    if (count > 0) {
        st = el_tokenizer_encode_into(tok, text, n, flags, into, count - 1, &written, scratch, needed, &err);
        fine = fine && st == EL_ERR_ARG && written == 0 && strstr(err.text, "ids") != NULL;
    }
    st = el_tokenizer_encode_into(tok, text, n, flags, into, room, &written, NULL, 0, &err);
    fine = fine && (st == EL_OK || (st == EL_ERR_ARG && strstr(err.text, "scratch") != NULL));
    allowed = -1;
    el_ids_free(ids);
    return fine;
}

/* The block of tables, opened where it lies, is the same tokenizer; damaged, it is refused or safe to use. */
static int tables_in_place(const el_tokenizer *tok)
{
    static const char text[] = "abab Ġ<s>ab 12 é!<s><\xff\xfe";
    const el_view block = el_tables_of(tok);
    uint8_t *copy = malloc(block.size);
    const el_tokenizer *view = NULL;
    el_tokenizer_place place;
    el_error err;
    int fine = 1;
    memcpy(copy, block.data, block.size);
    for (int round = 0; round < 3000 && fine; round++) {
        const size_t at = draw((uint32_t)(block.size / 4)) * 4;
        const uint32_t number = draw(2) == 0 ? draw(300) : (uint32_t)(draw(1u << 20) * 4099u);
        if (round > 0) memcpy(copy + at, &number, 4);
        const el_status st = el_tables_open(&view, copy, block.size, &place, &err);
        if (st == EL_OK) {
            int32_t ids[MOST_IDS];
            uint64_t scratch[128 * 64 / 8];
            size_t n;
            fine = el_tokenizer_encode_into(view, text, sizeof text - 1, 3, ids, MOST_IDS, &n, scratch,
                                            sizeof scratch, &err) == EL_OK;
            for (size_t i = 0; i < n && fine; i++) {
                el_view token;
                fine = el_tokenizer_token(view, ids[i], &token, &err) == EL_OK;
                (void)el_tokenizer_find_special(view, token.data, token.size);
            }
            if (round == 0) fine = fine && same_without_allocation(view, text, sizeof text - 1, 3);
        }
        fine = fine && (round > 0 || st == EL_OK) && (st == EL_OK || err.text[0] != '\0');
        memcpy(copy + at, block.data + at, 4);
    }
    for (size_t size = 0; size < block.size && fine; size += 64)
        fine = el_tables_open(&view, copy, size, &place, &err) != EL_OK;
    free(copy);
    return fine;
}

static int random_bytes(const el_tokenizer *tok, int whole)
{
    static const char *const parts[] = {"a",
                                        "ab",
                                        " ",
                                        "\n",
                                        "<s>",
                                        "<s><",
                                        "\xff",
                                        "\xfe",
                                        "\xc3",
                                        "\xe4\xb8",
                                        "\xe4\xb8\xad",
                                        "\xf0\x9f\x98\x80",
                                        "\xed\xa0\x80",
                                        "\xf4\x90\x80\x80",
                                        "'s",
                                        "\xc5\xbf",
                                        "12",
                                        "\xef\xbc\x91"};
    for (int round = 0; round < 4000; round++) {
        char buffer[256];
        size_t n = 0;
        while (n < 200 && draw(12) != 0) {
            const char *part = parts[draw(sizeof parts / sizeof parts[0])];
            if (draw(3) == 0) {
                buffer[n++] = (char)draw(256);
            } else {
                memcpy(buffer + n, part, strlen(part));
                n += strlen(part);
            }
        }
        char *exact = malloc(n + (n == 0));  // so that reading one byte too far is seen
        memcpy(exact, buffer, n);
        const int fine = (!whole || round_trip(tok, exact, n, 0)) &&
                         (!whole || round_trip(tok, exact, n, EL_ENCODE_PARSE_SPECIAL)) &&
                         same_without_allocation(tok, exact, n, (unsigned)draw(4));
        free(exact);
        if (!fine) return 0;
    }
    return 1;
}

/* Number of allocations that building and encoding make, each of which has failed once; -1 if one went unseen. */
static long failing_allocations(const el_vocab_source *source)
{
    for (long at = 0; at < 1000; at++) {
        el_tokenizer *tok = NULL;
        int32_t *ids = NULL;
        size_t count = 0;
        el_error err;
        allowed = at;
        el_status st = el_tokenizer_new(&tok, source, &err);
        if (st != EL_OK && tok != NULL) return -1;
        if (st == EL_OK) {
            st = el_tokenizer_encode(tok, "<s>abab ab 12", 13, 3, &ids, &count, &err);
            if (st != EL_OK && ids != NULL) return -1;
        }
        allowed = -1;
        el_ids_free(ids);
        el_tokenizer_free(tok);
        if (st == EL_OK) return at;
        if (st != EL_ERR_NOMEM || err.text[0] == '\0') return -1;
    }
    return -1;
}

static int holds(const char *name, const el_vocab_source *source)
{
    el_tokenizer *tok;
    el_error err = {0};
    if (el_tokenizer_new(&tok, source, &err) != EL_OK) return printf("%s: %s\n", name, err.text), 0;
    if (!random_bytes(tok, source->add_space_prefix != 1 && source->model.data[0] != 't'))
        return printf("%s: bytes were lost\n", name), 0;
    if (!tables_in_place(tok)) return printf("%s: tables in place\n", name), 0;
    el_tokenizer_free(tok);
    if (failing_allocations(source) < 6) return printf("%s: a failed allocation went unseen\n", name), 0;
    return 1;
}

int main(void)
{
    static const char *const pres[] = {"default", "gpt-2", "smollm", "llama-bpe", "qwen2"};
    for (size_t i = 0; i < sizeof pres / sizeof pres[0]; i++) {
        const el_vocab_source source = source_of(pres[i]);
        if (!holds(pres[i], &source)) return 1;
    }
    for (int i = 0; i < 4; i++) {
        const char *model = i < 2 ? "llama" : "t5";  // the latter writes U+FFFD for what is no UTF-8
        const el_vocab_source source = spm_source(model, i % 2);
        if (!holds(model, &source)) return 1;
    }
    return 0;
}
