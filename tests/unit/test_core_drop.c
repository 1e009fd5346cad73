/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DROP_LABELS: the dropped and kept labels compared with a plain computation over the stored rows; which
 * peers may request it; repeated requests; plans that no peer has opened since the start.
 */
#include "core_sim.h"
#include "base/random/shuffle.h"

static const uint64_t one_teacher[] = {1};

enum { CLIENT = 50, BATCH = 4 };

static void
hello_client(struct sim *s, uint64_t peer, uint64_t boot)
{
	struct wire_message m = {.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_CLIENT, .boot_id = {boot, 5}, .name = "c",
	    .max_message = 1 << 16, .corpus = s->cfg.corpus}};

	say(s, peer, &m);
	CHECK(take(s, peer, WIRE_WELCOME).msg.type == WIRE_WELCOME);
}

static struct wire_dropped
drop(struct sim *s, uint64_t peer, uint64_t id, bool released_too)
{
	struct core_message m;

	say(s, peer, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {id, released_too}});
	for (int i = 0; i < 100 && (m = take(s, peer, WIRE_DROPPED)).msg.type != WIRE_DROPPED; i++)
		pass(s, 1);
	CHECK(m.msg.type == WIRE_DROPPED && m.msg.dropped.request_id == id);
	return m.msg.dropped;
}

static void
checkpointed(struct sim *s, uint64_t peer, struct hash128 plan, uint64_t step)
{
	say(s, peer, &(struct wire_message){.type = WIRE_CHECKPOINTED, .checkpointed = {1, plan, step}});
	CHECK(take(s, peer, WIRE_ACK).msg.type == WIRE_ACK);
}

/*
 * Makes a sim with a plan of 16 rows, all labelled: four blocks of 8 sequences, of which 4 are chosen. K =
 * batch, so step t is block t. Labels of sequences that are not chosen are kept too.
 */
static struct sim *
filled(struct hash128 *plan, struct wire_plan *w)
{
	struct sim *s = sim_new();

	s->cfg.keep_unselected = true;
	sim_start(s);
	hello_teacher(s, 1, 1);
	*w = plan_of(3, WIRE_MODE_SALT_DS, 16);
	*plan = hello_trainer(s, 20, w);
	work_all(s, one_teacher, 1);
	CHECK(s->n_blocks == 4);
	return s;
}

static size_t
labels(const struct sim *s)
{
	size_t n = 0;

	for (int i = 0; i < WINDOWS; i++)
		n += s->has_label[i];
	return n;
}

/* Checks that exactly the rows of the plan's blocks from first_block on have labels. */
static void
only_rows_from(const struct sim *s, struct hash128 plan, uint64_t first_block, const char *what)
{
	bool want[WINDOWS] = {false};

	for (size_t b = 0; b < s->n_blocks; b++)
		for (size_t i = 0; hash_equal(s->blocks[b].plan, plan) && s->blocks[b].block >= first_block && i < s->blocks[b].n; i++)
			want[CORPUS_SEQ_INDEX(s->blocks[b].rows[i].seq)] = true;
	for (int i = 0; i < WINDOWS; i++)
		CHECK_ROW(what, s->has_label[i] == want[i]);
}

static void
test_checkpoint(void)
{
	struct hash128 plan;
	struct wire_plan w;
	struct sim *s = filled(&plan, &w);
	struct wire_dropped d;
	uint64_t seqs[16];
	bool quarantined[16];
	struct core_message m;

	CHECK(labels(s) == 32);
	hello_client(s, CLIENT, 1);
	/* no checkpoint yet: the labels of all rows are needed, others are not */
	d = drop(s, CLIENT, 1, false);
	CHECK(d.labels == 16 && d.kept == 16 && d.bytes == 16 * (LABEL_BYTES + 9 + 8));
	only_rows_from(s, plan, 0, "no checkpoint");
	checkpointed(s, 20, plan, 1);
	checkpointed(s, 20, plan, 3);
	d = drop(s, CLIENT, 2, false);
	CHECK(d.labels == 12 && d.kept == 4);
	only_rows_from(s, plan, 3, "below the oldest kept checkpoint");
	CHECK(fetch(s, 20, plan, 12, 4, seqs, quarantined) == 4);
	/* a repeated request gets the same answer, without an effect */
	d = drop(s, CLIENT, 2, false);
	CHECK(d.labels == 12 && d.kept == 4);
	d = drop(s, CLIENT, 3, false);
	CHECK(d.labels == 0 && d.kept == 4);
	/* If earlier rows are requested nevertheless, their labels are made again. */
	say(s, 20, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {9, plan, 0, 4, 0}});
	CHECK(take(s, 20, WIRE_ROWS).msg.type == WIRE_NONE);
	work_all(s, one_teacher, 1);
	m = take(s, 20, WIRE_ROWS);
	CHECK(m.msg.type == WIRE_ROWS);
	done_with(&m);
	sim_end(s);
}

static void
test_released(void)
{
	struct hash128 plan;
	struct wire_plan w;
	struct sim *s = filled(&plan, &w);
	struct wire_dropped d;

	hello_client(s, CLIENT, 1);
	checkpointed(s, 20, plan, 2);
	say(s, 20, &(struct wire_message){.type = WIRE_RELEASE, .release = {2, plan, 4}});
	/* Rows that are damaged, here incomplete, may be any of their block: all its labels stay. Those of earlier blocks go. */
	for (size_t b = 0; b < s->n_blocks; b++)
		s->blocks[b].n -= s->blocks[b].block == 3;
	d = drop(s, CLIENT, 3, false);
	CHECK(d.kept == 12 && d.labels == 20);
	for (size_t b = 0; b < s->n_blocks; b++)
		s->blocks[b].n += s->blocks[b].block == 3;
	d = drop(s, CLIENT, 1, false);
	CHECK(d.labels == 4 && d.kept == 8);
	only_rows_from(s, plan, 2, "released: rows that a kept checkpoint may train again");
	d = drop(s, CLIENT, 2, true);
	CHECK(d.labels == 8 && d.kept == 0 && labels(s) == 0);
	sim_end(s);
}

/* Blocks that are not chosen yet keep all their labels; also for plans that were only read from disk. */
static void
test_open(void)
{
	struct hash128 plan, other;
	struct wire_plan w, v = plan_of(4, WIRE_MODE_SALT_DS, 16);
	struct sim *s = filled(&plan, &w);
	struct wire_dropped d;

	checkpointed(s, 20, plan, 4);		/* no label of the first plan is needed any more */
	say(s, 1, &(struct wire_message){.type = WIRE_BYE});
	/* the second plan has no teacher and no scores, so nothing is chosen */
	other = hello_trainer(s, 21, &v);
	CHECK(!hash_equal(plan, other));
	hello_client(s, CLIENT, 1);
	for (int restart = 0; restart < 2; restart++) {
		const char *what = restart ? "a plan on the disk" : "an open plan";
		bool want[WINDOWS] = {false};
		size_t n = 0, before = labels(s);

		for (uint64_t p = 0; p < 32; p++)
			want[shuffle_order(4, WINDOWS, p)] = true;
		for (int i = 0; i < WINDOWS; i++)
			n += want[i] = want[i] && s->has_label[i];
		d = drop(s, CLIENT, 1, true);
		CHECK_ROW(what, n > 4 && d.kept == n && d.labels == before - n && (d.labels > 0) == (restart == 0));
		for (int i = 0; i < WINDOWS; i++)
			CHECK_ROW(what, s->has_label[i] == want[i]);
		if (restart == 0) {		/* no peer opens either plan after this restart */
			sim_stop(s);
			sim_start(s);
			hello_client(s, CLIENT, 2);
		}
	}
	for (size_t b = 0; b < s->n_blocks; b++)
		CHECK(hash_equal(s->blocks[b].plan, plan));	/* nothing was chosen for the other plan */
	sim_end(s);
}

static void
test_who(void)
{
	struct hash128 plan;
	struct wire_plan w;
	struct sim *s = filled(&plan, &w);
	struct core_stats before, after;
	struct core_message m;

	core_stats(s->core, &before);
	say(s, 1, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {1, true}});
	say(s, 20, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {1, true}});
	pass(s, 5);
	core_stats(s->core, &after);
	CHECK(after.n_bad_messages == before.n_bad_messages + 2 && labels(s) == 32);

	/* The answer waits for the commit. */
	hello_client(s, CLIENT, 1);
	s->hold_commits = true;
	say(s, CLIENT, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {1, false}});
	pass(s, 5);
	CHECK(take(s, CLIENT, WIRE_DROPPED).msg.type == WIRE_NONE && labels(s) == 32);
	s->hold_commits = false;
	pass(s, 5);
	m = take(s, CLIENT, WIRE_DROPPED);
	CHECK(m.msg.type == WIRE_DROPPED && m.msg.dropped.labels == 16 && labels(s) == 16);

	/* A damaged plan: the labels that it needs are not known. */
	s->plans_damaged = true;
	say(s, CLIENT, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {2, true}});
	pass(s, 5);
	CHECK(take(s, CLIENT, WIRE_REFUSE).msg.refuse.code == 65 && labels(s) == 16);
	sim_end(s);
}

/* Work that does not fit in one time slice continues in the next; meanwhile another client must wait. */
static void
test_two(void)
{
	struct hash128 plan;
	struct wire_plan w;
	struct sim *s = filled(&plan, &w);
	struct core_message m;
	uint64_t id = 0;

	hello_client(s, CLIENT, 1);
	hello_client(s, CLIENT + 1, 2);
	do {
		say(s, CLIENT, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {++id, false}});
		m = take(s, CLIENT, WIRE_DROPPED);
	} while (m.msg.type == WIRE_DROPPED && id < 1000);
	CHECK(id > 1 && id < 1000 && core_wait_ms(s->core) <= 1);
	say(s, CLIENT + 1, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {1, false}});
	m = take(s, CLIENT + 1, WIRE_REFUSE);
	CHECK(m.msg.type == WIRE_REFUSE && m.msg.refuse.retry_ms > 0);
	pass(s, 1);
	m = take(s, CLIENT, WIRE_DROPPED);
	CHECK(m.msg.type == WIRE_DROPPED && m.msg.dropped.request_id == id && m.msg.dropped.labels == 0 && m.msg.dropped.kept == 16);
	CHECK(drop(s, CLIENT + 1, 1, false).kept == 16);
	sim_end(s);
}

int
main(void)
{
	test_checkpoint();
	test_released();
	test_open();
	test_who();
	test_two();
	return check_done();
}
