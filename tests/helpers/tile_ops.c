/* Each tile instruction as a function, so that a test can compare what executes it, a CPU or the shim, with
 * arithmetic in NumPy. */
#include <stdint.h>
#include <string.h>

typedef struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config;

#define DOT(name)                                                                                            \
    case name##_NUMBER: __asm__ volatile(#name " %%tmm2, %%tmm1, %%tmm0" : :); break;

enum { tdpbssd_NUMBER, tdpbsud_NUMBER, tdpbusd_NUMBER, tdpbuud_NUMBER, tdpbf16ps_NUMBER };

/// c (m, n) += a (m, 4 k bytes) b (k, 4 n bytes): dwords of c, groups of four bytes or two bf16 along k.
void tile_dot(int what, int m, int n, int k, const void *a, long a_stride, const void *b, long b_stride,
              void *c, long c_stride)
{
    config cfg;
    memset(&cfg, 0, sizeof cfg);
    cfg.palette = 1;
    cfg.rows[0] = (uint8_t)m, cfg.row_bytes[0] = (uint16_t)(4 * n);
    cfg.rows[1] = (uint8_t)m, cfg.row_bytes[1] = (uint16_t)(4 * k);
    cfg.rows[2] = (uint8_t)k, cfg.row_bytes[2] = (uint16_t)(4 * n);
    __asm__ volatile("ldtilecfg %0" : : "m"(cfg));
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm0" : : "r"(c), "r"(c_stride) : "memory");
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm1" : : "r"(a), "r"(a_stride) : "memory");
    __asm__ volatile("tileloadd 64(%0,%1,2), %%tmm2"
                     :
                     : "r"((const char *)b - 64), "r"(b_stride / 2)
                     : "memory");
    switch (what) {
        DOT(tdpbssd)
        DOT(tdpbsud)
        DOT(tdpbusd)
        DOT(tdpbuud)
        DOT(tdpbf16ps)
    }
    __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" : : "r"(c), "r"(c_stride) : "memory");
    __asm__ volatile("tilezero %%tmm0" : :);
    __asm__ volatile("tilerelease" : :);
}

/// What sttilecfg gives back of a configuration.
void tile_config(const void *from, void *to)
{
    __asm__ volatile("ldtilecfg (%0)\n\tsttilecfg (%1)\n\ttilerelease" : : "r"(from), "r"(to) : "memory");
}

/// Deliberate mistakes: a product of tiles that do not fit each other, and one without a configuration.
void tile_mistake(int which)
{
    config cfg;
    memset(&cfg, 0, sizeof cfg);
    cfg.palette = 1;
    for (int i = 0; i < 3; i++) cfg.rows[i] = 16, cfg.row_bytes[i] = 64;
    if (which == 0) cfg.rows[2] = 8;
    if (which == 1) cfg.rows[1] = 17;
    if (which == 2) cfg.reserved[3] = 1;
    if (which == 3) cfg.rows[0] = 0;
    if (which < 4) __asm__ volatile("ldtilecfg %0" : : "m"(cfg));
    __asm__ volatile("tdpbssd %%tmm2, %%tmm1, %%tmm0\n\ttilerelease" : :);
}
