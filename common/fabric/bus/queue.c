#include "fabric/bus/waker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
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
		/* full counter: readable anyway */
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
		/* nobody woke us: fine */
	}
}

struct bus_queue {
	pthread_mutex_t lock;
	pthread_cond_t arrived;
	struct bus_waker *waker;
	bool closed;
	size_t capacity, first, count;
	void *items[];
};

struct bus_queue *
bus_queue_new(size_t capacity, struct bus_waker *waker)
{
	pthread_condattr_t attr;
	struct bus_queue *q;

	if (capacity == 0 || capacity > SIZE_MAX / 2 / sizeof(void *) || (q = calloc(1, sizeof(*q) + capacity * sizeof(void *))) == NULL)
		return NULL;
	q->capacity = capacity;
	q->waker = waker;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->arrived, &attr);
	pthread_condattr_destroy(&attr);
	return q;
}

void
bus_queue_destroy(struct bus_queue **queue)
{
	if (*queue == NULL)
		return;
	pthread_cond_destroy(&(*queue)->arrived);
	pthread_mutex_destroy(&(*queue)->lock);
	free(*queue);
	*queue = NULL;
}

int
bus_queue_push(struct bus_queue *q, void *item)
{
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	if (q->closed)
		rc = ERR_CLOSED;
	else if (q->count == q->capacity)
		rc = ERR_FULL;
	else
		q->items[(q->first + q->count++) % q->capacity] = item;
	if (rc == 0)
		pthread_cond_signal(&q->arrived);
	pthread_mutex_unlock(&q->lock);
	if (rc == 0)
		bus_waker_wake(q->waker);
	return rc;
}

static int
pop_locked(struct bus_queue *q, void **item)
{
	if (q->count == 0)
		return q->closed ? ERR_CLOSED : ERR_AGAIN;
	*item = q->items[q->first];
	q->first = (q->first + 1) % q->capacity;
	q->count--;
	return 0;
}

int
bus_queue_pop(struct bus_queue *q, void **item)
{
	int rc;

	pthread_mutex_lock(&q->lock);
	rc = pop_locked(q, item);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

int
bus_queue_wait(struct bus_queue *q, void **item, int64_t timeout_ms)
{
	struct timespec end;
	int rc, waited = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	if (timeout_ms > 0) {
		end.tv_sec += timeout_ms / 1000;
		end.tv_nsec += timeout_ms % 1000 * 1000000;
		if (end.tv_nsec >= 1000000000) {
			end.tv_sec++;
			end.tv_nsec -= 1000000000;
		}
	}
	pthread_mutex_lock(&q->lock);
	while ((rc = pop_locked(q, item)) == ERR_AGAIN && waited != ETIMEDOUT)
		waited = timeout_ms < 0 ? pthread_cond_wait(&q->arrived, &q->lock)
		    : pthread_cond_timedwait(&q->arrived, &q->lock, &end);
	pthread_mutex_unlock(&q->lock);
	return rc == ERR_AGAIN ? ERR_TIMEOUT : rc;
}

void
bus_queue_close(struct bus_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_cond_broadcast(&q->arrived);
	pthread_mutex_unlock(&q->lock);
	bus_waker_wake(q->waker);
}

size_t
bus_queue_count(const struct bus_queue *queue)
{
	struct bus_queue *q = (struct bus_queue *)(uintptr_t)queue;	/* the lock is not part of its value */
	size_t n;

	pthread_mutex_lock(&q->lock);
	n = q->count;
	pthread_mutex_unlock(&q->lock);
	return n;
}
