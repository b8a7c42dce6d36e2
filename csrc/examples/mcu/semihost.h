/* Arm semihosting: a debugger, or qemu, does input and output for the program.
 * Source: "Semihosting for AArch32 and AArch64", Arm, 2023. A product writes to its UART here instead. */
#ifndef EL_EXAMPLES_MCU_SEMIHOST_H
#define EL_EXAMPLES_MCU_SEMIHOST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int semihost_call(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/// Write bytes to the console (SYS_WRITE0 wants a terminating zero).
static inline void semihost_write(const char *text, size_t bytes)
{
    char piece[65];
    while (bytes > 0) {
        const size_t n = bytes < sizeof piece - 1 ? bytes : sizeof piece - 1;
        memcpy(piece, text, n);
        piece[n] = '\0';
        (void)semihost_call(0x04, piece);
        text += n;
        bytes -= n;
    }
}

/// The words after the program's name on the emulator's command line; "" if there are none.
static inline const char *semihost_arguments(char *buffer, size_t size)
{
    struct {
        char *text;
        size_t size;
    } line = {buffer, size};
    buffer[0] = '\0';
    if (semihost_call(0x15, &line) != 0) return "";  // SYS_GET_CMDLINE
    const char *space = strchr(buffer, ' ');
    return space != NULL ? space + 1 : "";
}

static inline void semihost_exit(int status)
{
    const uint32_t block[2] = {0x20026, (uint32_t)status};  // ADP_Stopped_ApplicationExit
    (void)semihost_call(0x20, block);                       // SYS_EXIT_EXTENDED
}

#endif
