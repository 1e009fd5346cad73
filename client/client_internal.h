/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the client library share.
 *
 * Threads of a struct salt: the network thread (net.c), which alone uses poll and session; the workers
 * (workers.c); the status socket's thread; and the threads of the caller. `lock` protects what is named below
 * it. The network thread and callers hold it for short times only: work that takes long is a job for the
 * workers, or is done by the caller without the lock.
 *
 * The state of each role is private to its files: rows_internal.h (trainer), leases.c (teacher). The network
 * thread calls a role through `struct client__part`.
 */
#ifndef SALT_CLIENT_INTERNAL_H
#define SALT_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "base/err/err.h"
#include "base/hash/hash.h"
#include "client/saltfleet.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "data/phase/phase.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "fabric/session/session.h"
#include "fabric/status/status.h"

struct workers;

/*
 * Functions of a role that the network thread calls, with the lock held. They do not wait. message: handles
 * one message; to keep event->message it sets it to NULL. turn: sends what is due; called after every event,
 * after a wake-up and at least four times a second, while there is a session. No member is NULL.
 */
struct client__part {
	void (*welcome)(struct salt *s, size_t shard, const struct wire_welcome *w, bool restarted);
	void (*lost)(struct salt *s, size_t shard);
	void (*message)(struct salt *s, struct session_event *event);
	void (*turn)(struct salt *s, int64_t now_ms);
	bool (*flushed)(const struct salt *s);		/* for salt_flush; any thread, lock held */
	/*
	 * Writes to buf what a call would wait for from selectord; no change if there is nothing. Any thread,
	 * lock held.
	 */
	void (*waiting)(const struct salt *s, char *buf, size_t size);
};

/* State of one shard of selectord. Protected by the lock. */
struct client__shard {
	bool welcomed;
	bool failed;			/* final: it refused, or its identities differ; salt.failure has the
					   first such error */
};

struct salt {
	/* Constant from salt_open on. */
	pid_t pid;			/* of the process that called salt_open */
	int role;			/* enum salt_role */
	struct config *config;
	struct corpus *train, *heldout;	/* trainer, client; heldout NULL: none */
	struct blend *order;		/* of train */
	struct hash128 train_fingerprint;
	char tokenizer_hex[HASH_HEX_BYTES];	/* the corpus's; "": not known */
	uint32_t context;		/* L */
	uint64_t n_windows, batch;	/* trainer, client */
	uint32_t vocab;			/* trainer, client: ids of labels */
	uint32_t student_vocab;		/* trainer: columns of dense; >= vocab */
	uint32_t prefetch_steps;
	bool keep_records;
	struct wire_hello hello;	/* as it is sent */
	size_t n_shards;
	const struct client__part *part;
	struct bus *bus;
	struct bus_waker *waker;	/* wakes the network thread */
	struct workers *workers;
	struct status *status;		/* NULL: role client */
	struct bus_status *socket;	/* NULL: none */

	/* The network thread's. */
	pthread_t thread;
	unsigned n_threads;		/* workers */
	int64_t started_ms, accounted_ms;	/* a teacher: the network thread's */
	bool started;
	struct bus_poll *poll;
	struct session *session;	/* NULL until `connect` */

	pthread_mutex_t run_lock;	/* taken before `lock` */
	bool run_stored, label_set_stored;	/* in run.dir, by this process */

	pthread_mutex_t lock;		/* everything below */
	pthread_cond_t changed;		/* broadcast after each change that a waiting call may wait for */
	bool stop;			/* salt_close was called */
	bool connect;			/* a session is needed; stays true */
	struct salt_error failure;	/* code != 0: final; calls that need selectord return it */
	struct client__shard *shards;	/* [n_shards] */
	struct phase phase;
	struct hash128 plan_hash;	/* of the first WELCOME */
	struct wire_id label_set, label_teacher;	/* of the first WELCOME, or of run.dir */
	double teacher_nats;
	uint64_t rows_ready;
	struct rows *rows;		/* rows_internal.h; trainer */
	struct leases *leases;		/* leases.c; teacher */
};

/* ---- error.c ------------------------------------------------------------------------------------------------------ */

/*
 * All fill *e, which may be NULL, and return its code.
 * client__ok       no error
 * client__error    code and text, which is cut to size
 * client__fail     from an rc of common/ and its note (NULL: none)
 * client__copy     a copy of another error
 */
int client__ok(struct salt_error *e);
int client__error(struct salt_error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int client__fail(struct salt_error *e, int rc, const struct err_note *note);
int client__copy(struct salt_error *e, const struct salt_error *from);

/*
 * client__enter - the first check of every public call with a struct salt. 0, or SALT_FORKED, SALT_RANGE (s
 * does not have this role; 0: any). Takes no lock.
 */
int client__enter(const struct salt *s, int role, struct salt_error *e);

/* ---- net.c -------------------------------------------------------------------------------------------------------- */

int client__net_start(struct salt *s, struct err_note *note);	/* creates waker, poll and thread; salt_close
								   frees them */
void client__net_stop(struct salt *s);				/* sends BYE, ends session and thread. Lock
								   not held */

/*
 * client__wake - wakes the network thread after a change that it must see. Any thread, lock held or not.
 * client__connect - makes the network thread open the session. Lock held.
 */
void client__wake(struct salt *s);
void client__connect(struct salt *s);


/* client__failed - records that selectord cannot be used any more; the first failure stays. Lock held. */
void client__failed(struct salt *s, int rc, const struct err_note *note);

/*
 * client__deadline, client__wait - for calls with timeout_ms (0: never wait, -1: no limit). client__wait,
 * with the lock held, returns true after a change and false when the time is over.
 */
struct timespec client__deadline(int timeout_ms);
bool client__wait(struct salt *s, int timeout_ms, const struct timespec *deadline);

/* ---- run.c -------------------------------------------------------------------------------------------------------- */

/*
 * client__run_check - compares a trainer's options and corpora with those stored in run.dir, and puts the
 *                     stored label set into HELLO. Called by salt_open when corpora and plan are known.
 * client__run_store - stores them, in the process of rank 0; the label set as soon as it is known. Lock not
 * held.
 */
int client__run_check(struct salt *s, struct salt_error *e);
int client__run_store(struct salt *s, struct salt_error *e);

/* ---- workers.c ---------------------------------------------------------------------------------------------------- */

/*
 * A job is a member of the object that it works on; run finds the object by the job's address. run is called
 * once, in a worker thread, or with `cancelled` by client__workers_free. The job owns the object from
 * client__work on. Jobs start in order. The queue has no limit; an entry allocates no memory of its own.
 */
struct client__job {
	STAILQ_ENTRY(client__job) next;
	void (*run)(struct client__job *job, bool cancelled);
};

int client__workers_new(struct workers **w, unsigned n_threads, struct err_note *note);
void client__workers_free(struct workers **w);		/* waits for running jobs, cancels the others; takes NULL */
void client__work(struct workers *w, struct client__job *job);	/* any thread; never waits */

/* ---- rows.c ------------------------------------------------------------------------------------------------------- */

extern const struct client__part client__rows_part;
int client__rows_new(struct salt *s, struct err_note *note);
void client__rows_free(struct salt *s);			/* after all threads have ended */

/* Fills the trainer's members of view. Lock held. */
void client__rows_view(const struct salt *s, struct salt_view *view);

/* ---- leases.c, submit.c, model.c ----------------------------------------------------------------------------------- */

extern const struct client__part client__leases_part;

/*
 * client__leases_new - checks options->models and their tokenizers, copies what is needed, and fills
 * s->hello.models and n_models. Returns enum salt_code and fills *e. A teacher's corpora are not open.
 * client__leases_free: after all threads have ended.
 */
int client__leases_new(struct salt *s, const struct salt_options *options, struct salt_error *e);
void client__leases_free(struct salt *s);
double client__cpu_seconds(void);	/* of this process */
void client__leases_view(const struct salt *s, struct salt_view *view);

/* ---- status.c ----------------------------------------------------------------------------------------------------- */

/*
 * client__status_new - creates s->status, which the part's metrics need. name: unique in the fleet.
 * client__status_start - creates status socket and announcement, like a daemon. A failure is logged and has
 * no other effect.
 * client__status_stop - removes both.
 */
int client__status_new(struct salt *s, const char *name, struct err_note *note);
void client__status_start(struct salt *s);
void client__status_stop(struct salt *s);

/* client__waiting - writes salt_view.waiting; buf must hold an empty string. Lock held. */
void client__waiting(const struct salt *s, char *buf, size_t size);

/*
 * client__document_starts - computes starts[n, L] from tokens[n, L + 1] and the id that ends a document. In
 * decode.c. Pure.
 */
void client__document_starts(const int32_t *tokens, uint64_t n, uint32_t L, int32_t end, int32_t *starts);

#endif
