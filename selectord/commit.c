/* SPDX-License-Identifier: Apache-2.0 */
#include "selectord/commit.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/err/crash.h"
#include "base/log/log.h"

#define RETRY_MS 500
#define GROUP_MAX 4096			/* records of one commit */
#define MAP_GROW_RATIO 0.7		/* share of the map in use above which it is enlarged */

STAILQ_HEAD(ops, core_op);

struct commit {
	struct cache *cache;
	uint32_t commit_ms;
	size_t max_records;
	void (*wake)(void *arg);
	void *wake_arg;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t work;			/* CLOCK_MONOTONIC */
	struct ops ops;			/* under lock, as n */
	size_t n;
	bool stop;
	uint64_t n_group_differs;
	struct core_op *run[GROUP_MAX];		/* of write_group */
	atomic_uint_fast64_t durable, n_differed, n_commits;
	atomic_int waiting, failed;
};

/*
 * Consecutive results are sorted by key, so that LMDB's trees are written from left to right; labels and
 * scores are in separate trees. Other records keep their order, because a label may be dropped and written
 * again.
 */
static int
by_seq(const void *a, const void *b)
{
	const struct core_op *x = *(const struct core_op *const *)a, *y = *(const struct core_op *const *)b;

	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return x->no < y->no ? -1 : x->no > y->no;
}

static int
write_scores(struct commit *c, const struct core_op *op)
{
	bool differs = false;
	int rc = op->scores == NULL ? 0 : cache_write_scores(c->cache, op->set, op->seq, op->scores, op->scores_len, &differs);

	c->n_group_differs += rc == ERR_EXISTS && differs;
	return rc == ERR_EXISTS ? 0 : rc;
}

static int
write_label(struct commit *c, const struct core_op *op)
{
	bool differs = false;
	int rc = op->label == NULL ? 0 : cache_write_labels(c->cache, op->seq, op->label, op->label_len, &differs);

	c->n_group_differs += rc == ERR_EXISTS && differs;
	return rc == ERR_EXISTS ? 0 : rc;
}

static int
write_results(struct commit *c, struct core_op **ops, size_t n)
{
	int rc = 0;

	qsort(ops, n, sizeof(*ops), by_seq);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = write_scores(c, ops[i]);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = write_label(c, ops[i]);
	return rc;
}

static int
write_op(struct commit *c, const struct core_op *op)
{
	bool differs = false;
	int rc = 0;

	switch (op->kind) {
	case CORE_OP_RESULT:
		break;				/* write_results */
	case CORE_OP_ROWS:
		crash_point("commit.rows");
		rc = cache_write_rows(c->cache, op->plan_hash, op->block, op->rows, op->n_rows, &differs);
		if (rc == ERR_EXISTS && differs) {
			log_error("rows.differ", "block=%" PRIu64 " kept=\"the first ones\"", op->block);
			c->n_group_differs++;
		}
		for (size_t i = 0; i < op->n_drops && (rc == 0 || rc == ERR_EXISTS); i++)
			rc = cache_drop_labels(c->cache, op->drops[i]);
		break;
	case CORE_OP_DROP_LABEL:
		crash_point("commit.drop");
		rc = cache_drop_labels(c->cache, op->seq);
		break;
	case CORE_OP_DROP_SCORES:
		rc = cache_drop_scores(c->cache, op->set, op->seq);
		break;
	case CORE_OP_PLAN:
		crash_point("commit.plan");
		rc = cache_write_plan(c->cache, &op->plan);
		break;
	case CORE_OP_ATTEMPTS:
		rc = cache_write_attempts(c->cache, &op->attempts);
		break;
	case CORE_OP_DROP_ATTEMPTS:
		rc = cache_drop_attempts(c->cache, op->seq);
		break;
	case CORE_OP_QUARANTINE: {
		struct cache_quarantine q = op->quarantine;

		q.since_s = (int64_t)time(NULL);
		if ((rc = cache_write_quarantine(c->cache, &q)) == 0)
			rc = cache_drop_attempts(c->cache, op->seq);
		break;
	}
	}
	return rc == ERR_EXISTS ? 0 : rc;
}

static int
write_group(struct commit *c, const struct ops *group)
{
	int rc;

	c->n_group_differs = 0;
	crash_point("commit.begin");
	if ((rc = cache_write_begin(c->cache)) != 0)
		return rc;
	for (struct core_op *op = STAILQ_FIRST(group); op != NULL && rc == 0;) {
		size_t n = 0;

		if (op->kind != CORE_OP_RESULT) {
			rc = op->done ? 0 : write_op(c, op);
			op = STAILQ_NEXT(op, link);
			continue;
		}
		for (; op != NULL && op->kind == CORE_OP_RESULT && n < GROUP_MAX; op = STAILQ_NEXT(op, link))
			c->run[n++] = op;
		rc = write_results(c, c->run, n);
	}
	if (rc != 0) {
		cache_write_abort(c->cache);
		return rc;
	}
	crash_point("commit.written");
	rc = cache_write_commit(c->cache);
	crash_point("commit.synced");
	return rc;
}

static bool
no_room(int rc)
{
	return rc == ENOSPC || rc == EDQUOT || rc == ERR_FULL;
}

static size_t
find_drops(struct ops *from, struct core_op **out, size_t n)
{
	struct core_op *op;

	STAILQ_FOREACH(op, from, link)
		if (n < GROUP_MAX && op->kind == CORE_OP_DROP_LABEL && !op->done)
			out[n++] = op;
	return n;
}

static int
drop_some(struct commit *c, struct core_op **drops, size_t n)
{
	int rc = cache_write_begin(c->cache);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = write_op(c, drops[i]);
	if (rc != 0)
		cache_write_abort(c->cache);
	else
		rc = cache_write_commit(c->cache);
	for (size_t i = 0; i < n && rc == 0; i++)
		drops[i]->done = true;
	return rc;
}

/*
 * Called when the disk has no space for the group: drops the labels that are to be dropped first, also those
 * queued after the group. Their order among the other records does not matter, because the core drops no
 * label that is on its way to the disk. Dropping itself needs space: LMDB copies the pages above a label
 * before it frees the old ones. So the number dropped at once adapts to the space. Returns 0, also if there
 * was no space, or the error that ends the daemon.
 */
static int
write_drops(struct commit *c, struct ops *group)
{
	struct core_op **drops = c->run;		/* write_group() is not using it */
	size_t n, at = 0, take;
	int rc = 0;

	n = find_drops(group, drops, 0);
	pthread_mutex_lock(&c->lock);
	n = find_drops(&c->ops, drops, n);
	pthread_mutex_unlock(&c->lock);
	for (take = n; at < n && take > 0;) {
		take = take < n - at ? take : n - at;
		if ((rc = drop_some(c, drops + at, take)) == 0) {
			at += take;
			take *= 2;
		} else if (no_room(rc)) {
			take /= 4;
		} else {
			break;
		}
	}
	if (at > 0 && (rc == 0 || no_room(rc))) {	/* with none dropped nothing has changed; run() tries again */
		rc = cache_write_turn(c->cache);
		log_info("commit.dropped", "labels=%zu of=%zu rc=%d", at, n, rc);
	}
	return no_room(rc) ? 0 : rc;
}

static int
grow(struct commit *c)
{
	uint64_t bytes;
	int rc = cache_grow(c->cache, &bytes);

	if (rc == 0)
		log_info("cache.map_grown", "bytes=%" PRIu64, bytes);
	else
		log_warn("cache.map_not_grown", "error=\"%s\"", err_str(rc));
	return rc;
}

/*
 * Waits until a group is due (at *next_at, with max_records queued, or at a stop) and takes it; *no is the
 * number of its last record. false: stopped, and no records are left.
 */
static bool
next_group(struct commit *c, struct ops *group, size_t *n, uint64_t *no, struct timespec *next_at)
{
	struct core_op *op;

	pthread_mutex_lock(&c->lock);
	while (STAILQ_EMPTY(&c->ops) && !c->stop)
		pthread_cond_wait(&c->work, &c->lock);
	while (!STAILQ_EMPTY(&c->ops) && c->n < c->max_records && !c->stop)
		if (pthread_cond_timedwait(&c->work, &c->lock, next_at) == ETIMEDOUT)
			break;
	*next_at = clock_after_ms(c->commit_ms);
	STAILQ_INIT(group);
	for (*n = 0; *n < GROUP_MAX && (op = STAILQ_FIRST(&c->ops)) != NULL; (*n)++) {
		STAILQ_REMOVE_HEAD(&c->ops, link);
		STAILQ_INSERT_TAIL(group, op, link);
		*no = op->no;
	}
	c->n -= *n;
	pthread_mutex_unlock(&c->lock);
	return *n > 0;
}

/* Sleeps RETRY_MS. true: a stop was requested. */
static bool
pause_for_space(struct commit *c)
{
	struct timespec until;
	bool stop;

	pthread_mutex_lock(&c->lock);
	until = clock_after_ms(RETRY_MS);
	while (!c->stop && pthread_cond_timedwait(&c->work, &c->lock, &until) != ETIMEDOUT)
		;
	stop = c->stop;
	pthread_mutex_unlock(&c->lock);
	return stop;
}

/* Commits a group, and waits for space as long as necessary. 0, or the reason why it cannot be committed. */
static int
commit_group(struct commit *c, struct ops *group, size_t n)
{
	int rc, dropped;

	while (no_room(rc = write_group(c, group))) {
		if (rc == ERR_FULL && grow(c) == 0)
			continue;
		if (atomic_exchange(&c->waiting, rc) == 0)
			log_error("commit.no_room",
			    "records=%zu error=\"%s\" next=\"kept in memory, will be retried\"", n,
			    err_str(rc));
		c->wake(c->wake_arg);
		if (pause_for_space(c))
			return rc;
		if ((dropped = write_drops(c, group)) != 0)
			return dropped;
	}
	return rc;
}

static void
ops_free(struct ops *ops)
{
	struct core_op *op;

	while ((op = STAILQ_FIRST(ops)) != NULL) {
		STAILQ_REMOVE_HEAD(ops, link);
		core_op_free(&op);
	}
}

static void *
run(void *arg)
{
	struct commit *c = arg;
	struct timespec next_at = {0};		/* commit_ms after the last group was begun */
	struct ops group;
	double ratio = 0;
	uint64_t no = 0;
	size_t n;

	while (next_group(c, &group, &n, &no, &next_at)) {
		int rc = commit_group(c, &group, n);

		if (rc == 0)			/* checked before anything is acknowledged, because writing to
						   a removed file succeeds too */
			rc = cache_there(c->cache);
		if (rc == 0) {
			if (atomic_exchange(&c->waiting, 0) != 0)
				log_info("commit.room", "records=%zu", n);
			atomic_fetch_add(&c->n_differed, c->n_group_differs);
			atomic_fetch_add(&c->n_commits, 1);
			atomic_store(&c->durable, no);
			c->wake(c->wake_arg);
			if (cache_room(c->cache, &ratio), ratio > MAP_GROW_RATIO)
				grow(c);
		} else {
			log_error("commit.failed", "records=%zu error=\"%s\"", n, err_str(rc));
			atomic_store(&c->failed, rc);
		}
		ops_free(&group);
		if (rc != 0) {
			c->wake(c->wake_arg);
			break;
		}
	}
	return NULL;
}

int
commit_new(struct commit **out, struct cache *cache, uint32_t commit_ms, size_t max_records, void (*wake)(void *arg), void *wake_arg)
{
	struct commit *c = calloc(1, sizeof(*c));
	int rc;

	*out = NULL;
	if (c == NULL)
		return ENOMEM;
	c->cache = cache;
	c->commit_ms = commit_ms;
	c->max_records = max_records;
	c->wake = wake;
	c->wake_arg = wake_arg;
	STAILQ_INIT(&c->ops);
	pthread_mutex_init(&c->lock, NULL);
	clock_cond_init(&c->work);
	if ((rc = pthread_create(&c->thread, NULL, run, c)) != 0) {
		commit_destroy(&c);
		return rc;
	}
	pthread_setname_np(c->thread, "commit");	/* for top -H */
	c->started = true;
	*out = c;
	return 0;
}

void
commit_destroy(struct commit **commit)
{
	struct commit *c = *commit;

	if (c == NULL)
		return;
	if (c->started) {
		pthread_mutex_lock(&c->lock);
		c->stop = true;
		pthread_cond_signal(&c->work);
		pthread_mutex_unlock(&c->lock);
		pthread_join(c->thread, NULL);
	}
	ops_free(&c->ops);
	pthread_cond_destroy(&c->work);
	pthread_mutex_destroy(&c->lock);
	free(c);
	*commit = NULL;
}

void
commit_submit(struct commit *c, struct core_op *op)
{
	pthread_mutex_lock(&c->lock);
	STAILQ_INSERT_TAIL(&c->ops, op, link);
	c->n++;
	if (c->n == 1 || c->n >= c->max_records)
		pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
}

struct commit_state
commit_state(const struct commit *c)
{
	return (struct commit_state){atomic_load(&c->durable), atomic_load(&c->n_differed),
	    atomic_load(&c->n_commits), atomic_load(&c->waiting), atomic_load(&c->failed)};
}
