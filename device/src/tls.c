#include "gatehouse/tls.h"

#include <string.h>

#include <mbedtls/net_sockets.h>
#include <mbedtls/version.h>

#define CONNECT_MS 10000
#define HANDSHAKE_MS 20000
#define WRITE_MS 10000

static int send_some(void *context, const unsigned char *data, size_t length)
{
    struct gh_tls *tls = context;
    int count = tls->port->net_send(tls->port->self, tls->handle, data, length);

    return count < 0 ? MBEDTLS_ERR_NET_SEND_FAILED : count;
}

/* Until when the present call may take, however few bytes come at a time. */
static void give(struct gh_tls *tls, uint32_t timeout_ms)
{
    tls->began = tls->port->ticks(tls->port->self);
    tls->timeout_ms = timeout_ms;
}

static int receive_some(void *context, unsigned char *data, size_t length)
{
    struct gh_tls *tls = context;
    uint32_t spent = tls->port->ticks(tls->port->self) - tls->began;
    int count;

    if (spent >= tls->timeout_ms)
        return MBEDTLS_ERR_SSL_TIMEOUT;
    count = tls->port->net_receive(tls->port->self, tls->handle, data, length, tls->timeout_ms - spent);
    if (count == GH_NET_TIMEOUT)
        return MBEDTLS_ERR_SSL_TIMEOUT;
    return count < 0 ? MBEDTLS_ERR_NET_RECV_FAILED : count;
}

/* Whether the server's key, or its certificate where that is pinned, is one of those that are known. */
static int is_pinned(const struct gh_tls *tls)
{
    const struct gh_tls_settings *settings = tls->settings;
    const mbedtls_x509_crt *peer = mbedtls_ssl_get_peer_cert(&tls->ssl);
    struct gh_sha256 hash;
    uint8_t digest[GH_DIGEST];
    size_t i;

    if (settings->pin_count == 0 && settings->certificate_pin == NULL)
        return 1;
    if (peer == NULL)
        return 0;
    gh_sha256_start(&hash);
    if (settings->certificate_pin != NULL) {
        gh_sha256_add(&hash, peer->raw.p, peer->raw.len);
        return gh_sha256_end(&hash, digest) == 0 && gh_equal(digest, settings->certificate_pin, GH_DIGEST);
    }
    gh_sha256_add(&hash, peer->pk_raw.p, peer->pk_raw.len);
    if (gh_sha256_end(&hash, digest) != 0)
        return 0;
    for (i = 0; i < settings->pin_count; i++)
        if (gh_equal(digest, settings->pins[i], GH_DIGEST))
            return 1;
    return 0;
}

static void close_tls(void *self)
{
    struct gh_tls *tls = self;

    if (tls->is_open) {
        mbedtls_ssl_close_notify(&tls->ssl);
        tls->port->net_close(tls->port->self, tls->handle);
        tls->is_open = 0;
    }
}

static enum gh_result handshake(struct gh_tls *tls)
{
    int result;

    give(tls, HANDSHAKE_MS);
    do
        result = mbedtls_ssl_handshake(&tls->ssl);
    while (result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE);
    tls->flags = mbedtls_ssl_get_verify_result(&tls->ssl);
    if (result == MBEDTLS_ERR_SSL_TIMEOUT)
        return GH_TOO_SLOW;
    if (result == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED)
        return GH_NOT_TRUSTED;
    if (result != 0)
        return GH_NO_ANSWER;
    return tls->flags == 0 && is_pinned(tls) ? GH_OK : GH_NOT_TRUSTED;
}

static enum gh_result open_tls(void *self)
{
    struct gh_tls *tls = self;
    const char *address = tls->settings->address != NULL ? tls->settings->address : tls->settings->host;
    enum gh_result result;

    close_tls(tls);
    if (mbedtls_ssl_session_reset(&tls->ssl) != 0)
        return GH_BAD_IDENTITY;
    tls->handle = tls->port->net_open(tls->port->self, address, tls->settings->port, CONNECT_MS);
    if (tls->handle < 0)
        return GH_NO_ANSWER;
    tls->is_open = 1;
    result = handshake(tls);
    if (result != GH_OK)
        close_tls(tls);
    return result;
}

static enum gh_result write_tls(void *self, const uint8_t *data, size_t length)
{
    struct gh_tls *tls = self;

    give(tls, WRITE_MS);
    while (tls->is_open && length > 0) {
        int count = mbedtls_ssl_write(&tls->ssl, data, length);

        if (count == MBEDTLS_ERR_SSL_WANT_READ || count == MBEDTLS_ERR_SSL_WANT_WRITE)
            continue;
        if (count <= 0)
            return GH_NO_ANSWER;
        data += count;
        length -= (size_t)count;
    }
    return tls->is_open ? GH_OK : GH_NO_ANSWER;
}

static int read_tls(void *self, uint8_t *data, size_t length, uint32_t timeout_ms)
{
    struct gh_tls *tls = self;
    int count;

    if (!tls->is_open)
        return -GH_NO_ANSWER;
    give(tls, timeout_ms);
    do {
        count = mbedtls_ssl_read(&tls->ssl, data, length);
#if MBEDTLS_VERSION_MAJOR >= 3 && defined(MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
        if (count == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
            count = MBEDTLS_ERR_SSL_WANT_READ;
#endif
    } while (count == MBEDTLS_ERR_SSL_WANT_READ || count == MBEDTLS_ERR_SSL_WANT_WRITE);
    if (count == MBEDTLS_ERR_SSL_TIMEOUT)
        return -GH_TOO_SLOW;
    if (count == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || count == 0)
        return 0;
    return count < 0 ? -GH_NO_ANSWER : count;
}

static int load(struct gh_tls *tls)
{
    const struct gh_tls_settings *settings = tls->settings;
    static const unsigned char purpose[] = "gatehouse";

    if (mbedtls_ctr_drbg_seed(
            &tls->random, mbedtls_entropy_func, &tls->entropy, purpose, sizeof purpose - 1) != 0 ||
        mbedtls_x509_crt_parse(&tls->ca, (const unsigned char *)settings->ca, strlen(settings->ca) + 1) != 0 ||
        mbedtls_ssl_config_defaults(
            &tls->config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0)
        return -1;
    mbedtls_ssl_conf_rng(&tls->config, mbedtls_ctr_drbg_random, &tls->random);
    mbedtls_ssl_conf_authmode(&tls->config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(&tls->config, &tls->ca, NULL);
#if MBEDTLS_VERSION_MAJOR < 3
    mbedtls_ssl_conf_min_version(&tls->config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#else
    mbedtls_ssl_conf_min_tls_version(&tls->config, MBEDTLS_SSL_VERSION_TLS1_2);
#endif
    if (settings->certificate == NULL || settings->key == NULL)
        return 0;
    if (mbedtls_x509_crt_parse(
            &tls->certificate, (const unsigned char *)settings->certificate, strlen(settings->certificate) + 1) != 0)
        return -1;
#if MBEDTLS_VERSION_MAJOR < 3
    if (mbedtls_pk_parse_key(&tls->key, (const unsigned char *)settings->key, strlen(settings->key) + 1, NULL, 0) != 0)
        return -1;
#else
    if (mbedtls_pk_parse_key(
            &tls->key, (const unsigned char *)settings->key, strlen(settings->key) + 1, NULL, 0,
            mbedtls_ctr_drbg_random, &tls->random) != 0)
        return -1;
#endif
    return mbedtls_ssl_conf_own_cert(&tls->config, &tls->certificate, &tls->key);
}

enum gh_result gh_tls_prepare(
    struct gh_tls *tls, const struct gh_port *port, const struct gh_tls_settings *settings, struct gh_stream *stream)
{
    memset(tls, 0, sizeof *tls);
    tls->port = port;
    tls->settings = settings;
    mbedtls_ssl_init(&tls->ssl);
    mbedtls_ssl_config_init(&tls->config);
    mbedtls_x509_crt_init(&tls->ca);
    mbedtls_x509_crt_init(&tls->certificate);
    mbedtls_pk_init(&tls->key);
    mbedtls_entropy_init(&tls->entropy);
    mbedtls_ctr_drbg_init(&tls->random);
    stream->self = tls;
    stream->open = open_tls;
    stream->write = write_tls;
    stream->read = read_tls;
    stream->close = close_tls;
    if (load(tls) != 0 || mbedtls_ssl_setup(&tls->ssl, &tls->config) != 0 ||
        mbedtls_ssl_set_hostname(&tls->ssl, settings->host) != 0) {
        gh_tls_free(tls);
        return GH_BAD_IDENTITY;
    }
    mbedtls_ssl_set_bio(&tls->ssl, tls, send_some, receive_some, NULL);
    return GH_OK;
}

void gh_tls_free(struct gh_tls *tls)
{
    close_tls(tls);
    mbedtls_ssl_free(&tls->ssl);
    mbedtls_ssl_config_free(&tls->config);
    mbedtls_pk_free(&tls->key);
    mbedtls_x509_crt_free(&tls->certificate);
    mbedtls_x509_crt_free(&tls->ca);
    mbedtls_ctr_drbg_free(&tls->random);
    mbedtls_entropy_free(&tls->entropy);
}
