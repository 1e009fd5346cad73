/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core - all decisions of selectord. It has no socket, clock, file or log: state, now_ms and a message go in;
 * messages to send, records to write and lines to log come out. It reads the cache through a struct
 * core_store, so that tests replay it from memory.
 *
 * From HELLO to row: a HELLO opens a plan. Its stream positions p = 0, 1, ... are divided into blocks of W;
 * block b belongs to shard b mod S. The core first looks up what is stored of a block, then leases its
 * sequences to teachers for SCORE. When all W scores are known, data/select chooses K of them, and the
 * block's rows are written, once. Then the chosen sequences are leased for LABEL. If one model scores and
 * labels, a lease asks for both. Mode none chooses all W without scores; mode file needs no scores from a
 * teacher. If its file is a list, each block takes the next K sequences of the list. A ROWS_REQUEST is
 * answered when its rows and labels are stored.
 *
 * Some messages must wait for the disk. Every record to write has a number (core_op.no, growing by one). A
 * message with after > 0 may be sent when the record of that number is committed. core_durable() reports
 * commits to the core.
 */
#ifndef SALT_SELECTORD_CORE_H
#define SALT_SELECTORD_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include "data/cache/cache.h"
#include "base/err/err.h"
#include "base/hash/hash.h"
#include "base/log/log.h"
#include "fabric/wire/status_answer.h"
#include "fabric/wire/wire.h"

struct blend;
struct core;
struct mem_arena;
struct select_file;

/*
 * Access to the cache and the corpora. Bytes are borrowed until the caller of the core ends its read
 * transaction, which it must not do before it has encoded the messages of that call. All return 0,
 * ERR_NOT_FOUND, ERR_CORRUPT or errno.
 */
struct core_store {
	void *arg;
	int (*label)(void *arg, uint64_t seq, struct cache_bytes *out);
	int (*scores)(void *arg, enum cache_scores set, uint64_t seq, struct cache_bytes *out);
	int (*rows_count)(void *arg, struct hash128 plan, uint64_t block, uint64_t *n);
	int (*rows)(void *arg, struct hash128 plan, uint64_t block, uint64_t first, size_t n, struct cache_row *out);
	int (*plan)(void *arg, struct hash128 plan, struct cache_plan *out);
	int (*plans)(void *arg, int (*each)(void *each_arg, const struct cache_plan *plan), void *each_arg);	/* ERR_CORRUPT: one is damaged */
	int (*label_next)(void *arg, uint64_t *seq, struct cache_bytes *out);		/* as cache_labels_next */
	int (*tokens)(void *arg, uint64_t seq, int32_t *out);		/* the sequence's L + 1 ids */
	int (*n_results)(void *arg, uint64_t *n);	/* sequences with a label or a score, whichever are more */
	/*
	 * Checks that bytes are a label record of the label set for this sequence. 0, or an error with a
	 * note.
	 */
	int (*check_label)(void *arg, uint64_t seq, const void *bytes, size_t len, struct err_note *note);
};

struct core_config {
	struct hash128 boot_id;
	uint32_t shard, n_shards;
	uint32_t max_message;			/* selectord's own, bytes */
	uint32_t lease_rows, lease_ms;
	int64_t teacher_idle_ms;		/* 0: never */
	uint64_t n_heldout;			/* held-out sequences to score, 0: none */
	uint32_t n_valid;			/* ids of the tokenizer */
	uint64_t record_max;			/* largest size of a label record, bytes */
	struct wire_corpus corpus, heldout;	/* complete; heldout may be absent */
	const struct blend *order;		/* of corpus; borrowed, must outlive the core. NULL: it has
						   one part */
	struct wire_label_set label_set;	/* complete */
	struct wire_bytes unigram;		/* for WELCOME; borrowed, must outlive the core */
	struct wire_score_set score_set;	/* complete */
	const struct select_file *file;		/* for plans of mode file; NULL: none. Borrowed, must outlive
						   the core */
	struct wire_score_set file_set;		/* complete, with file: its hash as the scorer */
	bool keep_unselected;
	bool rows_wait_heldout;			/* until_margin: rows are sent only when heldout_loss_nats is
						   known */
	uint32_t quarantine_teachers;		/* 1 .. 3: different teachers that fail on a sequence until quarantine */
	double max_quarantined;			/* share of a plan's sequences in quarantine that it may train with */
};

/* Limits. */
enum {
	CORE_PLANS_MAX = 64,			/* in memory; a plan without a connected peer is removed to
						   make room for another */
	CORE_PEERS_MAX = 4096,
	CORE_WAITS_MAX = 64,			/* row requests of one peer that wait; the oldest one is dropped */
	CORE_BAD_MAX = 3,			/* wrong results of one teacher until it is rejected */
	CORE_ERRORS_MAX = 8,			/* sequences that one teacher may report an error for, and */
	CORE_ERRORS_PER = 50,			/* one more for so many that it delivers; after more errors it
						   is rejected */
	CORE_AWAY_MS = 600000,			/* a rejected teacher is refused for this time */
	CORE_KNOWN_MAX = 4096,			/* teachers whose errors are remembered */
	CORE_MISUSE_MAX = 8,			/* messages that a peer had no right to send, until it is
						   disconnected */
	CORE_EPOCHS_MAX = 4096,			/* how often a plan may go through the corpus */
	CORE_POSITIONS_MIN = 1 << 24,		/* but so many stream positions are always accepted */
	CORE_WINDOW_MIN = 1 << 16,		/* block sizes up to this are always accepted; else at most
						   CORE_WINDOW_EPOCHS times the corpus */
	CORE_WINDOW_EPOCHS = 4,
	CORE_SILENT_MS = 120000			/* a peer that sends nothing for this time is forgotten */
};

/* A record to write. The receiver owns it: core_op_free. */
enum core_op_kind {
	CORE_OP_RESULT,				/* scores and/or label of seq */
	CORE_OP_ROWS,				/* rows of plan and block, and labels to drop in the same commit */
	CORE_OP_DROP_LABEL, CORE_OP_DROP_SCORES,	/* damaged records */
	CORE_OP_PLAN, CORE_OP_ATTEMPTS, CORE_OP_DROP_ATTEMPTS, CORE_OP_QUARANTINE
};

struct core_op {
	uint64_t no;
	STAILQ_ENTRY(core_op) link;		/* link and done are for the receiver */
	bool done;
	struct core_pending *pending;		/* private to the core */
	enum core_op_kind kind;
	uint64_t seq;
	enum cache_scores set;
	const uint8_t *scores, *label;		/* RESULT: NULL where there is none; in held */
	size_t scores_len, label_len;
	struct mem_arena *held;			/* arena of the message that they arrived in; released with
						   the op */
	struct hash128 plan_hash;		/* ROWS */
	uint64_t block;
	struct cache_row *rows;
	size_t n_rows;
	uint64_t *drops;
	size_t n_drops;
	struct cache_plan plan;
	struct cache_attempts attempts;
	struct cache_quarantine quarantine;
};

void core_op_free(struct core_op **op);		/* takes NULL */

struct core_message {
	uint64_t peer;
	uint64_t after;				/* 0: now; else when this record is committed */
	bool end;				/* disconnect the peer after this message (a final REFUSE) */
	struct wire_message msg;
	void *memory[2];			/* private to the core */
};

struct core_event {
	enum log_level level;
	char name[40];
	char text[400];
};

/*
 * The output of one call, valid until core_clear. The caller takes ops by setting their pointers to NULL;
 * core_clear frees the others.
 */
struct core_out {
	struct core_message *messages;
	size_t n_messages;
	struct core_op **ops;
	size_t n_ops;
	struct core_event *events;
	size_t n_events;
};

/*
 * core_check - checks that the label of one sequence, and its tokens, fit into a frame. 0, or ERR_CONFIG with
 * the numbers in the note.
 */
int core_check(const struct core_config *cfg, struct err_note *note);

/* core_new - 0 and *core; the error of core_check; ENOMEM. The store must outlive it. */
int core_new(struct core **core, const struct core_config *cfg, const struct core_store *store, struct err_note *note);
void core_destroy(struct core **core);			/* takes NULL */

/* Call these first, with the stored records of sequences that failed before. 0 or ENOMEM. */
int core_load_attempts(struct core *core, const struct cache_attempts *a);
int core_load_quarantine(struct core *core, const struct cache_quarantine *q);

/*
 * core_message - handles a decoded message of a peer (the number of its connection); key: the name of its
 * key, "" without keys. The core answers or refuses it, and counts messages that are invalid. Records to
 * write hold the arena of the RESULT that they arrived in, so a RESULT must come from wire_decode.
 * core_gone - the connection ended: waiting requests are dropped, leases stay with the boot id.
 * core_durable - records up to no are committed. core_room - says whether there is space to write. While there is
 * none, no leases are granted.
 * core_tick - time has passed; call it every 100 ms or so. core_drain - grant no leases from now on.
 * If memory is missing for a peer's request, that peer is refused for now; other work is retried later.
 */
void core_message(struct core *core, uint64_t peer, const char *key, const struct wire_message *msg, int64_t now_ms);
void core_gone(struct core *core, uint64_t peer);
void core_durable(struct core *core, uint64_t no, int64_t now_ms);
void core_room(struct core *core, bool room, int64_t now_ms);
void core_tick(struct core *core, int64_t now_ms);
void core_drain(struct core *core, int64_t now_ms);

/*
 * core_wait_ms - how long to wait for a message before core_tick: 0 if the last call left something to grant
 * or to process, 1 if the lookups of this millisecond are used up, INT64_MAX if there is nothing left to do.
 */
int64_t core_wait_ms(const struct core *core);

const struct core_out *core_out(struct core *core);
void core_clear(struct core *core);

/* For status; all numbers are present values or counts since the start. */
struct core_stats {
	uint64_t n_leases_granted, n_leases_expired, n_leases_returned, n_scores, n_labels, n_label_bytes,
	    n_duplicates, n_differed;
	uint64_t n_bad_results, n_bad_messages, n_refused, n_rows_sent, n_row_requests, n_quarantined, n_dead,
	    n_errors, n_blocks_written;
	uint64_t n_corrupt, n_dropped, n_away, n_no_memory;
	size_t n_peers, n_teachers, n_trainers, n_leases, n_seqs_leased, n_waiting, n_ops_pending, n_plans,
	    n_plans_released;
	size_t n_blocks_active, n_plans_wanted;		/* wanted: not released, and a peer is connected or
							   left it with BYE */
	uint64_t pending_bytes;
	uint64_t rows_ready;			/* of the newest plan, from row 0 without a gap */
	uint64_t rows_asked;			/* of the newest plan: one past the highest row requested */
	uint64_t rows_total;			/* of the newest plan: n_rows */
	double heldout_loss_nats;		/* NaN: not known */
	bool no_room;
	char starved[160];			/* "no teacher for model ...", "" if none is missing */
	char failing[160];			/* "sequence ... failed on ...", "" if none waits for another teacher */
};

void core_stats(const struct core *core, struct core_stats *out);

/*
 * Histogram of S(x), over the blocks chosen since the start: bins of CORE_SCORE_BIN_NATS from 0 on, the last
 * one without an upper end.
 */
#define CORE_SCORE_BIN_NATS 0.25
enum { CORE_SCORE_BINS = 48 };

struct core_scores {
	uint64_t scored[CORE_SCORE_BINS], kept[CORE_SCORE_BINS];
};

struct core_plan_stats {
	struct hash128 hash;
	uint64_t n_rows, rows_ready, rows_asked, n_blocks_active;
	bool released;
	struct core_scores scores;
};

/* Both fill at most max entries and return how many there are. */
size_t core_plan_stats(const struct core *core, struct core_plan_stats *out, size_t max);

size_t core_peers(const struct core *core, struct wire_peer *out, size_t max, int64_t now_ms);

#endif
