/* The port for ESP-IDF 5: slots ota_0 and ota_1, the library's state in NVS, roll-back by the boot loader. */
#ifndef GATEHOUSE_PORT_ESP_H
#define GATEHOUSE_PORT_ESP_H

#include "gatehouse/port.h"

/* Fills the port in, once nvs_flash_init() has succeeded. */
void esp_port(struct gh_port *port);

#endif
