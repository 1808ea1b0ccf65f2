#include "gatehouse/mqtt.h"

#include <string.h>

#include "bytes.h"

#define CONNACK 0x20
#define PUBACK 0x40
#define LARGEST_ANSWER 512

struct talk {
    const struct gh_stream *stream;
    const struct gh_port *port;
    uint32_t started, within_ms;
};

/* A "remaining length" (MQTT 5 section 1.5.5); returns its bytes. */
static size_t put_length(uint8_t *at, uint32_t length)
{
    size_t count = 0;

    do {
        at[count] = (uint8_t)(length & 0x7f);
        length >>= 7;
        if (length > 0)
            at[count] |= 0x80;
        count++;
    } while (length > 0);
    return count;
}

static enum gh_result write_text(const struct gh_stream *stream, const char *text)
{
    uint8_t length[2];
    enum gh_result result;

    gh_put16(length, (uint16_t)strlen(text));
    result = stream->write(stream->self, length, sizeof length);
    return result == GH_OK ? stream->write(stream->self, (const uint8_t *)text, strlen(text)) : result;
}

static enum gh_result read_all(const struct talk *talk, uint8_t *data, size_t length)
{
    while (length > 0) {
        uint32_t spent = talk->port->ticks(talk->port->self) - talk->started;
        int count;

        if (spent >= talk->within_ms)
            return GH_TOO_SLOW;
        count = talk->stream->read(talk->stream->self, data, length, talk->within_ms - spent);
        if (count <= 0)
            return count == 0 ? GH_REFUSED : (enum gh_result)(-count); /* a broker says no by closing, too */
        data += count;
        length -= (size_t)count;
    }
    return GH_OK;
}

/* The next packet: its first byte, and its content, which is at most LARGEST_ANSWER bytes long. */
static enum gh_result read_packet(const struct talk *talk, uint8_t *kind, uint8_t *content, uint32_t *length)
{
    enum gh_result result = read_all(talk, kind, 1);
    unsigned shift;
    uint8_t byte = 0x80;

    *length = 0;
    for (shift = 0; result == GH_OK && (byte & 0x80) != 0; shift += 7) {
        if (shift > 21)
            return GH_BAD_ANSWER;
        result = read_all(talk, &byte, 1);
        *length |= (uint32_t)(byte & 0x7f) << shift;
    }
    if (result != GH_OK)
        return result;
    return *length > LARGEST_ANSWER ? GH_BAD_ANSWER : read_all(talk, content, *length);
}

static enum gh_result connect_to(const struct talk *talk, const char *client)
{
    /* name of the protocol, 5, clean start, keep alive 60 s, no properties (section 3.1) */
    static const uint8_t head[11] = { 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0 };
    uint8_t begin[5] = { 0x10 }, content[LARGEST_ANSWER], kind;
    size_t count = put_length(begin + 1, (uint32_t)(sizeof head + 2 + strlen(client)));
    uint32_t length;
    enum gh_result result = talk->stream->write(talk->stream->self, begin, 1 + count);

    if (result == GH_OK)
        result = talk->stream->write(talk->stream->self, head, sizeof head);
    if (result == GH_OK)
        result = write_text(talk->stream, client);
    if (result == GH_OK)
        result = read_packet(talk, &kind, content, &length);
    if (result != GH_OK)
        return result;
    if (kind != CONNACK || length < 2)
        return GH_BAD_ANSWER;
    return content[1] == 0 ? GH_OK : GH_REFUSED;
}

static enum gh_result publish(const struct talk *talk, const char *topic, const uint8_t *payload, size_t size)
{
    static const uint8_t identifier_and_no_properties[3] = { 0, 1, 0 };
    uint8_t begin[5] = { 0x32 }, content[LARGEST_ANSWER], kind;
    size_t count = put_length(begin + 1, (uint32_t)(2 + strlen(topic) + 3 + size));
    uint32_t length;
    enum gh_result result = talk->stream->write(talk->stream->self, begin, 1 + count);

    if (result == GH_OK)
        result = write_text(talk->stream, topic);
    if (result == GH_OK)
        result = talk->stream->write(talk->stream->self, identifier_and_no_properties, 3);
    if (result == GH_OK)
        result = talk->stream->write(talk->stream->self, payload, size);
    if (result == GH_OK)
        result = read_packet(talk, &kind, content, &length);
    if (result != GH_OK)
        return result;
    if (kind != PUBACK || length < 2 || content[0] != 0 || content[1] != 1)
        return GH_BAD_ANSWER;
    /* without a reason code it is success; 0x10 is "no matching subscribers" (section 3.4.2.1) */
    return length == 2 || content[2] < 0x80 ? GH_OK : GH_REFUSED;
}

enum gh_result gh_mqtt_report(
    const struct gh_stream *stream, const struct gh_port *port, const char *client, const char *topic,
    const uint8_t *payload, size_t length, uint32_t within_ms)
{
    static const uint8_t disconnect[2] = { 0xe0, 0 };
    struct talk talk;
    enum gh_result result;

    if (strlen(client) > 0xff || strlen(topic) > 0xff || length > 0xffff)
        return GH_BAD_ARGUMENT;
    talk.stream = stream;
    talk.port = port;
    talk.started = port->ticks(port->self);
    talk.within_ms = within_ms;
    result = stream->open(stream->self);
    if (result != GH_OK)
        return result;
    result = connect_to(&talk, client);
    if (result == GH_OK)
        result = publish(&talk, topic, payload, length);
    if (result == GH_OK)
        stream->write(stream->self, disconnect, sizeof disconnect);
    stream->close(stream->self);
    return result;
}
