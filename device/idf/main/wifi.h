/* Joins the wireless network and sets the clock: without a time no certificate can be judged. */
#ifndef WIFI_H
#define WIFI_H

#include <stdint.h>

/* Begins to join; 0 or -1. From then on it joins again whenever the connection is lost. */
int wifi_start(void);

/* 0 once there is an address and a time, -1 after so many milliseconds without. */
int wifi_wait(uint32_t within_ms);

#endif
