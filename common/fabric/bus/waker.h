/* SPDX-License-Identifier: Apache-2.0 */
/* The side of a waker that a poll needs: for poll.c and the fake bus of the replay tests. */
#ifndef SALT_BUS_WAKER_H
#define SALT_BUS_WAKER_H

#include "fabric/bus/bus.h"

int bus__waker_fd(const struct bus_waker *waker);	/* readable once it was woken */
void bus__waker_clear(struct bus_waker *waker);

#endif
