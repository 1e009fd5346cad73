/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_sim - simulates the surroundings of selectord's core for its tests: a store in memory, teachers that
 * are functions, a clock that the test sets, and commits that happen when the test wants them.
 */
#ifndef SALT_TESTS_CORE_SIM_H
#define SALT_TESTS_CORE_SIM_H

#include "check.h"

#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "selectord/core.h"
#include "data/select/select.h"

struct blend;

enum { L = 5, WINDOWS = 50, HELD = 3, INBOX = 4096, LABEL_BYTES = 40 };

struct held_op {
	struct core_op *op;
	struct held_op *next;
};

struct sim {
	struct core *core;
	struct core_config cfg;
	struct core_store ask;
	const char *key;		/* name of the sender's key */
	void (*before)(void), (*after)(void);	/* NULL, or called around each message to the core */
	/* the store */
	bool has_score[2][WINDOWS + HELD], has_label[WINDOWS];
	uint8_t score[2][WINDOWS + HELD][3 * L], label[WINDOWS][LABEL_BYTES];
	struct {
		struct hash128 plan;
		uint64_t block;
		size_t n;
		struct cache_row *rows;
	} blocks[1024];
	size_t n_blocks;
	struct cache_plan plans[CORE_PLANS_MAX + 8];
	size_t n_plans;
	bool plans_damaged;
	struct cache_attempts attempts[WINDOWS];
	struct cache_quarantine quarantine[WINDOWS];
	size_t n_quarantine;
	/* not committed yet */
	struct held_op *first, **last;
	uint64_t durable;
	bool hold_commits;
	/* messages of the core that the test has not taken yet */
	struct core_message inbox[INBOX];
	size_t n_inbox;
	int64_t now;
	size_t n_leased[WINDOWS], n_labels_asked, n_scores_asked, n_both_asked, n_early;
	char last_refusal[256];
};

extern const struct hash128 teacher;	/* labels, and also scores if there is no second model */

/* The score and label records that a teacher makes for a sequence: pure functions of seq. */
void make_score(uint64_t seq, uint8_t out[3 * L]);
void make_label(uint64_t seq, uint8_t out[LABEL_BYTES]);

/*
 * sim_config configures a core; sim_new makes one with one shard and one model. sim_start starts it; sim_stop
 * loses what was not committed, and sim_start starts it again. sim_end frees everything.
 */
void sim_config(struct sim *s, uint32_t shard, uint32_t n_shards, bool two_models);
struct sim *sim_new(void);
void sim_start(struct sim *s);
void sim_stop(struct sim *s);
void sim_end(struct sim *s);

/* Takes the core's messages and commits its operations (unless hold_commits) until there are no more. */
void pump(struct sim *s);

/* say - delivers a message from a peer. pass - advances the clock. */
void say(struct sim *s, uint64_t peer, const struct wire_message *m);
void pass(struct sim *s, int64_t ms);

/*
 * The next message of this type (WIRE_NONE: of any) for a peer that may be sent by now; its type is WIRE_NONE
 * if there is none. done_with() frees its arrays.
 */
struct core_message take(struct sim *s, uint64_t peer, enum wire_type type);
void done_with(struct core_message *m);

/* Messages of peers. hello_trainer returns the plan's hash from WELCOME. */
void hello_teacher(struct sim *s, uint64_t peer, uint64_t boot);
struct hash128 hello_trainer(struct sim *s, uint64_t peer, const struct wire_plan *plan);
void credit(struct sim *s, uint64_t peer, uint32_t n);
struct wire_plan plan_of(uint32_t seed, enum wire_mode mode, uint64_t n_rows);

/*
 * work - sends results for all sequences of a lease, except for sequence `not` (UINT64_MAX: no exception).
 * work_all - the teachers peers[0..n) work until nothing is leased.
 */
void work(struct sim *s, uint64_t peer, const struct core_message *lease, uint64_t not);
/* report - the teacher reports that it cannot label seq. */
void report(struct sim *s, uint64_t peer, uint64_t lease_id, uint64_t seq);
void work_all(struct sim *s, const uint64_t *peers, size_t n);

/* Requests rows [first, first + count) and checks them; returns how many arrived. */
size_t fetch(struct sim *s, uint64_t peer, struct hash128 plan, uint64_t first, uint32_t count, uint64_t *seqs, bool *quarantined);

/*
 * Computes the rows of a plan directly from the definition, without a core. bad: a sequence that must not be
 * chosen.
 * reference_order: the order of a blend; NULL: the shuffle order.
 */
extern const struct blend *reference_order;
void reference(const struct wire_plan *plan, uint64_t n_rows, uint64_t bad, uint64_t *out);

void test_core_teachers(void);			/* test_core_teachers.c */

#endif
