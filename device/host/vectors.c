/*
 * What the library makes of test vectors. A case a line on standard input, its fields apart by blanks, its answer a line:
 *
 *   judge NAME MODEL SERVER FORMAT CHIP SLOT COUNTER FLOOR NOW KEYS FILE    take N, or the reason
 *   sign KEY NUMBER TOPIC SEQUENCE TIME CONTENT                             the message
 *   verify KEY NUMBER TOPIC MESSAGE                                         good, or the reason
 *   image CHIP VERSION IMAGE                                                ok, or the reason
 *
 * Octets are in hexadecimal, `-` is none of them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatehouse/image.h"
#include "gatehouse/message.h"
#include "gatehouse/update.h"
#include "memory.h"

#define LONGEST 65536

static char line[2 * LONGEST];
static uint8_t octets[LONGEST], keys[2 * GH_KEY];

/* The octets of a field; their number, or the process ends. */
static size_t unhex(const char *text, uint8_t *out, size_t room)
{
    size_t count = 0;
    unsigned value;

    if (text == NULL)
        exit(2);
    if (strcmp(text, "-") == 0)
        return 0;
    for (; text[0] != '\0'; text += 2) {
        if (count == room || sscanf(text, "%2x", &value) != 1)
            exit(2);
        out[count++] = (uint8_t)value;
    }
    return count;
}

static const char *word(void)
{
    const char *found = strtok(NULL, " \n");

    if (found == NULL)
        exit(2);
    return found;
}

static uint64_t number(void)
{
    return strtoull(word(), NULL, 10);
}

/* Through the update client itself: a manifest was taken when it goes on to ask for the image, which nobody has. */
static void judge(void)
{
    static uint8_t answer[LONGEST];
    static struct gh_update update;
    struct memory memory;
    struct gh_port port;
    struct gh_stream stream;
    struct gh_device device;
    struct gh_manifest taken;
    enum gh_result result;
    size_t length;
    int head;

    memset(&memory, 0, sizeof memory);
    memset(&device, 0, sizeof device);
    device.name = word();
    device.model = word();
    device.server = word();
    device.format = (uint8_t)number();
    device.chip = (uint16_t)number();
    memory.slot_size = (uint32_t)number();
    memory.boots[0] = GH_BOOT_VALID;
    memory_port(&memory, &port);
    memory_stream(&memory, &stream);
    device.keys = keys;
    memset(&update.state, 0, sizeof update.state);
    update.state.standing.counter = (uint32_t)number();
    update.state.standing.floor = number();
    memory.now = number();
    if (unhex(word(), update.state.standing.keys, sizeof keys) != sizeof keys ||
        gh_state_save(&update.state, &port) != GH_OK)
        exit(2);
    length = unhex(word(), octets, sizeof octets);
    head = sprintf((char *)answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", length);
    memcpy(answer + head, octets, length);
    memory.answers[0] = answer;
    memory.lengths[0] = (size_t)head + length;
    if (gh_update_begin(&update, &port, &device) != GH_OK)
        exit(2);
    result = gh_update_check(&update, &stream);
    if (result == GH_NO_ANSWER && memory.connection > 1 && gh_manifest_read(update.manifest, &taken) == GH_OK)
        printf("take %" PRIu32 "\n", taken.counter);
    else
        printf("%s\n", gh_word(result));
}

static void sign(void)
{
    struct gh_signer signer;
    uint8_t key[32];
    const char *topic;
    uint64_t sequence, time_ms;
    size_t length, i;

    if (unhex(word(), key, sizeof key) != sizeof key)
        exit(2);
    signer.key = key;
    signer.number = (uint16_t)number();
    topic = word();
    sequence = number();
    time_ms = number();
    length = unhex(word(), octets + GH_MESSAGE_HEADER, sizeof octets - GH_MESSAGE_OVERHEAD);
    if (gh_message_sign(&signer, topic, sequence, time_ms, octets, sizeof octets, length, &length) != GH_OK) {
        puts("bad-argument");
        return;
    }
    for (i = 0; i < length; i++)
        printf("%02x", octets[i]);
    putchar('\n');
}

static void verify(void)
{
    struct gh_signer signer;
    struct gh_message message;
    uint8_t key[32];
    const char *topic;
    enum gh_result result;

    if (unhex(word(), key, sizeof key) != sizeof key)
        exit(2);
    signer.key = key;
    signer.number = (uint16_t)number();
    topic = word();
    result = gh_message_verify(&signer, topic, octets, unhex(word(), octets, sizeof octets), &message);
    if (result != GH_OK)
        puts(gh_word(result));
    else
        printf("good %" PRIu64 " %" PRIu64 " %zu\n", message.sequence, message.time_ms, message.content_length);
}

static void image(void)
{
    uint16_t chip = (uint16_t)number();
    const char *version = word();

    puts(gh_word(gh_image_check(octets, unhex(word(), octets, sizeof octets), chip, version)));
}

int main(void)
{
    while (fgets(line, sizeof line, stdin) != NULL) {
        const char *what = strtok(line, " \n");

        if (what == NULL)
            continue;
        if (strcmp(what, "judge") == 0)
            judge();
        else if (strcmp(what, "sign") == 0)
            sign();
        else if (strcmp(what, "verify") == 0)
            verify();
        else if (strcmp(what, "image") == 0)
            image();
        else
            return 2;
    }
    return 0;
}
