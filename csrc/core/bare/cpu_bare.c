/* core/cpu.c for a machine without an operating system: nobody to ask, and `ref` needs no features. */
#include "edgellm/cpu.h"

uint64_t el_cpu_features(void) { return 0; }

size_t el_cpu_count(void) { return 1; }
