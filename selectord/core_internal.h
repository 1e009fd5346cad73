/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's private structs and functions, shared by core.c, hello.c, work.c, choose.c, drop.c, leases.c,
 * quarantine.c and rows.c.
 */
#ifndef SALT_SELECTORD_CORE_INTERNAL_H
#define SALT_SELECTORD_CORE_INTERNAL_H

#include "data/select/file.h"
#include "selectord/core.h"

/* Keys are ids and sequence numbers of 8 bytes, and hashes, of which the first 8 bytes suffice. */
#define HASH_FUNCTION(key, len, hash) \
	do { \
		hash = (unsigned)((*(const uint64_t *)(const void *)(key)*UINT64_C(0x9e3779b97f4a7c15)) >> \
		    32); \
	} while (0)
#define HASH_NONFATAL_OOM 1		/* without memory an element is not added */
#define uthash_nonfatal_oom(element) (c->no_memory = true)
#include <uthash.h>
#include <utlist.h>

enum { WANT_SCORE = 1, WANT_LABEL = 2 };

/*
 * A result that is not on the disk yet, for comparison with a second one. It is borrowed from the message in
 * which it arrived.
 */
struct core_copy {
	struct mem_arena *held;
	const uint8_t *bytes;
	size_t len;
};

/* A teacher that failed on a sequence: it vanished while it held the sequence alone, or reported an error. */
struct core_failure {
	struct hash128 who;			/* as core_known */
	struct hash128 boot;			/* vanished: the process, which may come back; zero: it reported an error */
};

/* A sequence that is leased, on its way to the disk, or has failed before; others have no entry. */
struct core_seq {
	uint64_t seq;
	uint64_t op;				/* record on its way to the disk, 0: none */
	int64_t not_before_ms;			/* after an error: not leased before this time */
	uint8_t flight;				/* WANT_ bits under lease */
	uint8_t pending;			/* WANT_ bits on their way to the disk; their bytes: */
	struct core_copy scores, label;
	bool single;				/* a holder of it vanished: leased alone from now on */
	bool quarantined;
	uint32_t n_failed, n_errors;		/* n_errors: reports, also those that do not count as a failure */
	struct core_failure failed[CACHE_ATTEMPTS_MAX];	/* different teachers */
	struct hash128 error_who;		/* the last teacher that reported an error */
	UT_hash_handle hh;			/* by seq */
};

/*
 * What is remembered of a teacher beyond its connection. who: hash of its key's name, its host and its name
 * (without process id), so that a faulty teacher is recognized after a restart.
 */
struct core_known {
	struct hash128 who;
	char label[2 * WIRE_NAME_MAX];		/* name@host */
	uint64_t n_good, n_errors;		/* sequences that it delivered; sequences that it reported an error for */
	uint32_t n_bad;				/* wrong results */
	int64_t away_ms;			/* rejected: refused until then; 0: not rejected */
	UT_hash_handle hh;			/* by who; the oldest first */
};

struct core_lease {
	uint64_t id;
	struct hash128 boot, who;		/* holder */
	enum cache_scores set;			/* where its scores are stored */
	uint8_t wants;
	bool single;				/* holds a suspect */
	bool expired;				/* a late result is still accepted */
	uint64_t *seqs;				/* [n]; open[i]: no result yet */
	bool *open;
	size_t n, n_open;
	int64_t granted_ms, expires_ms, moved_ms;	/* moved: when its progress last changed */
	uint64_t progress;
	UT_hash_handle hh;			/* by id */
};

struct core_peer {
	uint64_t id;				/* connection */
	struct hash128 boot;			/* with keys: hash of boot id and key, so that a peer cannot
						   pose as a process with another key */
	struct core_known *known;		/* teachers */
	enum wire_role role;
	char name[WIRE_NAME_MAX], host[WIRE_NAME_MAX], status_endpoint[WIRE_ENDPOINT_MAX];
	uint32_t pid, max_message;
	int64_t heard_ms, busy_ms;		/* busy: last time it held or returned something */
	int64_t hello_ms;
	uint32_t credit;
	uint32_t n_misused;			/* messages that it had no right to send */
	bool can_score, can_label, can_heldout;	/* SCORE by the scorer, LABEL and SCORE by the teacher */
	bool released;				/* RELEASE_TEACHER sent */
	struct core_plan *plan;			/* of its HELLO, NULL: none */
	struct core_peer *next, *prev;
};

enum { POS_SCORED = 1, POS_LABELLED = 2, POS_KEPT = 4, POS_QUARANTINED = 8 };
/*
 * SCAN looks up what is stored, SCORE waits for scores, CHOOSE selects rows, CHOSEN waits until they are on
 * the disk, CHECK looks up their labels, LABEL waits for the missing ones. SCAN, CHOOSE and CHECK run in
 * steps.
 */
enum block_state { BLOCK_SCAN, BLOCK_SCORE, BLOCK_CHOOSE, BLOCK_CHOSEN, BLOCK_CHECK, BLOCK_LABEL };
enum { DURABLE_STEP = 256, GRANT_STEP = 8 };	/* durable records processed, and leases granted, in one call */
enum { SCAN_STEP = 8192, LABEL_COST = 16 };	/* positions looked up in a millisecond of the core's time; cost of reading a label */

struct core_block {
	uint64_t no, first;			/* first: stream position */
	enum block_state state;
	bool rows_stored;
	uint64_t scan_at, cursor;		/* cursor: no position below needs a lease */
	uint8_t *flags;				/* [W], POS_ */
	float *score;				/* [W], plans with scores */
	uint64_t n_scored, n_kept, n_labelled;	/* quarantined ones count as scored and labelled */
	uint64_t op;				/* CHOSEN: record of its rows */
	struct select_cut *cut;			/* CHOOSE: for the current part */
	struct select_limit *limits;		/* [n_parts of the plan], the first n_limits are known */
	uint64_t *wanted;			/* [n_parts] rows to choose from each part */
	size_t n_limits;
	struct cache_row *rows;
	uint64_t *drops, n_rows, n_drops;
	struct core_block *next, *prev;		/* by no */
};

enum { DONE_BITS = 1 << 20 };			/* own blocks, from the first unfinished one on, whose
						   completion is remembered */

struct core_plan {
	struct hash128 hash;
	struct wire_plan wire;
	uint64_t window, kept;			/* W, K; equal in mode none and with a list */
	bool scored;				/* rows are chosen by scores */
	size_t n_parts;				/* parts from which rows are chosen separately; 1: from all
						   positions of a block together */
	const struct select_file *list;		/* the stream is its list; NULL: it is the shuffle order */
	uint64_t n_blocks;			/* ceil(n_rows / K), all shards */
	uint64_t asked;				/* one past the highest row requested */
	uint64_t ahead;
	struct core_block *blocks;		/* active, by number */
	size_t n_active;
	uint64_t frontier;			/* lowest own block that scanning has not reached */
	uint64_t ready;				/* lowest own block that is not done */
	uint8_t done[DONE_BITS / 8];		/* bit (b div S) mod DONE_BITS of own blocks from ready on; all before it are done */
	size_t n_peers;				/* connected peers that opened it */
	bool left_open;				/* one of them left with BYE: the work continues without it */
	bool no_memory;				/* an allocation for it failed: pause it */
	uint64_t oldest_step, released_step;
	bool released;
	int64_t released_ms, used_ms;		/* used: last HELLO or row request */
	int64_t undecided_ms;			/* until then a trainer that found it released may still ask for rows; see release_teachers */
	struct core_scores scores;
	struct core_plan *next, *prev;
};

struct core_wait {
	uint64_t peer, request_id, first;
	struct core_plan *plan;
	uint32_t count;
	uint32_t missing;			/* row first + missing was not ready at the last check */
	struct core_wait *next, *prev;
};

/* A record on its way to the disk. */
struct core_pending {
	uint64_t no;
	enum core_op_kind kind;
	uint64_t seq;
	uint8_t wants;
	enum cache_scores set;
	size_t bytes;
	struct hash128 plan;
	uint64_t block;
	struct core_pending *next, *prev;
};

/* A client's DROP_LABELS, in progress or the last one. */
struct core_drop {
	bool active;
	bool released_too;
	uint64_t peer, request_id;
	struct hash128 boot;
	struct cache_plan *plans;		/* all that were stored when it began */
	size_t n_plans, cap;
	uint64_t next;				/* all sequences below have been checked */
	uint64_t n_labels, n_bytes, n_kept;
};

struct core {
	struct core_config cfg;
	struct blend *own_order;		/* cfg.order, if the caller has none */
	const struct core_store *store;
	struct core_out out;
	size_t messages_cap, ops_cap, events_cap;
	struct core_message spare;		/* used for a message when memory is missing; it is lost, as
						   any message may be */
	bool no_memory;				/* an allocation failed since this was last checked */

	struct core_peer *peers;		/* the newest first */
	struct core_known *known;		/* hash table */
	uint64_t n_quarantined;			/* of the training corpus */
	struct core_lease *leases;		/* hash table */
	size_t n_live, n_single;		/* leases not expired; those of them that hold a suspect */
	struct core_plan *plans;		/* the oldest first */
	struct core_plan *turn, *scan_turn;	/* the plan considered first for the next lease; the plan
						   scanned first next time */
	struct core_wait *waits;		/* the oldest first */
	struct core_wait *wait_at;		/* the next one to check, NULL: none */
	bool waits_due;				/* something has changed: check all of them again when wait_at
						   has passed them */
	struct core_drop drop;
	struct core_seq *seqs;			/* hash table */
	struct core_pending *pending;		/* by no */
	size_t n_pending;
	uint64_t next_op, durable, next_lease;

	uint8_t *held;				/* [n_heldout], POS_SCORED or POS_QUARANTINED */
	float *held_loss;			/* [n_heldout] mean nats of a sequence */
	uint64_t held_scan, held_cursor, n_held;
	double heldout_loss;

	bool room, draining, same_model;	/* room to write; no new leases; one model scores and labels */
	uint32_t lease_rows;			/* cfg's, cut to what fits a frame */
	float *loss, *scratch;			/* [L] */
	uint8_t *rank;
	int32_t *tokens;			/* [L + 1] */
	uint64_t told_durable;			/* the argument of core_durable; its records are processed in steps */
	uint64_t grant_turn;			/* the peer that got the last lease */
	struct core_pick *pick;			/* of the lease that is being made */
	bool more;				/* something is left for the next call */
	bool work_due;				/* since settle(): a sequence or a teacher became free */
	int64_t scan_left, scan_ms;		/* what is left of SCAN_STEP in this millisecond */
	struct core_stats stats;
};

/* core.c */
void core__event(struct core *c, enum log_level level, const char *name, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
struct core_message *core__send(struct core *c, uint64_t peer, enum wire_type type);	/* never NULL */
/*
 * A REFUSE with the texts of a note; final unless retry_ms > 0. core__refuse makes the note: field, expected
 * and found as err_expect.
 */
void core__refuse_note(struct core *c, uint64_t peer, int code, const struct err_note *note, const char *text,
    uint32_t retry_ms);
#define core__refuse(c, peer, code, text, retry_ms, field, expected, ...)	\
	do {									\
		struct err_note note_ = {0};					\
		err_expect(&note_, ERR_REFUSED, field, expected, __VA_ARGS__);	\
		core__refuse_note(c, peer, code, &note_, text, retry_ms);	\
	} while (0)
void core__refuse_memory(struct core *c, uint64_t peer);	/* refuses for now: no memory */
struct core_op *core__op(struct core *c, enum core_op_kind kind, uint64_t seq);	/* NULL: out of memory */
/* numbers and queues the op */
void core__op_done(struct core *c, struct core_op *op, uint8_t wants, size_t bytes);
struct core_seq *core__seq(struct core *c, uint64_t seq, bool make);
void core__seq_forget(struct core *c, uint64_t seq);	/* frees the entry if it holds nothing */
struct core_peer *core__peer(struct core *c, uint64_t id);
struct core_peer *core__boot(struct core *c, struct hash128 boot);
struct core_plan *core__plan(struct core *c, struct hash128 hash);
bool core__quarantined(struct core *c, uint64_t seq);
int core__score_of(struct core *c, uint64_t seq, unsigned k, float *out);	/* S(x) of a stored score; ERR_NOT_FOUND */
bool core__has_label(struct core *c, uint64_t seq);	/* a damaged one is dropped and counts as absent */
void core__save_plan(struct core *c, const struct core_plan *plan);
void core__peer_drop(struct core *c, uint64_t id);
bool core__plan_active(const struct core_plan *plan);	/* not released, and a peer is connected or left it
							   with BYE */

/* hello.c */
void core__hello(struct core *c, uint64_t peer, const char *key, const struct wire_hello *hello, int64_t now_ms);
uint64_t core__positions_max(const struct core *c);	/* stream positions that a plan over this corpus may have */

/* quarantine.c */
void core__quarantine(struct core *c, struct core_seq *s, const char *reason);
/* true: too many sequences in quarantine for this plan */
bool core__quarantine_over(struct core *c, const struct core_plan *plan, struct err_note *note);
void core__save_attempts(struct core *c, const struct core_seq *s);
/*
 * Records that this teacher failed on s (vanished: its process; NULL: it reported an error), and puts s into
 * quarantine when enough teachers have.
 */
void core__seq_failed(struct core *c, struct core_seq *s, struct hash128 who, const struct hash128 *vanished, const char *why);
struct core_known *core__known(struct core *c, struct hash128 who, const char *name, const char *host);	/* NULL: no memory */
/*
 * Called after a wrong result or a reported error: rejects a teacher that has had too many, on all its
 * connections.
 */
void core__teacher_check(struct core *c, struct core_known *teacher, int64_t now_ms);
/* true: refused, because it was rejected before */
bool core__teacher_away(struct core *c, struct core_peer *peer, int64_t now_ms);

/* work.c: blocks */
uint64_t core__order(const struct core *c, const struct core_plan *plan, uint64_t p);
/*
 * The stream visits a sequence again and again; epoch counts the visits from 0. core__position: the stream
 * position of a visit, which grows with epoch; false: the sequence is not in the stream. core__epoch_at: an
 * epoch whose position is not above p, or 0; not many epochs before p. list: of the plan.
 */
uint64_t core__epoch_at(const struct core *c, const struct select_file *list, uint64_t index, uint64_t p);
bool core__position(const struct core *c, const struct select_file *list, uint32_t seed, uint64_t epoch, uint64_t index, uint64_t *p);
uint64_t core__block_bytes(uint64_t window, uint64_t kept);	/* memory of one active block */
/*
 * Opens a block if it is not open. false: not now, because its plan has enough active blocks, or no memory.
 */
bool core__block_open(struct core *c, struct core_plan *plan, uint64_t no);
struct core_block *core__block_find(struct core_plan *plan, uint64_t no);
/* closes a block that has all its labels */
void core__block_finish(struct core *c, struct core_plan *plan, struct core_block *b);
void core__blocks_close(struct core_plan *plan);	/* closes all active blocks */
void core__scan(struct core *c);			/* the next steps of scanning, choosing and
							   checking */
void core__heldout_scan(struct core *c);
/*
 * These update every active block that the sequence is in, after: its result is on the disk; it went into
 * quarantine; its lease ended without a result.
 */
void core__seq_stored(struct core *c, uint64_t seq, uint8_t wants);
void core__seq_quarantined(struct core *c, uint64_t seq);
void core__seq_free(struct core *c, uint64_t seq);
void core__rows_written(struct core *c, struct hash128 plan, uint64_t block);
void core__heldout_stored(struct core *c, uint64_t seq);
uint64_t core__rows_ready(const struct core_plan *plan);
void core__grant(struct core *c, int64_t now_ms);
struct core_pick *core__pick_new(void);			/* for core.pick; free() */

/* choose.c: each step goes as far as scan_left allows */
void core__choose_begin(struct core_block *b);
void core__choose_step(struct core *c, struct core_plan *plan, struct core_block *b);
void core__check_begin(struct core_block *b);
void core__check_step(struct core *c, struct core_plan *plan, struct core_block *b);	/* may close the block */
/*
 * Finds the row of a written block at stream position p; rows are sorted by position. 0 and *i,
 * ERR_NOT_FOUND, or the store's error.
 */
int core__row_find(struct core *c, struct hash128 plan, uint64_t block, uint64_t kept, uint64_t p, uint64_t *i);

/* drop.c */
void core__drop_labels(struct core *c, const struct core_peer *peer, const struct wire_drop_labels *m);
void core__drop_step(struct core *c);

/* leases.c */
void core__lease_free(struct core *c, struct core_lease *lease);
/* false: none of the sequences could be leased, for lack of memory or of their tokens. */
bool core__lease_new(struct core *c, struct core_peer *peer, uint8_t wants, enum cache_scores set, const uint64_t *seqs, size_t n, bool single,
    int64_t now_ms);
void core__lease_renew(struct core *c, struct core_peer *peer, const struct wire_lease_renew *m, int64_t now_ms);
void core__lease_return(struct core *c, struct core_peer *peer, uint64_t id);
void core__leases_back(struct core *c, struct hash128 boot);	/* returns all leases of a process */
/*
 * Called when a lost teacher is back: it had been disconnected, and did not crash because of its sequences,
 * so its failures no longer count against them.
 */
void core__boot_back(struct core *c, struct hash128 boot);
void core__leases_tick(struct core *c, int64_t now_ms);
void core__result(struct core *c, struct core_peer *peer, const struct wire_message *msg, int64_t now_ms);
bool core__holds_single(const struct core *c, struct hash128 boot);

/* rows.c */
void core__rows_request(struct core *c, struct core_peer *peer, struct core_plan *plan, const struct wire_rows_request *m, int64_t now_ms);
void core__waits_check(struct core *c);
void core__waits_drop_peer(struct core *c, uint64_t peer);
void core__waits_drop_plan(struct core *c, const struct core_plan *plan);

#endif
