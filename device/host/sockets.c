#define _POSIX_C_SOURCE 200809L

#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "gatehouse/port.h"

#define SEND_MS 10000
#ifndef MSG_NOSIGNAL /* lwIP raises none */
#define MSG_NOSIGNAL 0
#endif

/* Whether a socket is ready: 1, 0 after the time, -1. */
static int wait_for(int handle, int for_writing, uint32_t timeout_ms)
{
    struct timeval span = { (time_t)(timeout_ms / 1000), (long)(timeout_ms % 1000) * 1000 };
    fd_set set;

    if (handle >= FD_SETSIZE)
        return -1;
    FD_ZERO(&set);
    FD_SET(handle, &set);
    return select(handle + 1, for_writing ? NULL : &set, for_writing ? &set : NULL, NULL, &span);
}

static int connect_to(const struct addrinfo *address, uint32_t timeout_ms)
{
    int handle = socket(address->ai_family, address->ai_socktype, address->ai_protocol), error = 0;
    socklen_t size = sizeof error;

    if (handle < 0)
        return -1;
    fcntl(handle, F_SETFL, fcntl(handle, F_GETFL, 0) | O_NONBLOCK);
    if (connect(handle, address->ai_addr, address->ai_addrlen) == 0)
        return handle;
    if (errno == EINPROGRESS && wait_for(handle, 1, timeout_ms) == 1 &&
        getsockopt(handle, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0)
        return handle;
    close(handle);
    return -1;
}

int socket_open(void *self, const char *host, uint16_t port, uint32_t timeout_ms)
{
    struct addrinfo hints, *found = NULL, *each;
    char service[6];
    int handle = -1;

    (void)self;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    snprintf(service, sizeof service, "%u", (unsigned)port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -1;
    for (each = found; each != NULL && handle < 0; each = each->ai_next)
        handle = connect_to(each, timeout_ms);
    freeaddrinfo(found);
    return handle;
}

int socket_send(void *self, int handle, const uint8_t *data, size_t length)
{
    ssize_t count;

    (void)self;
    if (wait_for(handle, 1, SEND_MS) != 1)
        return -1;
    count = send(handle, data, length, MSG_NOSIGNAL);
    return count < 0 ? -1 : (int)count;
}

int socket_receive(void *self, int handle, uint8_t *data, size_t length, uint32_t timeout_ms)
{
    int ready = wait_for(handle, 0, timeout_ms);
    ssize_t count;

    (void)self;
    if (ready == 0)
        return GH_NET_TIMEOUT;
    if (ready < 0)
        return -1;
    count = recv(handle, data, length, 0);
    return count < 0 ? -1 : (int)count;
}

void socket_close(void *self, int handle)
{
    (void)self;
    close(handle);
}
