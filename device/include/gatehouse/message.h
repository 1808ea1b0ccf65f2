/* Signs what a device reports, in the binary form of docs/messages.md. No allocation, no parser. */
#ifndef GATEHOUSE_MESSAGE_H
#define GATEHOUSE_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "gatehouse/result.h"

#define GH_MESSAGE_HEADER 20
#define GH_MESSAGE_TAG 32
#define GH_MESSAGE_LARGEST_CONTENT 4096
#define GH_MESSAGE_OVERHEAD (GH_MESSAGE_HEADER + GH_MESSAGE_TAG)

struct gh_signer {
    const uint8_t *key; /* 32 bytes */
    uint16_t number;    /* of the key, from 1 */
};

/*
 * Signs in place: the content lies at message + GH_MESSAGE_HEADER, and size is the room from message on. The sequence
 * number is below 2^63 and never used twice with one key; time_ms are milliseconds since 1970-01-01 UTC. `length` gets
 * the number of bytes to be published under the topic, and 0 on failure.
 */
enum gh_result gh_message_sign(
    const struct gh_signer *signer, const char *topic, uint64_t sequence, uint64_t time_ms, uint8_t *message,
    size_t size, size_t content_length, size_t *length);

/* A sequence number to begin with after a start: ahead of all before it, as long as the clock is right. */
uint64_t gh_message_first_sequence(uint64_t now_seconds);

/*
 * Verifies a message that came under a topic, for devices that take signed ones from each other; content is inside it.
 * GH_BAD_ARGUMENT when it is no message, GH_UNKNOWN_KEY, or GH_BAD_SIGNATURE. Whether it is new, the caller judges.
 */
struct gh_message {
    uint64_t sequence;
    uint64_t time_ms;
    const uint8_t *content;
    size_t content_length;
    uint16_t number;
};
enum gh_result gh_message_verify(
    const struct gh_signer *signer, const char *topic, const uint8_t *data, size_t length, struct gh_message *out);

#endif
