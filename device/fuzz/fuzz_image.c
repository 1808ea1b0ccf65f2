/* Any bytes as the beginning of an image. */
#include <stdlib.h>
#include <string.h>

#include "gatehouse/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* a copy of its own size, so that a byte too many is noticed */
    uint8_t *exact = malloc(size + 1);

    if (exact == NULL)
        return 0;
    memcpy(exact, data, size);
    gh_image_check(exact, size, 9, "1.4.2");
    free(exact);
    return 0;
}
