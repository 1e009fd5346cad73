/* SPDX-License-Identifier: Apache-2.0 */
/* selectord's core with teachers that vanish, return, or disagree. Called by test_core.c. */
#include "core_sim.h"

/* While a teacher holds the last lease of a block, another one gets leases of the next block. */
static void
test_next_block(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 80);
	struct core_message m, last;

	plan.window = 40;
	sim_start(s);
	hello_trainer(s, 50, &plan);
	hello_teacher(s, 1, 1);
	hello_teacher(s, 2, 2);
	for (int i = 0; i < 10; i++) {
		credit(s, 1, 1);
		REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
		CHECK(m.msg.lease.n_seqs == 4);
		if (i < 9) {
			work(s, 1, &m, UINT64_MAX);
			done_with(&m);
		}
	}
	last = m;
	credit(s, 2, 1);
	CHECK((m = take(s, 2, WIRE_LEASE)).msg.type == WIRE_LEASE && m.msg.lease.n_seqs == 4);
	done_with(&m);
	done_with(&last);
	sim_end(s);
}

/*
 * A host loses its connection repeatedly: its teachers vanish while each holds a single sequence, and return
 * as the same processes. Nothing goes into quarantine.
 */
static void
test_cut_off(void)
{
	const uint64_t all[3] = {104, 105, 106};
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 4);
	uint64_t first = UINT64_MAX, want[4], got[4];
	struct core_stats st;
	struct hash128 hash;
	bool quarantined[4];

	sim_start(s);
	hello_trainer(s, 50, &plan);
	/* the first lease has four sequences, the others one */
	for (uint64_t boot = 3; boot <= 6; boot++) {
		struct core_message m;

		hello_teacher(s, boot, boot);
		credit(s, boot, 1);
		REQUIRE((m = take(s, boot, WIRE_LEASE)).msg.type == WIRE_LEASE);
		CHECK(m.msg.lease.n_seqs == (boot == 3 ? 4 : 1));
		if (boot == 4)
			first = m.msg.lease.seqs[0];
		CHECK(boot < 4 || m.msg.lease.seqs[0] == first);
		done_with(&m);
		pass(s, 1500);
		if (boot > 3) {
			CHECK(s->attempts[first].n_dead == 1);
			hello_teacher(s, 100 + boot, boot);
			CHECK(s->attempts[first].n_dead == 0);
		}
	}
	core_stats(s->core, &st);
	CHECK(st.n_dead == 3 && st.n_quarantined == 0 && s->n_quarantine == 0);
	work_all(s, all, 3);
	hash = hello_trainer(s, 50, &plan);
	CHECK(fetch(s, 50, hash, 0, 4, got, quarantined) == 4);
	reference(&plan, 4, UINT64_MAX, want);
	CHECK(memcmp(want, got, sizeof(want)) == 0);
	sim_end(s);
}

/*
 * A second result for a sequence with another label or other scores is counted, whether the first result is
 * committed or still pending; the first result is kept. The same bytes again are not counted.
 */
static void
test_differs(void)
{
	static const struct { const char *what; bool hold, label, scores; } cases[] = {
		{"label, pending", true, true, false}, {"scores, pending", true, false, true}, {"both, pending", true, true, true},
		{"same, pending", true, false, false}, {"label, stored", false, true, false}, {"scores, stored", false, false, true},
		{"same, stored", false, false, false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sim *s = sim_new();
		struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 4);
		bool differs = cases[i].label || cases[i].scores;
		uint8_t scores[3 * L], label[LABEL_BYTES], want_scores[3 * L], want_label[LABEL_BYTES];
		struct wire_result_row row = {0};
		struct core_stats st;
		struct core_message m, done;
		uint64_t seq;

		s->cfg.keep_unselected = true;
		sim_start(s);
		hello_trainer(s, 50, &plan);
		hello_teacher(s, 1, 1);
		credit(s, 1, 1);
		REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE && m.msg.lease.want_score &&
		    m.msg.lease.want_label);
		s->hold_commits = cases[i].hold;
		work(s, 1, &m, m.msg.lease.seqs[3]);		/* all but one, so that the lease stays */
		seq = row.seq = m.msg.lease.seqs[0];
		make_score(cases[i].scores ? seq + 1 : seq, scores);
		make_label(seq, label);
		label[LABEL_BYTES - 1] ^= cases[i].label;
		row.scores = (struct wire_bytes){scores, sizeof(scores)};
		row.label = (struct wire_bytes){label, sizeof(label)};
		say(s, 1, &(struct wire_message){.type = WIRE_RESULT, .result = {m.msg.lease.lease_id, &row, 1}});
		core_stats(s->core, &st);
		CHECK_ROW(cases[i].what,
		    st.n_differed == differs && st.n_duplicates == 1 && st.n_labels == 3 && st.n_scores == 3);
		CHECK_ROW(cases[i].what, !cases[i].hold || take(s, 1, WIRE_DONE).msg.type == WIRE_NONE);
		s->hold_commits = false;
		pump(s);
		for (int n = 0; n < 2; n++) {
			CHECK_ROW(cases[i].what, (done = take(s, 1, WIRE_DONE)).msg.type == WIRE_DONE);
			done_with(&done);
		}
		make_score(seq, want_scores);
		make_label(seq, want_label);
		CHECK_ROW(cases[i].what,
		    memcmp(s->score[CACHE_SCORES_SCORER][seq], want_scores, sizeof(want_scores)) == 0);
		CHECK_ROW(cases[i].what, memcmp(s->label[seq], want_label, sizeof(want_label)) == 0);
		done_with(&m);
		sim_end(s);
	}
}

/* While a teacher scores a sequence no other gets it for labelling, because its score may exclude it. */
static void
test_no_label_before_score(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 4), wide = plan;	/* the same sequences in larger blocks */
	struct wire_message h = {.type = WIRE_HELLO,
	    .hello = {.protocol_version = 1,
		.role = WIRE_ROLE_TEACHER,
		.boot_id = {1, 0},
		.name = "t",
		.max_message = 1 << 16,
		.n_models = 1}};
	struct core_message scores, m;
	size_t n = 0;

	h.hello.models[0] = (struct wire_model){teacher, "fp32/x", true, false, 128, 1024, {true, {2, 2}}};
	wide.window = 16;
	sim_start(s);
	hello_trainer(s, 51, &wide);
	hello_trainer(s, 50, &plan);
	say(s, 1, &h);
	hello_teacher(s, 2, 2);
	credit(s, 1, 1);
	REQUIRE((scores = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
	CHECK(scores.msg.lease.want_score && !scores.msg.lease.want_label);
	credit(s, 2, 8);
	for (; (m = take(s, 2, WIRE_LEASE)).msg.type == WIRE_LEASE; n += m.msg.lease.n_seqs, done_with(&m)) {
		CHECK(m.msg.lease.want_score && m.msg.lease.want_label);
		for (size_t i = 0; i < m.msg.lease.n_seqs; i++)
			for (size_t j = 0; j < 4; j++)
				CHECK(m.msg.lease.seqs[i] != scores.msg.lease.seqs[j]);
	}
	CHECK(n == 16 - 4);
	done_with(&scores);
	sim_end(s);
}

/*
 * A connected teacher that lets its leases expire repeatedly counts once against a sequence, so the sequence
 * does not go into quarantine.
 */
static void
test_same_teacher_counts_once(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 8);
	struct core_stats st;
	uint64_t first = 0;

	sim_start(s);
	hello_trainer(s, 50, &plan);
	hello_teacher(s, 1, 1);
	for (int i = 0; i < 6; i++) {
		struct core_message m;

		credit(s, 1, 1);
		REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
		CHECK(m.msg.lease.n_seqs == (i == 0 ? 4 : 1));
		first = i == 1 ? m.msg.lease.seqs[0] : first;
		CHECK(i < 2 || m.msg.lease.seqs[0] == first);
		done_with(&m);
		pass(s, 1500);
	}
	core_stats(s->core, &st);
	CHECK(st.n_leases_expired == 6 && st.n_dead == 1 && st.n_quarantined == 0 && s->attempts[first].n_dead == 1);
	sim_end(s);
}

/*
 * selectord gets a stop request while leases are held, long before they expire. Nothing new is leased;
 * results that arrive are stored and acknowledged. After the restart a result for an old lease is neither
 * stored nor acknowledged, does not count against its teacher, and its sequence is leased again.
 */
static void
test_stop_before_expiry(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 16);
	struct core_message held[2], m;
	struct core_stats st;

	sim_start(s);
	hello_trainer(s, 50, &plan);
	for (uint64_t t = 1; t <= 2; t++) {
		hello_teacher(s, t, t);
		credit(s, t, 1);
		REQUIRE((held[t - 1] = take(s, t, WIRE_LEASE)).msg.type == WIRE_LEASE && held[t - 1].msg.lease.n_seqs == 4);
	}
	core_drain(s->core, s->now);
	pump(s);
	work(s, 1, &held[0], UINT64_MAX);
	CHECK((m = take(s, 1, WIRE_DONE)).msg.type == WIRE_DONE && m.msg.done.n_seqs == 4);
	done_with(&m);
	say(s, 2, &(struct wire_message){.type = WIRE_LEASE_RETURN, .lease_return = {held[1].msg.lease.lease_id + 1000}});	/* not its own */
	credit(s, 1, 4);
	CHECK(take(s, 1, WIRE_LEASE).msg.type == WIRE_NONE);
	core_stats(s->core, &st);
	CHECK(st.n_labels == 4 && st.n_leases == 1 && st.n_leases_expired == 0);
	sim_stop(s);

	sim_start(s);
	hello_trainer(s, 50, &plan);
	hello_teacher(s, 2, 2);
	work(s, 2, &held[1], UINT64_MAX);
	core_stats(s->core, &st);
	CHECK(take(s, 2, WIRE_DONE).msg.type == WIRE_NONE && st.n_labels == 0 && st.n_bad_results == 0 && st.n_bad_messages == 0);
	for (size_t i = 0; i < 4; i++)
		CHECK(!s->has_label[held[1].msg.lease.seqs[i]]);
	work_all(s, (const uint64_t[]){2}, 1);
	core_stats(s->core, &st);
	CHECK(st.n_labels == 12 && st.rows_ready == 16 && st.n_dead == 0 && st.n_quarantined == 0 && st.n_away == 0);
	for (size_t i = 0; i < 4; i++)
		CHECK(s->attempts[held[1].msg.lease.seqs[i]].n_dead == 0);
	done_with(&held[0]);
	done_with(&held[1]);
	sim_end(s);
}

void
test_core_teachers(void)
{
	test_stop_before_expiry();
	test_no_label_before_score();
	test_same_teacher_counts_once();
	test_differs();
	test_next_block();
	test_cut_off();
}
