#include "text/grammar_trie.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/grammar_stacks.h"
#include "text/vocab.h"

static bool is_text(const el_tokenizer *tok, int32_t id)
{
    const int32_t type = el_tokenizer_type(tok, id);
    const size_t size = el_vocab_bytes(tok, id).size;
    if (el_tokenizer_is_end(tok, id) || size == 0 || size > EL_TOKEN_BYTES) return false;
    return type == EL_TOKEN_NORMAL || type == EL_TOKEN_USER_DEFINED || type == EL_TOKEN_BYTE;
}

bool el_trie_has(const el_token_trie *trie, int32_t id) { return is_text(trie->tok, id); }

static size_t shared(el_view a, el_view b)
{
    const size_t n = a.size < b.size ? a.size : b.size;
    size_t i = 0;
    while (i < n && a.data[i] == b.data[i]) i++;
    return i;
}

/* A token that has ended is before all that go on. */
static unsigned key_of(const el_tokenizer *tok, int32_t id, size_t depth)
{
    const el_view token = el_vocab_bytes(tok, id);
    return depth < token.size ? 1u + (uint8_t)token.data[depth] : 0;
}

/* Sort tokens that share their first `depth` bytes: by the next byte into buckets, then each bucket. The depth
 * of the recursion is the length of the longest token. `spare` holds n. */
static void sort(const el_tokenizer *tok, int32_t *ids, int32_t *spare, size_t n, size_t depth)
{
    size_t ends[258] = {0};  // of bucket key: ends[key + 1]
    for (size_t i = 0; i < n; i++) ends[key_of(tok, ids[i], depth) + 1]++;
    for (size_t key = 1; key < 258; key++) ends[key] += ends[key - 1];
    for (size_t i = 0; i < n; i++) spare[ends[key_of(tok, ids[i], depth)]++] = ids[i];
    memcpy(ids, spare, n * sizeof *ids);
    for (size_t key = 1; key < 257; key++) {
        const size_t first = ends[key - 1];
        if (ends[key] - first > 1) sort(tok, ids + first, spare, ends[key] - first, depth + 1);
    }
}

/* Nodes that sorted tokens need: the bytes of each that its neighbour before does not share. */
static size_t count_nodes(const el_tokenizer *tok, const int32_t *ids, size_t n)
{
    size_t nodes = 1;
    el_view before = {"", 0};
    for (size_t i = 0; i < n; i++) {
        const el_view token = el_vocab_bytes(tok, ids[i]);
        nodes += token.size - shared(before, token);
        before = token;
    }
    return nodes;
}

typedef struct tables {
    uint8_t *bytes, *depths;
    uint32_t *ends, *rows;
} tables;

/* Token by token: close what it does not share with the one before, open what is new. */
static void fill(el_token_trie *trie, tables t, size_t n)
{
    uint32_t path[EL_TOKEN_BYTES + 1] = {0};  // node of each depth
    size_t depth = 0;
    uint32_t node = 1;
    el_view before = {"", 0};
    t.bytes[0] = t.depths[0] = 0;
    t.rows[0] = t.rows[1] = 0;
    for (size_t i = 0; i < n; i++) {
        const el_view token = el_vocab_bytes(trie->tok, trie->ids[i]);
        const size_t same = shared(before, token);
        for (; depth > same; depth--) t.ends[path[depth]] = node;
        for (; depth < token.size; node++) {
            t.bytes[node] = (uint8_t)token.data[depth];
            t.depths[node] = (uint8_t)++depth;
            t.rows[node] = (uint32_t)i;
            path[depth] = node;
        }
        if (token.size == 1) trie->single[t.bytes[path[1]] / 64] |= (uint64_t)1 << t.bytes[path[1]] % 64;
        before = token;
    }
    for (; depth > 0; depth--) t.ends[path[depth]] = node;
    t.ends[0] = node;
    t.rows[node] = (uint32_t)n;
}

el_status el_token_trie_new(el_token_trie **out, const el_tokenizer *tok, el_error *err)
{
    el_tokenizer_info info;
    el_tokenizer_get_info(tok, &info);
    el_token_trie *trie = NULL;
    size_t n = 0, n_ends = 0;
    *out = NULL;
    int32_t *ids = malloc((info.n_tokens + 1) * sizeof *ids);
    int32_t *spare = malloc((info.n_tokens + 1) * sizeof *spare);
    if (ids == NULL || spare == NULL) goto done;
    for (size_t id = 0; id < info.n_tokens; id++) {
        n_ends += el_tokenizer_is_end(tok, (int32_t)id) != 0;
        if (is_text(tok, (int32_t)id)) ids[n++] = (int32_t)id;
    }
    sort(tok, ids, spare, n, 0);

    const size_t nodes = count_nodes(tok, ids, n);
    const size_t bytes = sizeof *trie + (2 * nodes + 1 + n + n_ends) * 4 + 2 * nodes;
    trie = calloc(1, bytes);
    if (trie == NULL) goto done;
    uint32_t *words = (uint32_t *)(trie + 1);
    const tables t = {
        .ends = words,
        .rows = words + nodes,
        .bytes = (uint8_t *)(words + 2 * nodes + 1 + n + n_ends),
        .depths = (uint8_t *)(words + 2 * nodes + 1 + n + n_ends) + nodes,
    };
    int32_t *own = (int32_t *)(words + 2 * nodes + 1);
    if (n > 0) memcpy(own, ids, n * sizeof *own);
    *trie = (el_token_trie){.tok = tok,
                            .n_tokens = info.n_tokens,
                            .n_nodes = nodes,
                            .bytes = t.bytes,
                            .depths = t.depths,
                            .ends = t.ends,
                            .rows = t.rows,
                            .ids = own,
                            .end_ids = own + n,
                            .n_ends = 0,
                            .memory_bytes = bytes};
    for (size_t id = 0; id < info.n_tokens; id++) {
        if (el_tokenizer_is_end(tok, (int32_t)id)) own[n + trie->n_ends++] = (int32_t)id;
    }
    fill(trie, t, n);
    *out = trie;

done:
    free(ids);
    free(spare);
    if (trie == NULL) return el_fail(err, EL_ERR_NOMEM, "no memory for a tree of %zu tokens", info.n_tokens);
    return EL_OK;
}

void el_token_trie_free(el_token_trie *trie) { free(trie); }

size_t el_token_trie_bytes(const el_token_trie *trie) { return trie->memory_bytes; }
