/* The manifest of a firmware image: 512 bytes, read where they lie. docs/firmware.md has it byte by byte. */
#ifndef GATEHOUSE_MANIFEST_H
#define GATEHOUSE_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "gatehouse/crypto.h"
#include "gatehouse/result.h"

#define GH_MANIFEST 512
#define GH_MANIFESTS 4 /* at most, in one file */
#define GH_LONGEST_STEP 1024

#define GH_FORMAT_ESP 1 /* an ESP-IDF application image */
#define GH_FORMAT_RAW 2 /* taken as it is */
#define GH_ANY_CHIP 0xffff

/* What 512 bytes say; the pointers point into them. */
struct gh_manifest {
    uint32_t counter, minimum_counter, size;
    uint16_t chip, share;
    uint8_t format;
    uint64_t issued, expires;
    const uint8_t *seed, *device, *sha256, *keys, *signer;
    const char *model, *version, *url;
};

/* What does not change while a device runs. Texts end with a zero byte. */
struct gh_device {
    const char *name, *model;
    const char *server; /* what the URL of an image begins with: https://HOST/ or https://HOST:PORT/ */
    const uint8_t *keys; /* the two public keys that the device was made with, 128 bytes */
    uint16_t chip;
    uint8_t format;
};

/* What a device has installed. `floor` is when that was issued. */
struct gh_standing {
    uint32_t counter;
    uint64_t floor;
    uint8_t keys[2 * GH_KEY];
};

/* GH_OK or GH_NO_MANIFEST. The signature is not looked at. */
enum gh_result gh_manifest_read(const uint8_t data[GH_MANIFEST], struct gh_manifest *out);

/* Whether the device takes it: GH_OK, or the first reason why not. `now` in seconds, 0 when it is not known. */
enum gh_result gh_manifest_judge(
    const uint8_t data[GH_MANIFEST], const struct gh_device *device, const struct gh_standing *standing, uint64_t now,
    uint32_t slot_size, struct gh_manifest *out);

/* Where a device stands in a roll-out: 0 to 9999, or 10000 on failure. */
unsigned gh_manifest_turn(const uint8_t seed[16], const char *name);

#endif
