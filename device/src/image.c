#include "gatehouse/image.h"

#include <string.h>

/* Offsets of ESP-IDF's structures; their numbers are little-endian. */
#define SEGMENTS 1
#define CHIP 12
#define DESCRIPTION 32
#define VERSION 48

enum gh_result gh_image_check(const uint8_t *data, size_t length, uint16_t chip, const char *version)
{
    static const uint8_t magic[4] = { 0x32, 0x54, 0xcd, 0xab };
    const char *named = (const char *)data + VERSION;

    if (length < GH_IMAGE_HEAD || data[0] != 0xe9 || data[SEGMENTS] < 1 || data[SEGMENTS] > 16 ||
        memcmp(data + DESCRIPTION, magic, sizeof magic) != 0)
        return GH_WRONG_IMAGE;
    if (data[CHIP] != (chip & 0xff) || data[CHIP + 1] != chip >> 8)
        return GH_WRONG_IMAGE;
    if (named[0] != '\0' && strncmp(named, version, 32) != 0)
        return GH_WRONG_IMAGE;
    return GH_OK;
}
