/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_leases - one shard of selectord as a script for fake_bus, as a teacher sees it: WELCOME, leases as they are asked for, DONE.
 * The results that came are kept, decoded. Members marked atomic may be changed while the library's thread runs; look at the others
 * after fake_leases_stopped or under `lock`.
 */
#ifndef SALT_FAKE_LEASES_H
#define SALT_FAKE_LEASES_H

#include <pthread.h>
#include <stdatomic.h>

#include "client/client_internal.h"
#include "data/labels/labels.h"
#include "fabric/wire/wire.h"
#include "replay/fake_bus.h"

enum { FAKE_SEQS_MAX = 64 };

/* What came for one sequence. */
struct fake_result {
	unsigned n;				/* RESULTs */
	uint8_t *scores, *label;		/* copies of the last one; NULL: none */
	size_t n_scores, n_label;
	char error[WIRE_TEXT_MAX];
};

struct fake_leases {
	uint32_t context, vocab;
	struct hash128 model;			/* the label set's teacher and the score set's scorer */
	bool want_score, want_label;
	struct wire_label_set set;		/* kind, n, tau, seed; the rest is filled in */
	uint32_t max_message;			/* 0: 1 MiB */
	uint32_t n_seqs;			/* of a lease */
	uint32_t n_valid;			/* of LEASE; 0: vocab */
	int32_t first_token;			/* of every sequence; 0: as the others */
	unsigned n_leases;			/* to give out; sequence numbers go on from 0 */
	atomic_bool silent;			/* no DONE is sent */
	atomic_bool reconnect, restart, release;	/* once: the connection is lost; comes back from a new process; RELEASE_TEACHER */
	atomic_llong skip_ms;			/* once: the clock jumps */
	/* what happened */
	pthread_mutex_t lock;
	unsigned n_given, n_hello, n_results, n_renew, n_largest_credit;
	uint64_t progress;			/* of the last LEASE_RENEW */
	unsigned n_returned;			/* leases, by LEASE_RETURN */
	size_t longest_result;			/* bytes of a RESULT frame */
	struct wire_hello hello;
	struct fake_result result[FAKE_SEQS_MAX];
	/* its own */
	struct labels_spec spec;
	struct labels_unigram *unigram;
	uint8_t table[4096];
	size_t seen;
	unsigned credit;
	uint64_t boot;
	bool pushed;
};

/* Zeroed but for what a test sets. fake_leases_start resets the bus; fake_leases_end frees what was kept. */
void fake_leases_start(struct fake_leases *f);
void fake_leases_end(struct fake_leases *f);

/* fake_until - until a number of the fake's is at least n: true; false after 10 s. Wakes the library's thread. */
bool fake_until(struct salt *s, struct fake_leases *f, const unsigned *what, unsigned n);

int32_t fake_token(const struct fake_leases *f, uint64_t seq, uint32_t t);	/* of sequence seq, t = 0 .. context */

#endif
