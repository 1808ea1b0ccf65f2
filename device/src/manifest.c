#include "gatehouse/manifest.h"

#include <string.h>

#include "bytes.h"

#define SIGNED 448
#define LARGEST_IMAGE (1ul << 24)
#define LATEST (1ull << 40)

static const char label[] = "gatehouse firmware 1"; /* with its zero byte */
static const uint8_t nothing[32];

static int is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_alphanumeric(char c)
{
    return is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z');
}

/* The length of a text that fills its field up with zero bytes, 0 when it does not or is empty. */
static size_t text_length(const char *text, size_t field)
{
    size_t length = 0, i;

    while (length < field && text[length] != '\0')
        length++;
    if (length == field)
        return 0;
    for (i = length; i < field; i++)
        if (text[i] != '\0')
            return 0;
    return length;
}

static int is_model(const char *text)
{
    size_t length = text_length(text, 32), i;

    if (length == 0 || !(is_lower(text[0]) || is_digit(text[0])))
        return 0;
    for (i = 1; i < length; i++)
        if (!is_lower(text[i]) && !is_digit(text[i]) && strchr("._-", text[i]) == NULL)
            return 0;
    return 1;
}

static int is_version(const char *text)
{
    size_t length = text_length(text, 32), i;

    if (length == 0 || !is_alphanumeric(text[0]))
        return 0;
    for (i = 1; i < length; i++)
        if (!is_alphanumeric(text[i]) && strchr("._+-", text[i]) == NULL)
            return 0;
    return 1;
}

/* https://HOST[:PORT]/PATH, as gatehouse.updates.manifest has it */
static int is_url(const char *text)
{
    static const char scheme[] = "https://";
    size_t length = text_length(text, 128), at = sizeof scheme - 1, start = at;

    if (length <= at || memcmp(text, scheme, at) != 0)
        return 0;
    while (is_lower(text[at]) || is_digit(text[at]) || text[at] == '.' || text[at] == '-')
        at++;
    if (at == start || at - start > 100)
        return 0;
    if (text[at] == ':') {
        start = ++at;
        while (is_digit(text[at]))
            at++;
        if (at == start || at - start > 5)
            return 0;
    }
    if (text[at] != '/')
        return 0;
    for (; at < length; at++)
        if (!is_alphanumeric(text[at]) && strchr("/._+-", text[at]) == NULL)
            return 0;
    return 1;
}

enum gh_result gh_manifest_read(const uint8_t data[GH_MANIFEST], struct gh_manifest *out)
{
    static const uint8_t beginning[6] = { 'G', 'H', 'F', 'W', 1, 1 };

    out->format = data[6];
    out->counter = gh_get32(data + 8);
    out->minimum_counter = gh_get32(data + 12);
    out->size = gh_get32(data + 16);
    out->chip = gh_get16(data + 20);
    out->share = gh_get16(data + 22);
    out->issued = gh_get64(data + 24);
    out->expires = gh_get64(data + 32);
    out->seed = data + 40;
    out->device = data + 56;
    out->sha256 = data + 88;
    out->model = (const char *)data + 120;
    out->version = (const char *)data + 152;
    out->keys = data + 184;
    out->signer = data + 312;
    out->url = (const char *)data + 320;
    if (memcmp(data, beginning, sizeof beginning) != 0 || data[7] != 0 ||
        (out->format != GH_FORMAT_ESP && out->format != GH_FORMAT_RAW) || out->counter == 0 ||
        out->minimum_counter >= out->counter || out->size == 0 || out->size > LARGEST_IMAGE || out->share > 10000 ||
        out->issued == 0 || out->issued > LATEST || out->expires <= out->issued || out->expires > LATEST ||
        !is_model(out->model) || !is_version(out->version) || !is_url(out->url) ||
        memcmp(out->keys, out->keys + GH_KEY, GH_KEY) == 0 || !gh_is_key(out->keys) || !gh_is_key(out->keys + GH_KEY))
        return GH_NO_MANIFEST;
    return GH_OK;
}

static const uint8_t *trusted_key(const uint8_t keys[2 * GH_KEY], const uint8_t identifier[8])
{
    struct gh_sha256 hash;
    uint8_t digest[GH_DIGEST];
    unsigned i;

    for (i = 0; i < 2; i++) {
        gh_sha256_start(&hash);
        gh_sha256_add(&hash, keys + i * GH_KEY, GH_KEY);
        if (gh_sha256_end(&hash, digest) == 0 && memcmp(digest, identifier, 8) == 0)
            return keys + i * GH_KEY;
    }
    return NULL;
}

static int is_for(const struct gh_manifest *manifest, const char *name)
{
    struct gh_sha256 hash;
    uint8_t digest[GH_DIGEST];

    if (memcmp(manifest->device, nothing, sizeof nothing) == 0)
        return 1;
    gh_sha256_start(&hash);
    gh_sha256_add(&hash, name, strlen(name));
    return gh_sha256_end(&hash, digest) == 0 && memcmp(digest, manifest->device, sizeof digest) == 0;
}

unsigned gh_manifest_turn(const uint8_t seed[16], const char *name)
{
    struct gh_hmac hmac;
    uint8_t tag[GH_DIGEST];

    gh_hmac_start(&hmac, seed, 16);
    gh_hmac_add(&hmac, name, strlen(name));
    return gh_hmac_end(&hmac, tag) == 0 ? (unsigned)(gh_get32(tag) % 10000) : 10000;
}

enum gh_result gh_manifest_judge(
    const uint8_t data[GH_MANIFEST], const struct gh_device *device, const struct gh_standing *standing, uint64_t now,
    uint32_t slot_size, struct gh_manifest *out)
{
    struct gh_sha256 hash;
    uint8_t digest[GH_DIGEST];
    const uint8_t *key;

    if (gh_manifest_read(data, out) != GH_OK)
        return GH_NO_MANIFEST;
    key = trusted_key(standing->keys, out->signer);
    if (key == NULL)
        return GH_UNKNOWN_KEY;
    gh_sha256_start(&hash);
    gh_sha256_add(&hash, label, sizeof label);
    gh_sha256_add(&hash, data, SIGNED);
    if (gh_sha256_end(&hash, digest) != 0 || !gh_is_signed(key, digest, data + SIGNED))
        return GH_BAD_SIGNATURE;
    if (strcmp(out->model, device->model) != 0)
        return GH_WRONG_MODEL;
    if (!is_for(out, device->name))
        return GH_WRONG_DEVICE;
    if (out->format != device->format)
        return GH_WRONG_FORMAT;
    if (out->chip != device->chip)
        return GH_WRONG_CHIP;
    if (out->counter < standing->counter)
        return GH_ROLLED_BACK;
    if (now == 0)
        return GH_NO_TIME;
    /* a clock that was set back counts for no more than the moment in which the installed release was issued */
    if (out->expires <= (now > standing->floor ? now : standing->floor))
        return GH_EXPIRED;
    if (out->counter == standing->counter)
        return GH_UP_TO_DATE;
    if (out->counter - standing->counter > GH_LONGEST_STEP)
        return GH_TOO_FAR;
    if (out->minimum_counter > standing->counter)
        return GH_NEEDS_EARLIER;
    if (out->size > slot_size)
        return GH_TOO_LARGE;
    if (strncmp(out->url, device->server, strlen(device->server)) != 0)
        return GH_WRONG_PLACE;
    if (gh_manifest_turn(out->seed, device->name) >= out->share)
        return GH_NOT_ITS_TURN;
    return GH_OK;
}
