#ifndef EL_CORE_TRIG_H
#define EL_CORE_TRIG_H

/* Double precision functions for tables (RoPE), with the same bits on every machine:
 * additions, multiplications and divisions in a fixed order, no fma, no C library.
 * Bounds are in docs/numerics.md. */

/// Sine and cosine; |x| <= 2^20. Absolute error below 4e-16.
void el_sincos(double x, double *sine, double *cosine);

/// e^x for |x| <= 700; relative error below 1e-15.
double el_exp(double x);

/// Natural logarithm of a normal positive x; relative error below 1e-15, absolute 1e-15 near 1.
double el_log(double x);

/// base^y by exp(y log(base)), for RoPE's frequencies: 1 <= base <= 1e9, |y| <= 1.
double el_pow(double base, double y);

#endif
