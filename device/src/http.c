#include "gatehouse/http.h"

#include <string.h>

/* strncasecmp is POSIX; this is for names of header fields alone. */
static int begins(const char *line, const char *name)
{
    for (; *name != '\0'; line++, name++) {
        char c = *line >= 'A' && *line <= 'Z' ? (char)(*line - 'A' + 'a') : *line;

        if (c != *name)
            return 0;
    }
    return 1;
}

/* A decimal number up to 2^24 that ends with one of `ends`; -1 otherwise. */
static int32_t number(const char *text, const char *ends, const char **rest)
{
    int32_t value = 0;
    const char *start = text;

    while (*text >= '0' && *text <= '9') {
        value = value * 10 + (*text++ - '0');
        if (value > 0x1000000)
            return -1;
    }
    if (text == start || (*text != '\0' && strchr(ends, *text) == NULL) || (*text == '\0' && *ends != '\0'))
        return -1;
    if (rest != NULL)
        *rest = text + (*text != '\0');
    return value;
}

static const char *value_of(const char *line, const char *name)
{
    if (!begins(line, name))
        return NULL;
    line += strlen(name);
    while (*line == ' ' || *line == '\t')
        line++;
    return line;
}

/* Reads at least one byte into the buffer, as long as patience lasts. */
static enum gh_result fill(struct gh_http *http, uint8_t *data, size_t length, size_t *got)
{
    uint32_t spent = http->port->ticks(http->port->self) - http->started;
    uint32_t wait;
    int count;

    *got = 0;
    if (spent >= http->patience_ms)
        return GH_TOO_SLOW;
    wait = http->patience_ms - spent < GH_HTTP_SILENCE_MS ? http->patience_ms - spent : GH_HTTP_SILENCE_MS;
    count = http->stream->read(http->stream->self, data, length, wait);
    if (count < 0)
        return (enum gh_result)(-count);
    if (count == 0)
        return GH_NO_ANSWER;
    *got = (size_t)count;
    return GH_OK;
}

/* One line without its end; an empty one ends the header. */
static enum gh_result read_line(struct gh_http *http, char line[GH_HTTP_LINE], size_t *budget)
{
    size_t length = 0, got;
    enum gh_result result;

    for (;;) {
        char c;

        if (http->taken == http->buffered) {
            result = fill(http, (uint8_t *)http->buffer, sizeof http->buffer, &got);
            if (result != GH_OK)
                return result;
            http->buffered = (uint16_t)got;
            http->taken = 0;
        }
        c = http->buffer[http->taken++];
        if ((*budget)-- == 0 || c == '\0')
            return GH_BAD_ANSWER;
        if (c == '\n') {
            if (length > 0 && line[length - 1] == '\r')
                length--;
            line[length] = '\0';
            return GH_OK;
        }
        /* a line that is too long is cut: no field that counts is */
        if (length < GH_HTTP_LINE - 1)
            line[length++] = c;
    }
}

static enum gh_result request(const struct gh_stream *stream, const char *host, const char *path, uint32_t from)
{
    char range[40] = "Range: bytes=", digits[11];
    const char *parts[6];
    size_t at = sizeof digits - 1, i;
    enum gh_result result = GH_OK;

    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + from % 10);
    while ((from /= 10) != 0);
    parts[0] = "GET ";
    parts[1] = path;
    parts[2] = " HTTP/1.1\r\nHost: ";
    parts[3] = host;
    parts[4] = "\r\nConnection: close\r\nAccept-Encoding: identity\r\n";
    parts[5] = "\r\n";
    if (strcmp(digits + at, "0") != 0) {
        strcat(range, digits + at);
        strcat(range, "-\r\n\r\n");
        parts[5] = range;
    }
    for (i = 0; i < sizeof parts / sizeof *parts && result == GH_OK; i++)
        result = stream->write(stream->self, (const uint8_t *)parts[i], strlen(parts[i]));
    return result;
}

static enum gh_result read_header(struct gh_http *http, uint32_t from)
{
    char line[GH_HTTP_LINE];
    size_t budget = GH_HTTP_LARGEST_HEADER;
    int32_t length = -1, start = -1;
    int status, lengths = 0;
    const char *value;
    enum gh_result result = read_line(http, line, &budget);

    if (result != GH_OK)
        return result;
    if (strncmp(line, "HTTP/1.1 ", 9) != 0 && strncmp(line, "HTTP/1.0 ", 9) != 0)
        return GH_BAD_ANSWER;
    line[12] = '\0';
    status = (int)number(line + 9, "", NULL);
    while ((result = read_line(http, line, &budget)) == GH_OK && line[0] != '\0') {
        if ((value = value_of(line, "content-length:")) != NULL) {
            length = number(value, "", NULL);
            lengths++;
        } else if ((value = value_of(line, "content-range:")) != NULL && strncmp(value, "bytes ", 6) == 0) {
            start = number(value + 6, "-", NULL);
        } else if (value_of(line, "transfer-encoding:") != NULL || value_of(line, "content-encoding:") != NULL) {
            return GH_BAD_ANSWER;
        }
    }
    if (result != GH_OK)
        return result;
    if (status == 404)
        return GH_NOT_FOUND;
    if (status != (from > 0 ? 206 : 200) || lengths != 1 || length < 0 || (from > 0 && start != (int32_t)from))
        return GH_BAD_ANSWER;
    http->left = (uint32_t)length;
    return GH_OK;
}

enum gh_result gh_http_get(
    struct gh_http *http, const struct gh_stream *stream, const struct gh_port *port, const char *host,
    const char *path, uint32_t from, uint32_t patience_ms)
{
    enum gh_result result;

    http->stream = stream;
    http->port = port;
    http->started = port->ticks(port->self);
    http->patience_ms = patience_ms;
    http->left = 0;
    http->buffered = http->taken = 0;
    result = request(stream, host, path, from);
    return result == GH_OK ? read_header(http, from) : result;
}

enum gh_result gh_http_read(struct gh_http *http, uint8_t *data, size_t length, size_t *got)
{
    enum gh_result result;

    *got = 0;
    if (length > http->left)
        return GH_WRONG_LENGTH;
    while (*got < length) {
        size_t some = (size_t)(http->buffered - http->taken);

        if (some > 0) {
            if (some > length - *got)
                some = length - *got;
            memcpy(data + *got, http->buffer + http->taken, some);
            http->taken = (uint16_t)(http->taken + some);
        } else {
            result = fill(http, data + *got, length - *got, &some);
            if (result != GH_OK)
                return result;
        }
        *got += some;
        http->left -= (uint32_t)some;
    }
    return GH_OK;
}
