/* Any bytes as a signed message. */
#include <stdlib.h>
#include <string.h>

#include "gatehouse/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = { 1 };
    const struct gh_signer signer = { key, 1 };
    struct gh_message message;
    uint8_t *exact = malloc(size + 1);

    if (exact == NULL)
        return 0;
    memcpy(exact, data, size);
    if (gh_message_verify(&signer, "devices/a/telemetry/b", exact, size, &message) == GH_OK)
        __builtin_trap(); /* nobody else has the key */
    free(exact);
    return 0;
}
