/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the core over a store in memory (core_sim.h). The expected rows are computed there directly: all
 * scores, a sort, no leases.
 */
#include "core_sim.h"
#include "data/corpus/blend.h"
#include "base/random/shuffle.h"

static const uint64_t both[] = {1, 2};

/* Rows match the definition: two modes, one model or two, one shard or two, over the end of an epoch. */
static void
test_rows(void)
{
	static const struct {
		const char *what;
		enum wire_mode mode;
		bool two_models;
		uint32_t n_shards;
		uint64_t pool;
	} cases[] = {
		{"salt_ds", WIRE_MODE_SALT_DS, false, 1}, {"none", WIRE_MODE_NONE, false, 1}, {"salt_ds, two models", WIRE_MODE_SALT_DS, true, 1},
		{"salt_ds, two shards", WIRE_MODE_SALT_DS, false, 2}, {"none, three shards", WIRE_MODE_NONE, true, 3},
		{"salt_ds, four shards", WIRE_MODE_SALT_DS, false, 4}, {"pool", WIRE_MODE_SALT_DS, false, 1, 40},
		{"pool, two models, two shards", WIRE_MODE_SALT_DS, true, 2, 40},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wire_plan plan = plan_of(3, cases[i].mode, 70);
		uint64_t W = cases[i].pool > 0 ? cases[i].pool : 8, K = cases[i].mode == WIRE_MODE_NONE ? W : W / 2, want[70], got[70];
		struct sim *shard[4];
		struct hash128 hash = {0};

		plan.pool = cases[i].pool;
		reference(&plan, 70, UINT64_MAX, want);
		for (uint32_t n = 0; n < cases[i].n_shards; n++) {
			shard[n] = calloc(1, sizeof(struct sim));
			sim_config(shard[n], n, cases[i].n_shards, cases[i].two_models);
			sim_start(shard[n]);
			hello_teacher(shard[n], 1, 1);
			hello_teacher(shard[n], 2, 2);
			hash = hello_trainer(shard[n], 50, &plan);
			work_all(shard[n], both, 2);
		}
		for (uint64_t g = 0; g < 70;) {
			struct sim *s = shard[g / K % cases[i].n_shards];
			uint32_t count = (uint32_t)(70 - g < 6 ? 70 - g : 6);
			size_t n;

			if (cases[i].n_shards > 1 && count > K - g % K)
				count = (uint32_t)(K - g % K);
			n = fetch(s, 50, hash, g, count, got + g, NULL);
			CHECK_ROW(cases[i].what, n == count);
			if (n == 0)
				break;
			g += n;
		}
		CHECK_ROW(cases[i].what, memcmp(want, got, sizeof(want)) == 0);
		for (uint32_t n = 0; n < cases[i].n_shards; n++) {
			struct core_stats st;

			core_stats(shard[n]->core, &st);
			CHECK_ROW(cases[i].what, st.n_leases == 0);
			CHECK_ROW(cases[i].what, st.n_waiting == 0);
			CHECK_ROW(cases[i].what, st.n_bad_results == 0);
			/* One model makes scores and labels in one pass, so nothing is leased twice. */
			if (cases[i].mode == WIRE_MODE_SALT_DS && !cases[i].two_models) {
				CHECK_ROW(cases[i].what, shard[n]->n_scores_asked > 0);
				CHECK_ROW(cases[i].what, shard[n]->n_both_asked == shard[n]->n_scores_asked);
			}
			CHECK_ROW(cases[i].what, st.n_leases_expired == 0);
			sim_end(shard[n]);
		}
	}
}

/*
 * With one model, labels of sequences that are not chosen are dropped when the block's rows are written. With
 * two models, labels are requested for chosen sequences only.
 */
static void
test_labels_kept(void)
{
	struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 24);	/* six blocks of 8: 48 of 50 windows */

	for (int two = 0; two < 2; two++) {
		struct sim *s = sim_new();
		size_t n = 0;

		sim_config(s, 0, 1, two);
		sim_start(s);
		hello_teacher(s, 1, 1);
		hello_trainer(s, 50, &plan);
		work_all(s, both, 1);
		for (size_t i = 0; i < WINDOWS; i++)
			n += s->has_label[i];
		CHECK(n == 24);
		CHECK(s->n_scores_asked == 48);
		CHECK(s->n_labels_asked == (two ? 24u : 48u));	/* one model: scores and labels in one pass */
		sim_end(s);
	}
}

/* A DONE waits for the commit; so does the answer to a row request. */
static void
test_acknowledged_after_commit(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 8);
	struct core_stats st;
	struct hash128 hash;
	struct core_message m;
	uint64_t seqs[8];

	sim_start(s);
	hello_teacher(s, 1, 1);
	hash = hello_trainer(s, 50, &plan);
	s->hold_commits = true;
	credit(s, 1, 2);
	for (int i = 0; i < 2; i++) {
		REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
		/* all but one, so that the lease stays; then the same again */
		work(s, 1, &m, m.msg.lease.seqs[3]);
		work(s, 1, &m, m.msg.lease.seqs[3]);
		work(s, 1, &m, UINT64_MAX);
		done_with(&m);
	}
	core_stats(s->core, &st);
	CHECK(st.n_labels == 8 && st.n_duplicates == 12);
	CHECK(take(s, 1, WIRE_DONE).msg.type == WIRE_NONE);
	CHECK(fetch(s, 50, hash, 0, 8, seqs, NULL) == 0);
	credit(s, 1, 2);
	CHECK(take(s, 1, WIRE_LEASE).msg.type == WIRE_NONE);	/* results are pending: not leased again */
	s->hold_commits = false;
	pump(s);
	CHECK((m = take(s, 1, WIRE_DONE)).msg.type == WIRE_DONE && m.msg.done.n_seqs == 3);
	done_with(&m);
	/* the answer to the waiting request */
	CHECK((m = take(s, 50, WIRE_ROWS)).msg.type == WIRE_ROWS && m.msg.rows.n_rows == 8);
	done_with(&m);
	sim_end(s);
}

/* The process ends with uncommitted records: they were not acknowledged, and are leased again. */
static void
test_restart(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 70);
	uint64_t want[70], got[70];
	struct hash128 hash;

	reference(&plan, 70, UINT64_MAX, want);
	for (int round = 0; round < 40; round++) {
		struct core_message m;

		sim_start(s);
		s->hold_commits = false;
		hello_teacher(s, 1, 1);
		hash = hello_trainer(s, 50, &plan);
		credit(s, 1, 3);
		for (int i = 0; i < 3 && (m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE; i++) {
			s->hold_commits = i == 2;
			work(s, 1, &m, UINT64_MAX);
			done_with(&m);
		}
		fetch(s, 50, hash, 0, 70, got, NULL);
		sim_stop(s);
	}
	sim_start(s);
	s->hold_commits = false;
	hello_teacher(s, 1, 1);
	hash = hello_trainer(s, 50, &plan);
	work_all(s, both, 1);
	CHECK(fetch(s, 50, hash, 0, 70, got, NULL) == 70 && memcmp(want, got, sizeof(got)) == 0);
	sim_end(s);
}

/*
 * A blend: 144 positions go through the small part three times and not once through the large one. Rows are
 * chosen from all parts together, from each part separately, and without scores.
 */
static void
test_blend(void)
{
	static const uint64_t n_windows[3] = {12, 30, 8};
	static const uint32_t shares[3] = {5, 3, 2};
	const struct wire_plan plans[3] = {plan_of(3, WIRE_MODE_NONE, 70), plan_of(3, WIRE_MODE_SALT_DS, 70), plan_of(3, WIRE_MODE_SALT_DS, 70)};
	struct blend *order;
	uint64_t want[70], got[70], before[70] = {0};

	REQUIRE(blend_new(&order, n_windows, shares, 3, NULL) == 0);
	reference_order = order;
	for (int i = 0; i < 3; i++) {
		struct sim *s = sim_new();
		struct wire_plan plan = plans[i];
		struct hash128 hash;

		plan.by_part = i == 2;
		s->cfg.order = order;
		reference(&plan, 70, UINT64_MAX, want);
		sim_start(s);
		hello_teacher(s, 1, 1);
		hash = hello_trainer(s, 50, &plan);
		work_all(s, both, 1);
		CHECK(fetch(s, 50, hash, 0, 70, got, NULL) == 70 && memcmp(want, got, sizeof(got)) == 0);
		CHECK(memcmp(got, before, sizeof(got)) != 0);
		memcpy(before, got, sizeof(got));
		if (plan.by_part) {		/* the shares are those of the order over 7 whole periods */
			uint64_t n[3] = {0, 0, 0};

			for (int g = 0; g < 70; g++)
				n[got[g] < 12 ? 0 : got[g] < 42 ? 1 : 2]++;
			CHECK(n[0] == 35 && n[1] == 21 && n[2] == 14);
		}
		sim_end(s);
	}
	reference_order = NULL;
	blend_destroy(&order);
}

/*
 * A poison sequence: every teacher that gets it vanishes. The sequences of its lease are leased singly; after
 * three teachers only the poison sequence is in quarantine.
 */
static void
test_poison(void)
{
	for (int mode = 0; mode < 2; mode++) {
		struct sim *s = sim_new();
		struct wire_plan plan = plan_of(3, mode == 0 ? WIRE_MODE_NONE : WIRE_MODE_SALT_DS, 24);
		uint64_t poison = shuffle_order(3, WINDOWS, 5), want[24], got[24], boot = 1, n_bad = 0;
		bool quarantined[24];
		struct hash128 hash;

		sim_start(s);
		hello_trainer(s, 50, &plan);
		for (int round = 0; round < 300; round++) {
			struct core_message m;
			bool died = false;

			hello_teacher(s, boot, boot);
			credit(s, boot, 2);
			while (!died && (m = take(s, boot, WIRE_LEASE)).msg.type == WIRE_LEASE) {
				for (size_t i = 0; i < m.msg.lease.n_seqs; i++)
					died |= m.msg.lease.seqs[i] == poison;
				if (!died)
					work(s, boot, &m, UINT64_MAX);
				done_with(&m);
				if (!died)
					credit(s, boot, 2);
			}
			if (died) {
				/* restarts selectord in between: attempts are on disk */
				if (round % 2 == 0) {
					pass(s, 1500);
					sim_stop(s);
					sim_start(s);
					hello_trainer(s, 50, &plan);
				}
				boot++;
			}
			pass(s, 1500);			/* its lease expires */
		}
		CHECK(s->n_quarantine == 1 && s->quarantine[0].seq == poison);
		CHECK(boot >= 4 && boot <= 6);		/* the first lease, three singles; a restart may cost one more */
		hash = hello_trainer(s, 50, &plan);	/* again, because it was silent for too long */
		CHECK(fetch(s, 50, hash, 0, 24, got, quarantined) == 24);
		reference(&plan, 24, mode == 0 ? UINT64_MAX : poison, want);
		CHECK(memcmp(want, got, sizeof(want)) == 0);
		for (int i = 0; i < 24; i++) {
			n_bad += quarantined[i];
			CHECK(!quarantined[i] || got[i] == poison);
		}
		CHECK(n_bad == (mode == 0 ? 1 : 0));	/* kept with weight 0 in none, not eligible in salt_ds */
		sim_end(s);
	}
}

/* A returned lease, a teacher that leaves and a late result do not count against a sequence. */
static void
test_leases_end(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 8);
	struct core_stats st;
	struct core_message m, again;

	sim_start(s);
	hello_trainer(s, 50, &plan);
	for (uint64_t t = 1; t <= 8; t++) {
		hello_teacher(s, t, t);
		credit(s, t, 1);
		REQUIRE((m = take(s, t, WIRE_LEASE)).msg.type == WIRE_LEASE);
		CHECK(m.msg.lease.n_seqs == 4);		/* never singles */
		if (t % 2 == 0)
			say(s, t, &(struct wire_message){.type = WIRE_LEASE_RETURN, .lease_return = {m.msg.lease.lease_id}});
		say(s, t, &(struct wire_message){.type = WIRE_BYE, .bye = {"done"}});
		done_with(&m);
	}
	/* a lease that is renewed with progress stays; without progress it expires even if it is renewed */
	hello_teacher(s, 20, 20);
	credit(s, 20, 1);
	REQUIRE((m = take(s, 20, WIRE_LEASE)).msg.type == WIRE_LEASE);
	for (uint64_t i = 1; i <= 20; i++) {
		pass(s, 500);
		say(s, 20, &(struct wire_message){.type = WIRE_LEASE_RENEW, .lease_renew = {m.msg.lease.lease_id, i}});
	}
	core_stats(s->core, &st);
	CHECK(st.n_leases == 1 && st.n_leases_expired == 0);
	for (int i = 0; i < 20; i++) {
		pass(s, 500);
		say(s, 20, &(struct wire_message){.type = WIRE_LEASE_RENEW, .lease_renew = {m.msg.lease.lease_id, 20}});
	}
	core_stats(s->core, &st);
	CHECK(st.n_leases == 0 && st.n_leases_expired == 1);
	/* now its sequences are leased singly to another teacher; the late result is accepted nevertheless */
	hello_teacher(s, 21, 21);
	credit(s, 21, 1);
	REQUIRE((again = take(s, 21, WIRE_LEASE)).msg.type == WIRE_LEASE);
	CHECK(again.msg.lease.n_seqs == 1);
	work(s, 20, &m, UINT64_MAX);
	done_with(&m);
	CHECK((m = take(s, 20, WIRE_DONE)).msg.type == WIRE_DONE && m.msg.done.n_seqs == 4);
	done_with(&m);
	work(s, 21, &again, UINT64_MAX);			/* a second result for the same sequence */
	CHECK((m = take(s, 21, WIRE_DONE)).msg.type == WIRE_DONE && m.msg.done.n_seqs == 1);
	done_with(&m);
	core_stats(s->core, &st);
	CHECK(st.n_duplicates == 1 && st.n_differed == 0 && st.n_dead == 0 && st.n_labels == 4);
	done_with(&again);
	sim_end(s);
}

static void
test_bad_results(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 16);
	struct wire_result_row row = {0};
	struct core_stats st;
	struct core_message m, other;
	uint8_t label[LABEL_BYTES];

	sim_start(s);
	hello_trainer(s, 50, &plan);
	hello_teacher(s, 1, 1);
	hello_teacher(s, 2, 2);
	credit(s, 1, 1);
	credit(s, 2, 1);
	REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
	REQUIRE((other = take(s, 2, WIRE_LEASE)).msg.type == WIRE_LEASE);
	/* a label of another sequence; a sequence of another teacher's lease; scores instead of a label */
	row.seq = m.msg.lease.seqs[0];
	make_label(m.msg.lease.seqs[1], label);
	row.label = (struct wire_bytes){label, LABEL_BYTES};
	say(s, 1, &(struct wire_message){.type = WIRE_RESULT, .result = {m.msg.lease.lease_id, &row, 1}});
	row.seq = other.msg.lease.seqs[0];
	say(s, 1, &(struct wire_message){.type = WIRE_RESULT, .result = {m.msg.lease.lease_id, &row, 1}});
	core_stats(s->core, &st);
	CHECK(st.n_bad_results == 2 && st.n_labels == 0 && st.n_refused == 0);
	row.seq = m.msg.lease.seqs[0];
	row.scores = row.label;
	row.label.len = 0;
	say(s, 1, &(struct wire_message){.type = WIRE_RESULT, .result = {m.msg.lease.lease_id, &row, 1}});
	core_stats(s->core, &st);
	CHECK(st.n_refused == 1 && st.n_teachers == 1 && st.n_away == 1);
	done_with(&m);
	CHECK((m = take(s, 1, WIRE_REFUSE)).msg.type == WIRE_REFUSE && m.end);
	/* its leases go to the other teacher at once */
	credit(s, 2, 4);
	for (int i = 0; i < 3; i++) {
		CHECK((m = take(s, 2, WIRE_LEASE)).msg.type == WIRE_LEASE);
		done_with(&m);
	}
	done_with(&other);
	/* a request from a peer that never sent HELLO */
	credit(s, 99, 1);
	CHECK((m = take(s, 99, WIRE_REFUSE)).msg.type == WIRE_REFUSE && m.msg.refuse.retry_ms > 0 && !m.end);
	sim_end(s);
}

/* A sequence that three different teachers report goes into quarantine; with one or two it does not. */
static void
test_errors(void)
{
	for (uint64_t n_teachers = 1; n_teachers <= 3; n_teachers++) {
		struct sim *s = sim_new();
		struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 8);
		uint64_t bad = shuffle_order(3, WINDOWS, 2);
		int n_errors = 0;
		struct core_stats st;

		sim_start(s);
		hello_trainer(s, 50, &plan);
		for (int round = 0; round < 1000; round++)
			for (uint64_t t = 1; t <= n_teachers; t++) {
				struct core_message m;

				if (round == 0)
					hello_teacher(s, t, t);
				credit(s, t, 1);
				while ((m = take(s, t, WIRE_LEASE)).msg.type == WIRE_LEASE) {
					work(s, t, &m, bad);
					for (size_t i = 0; i < m.msg.lease.n_seqs; i++)
						if (m.msg.lease.seqs[i] == bad) {
							report(s, t, m.msg.lease.lease_id, bad);
							n_errors++;
						}
					done_with(&m);
				}
				pass(s, 100);
			}
		core_stats(s->core, &st);
		CHECK(st.n_away == 0 && st.n_teachers == n_teachers && (int)st.n_errors == n_errors);
		CHECK(n_teachers == 3 ? s->n_quarantine == 1 && s->quarantine[0].seq == bad && n_errors >= 3 && n_errors < 9 :
		    s->n_quarantine == 0 && n_errors > 3);
		CHECK(n_teachers == 3 ? strstr(s->quarantine[0].reason, "not finite: t") != NULL && strstr(s->quarantine[0].reason, "t2@") != NULL :
		    strstr(st.failing, "different teachers") != NULL);
		sim_end(s);
	}
}

static void
test_refusals(void)
{
	struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 16);
	struct sim *s = sim_new();
	struct core_message m;
	struct wire_message good = {.type = WIRE_HELLO}, h;

	sim_start(s);
	good.hello = (struct wire_hello){.protocol_version = 1, .role = WIRE_ROLE_TRAINER, .boot_id = {5, 5}, .name = "r", .max_message = 1 << 16,
	    .corpus = s->cfg.corpus, .plan = plan};
	for (int i = 0; i < 13; i++) {
		const char *field = "";

		h = good;
		switch (i) {
		case 0: h.hello.corpus.fingerprint.hash.lo++; field = "corpus.fingerprint"; break;
		case 1: h.hello.corpus.context++; field = "corpus.context"; break;
		case 2: h.hello.corpus.tokenizer.hash.hi++; field = "corpus.tokenizer"; break;
		case 3: h.hello.corpus.vocab_size++; field = "corpus.vocab_size"; break;
		case 4: h.hello.label_set = s->cfg.label_set; h.hello.label_set.hash.known = false; h.hello.label_set.tau = 0.5f; field = "label_set.tau"; break;
		case 5: h.hello.plan.hash = (struct wire_id){true, {6, 6}}; field = "plan.hash"; break;
		case 6: h.hello.plan.k = 256; field = "plan.k"; break;
		case 7: h.hello.plan.keep = 0.1; field = "plan.keep"; break;
		case 8: h.hello.max_message = 1100; field = "max_message"; break;
		case 9: h.hello.protocol_version = 2; field = "protocol_version"; break;
		default:
			h.hello.role = WIRE_ROLE_TEACHER;
			h.hello.corpus.present = h.hello.plan.present = false;
			h.hello.n_models = 1;
			h.hello.models[0] = (struct wire_model){teacher, "fp32/x", true, true, 128, 1024, {true, {2, 2}}};
			if (i == 10) {
				h.hello.models[0].fingerprint.lo++;
				field = "models.fingerprint";
			} else {
				h.hello.models[0].compute_class[0] = 'b';
				h.hello.models[0].fingerprint.lo += i == 12;	/* the class is the likely cause of both */
				field = "models.compute_class";
			}
		}
		say(s, 60, &h);
		m = take(s, 60, WIRE_NONE);
		CHECK_ROW(field, m.msg.type == WIRE_REFUSE && m.end && m.msg.refuse.retry_ms == 0);
		CHECK_STR(m.msg.refuse.field, field);
		CHECK_ROW(field, m.msg.refuse.expected[0] != '\0' && m.msg.refuse.found[0] != '\0' && strcmp(m.msg.refuse.expected, m.msg.refuse.found) != 0);
	}
	say(s, 60, &good);
	CHECK(take(s, 60, WIRE_NONE).msg.type == WIRE_WELCOME);
	/* a configuration whose records cannot fit in a frame is rejected at start */
	sim_stop(s);
	s->cfg.record_max = 1 << 16;
	CHECK(core_new(&s->core, &s->cfg, &s->ask, NULL) == ERR_CONFIG && s->core == NULL);
	sim_end(s);
}

static void
test_release(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 24), second = plan_of(4, WIRE_MODE_NONE, 24);
	struct hash128 hash, hash2;
	struct core_message m;
	uint64_t seqs[24];

	sim_start(s);
	hello_teacher(s, 1, 1);
	hash = hello_trainer(s, 50, &plan);
	hash2 = hello_trainer(s, 51, &second);
	CHECK(!hash_equal(hash, hash2));
	work_all(s, both, 1);
	for (int i = 0; i < 2; i++) {
		say(s, 50, &(struct wire_message){.type = WIRE_RELEASE, .release = {8 + (uint64_t)i, hash, 6}});
		CHECK((m = take(s, 50, WIRE_ACK)).msg.type == WIRE_ACK && m.msg.ack.request_id == 8 + (uint64_t)i);
	}
	pass(s, 100);
	CHECK(take(s, 1, WIRE_RELEASE_TEACHER).msg.type == WIRE_NONE);		/* the other plan continues */
	say(s, 51, &(struct wire_message){.type = WIRE_CHECKPOINTED, .checkpointed = {1, hash2, 2}});
	CHECK(take(s, 51, WIRE_ACK).msg.type == WIRE_ACK);
	say(s, 51, &(struct wire_message){.type = WIRE_RELEASE, .release = {2, hash2, 6}});
	CHECK(take(s, 51, WIRE_ACK).msg.type == WIRE_ACK);
	pass(s, 100);
	CHECK((m = take(s, 1, WIRE_RELEASE_TEACHER)).msg.type == WIRE_RELEASE_TEACHER);
	CHECK_STR(m.msg.release_teacher.reason, "plans released");
	CHECK(fetch(s, 50, hash, 0, 24, seqs, NULL) == 24);			/* rows are still served */
	sim_stop(s);
	sim_start(s);
	hello_teacher(s, 1, 1);
	m = (struct core_message){0};
	say(s, 50, &(struct wire_message){.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_TRAINER, .boot_id = {50, 78},
	    .name = "r", .max_message = 1 << 16, .corpus = s->cfg.corpus, .plan = plan}});
	m = take(s, 50, WIRE_WELCOME);
	CHECK(m.msg.type == WIRE_WELCOME && m.msg.welcome.released);
	pass(s, 100);
	/* its run may have been extended */
	CHECK(take(s, 1, WIRE_RELEASE_TEACHER).msg.type == WIRE_NONE);
	CHECK(fetch(s, 50, hash, 0, 24, seqs, NULL) == 24);
	pass(s, 70000);
	/* and it was: the plan is in use */
	CHECK(take(s, 1, WIRE_RELEASE_TEACHER).msg.type == WIRE_NONE);
	say(s, 50, &(struct wire_message){.type = WIRE_RELEASE, .release = {1, hash, 6}});
	pass(s, 100);
	CHECK(take(s, 1, WIRE_RELEASE_TEACHER).msg.type == WIRE_RELEASE_TEACHER);
	/* A trainer that stays silent does not keep teachers for long. */
	for (int says = 0; says < 2; says++) {
		sim_stop(s);
		sim_start(s);
		hello_teacher(s, 1, 1);
		CHECK(hash_equal(hello_trainer(s, 50, &plan), hash));
		if (says)
			say(s, 50, &(struct wire_message){.type = WIRE_RELEASE, .release = {1, hash, 6}});
		pass(s, 100);
		CHECK((take(s, 1, WIRE_RELEASE_TEACHER).msg.type == WIRE_RELEASE_TEACHER) == says);
		pass(s, 70000);
		CHECK((take(s, 1, WIRE_RELEASE_TEACHER).msg.type == WIRE_RELEASE_TEACHER) == !says);
	}
	sim_end(s);
}

/* Several plans on one cache: a sequence labelled for one plan is not labelled again for another. */
static void
test_plans_share(void)
{
	struct sim *s = sim_new();
	struct wire_plan a = plan_of(3, WIRE_MODE_NONE, 48), b = plan_of(4, WIRE_MODE_NONE, 48), c = plan_of(5, WIRE_MODE_SALT_DS, 24);
	uint64_t want[48], got[48];
	struct hash128 ha, hb, hc;

	sim_start(s);
	ha = hello_trainer(s, 50, &a);
	hb = hello_trainer(s, 51, &b);
	hello_teacher(s, 1, 1);
	hello_teacher(s, 2, 2);
	work_all(s, both, 2);
	CHECK(s->n_labels_asked <= WINDOWS);
	reference(&a, 48, UINT64_MAX, want);
	CHECK(fetch(s, 50, ha, 0, 48, got, NULL) == 48 && memcmp(want, got, sizeof(got)) == 0);
	reference(&b, 48, UINT64_MAX, want);
	CHECK(fetch(s, 51, hb, 0, 48, got, NULL) == 48 && memcmp(want, got, sizeof(got)) == 0);
	/* a third plan chooses sequences; it must not drop labels that the others serve */
	hc = hello_trainer(s, 52, &c);
	work_all(s, both, 2);
	reference(&c, 24, UINT64_MAX, want);
	CHECK(fetch(s, 52, hc, 0, 24, got, NULL) == 24 && memcmp(want, got, 24 * sizeof(*got)) == 0);
	reference(&b, 48, UINT64_MAX, want);
	CHECK(fetch(s, 51, hb, 0, 48, got, NULL) == 48 && memcmp(want, got, sizeof(got)) == 0);
	CHECK(s->n_labels_asked <= WINDOWS);
	sim_end(s);
}

static void
test_heldout_first(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 8);
	struct core_message m;
	struct hash128 hash;
	uint64_t seqs[8];
	double sum = 0;

	s->cfg.heldout = s->cfg.corpus;
	s->cfg.heldout.n_windows = s->cfg.n_heldout = HELD;
	s->cfg.rows_wait_heldout = true;
	sim_start(s);
	hash = hello_trainer(s, 50, &plan);
	hello_teacher(s, 1, 1);
	credit(s, 1, 1);
	REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
	CHECK(m.msg.lease.n_seqs == HELD && CORPUS_SEQ_NO(m.msg.lease.seqs[0]) == CORPUS_HELDOUT && m.msg.lease.want_score &&
	    !m.msg.lease.want_label && hash_equal(m.msg.lease.model, teacher));
	work_all(s, both, 1);					/* everything except the held-out lease */
	CHECK(fetch(s, 50, hash, 0, 4, seqs, NULL) == 0);	/* rows wait for the teacher's loss */
	work(s, 1, &m, UINT64_MAX);
	done_with(&m);
	for (uint64_t i = 0; i < HELD; i++) {
		float loss[L];
		uint8_t bytes[3 * L];

		make_score(CORPUS_SEQ_MAKE(CORPUS_HELDOUT, i), bytes);
		labels_scores_decode(bytes, sizeof(bytes), L, loss, NULL, NULL);
		for (int t = 0; t < L; t++)
			sum += loss[t];
	}
	CHECK((m = take(s, 50, WIRE_ROWS)).msg.type == WIRE_ROWS);
	CHECK_NEAR(m.msg.rows.heldout_loss_nats, sum / (HELD * L), 1e-6);
	done_with(&m);
	sim_end(s);
}

static void
test_limits(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 48);
	struct wire_message h = {.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_TRAINER, .boot_id = {50, 77}, .name = "r",
	    .max_message = 1300, .corpus = s->cfg.corpus, .plan = plan}};
	struct core_message m;
	struct core_stats st;
	struct hash128 hash;
	uint64_t want[48], got[48];

	/* without space there are no leases, but rows are served; with space again leases continue */
	sim_start(s);
	hello_teacher(s, 1, 1);
	core_room(s->core, false, s->now);
	hash = hello_trainer(s, 50, &plan);
	credit(s, 1, 2);
	CHECK(take(s, 1, WIRE_LEASE).msg.type == WIRE_NONE);
	core_room(s->core, true, s->now);
	pump(s);
	CHECK((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
	work(s, 1, &m, UINT64_MAX);
	done_with(&m);
	work_all(s, both, 1);
	/* as many rows as fit in a frame of the peer */
	say(s, 50, &h);
	say(s, 50, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {5, hash, 0, 48, 0}});
	CHECK((m = take(s, 50, WIRE_ROWS)).msg.type == WIRE_ROWS && m.msg.rows.n_rows > 4 && m.msg.rows.n_rows < 20);
	done_with(&m);
	reference(&plan, 48, UINT64_MAX, want);
	CHECK(fetch(s, 50, hash, 0, 48, got, NULL) == 48 && memcmp(want, got, sizeof(got)) == 0);
	/* out of order, past the end, of a plan that was not opened */
	CHECK(fetch(s, 50, hash, 40, 3, got, NULL) == 3 && memcmp(want + 40, got, 3 * sizeof(*got)) == 0);
	CHECK(fetch(s, 50, hash, 46, 10, got, NULL) == 2 && memcmp(want + 46, got, 2 * sizeof(*got)) == 0);
	CHECK_STR(s->last_refusal, "rows_request.first_row");
	sim_end(s);

	/* the waiting requests of a peer are bounded; a repeated request counts once */
	s = sim_new();
	sim_start(s);
	hash = hello_trainer(s, 50, &plan);
	for (uint64_t i = 0; i < 200; i++)
		say(s, 50, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {1000 + i, hash, i % 48, 1, 0}});
	core_stats(s->core, &st);
	CHECK(st.n_waiting == 48);
	for (uint64_t i = 0; i < 200; i++)
		say(s, 50, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {7, hash, 3, 1, 0}});
	core_stats(s->core, &st);
	CHECK(st.n_waiting == 48);
	core_gone(s->core, 50);
	core_stats(s->core, &st);
	CHECK(st.n_waiting == 0 && st.n_peers == 0);
	CHECK(strncmp(st.starved, "no teacher that labels", 22) == 0);
	sim_end(s);
}

/* Work goes as far as the requested rows plus label_ahead_rows, in whole blocks, and no further. */
static void
test_ahead(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 48);
	struct hash128 hash;
	uint64_t seqs[8];

	plan.label_ahead_rows = 9;				/* two blocks of 8 */
	sim_start(s);
	hello_teacher(s, 1, 1);
	hash = hello_trainer(s, 50, &plan);
	work_all(s, both, 1);
	CHECK(s->n_labels_asked == 16);
	/* 8 requested + 9 ahead = 17 rows: three blocks */
	CHECK(fetch(s, 50, hash, 0, 8, seqs, NULL) == 8);
	work_all(s, both, 1);
	CHECK(s->n_labels_asked == 24);
	sim_end(s);
}

/* A process with a new connection keeps its leases; another process with the same name does not get them. */
static void
test_reconnect(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 8);
	struct core_stats st;
	struct core_message m;

	sim_start(s);
	hello_trainer(s, 50, &plan);
	hello_teacher(s, 1, 1);
	credit(s, 1, 1);
	REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
	core_gone(s->core, 1);
	hello_teacher(s, 2, 1);
	work(s, 2, &m, UINT64_MAX);
	done_with(&m);
	CHECK((m = take(s, 2, WIRE_DONE)).msg.type == WIRE_DONE && m.msg.done.n_seqs == 4);
	done_with(&m);
	hello_teacher(s, 3, 1);					/* no end of connection 2 was reported */
	core_stats(s->core, &st);
	CHECK(st.n_teachers == 1 && st.n_leases_expired == 0);
	sim_end(s);
}

/* Plans without a connected peer are retired; their rows are served again when a peer returns. */
static void
test_plans_retire(void)
{
	struct sim *s = sim_new();
	struct wire_plan first = plan_of(1, WIRE_MODE_SALT_DS, 24), plan;
	struct core_stats st;
	struct hash128 hash, again;
	uint64_t want[24], got[24];

	sim_config(s, 0, 1, false);
	sim_start(s);
	hello_teacher(s, 1, 1);
	hash = hello_trainer(s, 50, &first);
	work_all(s, both, 1);
	CHECK(fetch(s, 50, hash, 0, 24, want, NULL) == 24);
	core_gone(s->core, 50);
	for (uint32_t i = 0; i < CORE_PLANS_MAX; i++) {
		pass(s, 10);
		plan = plan_of(100 + i, WIRE_MODE_NONE, 8);
		plan.label_ahead_rows = 0;
		hello_trainer(s, 100 + i, &plan);		/* stays connected */
	}
	core_stats(s->core, &st);
	CHECK(st.n_plans == CORE_PLANS_MAX);
	say(s, 50, &(struct wire_message){.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_TRAINER, .boot_id = {50, 77},
	    .name = "r", .max_message = 1 << 16, .corpus = s->cfg.corpus, .plan = first}});
	{
		struct core_message m = take(s, 50, WIRE_REFUSE);	/* each of the 64 plans has a peer */

		CHECK(m.msg.type == WIRE_REFUSE && m.msg.refuse.retry_ms > 0);
		done_with(&m);
	}
	core_gone(s->core, 100);
	again = hello_trainer(s, 50, &first);
	CHECK(hash_equal(hash, again));
	CHECK(fetch(s, 50, again, 0, 24, got, NULL) == 24);
	CHECK(memcmp(want, got, sizeof(want)) == 0);
	sim_end(s);
}

int
main(void)
{
	test_plans_retire();
	test_rows();
	test_labels_kept();
	test_acknowledged_after_commit();
	test_restart();
	test_blend();
	test_poison();
	test_core_teachers();
	test_leases_end();
	test_bad_results();
	test_errors();
	test_refusals();
	test_release();
	test_plans_share();
	test_heldout_first();
	test_limits();
	test_ahead();
	test_reconnect();
	return check_done();
}
