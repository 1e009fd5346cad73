#include "selectord/commit.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "base/err/crash.h"
#include "base/log/log.h"

#define RETRY_MS 500
#define GROUP_MAX 4096			/* records of one commit */
#define MAP_GROW_RATIO 0.7		/* of the map in use: make it larger before it is full */

struct item {
	struct core_op *op;
	bool done;			/* written before its turn: a label that went to make room */
	struct item *next;
};

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
	struct item *first, **last;		/* under lock */
	size_t n;
	bool stop;
	uint64_t n_group_differs;
	struct core_op *run[GROUP_MAX];		/* of write_group */
	atomic_uint_fast64_t durable, n_differed, n_commits;
	atomic_int waiting, failed;
};

/*
 * Neighbouring results in the order of their keys: the tree is walked from left to right, and labels and scores lie in trees of their
 * own. Everything else stays in its place: a label may be dropped and written again.
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
		rc = cache_write_rows(c->cache, op->plan_hash, op->block, op->rows, op->n_rows, &differs);
		if (rc == ERR_EXISTS && differs) {
			log_error("rows.differ", "block=%" PRIu64 " kept=\"what was stored first\"", op->block);
			c->n_group_differs++;
		}
		for (size_t i = 0; i < op->n_drops && (rc == 0 || rc == ERR_EXISTS); i++)
			rc = cache_drop_labels(c->cache, op->drops[i]);
		break;
	case CORE_OP_DROP_LABEL:
		rc = cache_drop_labels(c->cache, op->seq);
		break;
	case CORE_OP_DROP_SCORES:
		rc = cache_drop_scores(c->cache, op->set, op->seq);
		break;
	case CORE_OP_PLAN:
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
write_group(struct commit *c, const struct item *group)
{
	int rc;

	c->n_group_differs = 0;

	crash_point("commit.begin");
	if ((rc = cache_write_begin(c->cache)) != 0)
		return rc;
	for (const struct item *i = group; i != NULL && rc == 0;) {
		size_t n = 0;

		if (i->op->kind != CORE_OP_RESULT) {
			rc = i->done ? 0 : write_op(c, i->op);
			i = i->next;
			continue;
		}
		for (; i != NULL && i->op->kind == CORE_OP_RESULT && n < GROUP_MAX; i = i->next)
			c->run[n++] = i->op;
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
find_drops(struct item *from, struct item **out, size_t n)
{
	for (struct item *i = from; i != NULL && n < GROUP_MAX; i = i->next)
		if (i->op->kind == CORE_OP_DROP_LABEL && !i->done)
			out[n++] = i;
	return n;
}

static int
drop_some(struct commit *c, struct item **drops, size_t n)
{
	int rc = cache_write_begin(c->cache);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = write_op(c, drops[i]->op);
	if (rc != 0)
		cache_write_abort(c->cache);
	else
		rc = cache_write_commit(c->cache);
	for (size_t i = 0; i < n && rc == 0; i++)
		drops[i]->done = true;
	return rc;
}

/*
 * No room for the group: labels that are to be dropped go first, also those that came after it; the core drops no label that is on its way to
 * the disk, so their order among the others does not matter. Dropping writes the pages that lead to a label anew before the old
 * ones are free: as many at once as there is room for. 0, also without room, or why the daemon must end.
 */
static int
write_drops(struct commit *c, struct item *group)
{
	struct item **drops = calloc(GROUP_MAX, sizeof(*drops));
	size_t n, at = 0, take;
	int rc = 0;

	if (drops == NULL)
		return ENOMEM;
	n = find_drops(group, drops, 0);
	pthread_mutex_lock(&c->lock);
	n = find_drops(c->first, drops, n);
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
	if (at > 0 && (rc == 0 || no_room(rc))) {	/* none: it is as it was, and tried again every half second */
		rc = cache_write_turn(c->cache);
		log_info("commit.dropped", "labels=%zu of=%zu rc=%d", at, n, rc);
	}
	free(drops);
	return no_room(rc) ? 0 : rc;
}

static void
after_ms(struct timespec *at, int64_t ms)
{
	clock_gettime(CLOCK_MONOTONIC, at);
	at->tv_sec += ms / 1000;
	at->tv_nsec += ms % 1000 * 1000000;
	if (at->tv_nsec >= 1000000000) {
		at->tv_sec++;
		at->tv_nsec -= 1000000000;
	}
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

static void *
run(void *arg)
{
	struct commit *c = arg;
	struct timespec next_at = {0}, until;		/* next_at: commit_ms after the last group was begun */

	for (;;) {
		struct item *group, *end, *next;
		uint64_t no = 0;
		double ratio = 0;
		size_t n;
		int rc;

		pthread_mutex_lock(&c->lock);
		while (c->first == NULL && !c->stop)
			pthread_cond_wait(&c->work, &c->lock);
		if (c->first == NULL) {
			pthread_mutex_unlock(&c->lock);
			return NULL;
		}
		while (c->n < c->max_records && !c->stop)
			if (pthread_cond_timedwait(&c->work, &c->lock, &next_at) == ETIMEDOUT)
				break;
		after_ms(&next_at, c->commit_ms);
		group = end = c->first;
		for (n = 1; end->next != NULL && n < GROUP_MAX; n++)	/* all there is: what came while the last group was written */
			end = end->next;
		c->first = end->next;
		if (c->first == NULL)
			c->last = &c->first;
		end->next = NULL;
		no = end->op->no;
		c->n -= n;
		pthread_mutex_unlock(&c->lock);

		while (no_room(rc = write_group(c, group))) {
			bool stop;
			int dropped;

			if (rc == ERR_FULL && grow(c) == 0)
				continue;
			if (atomic_exchange(&c->waiting, rc) == 0)
				log_error("commit.no_room", "records=%zu error=\"%s\" next=\"kept in hand, tried again\"", n, err_str(rc));
			c->wake(c->wake_arg);
			pthread_mutex_lock(&c->lock);
			after_ms(&until, RETRY_MS);
			while (!c->stop && pthread_cond_timedwait(&c->work, &c->lock, &until) != ETIMEDOUT)
				;
			stop = c->stop;
			pthread_mutex_unlock(&c->lock);
			if (stop)
				break;
			if ((dropped = write_drops(c, group)) != 0) {
				rc = dropped;
				break;
			}
		}
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
		for (; group != NULL; group = next) {
			next = group->next;
			core_op_free(&group->op);
			free(group);
		}
		if (rc != 0) {
			c->wake(c->wake_arg);
			return NULL;
		}
	}
}

int
commit_new(struct commit **out, struct cache *cache, uint32_t commit_ms, size_t max_records, void (*wake)(void *arg), void *wake_arg)
{
	struct commit *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;
	int rc;

	*out = NULL;
	if (c == NULL)
		return ENOMEM;
	c->cache = cache;
	c->commit_ms = commit_ms;
	c->max_records = max_records;
	c->wake = wake;
	c->wake_arg = wake_arg;
	c->last = &c->first;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->work, &attr);
	pthread_condattr_destroy(&attr);
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
	for (struct item *i; (i = c->first) != NULL; free(i)) {
		c->first = i->next;
		core_op_free(&i->op);
	}
	pthread_cond_destroy(&c->work);
	pthread_mutex_destroy(&c->lock);
	free(c);
	*commit = NULL;
}

void
commit_submit(struct commit *c, struct core_op *op)
{
	struct item *i = calloc(1, sizeof(*i));

	if (i == NULL) {
		atomic_store(&c->failed, ENOMEM);
		core_op_free(&op);
		return;
	}
	i->op = op;
	pthread_mutex_lock(&c->lock);
	*c->last = i;
	c->last = &i->next;
	c->n++;
	if (c->n == 1 || c->n >= c->max_records)
		pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
}

uint64_t
commit_durable(const struct commit *c)
{
	return atomic_load(&c->durable);
}

int
commit_waiting(const struct commit *c)
{
	return atomic_load(&c->waiting);
}

int
commit_failed(const struct commit *c)
{
	return atomic_load(&c->failed);
}

uint64_t
commit_n_differed(const struct commit *c)
{
	return atomic_load(&c->n_differed);
}

uint64_t
commit_n_commits(const struct commit *c)
{
	return atomic_load(&c->n_commits);
}

size_t
commit_n_queued(struct commit *c)
{
	size_t n;

	pthread_mutex_lock(&c->lock);
	n = c->n;
	pthread_mutex_unlock(&c->lock);
	return n;
}
