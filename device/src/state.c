#include "gatehouse/state.h"

#include <string.h>

#include "bytes.h"

/*
 * 0 `GHST`, 4 form, 5 has pending, 6 its slot, 7 zero, 8 sequence, 12 counter, 16 floor, 24 keys, 152 pending manifest,
 * 664 failed counter, 668 failed issued, 676 SHA-256 of all before
 */
#define CHECKED 676

static int digest_of(const uint8_t *data, uint8_t digest[GH_DIGEST])
{
    struct gh_sha256 hash;

    gh_sha256_start(&hash);
    gh_sha256_add(&hash, data, CHECKED);
    return gh_sha256_end(&hash, digest);
}

static int decode(struct gh_state *state, const uint8_t data[GH_STATE])
{
    uint8_t digest[GH_DIGEST];

    if (memcmp(data, "GHST\1", 5) != 0 || digest_of(data, digest) != 0 || !gh_equal(digest, data + CHECKED, GH_DIGEST))
        return -1;
    state->has_pending = data[5];
    state->pending_slot = data[6];
    state->sequence = gh_get32(data + 8);
    state->standing.counter = gh_get32(data + 12);
    state->standing.floor = gh_get64(data + 16);
    memcpy(state->standing.keys, data + 24, sizeof state->standing.keys);
    memcpy(state->pending, data + 152, sizeof state->pending);
    state->failed_counter = gh_get32(data + 664);
    state->failed_issued = gh_get64(data + 668);
    return 0;
}

static int encode(const struct gh_state *state, uint8_t data[GH_STATE])
{
    memset(data, 0, GH_STATE);
    memcpy(data, "GHST\1", 5);
    data[5] = state->has_pending;
    data[6] = state->pending_slot;
    gh_put32(data + 8, state->sequence);
    gh_put32(data + 12, state->standing.counter);
    gh_put64(data + 16, state->standing.floor);
    memcpy(data + 24, state->standing.keys, sizeof state->standing.keys);
    memcpy(data + 152, state->pending, sizeof state->pending);
    gh_put32(data + 664, state->failed_counter);
    gh_put64(data + 668, state->failed_issued);
    return digest_of(data, data + CHECKED);
}

/* The sequence number of a copy, 0 when it is not whole; the copy itself in `data`. */
static uint32_t sequence_of(const struct gh_port *port, unsigned copy, uint8_t data[GH_STATE])
{
    uint8_t digest[GH_DIGEST];

    if (port->state_read(port->self, copy, data, GH_STATE) != 0 || memcmp(data, "GHST\1", 5) != 0 ||
        digest_of(data, digest) != 0 || !gh_equal(digest, data + CHECKED, GH_DIGEST))
        return 0;
    return gh_get32(data + 8);
}

void gh_state_load(struct gh_state *state, const struct gh_port *port, const uint8_t *keys)
{
    uint8_t data[GH_STATE];
    uint32_t first = sequence_of(port, 0, data), second = sequence_of(port, 1, data);

    memset(state, 0, sizeof *state);
    if (first > second && (port->state_read(port->self, 0, data, GH_STATE) != 0 || decode(state, data) != 0))
        first = 0;
    else if (second > first && decode(state, data) != 0)
        second = 0;
    if (first == second) {
        memset(state, 0, sizeof *state);
        memcpy(state->standing.keys, keys, sizeof state->standing.keys);
    }
}

enum gh_result gh_state_save(struct gh_state *state, const struct gh_port *port)
{
    uint8_t data[GH_STATE], again[GH_STATE];
    uint32_t first = sequence_of(port, 0, data), second = sequence_of(port, 1, data);
    unsigned older = first <= second ? 0 : 1;

    state->sequence = (first > second ? first : second) + 1;
    if (encode(state, data) != 0 || port->state_write(port->self, older, data, sizeof data) != 0 ||
        port->state_read(port->self, older, again, sizeof again) != 0 || memcmp(data, again, sizeof data) != 0)
        return GH_FLASH;
    return GH_OK;
}
