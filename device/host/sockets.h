/* The network part of a port, with the sockets that Linux and lwIP (ESP-IDF) have in common. `self` is not used. */
#ifndef GATEHOUSE_HOST_SOCKETS_H
#define GATEHOUSE_HOST_SOCKETS_H

#include <stddef.h>
#include <stdint.h>

int socket_open(void *self, const char *host, uint16_t port, uint32_t timeout_ms);
int socket_send(void *self, int handle, const uint8_t *data, size_t length);
int socket_receive(void *self, int handle, uint8_t *data, size_t length, uint32_t timeout_ms);
void socket_close(void *self, int handle);

#endif
