/*
 * A sensor as Gatehouse wants it: signed reports to the broker, which it knows by CA and key, and updates that prove
 * themselves. Put your sensor into `measure`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <esp_app_desc.h>
#include <esp_system.h>
#include <esp_timer.h>
#include <esp_wifi.h>
#include <freertos/FreeRTOS.h>
#include <freertos/task.h>
#include <nvs_flash.h>

#include "gatehouse/mqtt.h"
#include "gatehouse/update.h"
#include "identity.h"
#include "port_esp.h"
#include "wifi.h"

#define STACK 12288
#define REPORT_MS 15000

static struct identity identity;
static struct gh_port port;
static struct gh_update update;
static struct gh_tls tls;
static uint64_t sequence;

/* What is reported: flat JSON. Here, how the device itself is. */
static int measure(char *text, size_t size)
{
    int strength = 0;

    esp_wifi_sta_get_rssi(&strength);
    return snprintf(
        text, size, "{\"uptime\": %" PRIu32 ", \"free_heap\": %" PRIu32 ", \"rssi\": %d}",
        (uint32_t)(esp_timer_get_time() / 1000000), esp_get_free_heap_size(), strength);
}

static struct gh_tls_settings settings_for(const char *host, uint16_t number)
{
    const struct gh_tls_settings settings = {
        .host = host,
        .port = number,
        .ca = identity.ca,
        .certificate = identity.certificate,
        .key = identity.key,
    };

    return settings;
}

/* Signs what lies behind the header in `message`, and has the broker confirm it. */
static enum gh_result report(const char *kind, uint8_t *message, size_t size, size_t length, uint32_t within_ms)
{
    const struct gh_signer signer = { identity.hmac_key, identity.hmac_key_number };
    struct gh_tls_settings settings = settings_for(identity.broker_host, identity.broker_port);
    struct gh_stream stream;
    uint64_t now = port.now(port.self);
    char topic[128];
    enum gh_result result;

    if (now == 0)
        return GH_NO_TIME;
    if (sequence == 0)
        sequence = gh_message_first_sequence(now);
    settings.pins = (const uint8_t (*)[GH_DIGEST])identity.pins;
    settings.pin_count = 2;
    snprintf(topic, sizeof topic, "devices/%s/telemetry/%s", identity.name, kind);
    result = gh_message_sign(&signer, topic, sequence++, now * 1000, message, size, length, &length);
    if (result != GH_OK)
        return result;
    result = gh_tls_prepare(&tls, &port, &settings, &stream);
    if (result != GH_OK)
        return result;
    result = gh_mqtt_report(&stream, &port, identity.name, topic, message, length, within_ms);
    gh_tls_free(&tls);
    return result;
}

/* What runs here, and what came of the last look for an update. */
static enum gh_result report_firmware(enum gh_result outcome, uint32_t within_ms)
{
    static uint8_t message[512];
    int length = snprintf(
        (char *)message + GH_MESSAGE_HEADER, sizeof message - GH_MESSAGE_OVERHEAD,
        "{\"version\": \"%s\", \"counter\": %" PRIu32 ", \"failed\": %" PRIu32 ", \"update\": \"%s\"}",
        esp_app_get_description()->version, update.state.standing.counter, update.state.failed_counter,
        gh_word(outcome));

    return report("firmware", message, sizeof message, (size_t)length, within_ms);
}

/* The 30 seconds of a new image are for the wireless network and the broker together. */
static enum gh_result reach(void *context, uint32_t within_ms)
{
    uint32_t began = port.ticks(port.self), spent;

    (void)context;
    if (wifi_wait(within_ms) != 0)
        return GH_NO_ANSWER;
    spent = port.ticks(port.self) - began;
    return report_firmware(GH_TRYING, within_ms - spent < REPORT_MS ? within_ms - spent : REPORT_MS);
}

static enum gh_result check(void)
{
    const struct gh_tls_settings settings = settings_for(identity.update_host, CONFIG_GATEHOUSE_UPDATE_PORT);
    struct gh_stream stream;
    enum gh_result result = gh_tls_prepare(&tls, &port, &settings, &stream);

    if (result == GH_OK) {
        result = gh_update_check(&update, &stream);
        gh_tls_free(&tls);
    }
    return result;
}

static void run(void *context)
{
    static const struct gh_device device = {
        .name = identity.name,
        .model = CONFIG_GATEHOUSE_MODEL,
        .server = identity.update_server,
        .keys = identity.firmware_keys,
        .chip = CONFIG_IDF_FIRMWARE_CHIP_ID,
        .format = GH_FORMAT_ESP,
    };
    static uint8_t message[512];
    uint32_t last_check = 0;
    enum gh_result result = gh_update_begin(&update, &port, &device);

    (void)context;
    if (result == GH_INSTALLED)
        esp_restart();
    if (result == GH_TRYING && gh_update_prove(&update, reach, NULL) != GH_CONFIRMED)
        esp_restart();
    while (wifi_wait(60000) != 0)
        ; /* it goes on trying to join by itself */
    for (;;) {
        int length = measure((char *)message + GH_MESSAGE_HEADER, sizeof message - GH_MESSAGE_OVERHEAD);

        report("status", message, sizeof message, (size_t)length, REPORT_MS);
        if (last_check == 0 || port.ticks(port.self) - last_check > CONFIG_GATEHOUSE_CHECK_SECONDS * 1000u) {
            last_check = port.ticks(port.self);
            result = check();
            if (result == GH_INSTALLED)
                esp_restart();
            report_firmware(result, REPORT_MS);
        }
        port.sleep_ms(port.self, CONFIG_GATEHOUSE_REPORT_SECONDS * 1000u);
    }
}

void app_main(void)
{
    esp_port(&port);
    if (nvs_flash_init() != ESP_OK || identity_read(&identity) != 0) {
        printf("gatehouse: no identity in the partition 'gatehouse'; flash the bundle's nvs.bin there\n");
        return;
    }
    if (wifi_start() != 0)
        esp_restart();
    xTaskCreate(run, "gatehouse", STACK, NULL, 5, NULL);
}
