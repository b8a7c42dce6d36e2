/* From reset to main on an Armv7E-M or Armv8-M: vectors, floating point on, data and zeros in place. */
#include <stdint.h>
#include <string.h>

#include "examples/mcu/semihost.h"

extern uint8_t data_start[], data_end[], bss_start[], bss_end[], stack_top[];
extern const uint8_t data_load[];
int main(void);
void reset(void);
static void fault(void);

typedef void vector(void);

__attribute__((section(".vectors"), used)) static vector *const vectors[16] = {
    (vector *)stack_top,  // loaded into sp by the hardware
    reset,
    fault,  // non-maskable interrupt
    fault,  // hard fault
    fault,  // memory management
    fault,  // bus
    fault,  // usage
};

__attribute__((noreturn)) static void stop(int status)
{
    semihost_exit(status);
    for (;;) {}
}

static void fault(void)
{
    semihost_write("fault\n", 6);
    stop(3);
}

void reset(void)
{
    volatile uint32_t *const cpacr = (volatile uint32_t *)0xE000ED88u;
    *cpacr |= 0xFu << 20;  // full access to the coprocessors 10 and 11: the floating-point unit
    __asm__ volatile("dsb\n isb" ::: "memory");

    memcpy(data_start, data_load, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    stop(main());
}
