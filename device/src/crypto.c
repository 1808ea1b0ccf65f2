#include "gatehouse/crypto.h"

#include <string.h>

#include <mbedtls/ecdsa.h>
#include <mbedtls/ecp.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/version.h>

/* mbedTLS 3 has dropped the suffix. */
#if MBEDTLS_VERSION_MAJOR < 3
#define SHA256_STARTS mbedtls_sha256_starts_ret
#define SHA256_UPDATE mbedtls_sha256_update_ret
#define SHA256_FINISH mbedtls_sha256_finish_ret
#else
#define SHA256_STARTS mbedtls_sha256_starts
#define SHA256_UPDATE mbedtls_sha256_update
#define SHA256_FINISH mbedtls_sha256_finish
#endif

void gh_sha256_start(struct gh_sha256 *hash)
{
    mbedtls_sha256_init(&hash->context);
    hash->failed = SHA256_STARTS(&hash->context, 0);
}

void gh_sha256_add(struct gh_sha256 *hash, const void *data, size_t length)
{
    if (length > 0)
        hash->failed |= SHA256_UPDATE(&hash->context, data, length);
}

int gh_sha256_end(struct gh_sha256 *hash, uint8_t digest[GH_DIGEST])
{
    hash->failed |= SHA256_FINISH(&hash->context, digest);
    mbedtls_sha256_free(&hash->context);
    return hash->failed ? -1 : 0;
}

void gh_hmac_start(struct gh_hmac *hmac, const uint8_t *key, size_t length)
{
    uint8_t inner_pad[64];
    size_t i;

    memset(inner_pad, 0, sizeof inner_pad);
    memcpy(inner_pad, key, length < sizeof inner_pad ? length : sizeof inner_pad);
    for (i = 0; i < sizeof inner_pad; i++) {
        hmac->outer_pad[i] = inner_pad[i] ^ 0x5c;
        inner_pad[i] ^= 0x36;
    }
    gh_sha256_start(&hmac->inner);
    gh_sha256_add(&hmac->inner, inner_pad, sizeof inner_pad);
    mbedtls_platform_zeroize(inner_pad, sizeof inner_pad);
}

void gh_hmac_add(struct gh_hmac *hmac, const void *data, size_t length)
{
    gh_sha256_add(&hmac->inner, data, length);
}

int gh_hmac_end(struct gh_hmac *hmac, uint8_t tag[GH_DIGEST])
{
    struct gh_sha256 outer;
    int failed = gh_sha256_end(&hmac->inner, tag);

    gh_sha256_start(&outer);
    gh_sha256_add(&outer, hmac->outer_pad, sizeof hmac->outer_pad);
    gh_sha256_add(&outer, tag, GH_DIGEST);
    mbedtls_platform_zeroize(hmac->outer_pad, sizeof hmac->outer_pad);
    return gh_sha256_end(&outer, tag) | failed;
}

int gh_equal(const uint8_t *first, const uint8_t *second, size_t length)
{
    uint8_t different = 0;
    size_t i;

    for (i = 0; i < length; i++)
        different |= first[i] ^ second[i];
    return different == 0;
}

/* The group of P-256 and a key as a point of it; 0 when it is one. */
static int load(mbedtls_ecp_group *group, mbedtls_ecp_point *point, const uint8_t key[GH_KEY])
{
    uint8_t encoded[1 + GH_KEY];

    encoded[0] = 4; /* uncompressed, SEC 1 section 2.3.3 */
    memcpy(encoded + 1, key, GH_KEY);
    return mbedtls_ecp_group_load(group, MBEDTLS_ECP_DP_SECP256R1) ||
           mbedtls_ecp_point_read_binary(group, point, encoded, sizeof encoded) ||
           mbedtls_ecp_check_pubkey(group, point);
}

int gh_is_key(const uint8_t key[GH_KEY])
{
    mbedtls_ecp_group group;
    mbedtls_ecp_point point;
    int good;

    mbedtls_ecp_group_init(&group);
    mbedtls_ecp_point_init(&point);
    good = load(&group, &point, key) == 0;
    mbedtls_ecp_point_free(&point);
    mbedtls_ecp_group_free(&group);
    return good;
}

int gh_is_signed(const uint8_t key[GH_KEY], const uint8_t digest[GH_DIGEST], const uint8_t signature[64])
{
    mbedtls_ecp_group group;
    mbedtls_ecp_point point;
    mbedtls_mpi r, s;
    int good;

    mbedtls_ecp_group_init(&group);
    mbedtls_ecp_point_init(&point);
    mbedtls_mpi_init(&r);
    mbedtls_mpi_init(&s);
    good = load(&group, &point, key) == 0 && mbedtls_mpi_read_binary(&r, signature, 32) == 0 &&
           mbedtls_mpi_read_binary(&s, signature + 32, 32) == 0 &&
           mbedtls_ecdsa_verify(&group, digest, GH_DIGEST, &point, &r, &s) == 0;
    mbedtls_mpi_free(&s);
    mbedtls_mpi_free(&r);
    mbedtls_ecp_point_free(&point);
    mbedtls_ecp_group_free(&group);
    return good;
}
