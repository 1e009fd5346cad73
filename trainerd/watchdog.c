/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/log/log.h"
#include "fabric/daemon/daemon.h"

#define RECENT 32
#define CHECK_MS 1000

struct watchdog {
	struct comm *comm;		/* NULL: of watchdog_limit */
	double min_s;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop, stop_notified;
	double last;			/* monotonic seconds */
	uint64_t progress;		/* counts calls of watchdog_progress */
	const char *doing;
	double allowed_s;		/* limit of the present activity, 0: the common limit */
	double recent[RECENT];
	int n_recent, next;
};

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
common_limit_s(const struct watchdog *w)
{
	double sorted[RECENT], median;

	if (w->n_recent == 0)
		return w->min_s * 10;	/* the first step is slower than others */
	memcpy(sorted, w->recent, (size_t)w->n_recent * sizeof(double));
	qsort(sorted, (size_t)w->n_recent, sizeof(double), by_value);
	median = sorted[w->n_recent / 2];
	return 10 * median > w->min_s ? 10 * median : w->min_s;
}

static double
limit_s(const struct watchdog *w)
{
	double common = common_limit_s(w);

	return w->allowed_s > common ? w->allowed_s : common;
}

/*
 * Reports the run's progress to the service manager; that this thread runs is no progress. The manager's
 * watchdog gets twice the limit of this one, so that this one ends a run that hangs, and logs the reason.
 * Lock held.
 */
static void
notify_manager(struct watchdog *w)
{
	if (stop_requested() && !w->stop_notified) {
		w->stop_notified = true;
		daemon_notify_stopping("stopping: the step is finished and a checkpoint written");
	}
	daemon_notify_allow(2 * limit_s(w), stop_requested(), w->progress);
	daemon_notify_alive(w->progress, true);
}

static void *
watchdog_main(void *arg)
{
	struct watchdog *w = arg;

	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		struct timespec t = clock_after_ms(CHECK_MS);
		double slept = clock_now_s(), now, idle;

		pthread_cond_timedwait(&w->changed, &w->lock, &t);
		/* Time in which this process did not run (SIGSTOP, a paused machine) does not count. */
		now = clock_now_s();
		slept = now - slept;
		if (slept > 2e-3 * CHECK_MS) {
			w->last = w->last + slept < now ? w->last + slept : now;
			log_info("watchdog.late", "seconds=%.1f", slept);
		}
		idle = now - w->last;
		if (w->comm != NULL)
			notify_manager(w);
		if (w->stop || idle <= limit_s(w))
			continue;
		log_error("watchdog.stalled",
		    "limit=%.0f doing=\"%s\" seconds=%.0f hint=\"when one rank or host hangs, the others "
		    "wait for it; mpirun ends all ranks; start again to resume\"",
		    limit_s(w), w->doing, idle);
		if (w->comm != NULL)
			comm_abort(w->comm, EX_TEMPFAIL);
		_Exit(EX_TEMPFAIL);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static struct watchdog *
watchdog_start(struct comm *comm, double min_s, const char *doing, double allowed_s)
{
	struct watchdog *w = calloc(1, sizeof(*w));
	int rc;

	if (w == NULL)
		return NULL;
	w->comm = comm;
	w->min_s = min_s;
	w->last = clock_now_s();
	w->doing = doing;
	w->allowed_s = allowed_s;
	pthread_mutex_init(&w->lock, NULL);
	clock_cond_init(&w->changed);
	if ((rc = pthread_create(&w->thread, NULL, watchdog_main, w)) != 0) {
		free(w);
		errno = rc;
		return NULL;
	}
	return w;
}

struct watchdog *
watchdog_new(struct comm *comm, double min_s)
{
	return watchdog_start(comm, min_s, "start", 0);
}

struct watchdog *
watchdog_limit(const char *doing, double seconds)
{
	return watchdog_start(NULL, 0, doing, seconds);
}

void
watchdog_destroy(struct watchdog **watchdog)
{
	struct watchdog *w = *watchdog;

	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
	*watchdog = NULL;
}

void
watchdog_long(struct watchdog *w, const char *doing, double seconds)
{
	pthread_mutex_lock(&w->lock);
	w->last = clock_now_s();
	w->progress++;
	w->doing = doing;
	w->allowed_s = seconds;
	pthread_mutex_unlock(&w->lock);
}

void
watchdog_progress(struct watchdog *w, const char *doing)
{
	watchdog_long(w, doing, 0);
}

void
watchdog_step(struct watchdog *w, double seconds)
{
	pthread_mutex_lock(&w->lock);
	w->recent[w->next] = seconds;
	w->next = (w->next + 1) % RECENT;
	if (w->n_recent < RECENT)
		w->n_recent++;
	pthread_mutex_unlock(&w->lock);
}
