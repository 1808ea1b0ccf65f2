/* Any bytes as what a server answers: instead of the manifests, and, after a real one, instead of the image. */
#include <stdlib.h>
#include <string.h>

#include "gatehouse/update.h"
#include "memory.h"
#include "release.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void answer(const uint8_t *first, size_t first_size, const uint8_t *second, size_t second_size)
{
    static uint8_t slot[65536];
    static struct gh_update update;
    const struct gh_device device = {
        "kitchen-01", "esp32-sht31", "https://updates.home.arpa/", release_keys, GH_ANY_CHIP, GH_FORMAT_RAW,
    };
    struct memory memory;
    struct gh_port port;
    struct gh_stream stream;
    enum gh_result result;

    memset(&memory, 0, sizeof memory);
    memory.slots[1] = slot;
    memory.slot_size = sizeof slot;
    memory.boots[0] = GH_BOOT_VALID;
    memory.now = 1790000000;
    memory.answers[0] = first;
    memory.lengths[0] = first_size;
    memory.answers[1] = second;
    memory.lengths[1] = second_size;
    memory_port(&memory, &port);
    memory_stream(&memory, &stream);
    gh_update_begin(&update, &port, &device);
    result = gh_update_check(&update, &stream);
    if (result == GH_OK || result >= GH_RESULTS)
        __builtin_trap();
    if (result == GH_INSTALLED && memory.boots[1] != GH_BOOT_NEW)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n";
    uint8_t good[sizeof head - 1 + sizeof release];
    uint8_t *exact = malloc(size + 1);

    if (exact == NULL)
        return 0;
    memcpy(exact, data, size);
    memcpy(good, head, sizeof head - 1);
    memcpy(good + sizeof head - 1, release, sizeof release);
    answer(exact, size, NULL, 0);
    answer(good, sizeof good, exact, size);
    free(exact);
    return 0;
}
