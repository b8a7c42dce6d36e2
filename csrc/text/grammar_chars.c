/* Characters, literals and classes of GBNF. */
#include <string.h>

#include "text/grammar_parse.h"
#include "text/unicode.h"

static el_status add_byte(el_gbnf *p, uint8_t byte)
{
    el_ast *ast = p->ast;
    uint8_t *bytes = el_grown(ast->bytes, &ast->bytes_capacity, ast->n_bytes + 1, 1);
    if (bytes == NULL) return EL_ERR_NOMEM;
    ast->bytes = bytes;
    bytes[ast->n_bytes++] = byte;
    return EL_OK;
}

static el_status add_point(el_gbnf *p, uint32_t point)
{
    el_status st = EL_OK;
    if (point < 0x80) return add_byte(p, (uint8_t)point);
    if (point < 0x800) {
        st = add_byte(p, (uint8_t)(0xC0 | point >> 6));
    } else if (point < 0x10000) {
        st = add_byte(p, (uint8_t)(0xE0 | point >> 12));
    } else {
        st = add_byte(p, (uint8_t)(0xF0 | point >> 18));
        if (st == EL_OK) st = add_byte(p, (uint8_t)(0x80 | (point >> 12 & 0x3F)));
    }
    if (st == EL_OK && point >= 0x800) st = add_byte(p, (uint8_t)(0x80 | (point >> 6 & 0x3F)));
    return st == EL_OK ? add_byte(p, (uint8_t)(0x80 | (point & 0x3F))) : st;
}

static el_status add_range(el_gbnf *p, uint32_t first, uint32_t last)
{
    el_ast *ast = p->ast;
    el_range *ranges = el_grown(ast->ranges, &ast->ranges_capacity, ast->n_ranges + 1, sizeof *ranges);
    if (ranges == NULL) return EL_ERR_NOMEM;
    ast->ranges = ranges;
    ranges[ast->n_ranges++] = (el_range){first, last};
    return EL_OK;
}

static el_status read_hex(el_gbnf *p, size_t digits, uint32_t *point)
{
    const size_t at = p->pos;
    uint32_t value = 0;
    for (size_t i = 0; i < digits; i++, p->pos++) {
        const int c = el_gbnf_peek(p);
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return el_gbnf_fail(p, at, "an escape has too few hexadecimal digits");
        value = value << 4 | (uint32_t)digit;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return el_gbnf_fail(p, at, "an escape names no Unicode character");
    }
    *point = value;
    return EL_OK;
}

/* One character of a literal or a class. */
static el_status read_char(el_gbnf *p, uint32_t *point)
{
    const int c = el_gbnf_peek(p);
    if (c < 0) return el_gbnf_fail(p, p->pos, "the text ends within a literal or a class");
    if (c != '\\') {
        const size_t left = p->ast->text_bytes - p->pos;
        const size_t len = el_utf8_next((const uint8_t *)p->ast->text + p->pos, left, point);
        if (*point == EL_NOT_UTF8) return el_gbnf_fail(p, p->pos, "bytes that are not UTF-8");
        p->pos += len;
        return EL_OK;
    }
    p->pos++;
    const int kind = el_gbnf_peek(p);
    p->pos++;
    switch (kind) {
    case 'x': return read_hex(p, 2, point);
    case 'u': return read_hex(p, 4, point);
    case 'U': return read_hex(p, 8, point);
    case 't': *point = '\t'; return EL_OK;
    case 'r': *point = '\r'; return EL_OK;
    case 'n': *point = '\n'; return EL_OK;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^': *point = (uint32_t)kind; return EL_OK;
    default: return el_gbnf_fail(p, p->pos - 2, "an unknown escape");
    }
}

el_status el_gbnf_literal(el_gbnf *p, uint32_t *out)
{
    const uint32_t first = (uint32_t)p->ast->n_bytes;
    p->pos++;
    while (el_gbnf_peek(p) != '"') {
        uint32_t point;
        el_status st = read_char(p, &point);
        if (st == EL_OK) st = add_point(p, point);
        if (st != EL_OK) return st;
    }
    p->pos++;
    const uint32_t count = (uint32_t)p->ast->n_bytes - first;
    return el_gbnf_add(p, (el_node){.kind = EL_NODE_BYTES, .first = first, .count = count}, out);
}

static int by_first(const void *a, const void *b)
{
    const el_range *x = a;
    const el_range *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

/* Sort and join ranges[from, n_ranges), then take their complement if asked to, then take the surrogates out. */
static el_status normalise(el_gbnf *p, size_t from, bool negated)
{
    el_ast *ast = p->ast;
    el_status st = add_range(p, 0xD800, 0xDFFF);  // in a complement: taken out by being in
    if (st != EL_OK) return st;
    if (!negated) ast->n_ranges--;
    if (ast->n_ranges == from) return EL_OK;

    qsort(ast->ranges + from, ast->n_ranges - from, sizeof *ast->ranges, by_first);
    size_t kept = from;
    for (size_t i = from + 1; i < ast->n_ranges; i++) {
        const el_range r = ast->ranges[i];
        if (r.first <= ast->ranges[kept].last + 1) {
            if (r.last > ast->ranges[kept].last) ast->ranges[kept].last = r.last;
        } else {
            ast->ranges[++kept] = r;
        }
    }
    ast->n_ranges = kept + 1;

    const size_t end = ast->n_ranges;  // what follows is written behind and then moved down
    uint32_t next = 0;
    for (size_t i = from; i < end && st == EL_OK; i++) {
        const el_range r = ast->ranges[i];
        if (negated) {
            if (r.first > next) st = add_range(p, next, r.first - 1);
            next = r.last + 1;
        } else if (r.last < 0xD800 || r.first > 0xDFFF) {
            st = add_range(p, r.first, r.last);
        } else {
            if (r.first < 0xD800) st = add_range(p, r.first, 0xD7FF);
            if (st == EL_OK && r.last > 0xDFFF) st = add_range(p, 0xE000, r.last);
        }
    }
    if (st == EL_OK && negated && next <= 0x10FFFF) st = add_range(p, next, 0x10FFFF);
    if (st != EL_OK) return st;
    memmove(ast->ranges + from, ast->ranges + end, (ast->n_ranges - end) * sizeof *ast->ranges);
    ast->n_ranges -= end - from;
    return EL_OK;
}

el_status el_gbnf_class(el_gbnf *p, uint32_t *out)
{
    const size_t at = p->pos;
    const size_t first = p->ast->n_ranges;
    p->pos++;
    const bool negated = el_gbnf_peek(p) == '^';
    if (negated) p->pos++;
    while (el_gbnf_peek(p) != ']') {
        uint32_t low, high;
        el_status st = read_char(p, &low);
        if (st != EL_OK) return st;
        high = low;
        const bool ranged =
            el_gbnf_peek(p) == '-' && p->pos + 1 < p->ast->text_bytes && p->ast->text[p->pos + 1] != ']';
        if (ranged) {
            p->pos++;
            st = read_char(p, &high);
            if (st != EL_OK) return st;
            if (high < low) return el_gbnf_fail(p, at, "a range of characters runs backwards");
        }
        st = add_range(p, low, high);
        if (st != EL_OK) return st;
    }
    p->pos++;
    const el_status st = normalise(p, first, negated);
    if (st != EL_OK) return st;
    const uint32_t count = (uint32_t)(p->ast->n_ranges - first);
    if (count == 0) return el_gbnf_fail(p, at, "a class that no character matches");
    return el_gbnf_add(p, (el_node){.kind = EL_NODE_CLASS, .first = (uint32_t)first, .count = count}, out);
}

el_status el_gbnf_any(el_gbnf *p, uint32_t *out)
{
    const uint32_t first = (uint32_t)p->ast->n_ranges;
    p->pos++;
    el_status st = add_range(p, 0, 0xD7FF);
    if (st == EL_OK) st = add_range(p, 0xE000, 0x10FFFF);
    if (st != EL_OK) return st;
    return el_gbnf_add(p, (el_node){.kind = EL_NODE_CLASS, .first = first, .count = 2}, out);
}
