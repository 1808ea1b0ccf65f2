/* Any 512 bytes as a manifest: read, and judged by a device. */
#include <string.h>

#include "gatehouse/manifest.h"
#include "release.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct gh_device device = {
        "kitchen-01", "esp32-sht31", "https://updates.home.arpa/", release_keys, GH_ANY_CHIP, GH_FORMAT_RAW,
    };
    struct gh_standing standing = { 7, 1, { 0 } };
    struct gh_manifest manifest;
    uint8_t exact[GH_MANIFEST];

    if (size < GH_MANIFEST)
        return 0;
    memcpy(exact, data, sizeof exact);
    memcpy(standing.keys, release_keys, sizeof standing.keys);
    if (gh_manifest_read(exact, &manifest) == GH_OK &&
        (strlen(manifest.model) > 31 || strlen(manifest.version) > 31 || strlen(manifest.url) > 127))
        __builtin_trap();
    if (gh_manifest_judge(exact, &device, &standing, 1790000000, 1 << 20, &manifest) == GH_OK &&
        memcmp(exact, release, 448) != 0)
        __builtin_trap(); /* nobody else has the key */
    return 0;
}
