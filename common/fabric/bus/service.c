/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <signal.h>
#include "base/log/log.h"

static void *
service_main(void *arg)
{
	struct bus__service *s = arg;
	zmq_pollitem_t items[2] = {{s->socket, 0, ZMQ_POLLIN, 0},
	    {NULL, bus__waker_fd(s->stop), ZMQ_POLLIN, 0}};

	while (!atomic_load(&s->stopping)) {
		if (zmq_poll(items, 2, -1) < 0 && errno != EINTR)
			log_fatal("bus.service", "error=\"%s\"", zmq_strerror(errno));
		if ((items[0].revents & ZMQ_POLLIN) != 0)
			s->serve(s->arg);
	}
	return NULL;
}

int
bus__service_start(struct bus__service *s)
{
	sigset_t all, old;
	int rc;

	if ((s->stop = bus_waker_new()) == NULL)
		return errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&s->thread, NULL, service_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		bus_waker_destroy(&s->stop);
	return rc;
}

void
bus__service_stop(struct bus__service *s)
{
	if (s->stop == NULL)
		return;
	atomic_store(&s->stopping, true);
	bus_waker_wake(s->stop);
	pthread_join(s->thread, NULL);
	bus_waker_destroy(&s->stop);
}
