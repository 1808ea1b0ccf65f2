/*
 * As much of MQTT 5 as a device needs to report: connect, publish with QoS 1, disconnect. The broker knows a device by
 * its certificate, so there is no login. One message at a time; no allocation.
 */
#ifndef GATEHOUSE_MQTT_H
#define GATEHOUSE_MQTT_H

#include "gatehouse/port.h"
#include "gatehouse/stream.h"

/*
 * Opens the stream, publishes one message and waits for the broker's confirmation: GH_OK when the broker has it,
 * GH_REFUSED when it does not let the device in or does not take the message. The stream is closed then.
 */
enum gh_result gh_mqtt_report(
    const struct gh_stream *stream, const struct gh_port *port, const char *client, const char *topic,
    const uint8_t *payload, size_t length, uint32_t within_ms);

#endif
