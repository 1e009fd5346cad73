#include "trainerd/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "base/log/log.h"
#include "fabric/daemon/daemon.h"

#define RECENT 32

struct watchdog {
	struct comm *comm;
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

static void
monitor_init(pthread_mutex_t *lock, pthread_cond_t *changed)
{
	pthread_condattr_t attr;

	pthread_mutex_init(lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(changed, &attr);
	pthread_condattr_destroy(&attr);
}

/* Stops the thread and joins it. */
static void
monitor_end(pthread_t thread, pthread_mutex_t *lock, pthread_cond_t *changed, bool *stop)
{
	pthread_mutex_lock(lock);
	*stop = true;
	pthread_cond_signal(changed);
	pthread_mutex_unlock(lock);
	pthread_join(thread, NULL);
	pthread_cond_destroy(changed);
	pthread_mutex_destroy(lock);
}

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
 * Reports the run's progress to the service manager; that this thread runs is no progress. The manager's own watchdog
 * gets twice our limit, so that a run that hangs is ended by ours, which logs the reason. Lock held.
 */
static void
tell_manager(struct watchdog *w)
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
		struct timespec t;
		double idle;

		clock_gettime(CLOCK_MONOTONIC, &t);
		t.tv_sec += 1;
		pthread_cond_timedwait(&w->changed, &w->lock, &t);
		idle = clock_now_s() - w->last;
		tell_manager(w);
		if (!w->stop && idle > limit_s(w)) {
			log_error("watchdog.stalled", "rank=%d seconds=%.0f limit=%.0f doing=\"%s\" hint=\"when one rank hangs, the "
			    "others wait for it; mpirun ends them all, start again to resume\"", comm_rank(w->comm), idle, limit_s(w), w->doing);
			comm_abort(w->comm, EX_TEMPFAIL);
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

struct watchdog *
watchdog_new(struct comm *comm, double min_s)
{
	struct watchdog *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return NULL;
	w->comm = comm;
	w->min_s = min_s;
	w->last = clock_now_s();
	w->doing = "start";
	monitor_init(&w->lock, &w->changed);
	if (pthread_create(&w->thread, NULL, watchdog_main, w) != 0) {
		free(w);
		return NULL;
	}
	return w;
}

void
watchdog_destroy(struct watchdog **watchdog)
{
	struct watchdog *w = *watchdog;

	if (w == NULL)
		return;
	monitor_end(w->thread, &w->lock, &w->changed, &w->stop);
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

struct watchdog_limit {
	const char *doing;
	double seconds;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool over;
};

static void *
limit_main(void *arg)
{
	struct watchdog_limit *l = arg;
	struct timespec end;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += (time_t)l->seconds + 1;
	pthread_mutex_lock(&l->lock);
	while (!l->over && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&l->changed, &l->lock, &end);
	if (!l->over) {
		log_error("watchdog.stalled", "limit=%.0f doing=\"%s\" hint=\"when one rank or host hangs, the others wait for it; mpirun ends "
		    "them all, start again to resume\"", l->seconds, l->doing);
		_Exit(EX_TEMPFAIL);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

struct watchdog_limit *
watchdog_limit(const char *doing, double seconds)
{
	struct watchdog_limit *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	l->doing = doing;
	l->seconds = seconds;
	monitor_init(&l->lock, &l->changed);
	if (pthread_create(&l->thread, NULL, limit_main, l) != 0) {
		free(l);
		return NULL;
	}
	return l;
}

void
watchdog_limit_end(struct watchdog_limit **limit)
{
	struct watchdog_limit *l = *limit;

	if (l == NULL)
		return;
	monitor_end(l->thread, &l->lock, &l->changed, &l->over);
	free(l);
	*limit = NULL;
}
