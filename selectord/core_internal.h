/* core_own - the core's insides, shared by core.c, hello.c, work.c, choose.c, drop.c, leases.c and rows.c; nobody else includes it. */
#ifndef SALT_SELECTORD_CORE_OWN_H
#define SALT_SELECTORD_CORE_OWN_H

#include "selectord/core.h"

enum { WANT_SCORE = 1, WANT_LABEL = 2 };

/* A sequence that is in somebody's hands or has gone wrong before; forgotten when there is nothing left to say about it. */
struct core_seq {
	uint64_t seq;
	struct core_seq *next;			/* hash chain */
	uint64_t op;				/* record on its way to the disk, 0: none */
	int64_t not_before_ms;			/* after an error: not leased before */
	uint8_t flight;				/* WANT_ bits under lease */
	uint8_t pending;			/* WANT_ bits in op */
	bool single;				/* a holder of it vanished: only alone in a lease */
	bool quarantined;
	uint32_t n_dead, n_errors;
	struct hash128 boot[CACHE_ATTEMPTS_MAX];	/* holders that vanished */
	struct hash128 error_boot;		/* who reported the first error */
};

struct core_lease {
	uint64_t id;
	struct hash128 boot;			/* holder */
	enum cache_scores set;			/* of the scores */
	uint8_t wants;
	bool single;				/* holds a sequence that is under suspicion */
	bool expired;				/* a late result is still taken */
	uint64_t *seqs;				/* [n]; open[i]: no result yet */
	bool *open;
	size_t n, n_open;
	int64_t granted_ms, expires_ms, moved_ms;	/* moved: progress was last seen to move */
	uint64_t progress;
	struct core_lease *next, *prev;		/* all of them */
	struct core_lease *chain;		/* of the bucket */
};

enum { LEASE_BUCKETS = 1024 };

struct core_peer {
	uint64_t id;				/* connection */
	struct hash128 boot;
	enum wire_role role;
	char name[WIRE_NAME_MAX], host[WIRE_NAME_MAX], status_endpoint[WIRE_ENDPOINT_MAX];
	uint32_t pid, max_message;
	int64_t heard_ms, busy_ms;		/* busy: last time it held or returned something */
	int64_t hello_ms;
	uint32_t credit, n_bad;
	bool can_score, can_label, can_heldout;	/* scorer SCORE, teacher LABEL, teacher SCORE */
	bool released;				/* RELEASE_TEACHER sent */
	struct core_plan *plan;			/* of its HELLO, NULL: none */
	struct core_peer *next;
};

enum { POS_SCORED = 1, POS_LABELLED = 2, POS_KEPT = 4, POS_QUARANTINED = 8 };
/* CHOOSE and CHECK go in steps, as SCAN does: what is chosen, and which labels of it are there. CHOSEN waits for the disk. */
enum block_state { BLOCK_SCAN, BLOCK_SCORE, BLOCK_CHOOSE, BLOCK_CHOSEN, BLOCK_CHECK, BLOCK_LABEL };
enum { DURABLE_STEP = 256, GRANT_STEP = 8 };	/* records taken in as stored, and leases granted, in one call */
enum { SCAN_STEP = 8192, LABEL_COST = 16 };	/* positions looked at in a millisecond of the core's time; what reading a label costs */

struct core_block {
	uint64_t no, first;			/* first: stream position */
	enum block_state state;
	bool rows_stored;
	uint64_t scan_at, cursor;		/* cursor: no position below needs a lease */
	uint8_t *flags;				/* [W], POS_ */
	float *score;				/* [W], salt_ds */
	uint64_t n_scored, n_kept, n_labelled;	/* quarantined ones count as scored and labelled */
	uint64_t op;				/* CHOSEN: record of its rows */
	struct select_cut *cut;			/* CHOOSE */
	struct cache_row *rows;
	uint64_t *drops, n_rows, n_drops, n_fill;
	struct core_block *next;		/* by no */
};

struct core_plan {
	struct hash128 hash;
	struct wire_plan wire;
	uint64_t window, kept;			/* W, K */
	uint64_t n_blocks;			/* ceil(n_rows / K), all shards */
	uint64_t asked;				/* one past the furthest row asked for */
	uint64_t ahead;
	struct core_block *blocks;		/* active, by number */
	size_t n_active;
	uint64_t frontier;			/* lowest block of ours never activated in order */
	uint64_t ready;				/* lowest block of ours that is not done */
	uint8_t *done;				/* bit per own block (b div S) */
	size_t done_cap;
	uint64_t oldest_step, released_step;
	bool released;
	int64_t released_ms, used_ms;		/* used: last HELLO or row request */
	struct core_scores scores;
	struct core_plan *next;
};

struct core_wait {
	uint64_t peer, request_id, first;
	struct core_plan *plan;
	uint32_t count;
	struct core_wait *next;
};

struct core_pending {				/* records on their way, in order */
	uint64_t no;
	enum core_op_kind kind;
	uint64_t seq;
	uint8_t wants;
	enum cache_scores set;
	size_t bytes;
	struct hash128 plan;
	uint64_t block;
};

/* A client's DROP_LABELS, under way or the last one. */
struct core_drop {
	bool active;
	bool released_too;
	uint64_t peer, request_id;
	struct hash128 boot;
	struct cache_plan *plans;		/* all that were stored when it began */
	size_t n_plans, cap;
	uint64_t next;				/* no sequence below has to be looked at */
	uint64_t n_labels, n_bytes, n_kept;
};

struct core {
	struct core_config cfg;
	const struct core_store *store;
	struct core_out out;
	size_t messages_cap, ops_cap, events_cap;
	bool failed;				/* no memory: the daemon must end */

	struct core_peer *peers;
	struct core_lease *leases, *lease_at[LEASE_BUCKETS];	/* by id mod LEASE_BUCKETS */
	size_t n_live, n_single;		/* leases not expired; of them with a sequence under suspicion */
	struct core_plan *plans, *turn;		/* turn: whose blocks are looked at first for the next lease */
	struct core_wait *waits;
	struct core_drop drop;
	struct core_seq **seqs;			/* hash table */
	size_t n_seqs, seqs_cap;
	struct core_pending *pending;		/* ring */
	size_t pending_at, n_pending, pending_cap;
	uint64_t next_op, durable, next_lease;

	uint8_t *held;				/* [n_heldout], POS_SCORED or POS_QUARANTINED */
	float *held_loss;			/* mean nats of a window */
	uint64_t held_scan, held_cursor, n_held;
	double heldout_loss;

	bool room, draining, same_model;
	uint32_t lease_rows;			/* cfg's, cut to what fits a frame */
	float *loss, *scratch;			/* [L] */
	uint8_t *rank;
	int32_t *tokens;			/* [L + 1] */
	uint64_t told_durable;			/* by core_durable; taken in by and by */
	uint64_t grant_turn;			/* the peer that had the last lease */
	bool more;				/* something is left for the next call */
	int64_t scan_left, scan_ms;		/* what is left of SCAN_STEP in this millisecond */
	struct core_stats stats;
};

/* core.c */
void core__event(struct core *c, enum log_level level, const char *name, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
struct core_message *core__send(struct core *c, uint64_t peer, enum wire_type type);	/* never NULL: a spare when out of memory */
void core__refuse(struct core *c, uint64_t peer, int code, const char *field, const char *expected, const char *found, const char *text,
    uint32_t retry_ms);
struct core_op *core__op(struct core *c, enum core_op_kind kind);	/* NULL: out of memory (failed is set) */
void core__op_done(struct core *c, struct core_op *op, uint8_t wants, size_t bytes);	/* numbered and queued */
struct core_seq *core__seq(struct core *c, uint64_t seq, bool make);
void core__seq_forget(struct core *c, uint64_t seq);	/* if there is nothing left to remember */
struct core_peer *core__peer(struct core *c, uint64_t id);
struct core_peer *core__boot(struct core *c, struct hash128 boot);
struct core_plan *core__plan(struct core *c, struct hash128 hash);
bool core__quarantined(struct core *c, uint64_t seq);
int core__score_of(struct core *c, uint64_t seq, unsigned k, float *out);	/* S(x) of a stored score; ERR_NOT_FOUND */
bool core__has_label(struct core *c, uint64_t seq);	/* a damaged one is dropped and counts as absent */
void core__save_plan(struct core *c, const struct core_plan *plan);
void core__peer_drop(struct core *c, uint64_t id);

/* hello.c */
void core__hello(struct core *c, uint64_t peer, const struct wire_hello *hello, int64_t now_ms);

/* work.c: blocks */
uint64_t core__order(const struct core *c, const struct core_plan *plan, uint64_t p);
void core__block_open(struct core *c, struct core_plan *plan, uint64_t no);
struct core_block *core__block_find(struct core_plan *plan, uint64_t no);
void core__block_finish(struct core *c, struct core_plan *plan, struct core_block *b);	/* all its labels are there: closed */
void core__blocks_close(struct core *c, struct core_plan *plan);	/* all active ones */
void core__scan(struct core *c);			/* a bounded step of what is not scanned yet */
void core__heldout_scan(struct core *c);
void core__seq_stored(struct core *c, uint64_t seq, uint8_t wants);	/* blocks learn that it is on the disk */
void core__seq_quarantined(struct core *c, uint64_t seq);
void core__seq_free(struct core *c, uint64_t seq);	/* its lease ended without a result: cursors go back */
void core__rows_written(struct core *c, struct hash128 plan, uint64_t block);
void core__heldout_stored(struct core *c, uint64_t seq);
bool core__block_done(const struct core *c, const struct core_plan *plan, uint64_t no);
uint64_t core__rows_ready(const struct core *c, const struct core_plan *plan);
void core__grant(struct core *c, int64_t now_ms);

/* choose.c: each step goes as far as scan_left reaches */
void core__choose_begin(struct core_block *b);
void core__choose_step(struct core *c, struct core_plan *plan, struct core_block *b);
void core__check_begin(struct core_block *b);
void core__check_step(struct core *c, struct core_plan *plan, struct core_block *b);	/* may close the block */
/* The row of a written block that stands at stream position p: rows are in that order. 0 and *i, ERR_NOT_FOUND, what the store said. */
int core__row_find(struct core *c, struct hash128 plan, uint64_t block, uint64_t kept, uint64_t p, uint64_t *i);

/* drop.c */
void core__drop_labels(struct core *c, const struct core_peer *peer, const struct wire_drop_labels *m);
void core__drop_step(struct core *c);

/* leases.c */
void core__lease_new(struct core *c, struct core_peer *peer, uint8_t wants, enum cache_scores set, const uint64_t *seqs, size_t n, bool single,
    int64_t now_ms);
void core__lease_renew(struct core *c, struct core_peer *peer, const struct wire_lease_renew *m, int64_t now_ms);
void core__lease_return(struct core *c, struct core_peer *peer, uint64_t id, int64_t now_ms);
void core__leases_back(struct core *c, struct hash128 boot, int64_t now_ms);	/* BYE */
/* A teacher that was lost is here again: it was cut off, and did not die of what it held. What it counted against sequences is taken back. */
void core__boot_back(struct core *c, struct hash128 boot);
void core__leases_tick(struct core *c, int64_t now_ms);
void core__result(struct core *c, struct core_peer *peer, const struct wire_message *msg, int64_t now_ms);
bool core__holds_single(const struct core *c, struct hash128 boot);

/* rows.c */
void core__rows_request(struct core *c, struct core_peer *peer, const struct wire_rows_request *m, int64_t now_ms);
void core__waits_check(struct core *c);
void core__waits_drop_peer(struct core *c, uint64_t peer);
void core__waits_drop_plan(struct core *c, const struct core_plan *plan);

#endif
