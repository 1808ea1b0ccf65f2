/*
 * TLS to a server that is known by its CA and name *and*, if pins are given, by its key. With its own certificate, if
 * the device has one. A struct gh_stream over the port's network; usable without the rest.
 */
#ifndef GATEHOUSE_TLS_H
#define GATEHOUSE_TLS_H

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

#include "gatehouse/crypto.h"
#include "gatehouse/port.h"
#include "gatehouse/stream.h"

struct gh_tls_settings {
    const char *host; /* the name that its certificate must have */
    const char *address; /* where to connect to; NULL: the host */
    uint16_t port;
    /* PEM texts with their zero byte, as in a bundle's gatehouse_device.h; certificate and key may be NULL */
    const char *ca, *certificate, *key;
    /* SHA-256 of the server's public key (DER SubjectPublicKeyInfo): the one it has, and the one it may move to */
    const uint8_t (*pins)[GH_DIGEST];
    size_t pin_count; /* 0: the CA is trusted alone */
    /* SHA-256 of its certificate, or NULL. It ends with the certificate: for those who want it so */
    const uint8_t *certificate_pin;
};

struct gh_tls {
    const struct gh_port *port;
    const struct gh_tls_settings *settings;
    int handle, is_open;
    uint32_t began, timeout_ms;
    uint32_t flags; /* of the last handshake: why a certificate is not trusted (MBEDTLS_X509_BADCERT_*), 0: not pinned */
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config config;
    mbedtls_x509_crt ca, certificate;
    mbedtls_pk_context key;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
};

/* Makes `stream` a TLS connection of these settings, which is not open yet. GH_OK or GH_BAD_IDENTITY. */
enum gh_result gh_tls_prepare(
    struct gh_tls *tls, const struct gh_port *port, const struct gh_tls_settings *settings, struct gh_stream *stream);

/* Ends what `gh_tls_prepare` began. */
void gh_tls_free(struct gh_tls *tls);

#endif
