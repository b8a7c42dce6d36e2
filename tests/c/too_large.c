/* What a machine of 32 bits says to models and sessions that it cannot address.
 *
 *   too_large HEADER FILE_BYTES      HEADER: the first bytes of a GGUF that claims to have FILE_BYTES
 *
 * Exit code 0 if everything is refused as it should be; otherwise says what was not.
 */
#include <stdio.h>
#include <stdlib.h>

#include "edgellm/edge.h"
#include "edgellm/gguf.h"
#include "edgellm/model.h"

static _Alignas(64) uint8_t header[1 << 20], memory[1 << 16];

static size_t read_nothing(void *context, uint64_t offset, void *dst, size_t n)
{
    (void)context, (void)offset, (void)dst, (void)n;
    return 0;
}

static int unlike(el_status got, el_status wanted, const char *what, const el_error *err)
{
    if (got == wanted) return 0;
    printf("%s: '%s', not '%s' (%s)\n", what, el_status_name(got), el_status_name(wanted), err->text);
    return 1;
}

int main(int argc, char **argv)
{
    FILE *stream = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (stream == NULL) return 2;
    const size_t size = fread(header, 1, sizeof header, stream);
    (void)fclose(stream);

    el_gguf *gguf;
    el_model *model;
    el_plan plan = {0};
    el_edge edge;
    uint64_t more = 0, edge_bytes = 0;
    el_error err = {{0}};
    const el_source source = {read_nothing, NULL};
    int wrong = 0;
    wrong |= unlike(el_gguf_parse(&gguf, header, size, strtoull(argv[2], NULL, 10), &more, &err), EL_OK,
                    "parse", &err);
    if (wrong) return 1;
    wrong |= unlike(el_model_plan(&plan, gguf, 64, EL_KV_F16, 1, 1, &err), EL_OK, "plan", &err);
    const uint64_t needed = el_plan_model_bytes(&plan);
    if (needed <= UINT32_MAX) {
        printf("the plan has only %llu bytes\n", (unsigned long long)needed);
        wrong = 1;
    }
    // Nobody can have so much here, whatever the caller says, and what is there holds less.
    wrong |= unlike(el_model_init(&model, gguf, &source, 0, 1, NULL, memory, needed, &err),
                    sizeof(size_t) == 4 ? EL_ERR_NOMEM : EL_ERR_IO, "init", &err);
    wrong |= unlike(el_model_init(&model, gguf, &source, 0, 1, NULL, memory, sizeof memory, &err),
                    sizeof(size_t) == 4 ? EL_ERR_NOMEM : EL_ERR_ARG, "init in little memory", &err);
    wrong |= unlike(el_edge_parse(&edge, header, UINT64_C(5) << 32, &err),
                    sizeof(size_t) == 4 ? EL_ERR_ARG : EL_ERR_FORMAT, "image", &err);
    wrong |=
        unlike(el_edge_size(header, sizeof header, &edge_bytes, &err), EL_ERR_FORMAT, "image size", &err);
    el_gguf_free(gguf);
    return wrong;
}
