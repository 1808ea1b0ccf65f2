#include "wifi.h"

#include <string.h>
#include <time.h>

#include <esp_event.h>
#include <esp_netif.h>
#include <esp_netif_sntp.h>
#include <esp_wifi.h>
#include <freertos/FreeRTOS.h>
#include <freertos/event_groups.h>
#include <freertos/task.h>

#define JOINED BIT0

static EventGroupHandle_t events;

static void on_event(void *context, esp_event_base_t base, int32_t id, void *data)
{
    (void)context;
    (void)data;
    if (base == WIFI_EVENT && (id == WIFI_EVENT_STA_START || id == WIFI_EVENT_STA_DISCONNECTED)) {
        xEventGroupClearBits(events, JOINED);
        esp_wifi_connect();
    } else if (base == IP_EVENT && id == IP_EVENT_STA_GOT_IP) {
        xEventGroupSetBits(events, JOINED);
    }
}

int wifi_start(void)
{
    wifi_init_config_t defaults = WIFI_INIT_CONFIG_DEFAULT();
    /* the gateway announces its own time server by DHCP; the name is for networks that don't */
    esp_sntp_config_t clock = ESP_NETIF_SNTP_DEFAULT_CONFIG("pool.ntp.org");
    wifi_config_t station;

    memset(&station, 0, sizeof station);
    strncpy((char *)station.sta.ssid, CONFIG_GATEHOUSE_WIFI_SSID, sizeof station.sta.ssid);
    strncpy((char *)station.sta.password, CONFIG_GATEHOUSE_WIFI_PASSWORD, sizeof station.sta.password);
    station.sta.threshold.authmode = WIFI_AUTH_WPA2_PSK;
    station.sta.pmf_cfg.required = true;
    clock.server_from_dhcp = true;
    clock.renew_servers_after_new_IP = true;
    clock.ip_event_to_renew = IP_EVENT_STA_GOT_IP;
    events = xEventGroupCreate();
    if (events == NULL || esp_netif_init() != ESP_OK || esp_event_loop_create_default() != ESP_OK ||
        esp_netif_create_default_wifi_sta() == NULL || esp_netif_sntp_init(&clock) != ESP_OK ||
        esp_wifi_init(&defaults) != ESP_OK ||
        esp_event_handler_register(WIFI_EVENT, ESP_EVENT_ANY_ID, on_event, NULL) != ESP_OK ||
        esp_event_handler_register(IP_EVENT, IP_EVENT_STA_GOT_IP, on_event, NULL) != ESP_OK ||
        esp_wifi_set_mode(WIFI_MODE_STA) != ESP_OK || esp_wifi_set_config(WIFI_IF_STA, &station) != ESP_OK ||
        esp_wifi_start() != ESP_OK)
        return -1;
    return 0;
}

int wifi_wait(uint32_t within_ms)
{
    TickType_t began = xTaskGetTickCount(), all = pdMS_TO_TICKS(within_ms), spent;

    if ((xEventGroupWaitBits(events, JOINED, pdFALSE, pdTRUE, all) & JOINED) == 0)
        return -1;
    spent = xTaskGetTickCount() - began;
    return time(NULL) > 1735689600 || esp_netif_sntp_sync_wait(spent < all ? all - spent : 0) == ESP_OK ? 0 : -1;
}
