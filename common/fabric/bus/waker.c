/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/waker.h"

#include <errno.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct bus_waker {
	int fd;
};

struct bus_waker *
bus_waker_new(void)
{
	struct bus_waker *w = calloc(1, sizeof(*w));

	if (w != NULL && (w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
		free(w);
		return NULL;
	}
	return w;
}

void
bus_waker_destroy(struct bus_waker **waker)
{
	if (*waker == NULL)
		return;
	close((*waker)->fd);
	free(*waker);
	*waker = NULL;
}

void
bus_waker_wake(struct bus_waker *waker)
{
	uint64_t one = 1;
	int saved = errno;

	if (waker != NULL && write(waker->fd, &one, sizeof(one)) < 0) {
		/* the counter is full, so the descriptor is readable anyway */
	}
	errno = saved;
}

void
bus_waker_notify(void *waker)
{
	bus_waker_wake(waker);
}

int
bus__waker_fd(const struct bus_waker *waker)
{
	return waker->fd;
}

void
bus__waker_clear(struct bus_waker *waker)
{
	uint64_t count;

	if (read(waker->fd, &count, sizeof(count)) < 0) {
		/* nothing to clear */
	}
}
