/* Tile instructions (AMX) in software, for machines without them: a handler of SIGILL decodes and carries
 * out what the real, compiled kernels execute. For tests only; nothing here is fast.
 *
 * Semantics are those of Intel's Software Developer's Manual, volume 2, including what is refused: a
 * configuration or an operand at which hardware would raise #GP or #UD ends the process with a message. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

typedef enum op {
    LDTILECFG,
    STTILECFG,
    TILERELEASE,
    TILEZERO,
    TILELOADD,
    TILELOADDT1,
    TILESTORED,
    TDPBSSD,
    TDPBSUD,
    TDPBUSD,
    TDPBUUD,
    TDPBF16PS,
    OPS
} op;

static const char *const names[OPS] = {"ldtilecfg", "sttilecfg",   "tilerelease", "tilezero",
                                       "tileloadd", "tileloaddt1", "tilestored",  "tdpbssd",
                                       "tdpbsud",   "tdpbusd",     "tdpbuud",     "tdpbf16ps"};

/// A decoded instruction. Registers are numbers 0 to 15, -1 for none; base 16 is rip.
typedef struct insn {
    op op;
    int tmm[3];  // destination, first source, second source
    int base, index, scale;
    int32_t disp;
    int size;  // bytes of code
} insn;

typedef struct tiles {
    bool configured;
    int rows[TILES], row_bytes[TILES];
    uint8_t config[64];
    _Alignas(64) uint8_t t[TILES][ROWS][ROW_BYTES];
} tiles;

static __thread tiles state;
static unsigned long long executed[OPS];

static _Noreturn void refuse(const char *format, ...)
{
    char text[200] = "tile shim: ";
    va_list args;
    va_start(args, format);
    const size_t at = strlen(text);
    (void)vsnprintf(text + at, sizeof text - at - 1, format, args);
    va_end(args);
    strcat(text, "\n");
    (void)!write(2, text, strlen(text));
    _exit(99);
}

/* ---- decoding: VEX.128.0F38.W0, three-byte form ---- */

static bool memory_operand(const uint8_t *p, int rex_x, int rex_b, insn *out)
{
    const int mod = p[0] >> 6, rm = p[0] & 7;
    int used = 1;
    out->index = -1;
    out->scale = 1;
    out->base = rm | rex_b << 3;
    bool no_base = mod == 0 && rm == 5;
    if (no_base) out->base = 16;  // rip
    if (rm == 4) {
        const int sib = p[used++], index = (sib >> 3 & 7) | rex_x << 3;
        out->scale = 1 << (sib >> 6);
        out->index = index == 4 ? -1 : index;
        out->base = (sib & 7) | rex_b << 3;
        if (mod == 0 && (sib & 7) == 5) {
            no_base = true;
            out->base = -1;
        }
    }
    out->disp = 0;
    if (mod == 1) {
        out->disp = (int8_t)p[used++];
    } else if (mod == 2 || no_base) {
        memcpy(&out->disp, p + used, 4);
        used += 4;
    }
    out->size = 4 + used;
    return true;
}

static bool decode(const uint8_t *p, insn *out)
{
    if (p[0] != 0xC4 || (p[1] & 0x1F) != 2) return false;  // map 0F38
    const int rex_r = !(p[1] >> 7 & 1), rex_x = !(p[1] >> 6 & 1), rex_b = !(p[1] >> 5 & 1);
    if (p[2] & 0x84) return false;  // W0, L0
    const int vvvv = ~(p[2] >> 3) & 15, prefix = p[2] & 3;  // none, 66, F3, F2
    const int mod = p[4] >> 6, reg = (p[4] >> 3 & 7) | rex_r << 3, rm = (p[4] & 7) | rex_b << 3;
    memset(out, 0, sizeof *out);
    out->tmm[0] = out->tmm[1] = out->tmm[2] = out->base = out->index = -1;
    out->size = 5;

    if (p[3] == 0x49) {
        if (vvvv != 0) return false;
        if (mod == 3) {
            if (prefix == 0 && p[4] == 0xC0) return out->op = TILERELEASE, true;
            if (prefix != 3 || (p[4] & 7) != 0 || rex_b != 0 || reg >= TILES) return false;
            return out->op = TILEZERO, out->tmm[0] = reg, true;
        }
        if (prefix > 1 || reg != 0) return false;
        return out->op = prefix == 0 ? LDTILECFG : STTILECFG, memory_operand(p + 4, rex_x, rex_b, out);
    }
    if (p[3] == 0x4B) {
        if (vvvv != 0 || mod == 3 || (p[4] & 7) != 4 || prefix == 0 || reg >= TILES) return false;
        out->op = prefix == 3 ? TILELOADD : prefix == 1 ? TILELOADDT1 : TILESTORED;
        return out->tmm[0] = reg, memory_operand(p + 4, rex_x, rex_b, out);
    }
    static const op by_prefix[4] = {TDPBUUD, TDPBUSD, TDPBSUD, TDPBSSD};
    if (p[3] == 0x5E && mod == 3) {
        out->op = by_prefix[prefix];
    } else if (p[3] == 0x5C && mod == 3 && prefix == 2) {
        out->op = TDPBF16PS;
    } else {
        return false;
    }
    if (reg >= TILES || rm >= TILES || vvvv >= TILES) return false;
    if (reg == rm || reg == vvvv || rm == vvvv) refuse("#UD: %s with one tile twice", names[out->op]);
    out->tmm[0] = reg, out->tmm[1] = rm, out->tmm[2] = vvvv;
    return true;
}

/* ---- execution ---- */

static void set_config(const uint8_t *c)
{
    tiles *s = &state;
    memset(s, 0, sizeof *s);
    if (c[0] == 0) return;  // palette 0: the initial state
    if (c[0] != 1) refuse("#GP: palette %d", c[0]);
    if (c[1] >= ROWS) refuse("#GP: start_row %d", c[1]);
    for (int i = 2; i < 64; i++) {
        const bool reserved = i < 16 || (i >= 32 && i < 48) || i >= 56;
        if (reserved && c[i] != 0) refuse("#GP: reserved byte %d of the configuration is %d", i, c[i]);
    }
    for (int i = 0; i < TILES; i++) {
        s->row_bytes[i] = c[16 + 2 * i] | c[17 + 2 * i] << 8;
        s->rows[i] = c[48 + i];
        if (s->row_bytes[i] > ROW_BYTES || s->rows[i] > ROWS) refuse("#GP: tile %d is too large", i);
        if ((s->row_bytes[i] == 0) != (s->rows[i] == 0)) refuse("#GP: tile %d is half configured", i);
    }
    memcpy(s->config, c, sizeof s->config);
    s->configured = true;
}

static void need_tile(op what, int t)
{
    if (!state.configured) refuse("#UD: %s without a configuration", names[what]);
    if (state.rows[t] == 0) refuse("#UD: %s of tile %d, which has no rows", names[what], t);
}

static int32_t dot_bytes(op what, uint32_t a, uint32_t b, int32_t sum)
{
    const bool sa = what == TDPBSSD || what == TDPBSUD, sb = what == TDPBSSD || what == TDPBUSD;
    for (int i = 0; i < 32; i += 8) {
        const int x = sa ? (int8_t)(a >> i) : (uint8_t)(a >> i),
                  y = sb ? (int8_t)(b >> i) : (uint8_t)(b >> i);
        sum = (int32_t)((uint32_t)sum + (uint32_t)(x * y));  // wraps, as hardware does
    }
    return sum;
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/// Subnormals count as zero, on the way in and on the way out.
static float flush(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7F800000) == 0 ? from_bits(bits & 0x80000000) : x;
}

static float bf16(uint32_t half) { return flush(from_bits(half << 16)); }

static void dot_bf16_row(int m, const insn *in)
{
    const tiles *s = &state;
    const int pairs = s->row_bytes[in->tmm[1]] / 4, n = s->row_bytes[in->tmm[0]] / 4;
    for (int j = 0; j < n; j++) {
        float even = 0.0f, odd = 0.0f, c;
        for (int k = 0; k < pairs; k++) {
            uint32_t a, b;
            memcpy(&a, &s->t[in->tmm[1]][m][4 * k], 4);
            memcpy(&b, &s->t[in->tmm[2]][k][4 * j], 4);
            // A product of two bf16 is exact in double, and so is its sum with a float but for one rounding
            // that double rounding could spoil: fmaf rounds once.
            even = flush(__builtin_fmaf(bf16(a & 0xFFFF), bf16(b & 0xFFFF), even));
            odd = flush(__builtin_fmaf(bf16(a >> 16), bf16(b >> 16), odd));
        }
        uint8_t *at = state.t[in->tmm[0]][m] + 4 * j;
        memcpy(&c, at, 4);
        c = flush(flush(c) + flush(even + odd));
        memcpy(at, &c, 4);
    }
}

static void dot_int_row(int m, const insn *in)
{
    const tiles *s = &state;
    const int quads = s->row_bytes[in->tmm[1]] / 4, n = s->row_bytes[in->tmm[0]] / 4;
    int32_t c[16];
    memcpy(c, s->t[in->tmm[0]][m], sizeof c);
    for (int k = 0; k < quads; k++) {
        uint32_t a, b[16];
        memcpy(&a, &s->t[in->tmm[1]][m][4 * k], 4);
        memcpy(b, s->t[in->tmm[2]][k], sizeof b);
        for (int j = 0; j < n; j++) c[j] = dot_bytes(in->op, a, b[j], c[j]);
    }
    memcpy(state.t[in->tmm[0]][m], c, sizeof c);
}

static void dot(const insn *in)
{
    const tiles *s = &state;
    const int c = in->tmm[0], a = in->tmm[1], b = in->tmm[2];
    for (int i = 0; i < 3; i++) {
        need_tile(in->op, in->tmm[i]);
        if (s->row_bytes[in->tmm[i]] % 4 != 0) refuse("#UD: rows of tile %d are no dwords", in->tmm[i]);
    }
    if (s->rows[c] != s->rows[a] || s->row_bytes[c] != s->row_bytes[b] || s->row_bytes[a] / 4 != s->rows[b]) {
        refuse("#UD: %s of (%d, %d bytes) and (%d, %d bytes) into (%d, %d bytes)", names[in->op], s->rows[a],
               s->row_bytes[a], s->rows[b], s->row_bytes[b], s->rows[c], s->row_bytes[c]);
    }
    for (int m = 0; m < s->rows[c]; m++) in->op == TDPBF16PS ? dot_bf16_row(m, in) : dot_int_row(m, in);
}

static void execute(const insn *in, uint8_t *address, int64_t stride)
{
    tiles *s = &state;
    const int t = in->tmm[0];
    __atomic_fetch_add(&executed[in->op], 1, __ATOMIC_RELAXED);
    switch (in->op) {
    case LDTILECFG: set_config(address); break;
    case STTILECFG: memcpy(address, s->config, 64); break;
    case TILERELEASE: memset(s, 0, sizeof *s); break;
    case TILEZERO:
        need_tile(in->op, t);
        memset(s->t[t], 0, sizeof s->t[t]);
        break;
    case TILELOADD:
    case TILELOADDT1:
        need_tile(in->op, t);
        memset(s->t[t], 0, sizeof s->t[t]);
        for (int r = 0; r < s->rows[t]; r++) memcpy(s->t[t][r], address + r * stride, s->row_bytes[t]);
        break;
    case TILESTORED:
        need_tile(in->op, t);
        for (int r = 0; r < s->rows[t]; r++) memcpy(address + r * stride, s->t[t][r], s->row_bytes[t]);
        break;
    default: dot(in); break;
    }
}

static int64_t reg_of(const ucontext_t *uc, int number, const uint8_t *next)
{
    static const int where[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    if (number < 0) return 0;
    return number == 16 ? (int64_t)next : uc->uc_mcontext.gregs[where[number]];
}

static void on_sigill(int sig, siginfo_t *info, void *context)
{
    (void)info;
    ucontext_t *uc = context;
    const uint8_t *p = (const uint8_t *)uc->uc_mcontext.gregs[REG_RIP];
    insn in;
    if (!decode(p, &in)) {
        (void)signal(sig, SIG_DFL);  // returning executes it again, for good
        return;
    }
    do {  // neighbours are done in the same trap
        const uint8_t *next = p + in.size;
        const int64_t index = reg_of(uc, in.index, next) * in.scale;
        int64_t at = reg_of(uc, in.base, next) + in.disp;
        const bool strided = in.op >= TILELOADD && in.op <= TILESTORED;  // the index is the distance of rows
        if (!strided) at += index;
        execute(&in, (uint8_t *)at, strided ? index : 0);
        p = next;
    } while (decode(p, &in));
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)p;
}

/// 0, or -1 if the handler cannot be installed.
int tile_shim_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_sigill;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGILL, &action, NULL);
}

/// How many instructions of a name were executed, by all threads.
unsigned long long tile_shim_executed(const char *name)
{
    for (int i = 0; i < OPS; i++) {
        if (strcmp(name, names[i]) == 0) return __atomic_load_n(&executed[i], __ATOMIC_RELAXED);
    }
    return 0;
}

/// Whether this thread's tiles are in their initial state, as after tilerelease.
int tile_shim_is_released(void)
{
    const tiles nothing = {0};
    return memcmp(&state, &nothing, sizeof state) == 0;
}

/// Write an instruction as objdump does; returns its size in bytes, 0 if it is none of ours.
int tile_shim_disassemble(const uint8_t *code, char *out, size_t n)
{
    static const char *const regs[17] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8",
                                         "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "rip"};
    insn in;
    char memory[80] = "", disp[24] = "", index[24] = "";
    if (!decode(code, &in)) return 0;
    if (in.disp != 0 || in.base < 0 || in.base == 16) {
        (void)snprintf(disp, sizeof disp, "%s0x%x", in.disp < 0 ? "-" : "",
                       in.disp < 0 ? -(uint32_t)in.disp : (uint32_t)in.disp);
    }
    if (in.index >= 0) (void)snprintf(index, sizeof index, ",%%%s,%d", regs[in.index], in.scale);
    (void)snprintf(memory, sizeof memory, "%s(%s%s%s)", disp, in.base >= 0 ? "%" : "",
                   in.base >= 0 ? regs[in.base] : "", index);
    switch (in.op) {
    case LDTILECFG:
    case STTILECFG: (void)snprintf(out, n, "%s %s", names[in.op], memory); break;
    case TILERELEASE: (void)snprintf(out, n, "%s", names[in.op]); break;
    case TILEZERO: (void)snprintf(out, n, "%s %%tmm%d", names[in.op], in.tmm[0]); break;
    case TILELOADD:
    case TILELOADDT1: (void)snprintf(out, n, "%s %s,%%tmm%d", names[in.op], memory, in.tmm[0]); break;
    case TILESTORED: (void)snprintf(out, n, "%s %%tmm%d,%s", names[in.op], in.tmm[0], memory); break;
    default:
        (void)snprintf(out, n, "%s %%tmm%d,%%tmm%d,%%tmm%d", names[in.op], in.tmm[2], in.tmm[1], in.tmm[0]);
        break;
    }
    return in.size;
}
