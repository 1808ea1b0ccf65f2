/*
 * A simulated device, on the library and real sockets. Each call is one start of it:
 *
 *   gatehouse-device DIRECTORY flash IMAGE         from the factory, with this image in slot 0
 *   gatehouse-device DIRECTORY start [OPTION...]   boot loader, proof of a new image, a report; then `check`, if asked
 *     --check       also looks for an update, and installs it, or reports why not
 *     --cut N       the power fails in the middle of the write after N others; exit status 99
 *     --time N      what its clock shows, in seconds since 1970; `none`: it shows nothing
 *     --hurry       waiting takes no time
 *
 * DIRECTORY/device.conf has a KEY=VALUE a line: name, model, server, server_address, server_port, broker, broker_address,
 * broker_port, ca, certificate, key (files), pins, certificate_pin (of the broker), server_pins, server_certificate_pin,
 * firmware_keys, hmac_key (hexadecimal), hmac_number, slot_size.
 *
 * An image is a text that the "processor" reads: `gatehouse image VERSION BEHAVIOUR`, padded with anything. The behaviour
 * is good, mute (never reaches the broker) or crash (ends before it has done anything).
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "gatehouse/message.h"
#include "gatehouse/mqtt.h"
#include "gatehouse/tls.h"
#include "gatehouse/update.h"

#define CRASHED 70

/* By what a server is known beside the CA, if by anything. */
struct pinned {
    uint8_t keys[2][GH_DIGEST], certificate[GH_DIGEST];
    size_t key_count, certificate_count;
};

/* What one device is. */
struct self {
    char name[65], model[33], server[128], server_address[64], broker[128], broker_address[64];
    uint16_t server_port, broker_port, hmac_number;
    char *ca, *certificate, *key;
    struct pinned broker_pinned, server_pinned;
    uint8_t keys[2 * GH_KEY], hmac_key[32];
    uint32_t slot_size;
};

/* The image that runs, as it describes itself. */
struct image {
    char version[32], behaviour[8];
};

static struct self self;
static struct host host;
static struct gh_port port;
static struct gh_update update;
static struct image image;
static uint64_t sequence;

static void stop(const char *what, const char *why)
{
    fprintf(stderr, "gatehouse-device: %s: %s\n", what, why);
    exit(2);
}

static char *text_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 32768);

    if (file == NULL || text == NULL)
        stop(path, "can't be read");
    if (fread(text, 1, 32767, file) == 0)
        stop(path, "is empty");
    fclose(file);
    return text;
}

static size_t unhex(const char *text, uint8_t *out, size_t room)
{
    size_t count = 0;
    unsigned value;

    for (; text[0] != '\0' && count < room && sscanf(text, "%2x", &value) == 1; text += 2)
        out[count++] = (uint8_t)value;
    if (text[0] != '\0')
        stop("device.conf", "a value is no hexadecimal, or too long");
    return count;
}

static size_t digests(const char *text, uint8_t *out, size_t most)
{
    size_t length = unhex(text, out, most * GH_DIGEST);

    if (length == 0 || length % GH_DIGEST != 0)
        stop("device.conf", "a pin is no SHA-256");
    return length / GH_DIGEST;
}

static void set(const char *name, const char *value)
{
#define TEXT(field) \
    if (strcmp(name, #field) == 0) { \
        if (strlen(value) >= sizeof self.field) \
            stop(name, "is too long"); \
        strcpy(self.field, value); \
        return; \
    }
#define NUMBER(field, type) \
    if (strcmp(name, #field) == 0) { \
        self.field = (type)strtoul(value, NULL, 10); \
        return; \
    }
    TEXT(name)
    TEXT(model)
    TEXT(server)
    TEXT(server_address)
    TEXT(broker)
    TEXT(broker_address)
    NUMBER(server_port, uint16_t)
    NUMBER(broker_port, uint16_t)
    NUMBER(hmac_number, uint16_t)
    NUMBER(slot_size, uint32_t)
    if (strcmp(name, "ca") == 0)
        self.ca = text_of(value);
    else if (strcmp(name, "certificate") == 0)
        self.certificate = text_of(value);
    else if (strcmp(name, "key") == 0)
        self.key = text_of(value);
    else if (strcmp(name, "pins") == 0)
        self.broker_pinned.key_count = digests(value, self.broker_pinned.keys[0], 2);
    else if (strcmp(name, "certificate_pin") == 0)
        self.broker_pinned.certificate_count = digests(value, self.broker_pinned.certificate, 1);
    else if (strcmp(name, "server_pins") == 0)
        self.server_pinned.key_count = digests(value, self.server_pinned.keys[0], 2);
    else if (strcmp(name, "server_certificate_pin") == 0)
        self.server_pinned.certificate_count = digests(value, self.server_pinned.certificate, 1);
    else if (strcmp(name, "firmware_keys") == 0)
        unhex(value, self.keys, sizeof self.keys);
    else if (strcmp(name, "hmac_key") == 0)
        unhex(value, self.hmac_key, sizeof self.hmac_key);
    else
        stop(name, "is nothing that device.conf may have");
}

static void read_configuration(void)
{
    char path[300], line[1024];
    FILE *file;

    snprintf(path, sizeof path, "%s/device.conf", host.directory);
    file = fopen(path, "r");
    if (file == NULL)
        stop(path, "can't be read");
    while (fgets(line, sizeof line, file) != NULL) {
        char *value = strchr(line, '=');

        line[strcspn(line, "\n")] = '\0';
        if (value == NULL)
            continue;
        *value = '\0';
        set(line, value + 1);
    }
    fclose(file);
}

/* What came last of an update, for the report. */
static enum gh_result outcome;

/* Has a server known by its CA, and by what is pinned. */
static void know(struct gh_tls_settings *settings, const struct pinned *pinned)
{
    settings->ca = self.ca;
    settings->certificate = self.certificate;
    settings->key = self.key;
    settings->pins = (const uint8_t (*)[GH_DIGEST])pinned->keys;
    settings->pin_count = pinned->key_count;
    settings->certificate_pin = pinned->certificate_count > 0 ? pinned->certificate : NULL;
}

/* Reports which version runs, signed, to the broker: that is how a device proves that it works. */
static enum gh_result reach(void *context, uint32_t within_ms)
{
    static struct gh_tls tls;
    static uint8_t message[512];
    struct gh_tls_settings settings = { 0 };
    struct gh_signer signer;
    struct gh_stream stream;
    char topic[128];
    size_t length;
    enum gh_result result;

    (void)context;
    if (strcmp(image.behaviour, "mute") == 0)
        return GH_NO_ANSWER;
    settings.host = self.broker;
    settings.address = self.broker_address;
    settings.port = self.broker_port;
    know(&settings, &self.broker_pinned);
    snprintf(topic, sizeof topic, "devices/%s/telemetry/firmware", self.name);
    length = (size_t)snprintf(
        (char *)message + GH_MESSAGE_HEADER, sizeof message - GH_MESSAGE_OVERHEAD,
        "{\"version\": \"%s\", \"counter\": %" PRIu32 ", \"failed\": %" PRIu32 ", \"update\": \"%s\"}", image.version,
        update.state.standing.counter, update.state.failed_counter, gh_word(outcome));
    signer.key = self.hmac_key;
    signer.number = self.hmac_number;
    if (sequence == 0)
        sequence = gh_message_first_sequence(port.now(port.self));
    result = gh_message_sign(
        &signer, topic, sequence++, port.now(port.self) * 1000, message, sizeof message, length, &length);
    if (result == GH_OK)
        result = gh_tls_prepare(&tls, &port, &settings, &stream);
    if (result == GH_OK) {
        result = gh_mqtt_report(&stream, &port, self.name, topic, message, length, within_ms);
        gh_tls_free(&tls);
    }
    printf("broker %s\n", gh_word(result));
    return result;
}

/* Whether the slot holds an image that the processor can run. */
static int load_image(void)
{
    char head[65] = "", behaviour[8];

    if (port.slot_read(port.self, host.running, 0, (uint8_t *)head, sizeof head - 1) != 0 ||
        sscanf(head, "gatehouse image %31s %7s", image.version, behaviour) != 2)
        return -1;
    strcpy(image.behaviour, behaviour);
    return 0;
}

static enum gh_result check(void)
{
    static struct gh_tls tls;
    struct gh_tls_settings settings = { 0 };
    struct gh_stream stream;
    char name[128];
    enum gh_result result;

    if (sscanf(self.server, "https://%127[^:/]", name) != 1)
        stop("server", "is no https://HOST/");
    name[strcspn(name, ":/")] = '\0';
    settings.host = name;
    settings.address = self.server_address;
    settings.port = self.server_port;
    know(&settings, &self.server_pinned);
    result = gh_tls_prepare(&tls, &port, &settings, &stream);
    if (result == GH_OK) {
        result = gh_update_check(&update, &stream);
        if (result == GH_NOT_TRUSTED)
            printf("distrust %" PRIx32 " at %" PRIu64 "\n", tls.flags, port.now(port.self));
        gh_tls_free(&tls);
    }
    return result;
}

static int start(int with_check)
{
    const struct gh_device device = {
        self.name, self.model, self.server, self.keys, GH_ANY_CHIP, GH_FORMAT_RAW,
    };
    enum gh_result result, proved = GH_OK;

    if (host_boot(&host) < 0)
        stop(host.directory, "nothing to boot");
    if (load_image() != 0 || strcmp(image.behaviour, "crash") == 0) {
        puts("crashed");
        return CRASHED;
    }
    alarm(120); /* the watchdog */
    result = gh_update_begin(&update, &port, &device);
    printf("running %s\nslot %u\nbegin %s\n", image.version, host.running, gh_word(result));
    outcome = result;
    if (result == GH_TRYING) {
        proved = gh_update_prove(&update, reach, NULL);
        printf("prove %s\n", gh_word(proved));
        outcome = proved;
        if (proved == GH_CONFIRMED) /* with the counter that counts from now on */
            reach(NULL, GH_PROVE_MS);
    } else if (result != GH_INSTALLED) {
        reach(NULL, GH_PROVE_MS);
    }
    printf("counter %" PRIu32 "\n", update.state.standing.counter);
    if (with_check && proved != GH_REVERTED && result != GH_INSTALLED) {
        outcome = check();
        printf("check %s\n", gh_word(outcome));
        if (outcome != GH_INSTALLED) /* then it restarts, and says so with the new image */
            reach(NULL, GH_PROVE_MS);
    }
    return 0;
}

int main(int count, char **arguments)
{
    int i, with_check = 0, status;

    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 3 || strlen(arguments[1]) >= sizeof host.directory)
        stop("usage", "DIRECTORY flash IMAGE | DIRECTORY start [--check] [--cut N] [--time N] [--hurry]");
    strcpy(host.directory, arguments[1]);
    host.writes_left = -1;
    read_configuration();
    host.slot_size = self.slot_size;
    host_port(&host, &port);
    if (strcmp(arguments[2], "flash") == 0 && count == 4)
        return host_flash(&host, arguments[3]) == 0 ? 0 : 1;
    for (i = 3; i < count; i++) {
        if (strcmp(arguments[i], "--check") == 0)
            with_check = 1;
        else if (strcmp(arguments[i], "--hurry") == 0)
            host.in_a_hurry = 1;
        else if (strcmp(arguments[i], "--cut") == 0 && i + 1 < count)
            host.writes_left = strtol(arguments[++i], NULL, 10);
        else if (strcmp(arguments[i], "--time") == 0 && i + 1 < count && strcmp(arguments[i + 1], "none") == 0)
            host.clock_is_unknown = ++i > 0;
        else if (strcmp(arguments[i], "--time") == 0 && i + 1 < count)
            host.fixed_time = strtoull(arguments[++i], NULL, 10);
        else
            stop(arguments[i], "is no option");
    }
    status = start(with_check);
    free(self.ca);
    free(self.certificate);
    free(self.key);
    return status;
}
