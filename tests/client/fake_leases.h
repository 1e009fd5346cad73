/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_leases - simulates one shard of selectord for a teacher, as a script for fake_bus: it sends WELCOME,
 * leases on request, and DONE. Received results are stored, decoded. A test may change atomic members while
 * the library's thread runs; it reads the others under `lock`.
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

/* The results received for one sequence. */
struct fake_result {
	unsigned n;				/* number of RESULTs */
	uint8_t *scores, *label;		/* copies from the last one; NULL: none */
	size_t n_scores, n_label;
	char error[WIRE_TEXT_MAX];
};

struct fake_leases {
	uint32_t context, vocab;
	struct hash128 model;			/* teacher of the label set and scorer of the score set */
	bool want_score, want_label;
	struct wire_label_set set;		/* the test sets kind, n, tau, seed; the rest is filled in */
	uint32_t max_message;			/* 0: 1 MiB */
	uint32_t n_seqs;			/* sequences per lease */
	uint32_t n_valid;			/* of LEASE; 0: vocab */
	int32_t first_token;			/* first token of every sequence; 0: not special */
	unsigned n_leases;			/* number of leases to send; sequences are numbered from 0 */
	atomic_bool silent;			/* send no DONE */
	/* done once: lose the connection; also come back as a new process; send RELEASE_TEACHER */
	atomic_bool reconnect, restart, release;
	atomic_llong skip_ms;			/* done once: advance the clock */
	/* what happened */
	pthread_mutex_t lock;
	unsigned n_given, n_hello, n_results, n_renew, n_largest_credit;
	uint64_t progress;			/* of the last LEASE_RENEW */
	unsigned n_returned;			/* number of LEASE_RETURNs */
	size_t longest_result;			/* bytes of the longest RESULT frame */
	struct wire_hello hello;
	struct fake_result result[FAKE_SEQS_MAX];
	/* internal state */
	struct labels_spec spec;
	struct labels_unigram *unigram;
	uint8_t table[4096];
	size_t seen;
	unsigned credit;
	uint64_t boot;
	bool pushed;
};

/* Zero *f and set the test's members first. fake_leases_start resets the bus; fake_leases_end frees. */
void fake_leases_start(struct fake_leases *f);
void fake_leases_end(struct fake_leases *f);

/* fake_until - waits until *what, a member of f, is at least n; false after 10 s. Wakes the library. */
bool fake_until(struct salt *s, struct fake_leases *f, const unsigned *what, unsigned n);

int32_t fake_token(const struct fake_leases *f, uint64_t seq, uint32_t t);	/* t = 0 .. context */

#endif
