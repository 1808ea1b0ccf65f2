/* GET over HTTP/1.1, as far as an update needs it: one length, no redirections, no encodings, and an end to patience. */
#ifndef GATEHOUSE_HTTP_H
#define GATEHOUSE_HTTP_H

#include "gatehouse/port.h"
#include "gatehouse/stream.h"

#define GH_HTTP_LINE 256
#define GH_HTTP_LARGEST_HEADER 4096
#define GH_HTTP_SILENCE_MS 10000 /* how long a server may send nothing */

struct gh_http {
    const struct gh_stream *stream;
    const struct gh_port *port;
    uint32_t started, patience_ms; /* all of it must be there by then */
    uint32_t left;                 /* bytes of the body that are still to come */
    uint16_t buffered, taken;
    char buffer[GH_HTTP_LINE];
};

/*
 * Asks `host` for `path` from an offset on, over an open stream, and reads the header of the answer. GH_OK when a body
 * of `left` bytes follows; from an offset above 0 only when the server goes on from there.
 */
enum gh_result gh_http_get(
    struct gh_http *http, const struct gh_stream *stream, const struct gh_port *port, const char *host,
    const char *path, uint32_t from, uint32_t patience_ms);

/* The next bytes of the body, exactly so many: GH_OK, GH_NO_ANSWER, GH_TOO_SLOW, GH_WRONG_LENGTH when there are fewer. */
enum gh_result gh_http_read(struct gh_http *http, uint8_t *data, size_t length, size_t *got);

#endif
