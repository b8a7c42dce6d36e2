/* Generate text on a microcontroller: the model lies in flash and is used there; there is no operating
 * system, no thread and no heap. The prompt comes by semihosting, or is the one below. */
#include <stdio.h>

#include "edgellm/cpu.h"
#include "examples/mcu/semihost.h"
#include "examples/talk.h"

extern const uint8_t model_image[], model_image_end[];

enum { MEMORY_BYTES = 192 << 10 };

static _Alignas(64) uint8_t memory[MEMORY_BYTES];

/// CMSDK timer 0 of the MPS2 boards counts down at 25 MHz.
static volatile uint32_t *const timer = (volatile uint32_t *)0x40000000u;
enum { TIMER_CONTROL = 0, TIMER_VALUE = 1, TIMER_RELOAD = 2 };

static void print(void *to, const char *text, size_t bytes)
{
    (void)to;
    semihost_write(text, bytes);
}

static el_status run(const char *prompt, talk_result *result, uint64_t *needed, el_error *err)
{
    static el_edge edge;
    const talk_options options = {
        .prompt = *prompt != '\0' ? prompt : "Turn on the kitchen light and lock the front door",
        .max_tokens = 64,
        .micro_batch = 8,
        .isa = el_isa_best(el_cpu_features()),
        .sampling = {.top_p = 1.0, .repeat_penalty = 1.0},
    };
    el_status st = el_edge_parse(&edge, model_image, (uint64_t)(model_image_end - model_image), err);
    if (st == EL_OK) st = talk_plan(needed, &edge, &options, err);
    if (st == EL_OK) st = talk(&edge, &options, memory, sizeof memory, print, NULL, result, err);
    return st;
}

int main(void)
{
    static char line[512], report[320];
    talk_result result = {0};
    el_error err = {{0}};
    uint64_t needed = 0;

    timer[TIMER_RELOAD] = UINT32_MAX;
    timer[TIMER_VALUE] = UINT32_MAX;
    timer[TIMER_CONTROL] = 1;
    const el_status st = run(semihost_arguments(line, sizeof line), &result, &needed, &err);
    const uint32_t ticks = UINT32_MAX - timer[TIMER_VALUE];

    int n;
    if (st != EL_OK) {
        n = snprintf(report, sizeof report, "hello_mcu: %s: %s\n", el_status_name(st), err.text);
    } else {
        n = snprintf(
            report, sizeof report,
            "\n[%zu tokens read, %zu made, logits %016llx]\n[%llu of %zu bytes of memory, %lu ticks of 25 MHz]\n",
            result.prompt_tokens, result.tokens, (unsigned long long)result.hash, (unsigned long long)needed,
            sizeof memory, (unsigned long)ticks);
    }
    semihost_write(report, (size_t)n);
    return st == EL_OK ? 0 : 1;
}
