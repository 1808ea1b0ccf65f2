#include "gatehouse/message.h"

#include <string.h>

#include "bytes.h"
#include "gatehouse/crypto.h"

#define FORM 2
#define HMAC_SHA256 1
#define HIGHEST_SEQUENCE 0x7fffffffffffffffull
#define LATEST_MS (HIGHEST_SEQUENCE / 1000000)

static const char label[] = "gatehouse message 2"; /* with its zero byte */

static int tag_of(const uint8_t *key, const char *topic, const uint8_t *data, size_t length, uint8_t tag[GH_DIGEST])
{
    struct gh_hmac hmac;
    uint8_t topic_length[2];

    gh_put16(topic_length, (uint16_t)strlen(topic));
    gh_hmac_start(&hmac, key, 32);
    gh_hmac_add(&hmac, label, sizeof label);
    gh_hmac_add(&hmac, topic_length, sizeof topic_length);
    gh_hmac_add(&hmac, topic, strlen(topic));
    gh_hmac_add(&hmac, data, length);
    return gh_hmac_end(&hmac, tag);
}

enum gh_result gh_message_sign(
    const struct gh_signer *signer, const char *topic, uint64_t sequence, uint64_t time_ms, uint8_t *message,
    size_t size, size_t content_length, size_t *length)
{
    *length = 0;
    if (content_length < 1 || content_length > GH_MESSAGE_LARGEST_CONTENT || size < content_length ||
        size - content_length < GH_MESSAGE_OVERHEAD || signer->number == 0 || sequence > HIGHEST_SEQUENCE ||
        time_ms > LATEST_MS || strlen(topic) > 0xffff)
        return GH_BAD_ARGUMENT;
    message[0] = FORM;
    message[1] = HMAC_SHA256;
    gh_put16(message + 2, signer->number);
    gh_put64(message + 4, sequence);
    gh_put64(message + 12, time_ms);
    content_length += GH_MESSAGE_HEADER;
    if (tag_of(signer->key, topic, message, content_length, message + content_length) != 0)
        return GH_BAD_ARGUMENT;
    *length = content_length + GH_MESSAGE_TAG;
    return GH_OK;
}

uint64_t gh_message_first_sequence(uint64_t now_seconds)
{
    return now_seconds << 20;
}

enum gh_result gh_message_verify(
    const struct gh_signer *signer, const char *topic, const uint8_t *data, size_t length, struct gh_message *out)
{
    uint8_t tag[GH_DIGEST];

    if (length <= GH_MESSAGE_OVERHEAD || length > GH_MESSAGE_OVERHEAD + GH_MESSAGE_LARGEST_CONTENT ||
        data[0] != FORM || data[1] != HMAC_SHA256 || strlen(topic) > 0xffff)
        return GH_BAD_ARGUMENT;
    out->number = gh_get16(data + 2);
    out->sequence = gh_get64(data + 4);
    out->time_ms = gh_get64(data + 12);
    if (out->sequence > HIGHEST_SEQUENCE || out->time_ms > LATEST_MS)
        return GH_BAD_ARGUMENT;
    if (out->number != signer->number)
        return GH_UNKNOWN_KEY;
    length -= GH_MESSAGE_TAG;
    if (tag_of(signer->key, topic, data, length, tag) != 0 || !gh_equal(tag, data + length, GH_DIGEST))
        return GH_BAD_SIGNATURE;
    out->content = data + GH_MESSAGE_HEADER;
    out->content_length = length - GH_MESSAGE_HEADER;
    return GH_OK;
}
