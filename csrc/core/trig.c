#include "core/trig.h"

#include <stdint.h>
#include <string.h>

// Nearest integer, ties to even, for |x| < 2^51.
static double nearest(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

// Taylor series on [-pi/4, pi/4]: the first term left out is below 1e-17.
static double sin_series(double r)
{
    const double z = r * r;
    double p = -1.0 / 121645100408832000.0;  // -1 / 19!
    p = p * z + 1.0 / 355687428096000.0;
    p = p * z - 1.0 / 1307674368000.0;
    p = p * z + 1.0 / 6227020800.0;
    p = p * z - 1.0 / 39916800.0;
    p = p * z + 1.0 / 362880.0;
    p = p * z - 1.0 / 5040.0;
    p = p * z + 1.0 / 120.0;
    p = p * z - 1.0 / 6.0;
    return r + r * (z * p);
}

static double cos_series(double r)
{
    const double z = r * r;
    double p = 1.0 / 2432902008176640000.0;  // 1 / 20!
    p = p * z - 1.0 / 6402373705728000.0;
    p = p * z + 1.0 / 20922789888000.0;
    p = p * z - 1.0 / 87178291200.0;
    p = p * z + 1.0 / 479001600.0;
    p = p * z - 1.0 / 3628800.0;
    p = p * z + 1.0 / 40320.0;
    p = p * z - 1.0 / 720.0;
    p = p * z + 1.0 / 24.0;
    return 1.0 - (0.5 * z - z * (z * p));
}

void el_sincos(double x, double *sine, double *cosine)
{
    // x - n pi/2 with pi/2 in three parts (fdlibm's). The first two have 33 bits and n has at most
    // 20, so their products are exact.
    const double n = nearest(x * 0.63661977236758134308);
    const double a = x - n * 1.57079632673412561417e+00;
    const double b = n * 6.07710050630396597660e-11;
    const double c = n * 2.02226624879595063154e-21;
    const double ab = a - b;
    const double r = ab - (c - ((a - ab) - b));

    const double s = sin_series(r), t = cos_series(r);
    const int64_t quadrant = (int64_t)n & 3;
    const double sin_table[4] = {s, t, -s, -t}, cos_table[4] = {t, -s, -t, s};
    *sine = sin_table[quadrant];
    *cosine = cos_table[quadrant];
}

double el_exp(double x)
{
    const double n = nearest(x * 1.44269504088896338700);
    const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;

    double p = 1.0;  // sum of r^i / i!, by Horner; 16 terms leave less than 1e-19
    for (int i = 15; i >= 1; i--) p = 1.0 + r * p / (double)i;

    const uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

double el_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.41421356237309504880) {  // m in (0.707, 1.414]
        m *= 0.5;
        exponent++;
    }

    // log(m) = 2 atanh((m - 1) / (m + 1)), |f| <= 0.1716: 11 terms leave less than 1e-18.
    const double f = (m - 1.0) / (m + 1.0), z = f * f;
    double p = 0.0;
    for (int i = 23; i >= 3; i -= 2) p = z * (1.0 / (double)i + p);
    const double log_m = 2.0 * f + 2.0 * f * p;
    const double n = (double)exponent;
    return n * 6.93147180369123816490e-01 + (n * 1.90821492927058770002e-10 + log_m);
}

double el_pow(double base, double y) { return el_exp(y * el_log(base)); }
