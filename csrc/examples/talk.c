#include "examples/talk.h"

#include <stdio.h>
#include <string.h>

/// What stands around a user's message in ChatML, and the room that its tokens may take.
static const char chat_start[] = "<|im_start|>", chat_head[] = "<|im_start|>user\n";
static const char chat_tail[] = "<|im_end|>\n<|im_start|>assistant\n";

/// Where everything lies in the caller's memory.
typedef struct places {
    el_plan plan;
    uint64_t session, logits, ids, scratch, workspace, end;  ///< offsets; the model is at 0
    size_t max_ids, scratch_bytes;
    el_tokenizer_place tokenizer;
    const el_tokenizer *tok;
} places;

static uint64_t aligned(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t context_of(const el_edge *edge, const talk_options *o)
{
    return o->context > 0 ? o->context : edge->config.context;
}

static el_status place(places *p, const el_edge *edge, const talk_options *o, el_error *err)
{
    const size_t threads = el_pool_threads(o->pool), prompt = strlen(o->prompt);
    el_status st = el_edge_tokenizer(&p->tok, edge, &p->tokenizer, err);
    if (st != EL_OK) return st;
    st = el_edge_plan(&p->plan, edge, context_of(edge, o), EL_KV_F16, o->micro_batch, threads, err);
    if (st != EL_OK) return st;
    p->max_ids = el_tokenizer_max_ids(p->tok, prompt) + el_tokenizer_max_ids(p->tok, sizeof chat_head) +
                 el_tokenizer_max_ids(p->tok, sizeof chat_tail);
    p->scratch_bytes = el_tokenizer_scratch_bytes(p->tok, prompt + sizeof chat_tail);
    p->session = aligned(el_plan_model_bytes(&p->plan));
    p->logits = p->session + aligned(el_plan_session_bytes(&p->plan));
    p->ids = p->logits + aligned((uint64_t)edge->config.vocab * sizeof(float));
    p->scratch = p->ids + aligned((uint64_t)p->max_ids * sizeof(int32_t));
    p->workspace = p->scratch + aligned(p->scratch_bytes);
    p->end = p->workspace + aligned(el_sampler_workspace_bytes(edge->config.vocab));
    return EL_OK;
}

el_status talk_plan(uint64_t *needed, const el_edge *edge, const talk_options *options, el_error *err)
{
    places p;
    const el_status st = place(&p, edge, options, err);
    if (st == EL_OK) *needed = p.end;
    return st;
}

/// A conversation under way.
typedef struct turn {
    const talk_options *options;
    const el_tokenizer *tok;
    el_session *session;
    float *logits;
    size_t vocab;
    int32_t *ids;
    size_t n_ids, max_ids;
    void *scratch, *workspace;
    size_t scratch_bytes;
} turn;

static el_status add_text(turn *t, const char *text, size_t bytes, unsigned flags, el_error *err)
{
    size_t n = 0;
    const el_status st =
        el_tokenizer_encode_into(t->tok, text, bytes, flags, t->ids + t->n_ids, t->max_ids - t->n_ids, &n,
                                 t->scratch, t->scratch_bytes, err);
    t->n_ids += n;
    return st;
}

/// The user's own words cannot become control tokens: only the text around them is parsed for those.
static el_status encode_prompt(turn *t, el_error *err)
{
    const char *prompt = t->options->prompt;
    if (el_tokenizer_find_special(t->tok, chat_start, sizeof chat_start - 1) < 0) {
        return add_text(t, prompt, strlen(prompt), EL_ENCODE_ADD_SPECIAL, err);
    }
    el_status st = add_text(t, chat_head, sizeof chat_head - 1, EL_ENCODE_PARSE_SPECIAL, err);
    if (st == EL_OK) st = add_text(t, prompt, strlen(prompt), 0, err);
    if (st == EL_OK) st = add_text(t, chat_tail, sizeof chat_tail - 1, EL_ENCODE_PARSE_SPECIAL, err);
    return st;
}

static el_status read_prompt(turn *t, el_error *err)
{
    el_status st = EL_OK;
    const size_t step = t->options->micro_batch;
    for (size_t i = 0; i < t->n_ids && st == EL_OK; i += step) {
        const size_t n = t->n_ids - i < step ? t->n_ids - i : step;
        st = el_session_eval(t->session, t->ids + i, n, i + n == t->n_ids ? 1 : 0, t->logits, err);
    }
    return st;
}

/// FNV-1a over the bytes of the logits, lowest byte first on every machine.
static uint64_t hash_logits(uint64_t hash, const float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        for (int b = 0; b < 4; b++) hash = (hash ^ (bits >> 8 * b & 0xFF)) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static el_status answer(turn *t, talk_out_fn *out, void *to, talk_result *result, el_error *err)
{
    const talk_options *o = t->options;
    el_status st = EL_OK;
    while (st == EL_OK && result->tokens < o->max_tokens) {
        int32_t id;
        el_view text;
        const el_draw draw = {o->seed, 0, el_session_position(t->session)};
        result->hash = hash_logits(result->hash, t->logits, t->vocab);
        st = el_sample(t->logits, t->vocab, &o->sampling, NULL, 0, draw, t->workspace, &id, err);
        if (st != EL_OK || el_tokenizer_is_end(t->tok, id)) break;

        st = el_tokenizer_token(t->tok, id, &text, err);
        if (st != EL_OK) break;
        out(to, text.data, text.size);
        result->tokens++;
        if (el_session_position(t->session) == el_session_context(t->session)) break;
        st = el_session_eval(t->session, &id, 1, 1, t->logits, err);
    }
    return st;
}

el_status talk(const el_edge *edge, const talk_options *o, void *memory, uint64_t bytes, talk_out_fn *out,
               void *to, talk_result *result, el_error *err)
{
    places p;
    el_model *model = NULL;
    uint8_t *base = memory;
    *result = (talk_result){.hash = UINT64_C(0xcbf29ce484222325)};

    el_status st = place(&p, edge, o, err);
    if (st != EL_OK) return st;
    if (bytes < p.end) {
        (void)snprintf(err->text, sizeof err->text, "the memory has %llu bytes, %llu are needed",
                       (unsigned long long)bytes, (unsigned long long)p.end);
        return EL_ERR_NOMEM;
    }
    memset(base, 0, (size_t)p.end);  // the engine asks for zeros
    turn t = {
        .options = o,
        .tok = p.tok,
        .logits = (float *)(void *)(base + p.logits),
        .vocab = edge->config.vocab,
        .ids = (int32_t *)(void *)(base + p.ids),
        .max_ids = p.max_ids,
        .scratch = base + p.scratch,
        .workspace = base + p.workspace,
        .scratch_bytes = p.scratch_bytes,
    };
    st = encode_prompt(&t, err);
    if (st == EL_OK) {
        st = el_model_from_edge(&model, edge, o->isa, o->micro_batch, o->pool, base, p.session, err);
    }
    if (st == EL_OK) {
        st = el_session_init(&t.session, model, context_of(edge, o), EL_KV_F16, base + p.session,
                             p.logits - p.session, err);
    }
    if (st == EL_OK) st = read_prompt(&t, err);
    if (st == EL_OK && t.n_ids > 0) st = answer(&t, out, to, result, err);
    result->prompt_tokens = t.n_ids;
    return st;
}
