/* SHA-256 and HMAC without allocation, and ECDSA on P-256; over mbedTLS 2.28 or 3. */
#ifndef GATEHOUSE_CRYPTO_H
#define GATEHOUSE_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#include <mbedtls/sha256.h>

#define GH_DIGEST 32
#define GH_KEY 64 /* a public key: X and Y */

struct gh_sha256 {
    mbedtls_sha256_context context;
    int failed;
};

void gh_sha256_start(struct gh_sha256 *hash);
void gh_sha256_add(struct gh_sha256 *hash, const void *data, size_t length);
/* 0, or -1 if any step failed (an accelerator may). Frees the context. */
int gh_sha256_end(struct gh_sha256 *hash, uint8_t digest[GH_DIGEST]);

struct gh_hmac {
    struct gh_sha256 inner;
    uint8_t outer_pad[64];
};

/* HMAC-SHA-256 (RFC 2104) with a key of at most 64 bytes; 0 or -1 as above. */
void gh_hmac_start(struct gh_hmac *hmac, const uint8_t *key, size_t length);
void gh_hmac_add(struct gh_hmac *hmac, const void *data, size_t length);
int gh_hmac_end(struct gh_hmac *hmac, uint8_t tag[GH_DIGEST]);

/* Whether two digests are equal, in a time that does not depend on where they differ. */
int gh_equal(const uint8_t *first, const uint8_t *second, size_t length);

/* Whether X and Y are a point of P-256. */
int gh_is_key(const uint8_t key[GH_KEY]);

/* Whether r and s are the signature of a digest by a key. */
int gh_is_signed(const uint8_t key[GH_KEY], const uint8_t digest[GH_DIGEST], const uint8_t signature[64]);

#endif
