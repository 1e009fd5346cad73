/* SPDX-License-Identifier: Apache-2.0 */
/*
 * selectord's core with hostile or failing peers: absurd sizes, unfair use of time, missing memory, requests
 * for plans of others, teachers that report errors for everything.
 */
#include "core_sim.h"
#include "failing_malloc.h"
#include "base/random/shuffle.h"

#include <malloc.h>
#include <stdlib.h>

enum { CLIENT = 40, TRAINER = 50, OTHER = 51 };

static struct wire_message
hello_of(const struct sim *s, enum wire_role role, uint64_t boot, const struct wire_plan *plan)
{
	struct wire_message m = {.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = role, .boot_id = {boot, 77}, .name = "h",
	    .max_message = 1 << 16, .corpus = s->cfg.corpus}};

	if (plan != NULL)
		m.hello.plan = *plan;
	return m;
}

/* The field in the REFUSE that the peer got; "" if it got none. */
static const char *
refused(struct sim *s, uint64_t peer, int code)
{
	static char field[WIRE_NAME_MAX];
	struct core_message m = take(s, peer, WIRE_REFUSE);

	field[0] = '\0';
	if (m.msg.type == WIRE_REFUSE && m.msg.refuse.code == code)
		snprintf(field, sizeof(field), "%s", m.msg.refuse.field);
	return field;
}

/*
 * A HELLO with a plan that is too large for the corpus of 50 sequences is refused with the name of the field,
 * and the next peer is served.
 */
static void
test_plan_sizes(void)
{
	static const struct { const char *field; uint64_t window, pool, n_rows; double keep; } cases[] = {
		{"plan.n_rows", 8, 0, UINT64_C(1) << 62, 0.5}, {"plan.n_rows", 8, 0, UINT64_MAX, 0.5},
		{"plan.n_rows", 1, 0, (1 << 24) + 1, 1}, {"plan.n_rows", 1 << 16, 0, (1 << 24) + 1, 1},
		{"plan.window", UINT64_C(1) << 32, 0, 100, 0.5}, {"plan.window", (1 << 16) + 1, 0, 100, 0.5},
		{"plan.window", WIRE_WINDOWS_MAX, 0, UINT64_MAX, 0.5}, {"plan.pool", 8, UINT64_C(1) << 40, 100, 0.5},
		{"plan.pool", 8, WIRE_WINDOWS_MAX, UINT64_MAX, 1e-9}, {"plan.keep", 8, 0, 100, 1e-9},
		{"", 1 << 16, 0, 100, 0.5}, {"", 8, 0, (1 << 24) / 2, 0.5}, {"", 1, 0, 1 << 24, 1},
	};
	struct sim *s = sim_new();

	sim_start(s);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wire_plan plan = plan_of((uint32_t)i, WIRE_MODE_SALT_DS, cases[i].n_rows);
		struct wire_message m;

		plan.window = cases[i].window;
		plan.pool = cases[i].pool;
		plan.keep = cases[i].keep;
		m = hello_of(s, WIRE_ROLE_TRAINER, 1, &plan);
		say(s, TRAINER, &m);
		CHECK_STR(refused(s, TRAINER, 78), cases[i].field);
		CHECK_ROW(cases[i].field, cases[i].field[0] != '\0' || take(s, TRAINER, WIRE_WELCOME).msg.type == WIRE_WELCOME);
	}
	sim_end(s);
}

/* Very large row and step numbers are refused or have no effect, and no such memory is allocated. */
static void
test_far_rows(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 1 << 24);
	struct core_stats st;
	struct core_message m = {0};
	struct hash128 hash;
	uint64_t far = 0, seqs[2];

	plan.window = 1;
	plan.label_ahead_rows = 4;
	sim_start(s);
	hash = hello_trainer(s, TRAINER, &plan);
	hello_teacher(s, 1, 1);
	for (uint64_t row = UINT64_C(1) << 60; row >= 1 << 24; row /= 3) {
		say(s, TRAINER, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {1, hash, row, 1, 0}});
		CHECK_STR(refused(s, TRAINER, 78), "rows_request.first_row");
		far++;
	}
	CHECK(far > 20);
	/* the last row: its block is complete long before those in between, for which no memory is used */
	say(s, TRAINER, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {2, hash, (1 << 24) - 1, 1, 0}});
	for (int i = 0; i < 20; i++) {
		credit(s, 1, 1);
		if ((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE)
			work(s, 1, &m, UINT64_MAX);
		done_with(&m);
		if ((m = take(s, TRAINER, WIRE_ROWS)).msg.type == WIRE_ROWS)
			break;
	}
	CHECK(m.msg.type == WIRE_ROWS);
	done_with(&m);
	CHECK(fetch(s, TRAINER, hash, 0, 2, seqs, NULL) == 2);
	/* a step whose first row does not fit in 64 bits */
	say(s, TRAINER, &(struct wire_message){.type = WIRE_CHECKPOINTED, .checkpointed = {3, hash, UINT64_MAX / 2}});
	CHECK(take(s, TRAINER, WIRE_ACK).msg.type == WIRE_ACK);
	for (size_t i = 0; i < s->n_plans; i++)
		CHECK(s->plans[i].oldest_step <= (1 << 24) / 4 + 1);
	core_stats(s->core, &st);
	CHECK(st.n_no_memory == 0);
	sim_end(s);
}

/* Distant rows that are ready before the first rows do not count as ready from row 0. */
static void
test_far_blocks(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 1 << 24);
	struct core_stats st;
	struct core_message m;
	struct hash128 hash;

	plan.window = 1;
	s->cfg.lease_rows = 1;
	sim_start(s);
	hash = hello_trainer(s, TRAINER, &plan);
	hello_teacher(s, 1, 1);
	for (uint64_t i = 0; i < 40; i++)
		say(s, TRAINER, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {i, hash, (1 << 20) + i, 1, 0}});
	for (int n = 0; n < 40; n++) {
		credit(s, 1, 1);
		if ((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE)
			work(s, 1, &m, UINT64_MAX);
		done_with(&m);
		while ((m = take(s, TRAINER, WIRE_ROWS)).msg.type == WIRE_ROWS)
			done_with(&m);
		core_stats(s->core, &st);
		for (uint64_t g = 0; g < st.rows_ready; g++)
			CHECK(s->has_label[shuffle_order(3, WINDOWS, g)]);
	}
	CHECK(st.rows_ready > 0);
	sim_end(s);
}

/* Rights: only a trainer that opened a plan changes it; only teachers get leases, and end only their own. */
static void
test_rights(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 16), other = plan_of(4, WIRE_MODE_SALT_DS, 16);
	struct core_stats st;
	struct core_message lease, m;
	struct hash128 hash;
	struct wire_message h;
	uint64_t n = 0;

	sim_start(s);
	hash = hello_trainer(s, TRAINER, &plan);
	hello_trainer(s, OTHER, &other);
	hello_teacher(s, 1, 1);
	hello_teacher(s, 2, 2);
	CHECK(take(s, 2, WIRE_WELCOME).msg.type == WIRE_WELCOME);
	credit(s, 1, 1);
	REQUIRE((lease = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
	for (int who = 0; who < 4; who++) {
		const struct wire_message all[] = {
			{.type = WIRE_RELEASE, .release = {1, hash, 3}}, {.type = WIRE_CHECKPOINTED, .checkpointed = {2, hash, 1000}},
			{.type = WIRE_ROWS_REQUEST, .rows_request = {3, hash, 0, 4, 0}},
		};
		const char *what = (const char *[]){"a client without a plan", "a client with this plan", "a trainer of another plan", "a teacher"}[who];
		uint64_t peer = who < 2 ? CLIENT : who == 2 ? OTHER : 2;

		if (who < 2) {
			h = hello_of(s, WIRE_ROLE_CLIENT, 9, who == 1 ? &plan : NULL);
			say(s, CLIENT, &h);
			CHECK(take(s, CLIENT, WIRE_WELCOME).msg.type == WIRE_WELCOME);
		}
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++, n++) {
			say(s, peer, &all[i]);
			CHECK_ROW(what, strcmp(refused(s, peer, 77), wire_type_name(all[i].type)) == 0);
		}
		CHECK_ROW(what, take(s, peer, WIRE_NONE).msg.type == WIRE_NONE);
	}
	for (size_t i = 0; i < s->n_plans; i++)
		CHECK(!s->plans[i].released && s->plans[i].oldest_step == 0);
	/* messages that only teachers may send */
	for (int i = 0; i < 4; i++, n++) {
		struct wire_result_row row = {.seq = lease.msg.lease.seqs[0], .error = "no"};
		uint64_t id = lease.msg.lease.lease_id;
		const struct wire_message all[] = {
			{.type = WIRE_LEASE_REQUEST, .lease_request = {5}}, {.type = WIRE_LEASE_RENEW, .lease_renew = {id, 1}},
			{.type = WIRE_LEASE_RETURN, .lease_return = {id}}, {.type = WIRE_RESULT, .result = {id, &row, 1}},
		};

		say(s, TRAINER, &all[i]);
		CHECK_STR(refused(s, TRAINER, 77), wire_type_name(all[i].type));
	}
	core_stats(s->core, &st);
	CHECK(st.n_bad_messages == n && st.n_leases == 1 && st.n_seqs_leased == 4 && st.n_errors == 0);
	/* for the lease of another teacher no result, error or return is accepted */
	for (size_t i = 0; i < lease.msg.lease.n_seqs; i++)
		report(s, 2, lease.msg.lease.lease_id, lease.msg.lease.seqs[i]);
	work(s, 2, &lease, UINT64_MAX);
	say(s, 2, &(struct wire_message){.type = WIRE_LEASE_RETURN, .lease_return = {lease.msg.lease.lease_id}});
	core_stats(s->core, &st);
	CHECK(st.n_leases == 1 && st.n_seqs_leased == 4 && st.n_errors == 0 && st.n_labels == 0);
	/* with keys: the same boot id with another key is another process, which does not get the leases */
	sim_stop(s);
	sim_start(s);
	hello_trainer(s, TRAINER, &plan);
	s->key = "a";
	hello_teacher(s, 1, 1);
	credit(s, 1, 1);
	done_with(&lease);
	REQUIRE((lease = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
	s->key = "b";
	hello_teacher(s, 2, 1);
	work(s, 2, &lease, UINT64_MAX);
	core_stats(s->core, &st);
	CHECK(st.n_teachers == 2 && st.n_labels == 0 && st.n_seqs_leased == 4);
	/* a peer that repeats forbidden messages is disconnected */
	h = hello_of(s, WIRE_ROLE_CLIENT, 9, NULL);
	say(s, CLIENT, &h);
	for (int i = 1; i <= CORE_MISUSE_MAX; i++) {
		say(s, CLIENT, &(struct wire_message){.type = WIRE_RELEASE, .release = {1, hash, 3}});
		m = take(s, CLIENT, WIRE_REFUSE);
		CHECK(m.msg.type == WIRE_REFUSE && m.end == (i == CORE_MISUSE_MAX));
	}
	core_stats(s->core, &st);
	CHECK(st.n_peers == 3 && st.n_refused == 1);
	done_with(&lease);
	sim_end(s);
}

/* A large plan, whose blocks take long to look up, does not delay a small plan that is opened later. */
static void
test_fair(void)
{
	struct sim *s = sim_new();
	struct wire_plan large = plan_of(3, WIRE_MODE_NONE, 1 << 22), small = plan_of(4, WIRE_MODE_NONE, 48);
	struct core_stats st;
	int ms = 0, alone;

	large.window = 1 << 16;
	sim_start(s);
	memset(s->has_label, true, sizeof(s->has_label));	/* nothing to lease: all work is lookups */
	for (uint64_t i = 0; i < WINDOWS; i++)
		make_label(i, s->label[i]);
	hello_trainer(s, OTHER, &large);
	pass(s, 1);
	hello_trainer(s, TRAINER, &small);
	for (; ms < 1000; ms++) {
		core_stats(s->core, &st);
		if (st.rows_ready == 48)		/* rows of the newest plan */
			break;
		pass(s, 1);
	}
	CHECK(ms < 50);
	core_stats(s->core, &st);
	CHECK(st.n_blocks_active > 0);				/* the large plan continues */
	/* after its peer is lost nothing is looked up; when the peer returns the lookups continue */
	core_gone(s->core, OTHER);
	pass(s, 1);
	alone = core_wait_ms(s->core) > 1;
	core_stats(s->core, &st);
	CHECK(alone && st.n_plans == 2 && st.n_plans_wanted == 1);
	hello_trainer(s, OTHER, &large);
	CHECK(core_wait_ms(s->core) <= 1);
	/* a peer that leaves with BYE leaves its plan open: `saltctl label --no-wait` */
	say(s, OTHER, &(struct wire_message){.type = WIRE_BYE});
	pass(s, 1);
	core_stats(s->core, &st);
	CHECK(core_wait_ms(s->core) <= 1 && st.n_plans_wanted == 2);
	sim_end(s);
}

/* Teachers work on all plans in turn, regardless of the order in which they were opened. */
static void
test_fair_leases(void)
{
	struct sim *s = sim_new();
	struct core_message m;
	int n[3] = {0};

	sim_start(s);
	for (uint32_t p = 0; p < 3; p++) {
		struct wire_plan plan = plan_of(p, WIRE_MODE_NONE, 48);

		plan.window = 48;
		hello_trainer(s, TRAINER + p, &plan);
	}
	hello_teacher(s, 1, 1);
	for (int i = 0; i < 6; i++) {
		credit(s, 1, 1);
		REQUIRE((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
		/* finds the plan with these lowest free positions */
		for (uint32_t p = 0; p < 3; p++)
			for (uint64_t at = 0; at < 24; at++)
				n[p] += shuffle_order(p, WINDOWS, at) == m.msg.lease.seqs[0];
		done_with(&m);
	}
	CHECK(n[0] >= 2 && n[1] >= 2 && n[2] >= 2);
	sim_end(s);
}

/*
 * A teacher that fails on every sequence puts nothing into quarantine and is refused, also when it returns as
 * another process. After some time it may try again.
 */
static void
test_faulty_teacher(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 48);
	struct core_stats st;
	struct core_message m;
	uint64_t n_reports = 0;
	bool away = false;

	s->cfg.lease_rows = 1;
	sim_start(s);
	hello_trainer(s, TRAINER, &plan);
	for (uint64_t boot = 1; boot <= 30; boot++) {
		for (uint64_t turn = 0; turn < 3; turn++) {
			struct wire_message h = {.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_TEACHER, .boot_id = {boot, 1},
			    .host = "h", .pid = (uint32_t)(100 + boot), .max_message = 1 << 16, .n_models = 1}};

			/* like a default name */
			snprintf(h.hello.name, sizeof(h.hello.name), "teacherd-h-%u", (unsigned)h.hello.pid);
			h.hello.models[0] = (struct wire_model){teacher, "fp32/x", true, true, 128, 1024, {true, {2, 2}}};
			if (turn == 0)
				say(s, boot, &h);
			credit(s, boot, 1);
			if ((m = take(s, boot, WIRE_LEASE)).msg.type != WIRE_LEASE)
				continue;
			report(s, boot, m.msg.lease.lease_id, m.msg.lease.seqs[0]);
			n_reports++;
			done_with(&m);
		}
		away |= strcmp(refused(s, boot, 65), "result") == 0;
	}
	core_stats(s->core, &st);
	CHECK(away && st.n_away == 1 && st.n_quarantined == 0 && s->n_quarantine == 0 && st.n_teachers == 0);
	CHECK(n_reports == CORE_ERRORS_MAX + 1);
	/* another teacher is not affected and labels everything */
	hello_teacher(s, 99, 99);
	pass(s, 10000);
	work_all(s, (const uint64_t[]){99}, 1);
	core_stats(s->core, &st);
	CHECK(st.n_labels == 48);
	sim_end(s);
}

/*
 * Three different teachers that fail on every sequence put no more into quarantine than the reports before
 * they are refused; also if there are fewer sequences than that number of reports.
 */
static void
test_faulty_fleet(uint64_t n_rows)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, n_rows);
	struct core_stats st;
	struct core_message m;

	s->cfg.lease_rows = 1;
	sim_start(s);
	hello_trainer(s, TRAINER, &plan);
	for (uint64_t t = 1; t <= 3; t++)
		hello_teacher(s, t, t);
	for (int round = 0; round < 1000; round++)
		for (uint64_t t = 1; t <= 3; t++) {
			credit(s, t, 1);
			while ((m = take(s, t, WIRE_LEASE)).msg.type == WIRE_LEASE) {
				report(s, t, m.msg.lease.lease_id, m.msg.lease.seqs[0]);
				done_with(&m);
			}
			pass(s, 100);
		}
	core_stats(s->core, &st);
	CHECK(st.n_away == 3 && st.n_teachers == 0);
	CHECK(st.n_quarantined <= 1);
	sim_end(s);
}

/* A good teacher that reports a few bad sequences is not refused: with each result it may report more. */
static void
test_error_budget(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 48);
	struct core_stats st;
	struct core_message m;
	int n = 0;

	sim_start(s);
	hello_trainer(s, TRAINER, &plan);
	hello_teacher(s, 1, 1);
	for (int round = 0; round < 100; round++) {
		credit(s, 1, 1);
		if ((m = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE) {
			uint64_t bad = UINT64_MAX;

			for (size_t i = 0; i < m.msg.lease.n_seqs; i++)
				if (m.msg.lease.seqs[i] % 7 == 0)	/* eight of the fifty sequences */
					bad = m.msg.lease.seqs[i];
			work(s, 1, &m, bad);
			if (bad != UINT64_MAX) {
				report(s, 1, m.msg.lease.lease_id, bad);
				n++;
			}
			done_with(&m);
		}
		pass(s, 3000);
	}
	core_stats(s->core, &st);
	CHECK(n > CORE_ERRORS_MAX && st.n_away == 0 && st.n_teachers == 1 && st.n_quarantined == 0);
	sim_end(s);
}

/*
 * If more rows are in quarantine than a plan may have, its peers are refused, at once and when they return;
 * with a higher limit they continue.
 */
static void
test_share(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 48);
	struct core_stats st;
	struct wire_message h;
	uint64_t n_bad = 0;

	s->cfg.max_quarantined = 0.05;				/* at most 3 of 48 rows */
	s->cfg.lease_rows = 1;
	sim_start(s);
	hello_trainer(s, TRAINER, &plan);
	for (uint64_t t = 1; t <= 3; t++)
		hello_teacher(s, t, t);
	for (int round = 0; round < 400 && n_bad < 5; round++)
		for (uint64_t t = 1; t <= 3; t++) {
			struct core_message m;

			credit(s, t, 1);
			while ((m = take(s, t, WIRE_LEASE)).msg.type == WIRE_LEASE) {
				/* five of the fifty sequences */
				if (m.msg.lease.seqs[0] % 12 == 0)
					report(s, t, m.msg.lease.lease_id, m.msg.lease.seqs[0]);
				else
					work(s, t, &m, UINT64_MAX);
				done_with(&m);
			}
			pass(s, 1000);
			core_stats(s->core, &st);
			if (n_bad == st.n_quarantined)
				continue;
			n_bad = st.n_quarantined;
			CHECK(st.n_trainers == (n_bad <= 3));
			if (n_bad <= 3)
				continue;
			CHECK_STR(refused(s, TRAINER, 65), n_bad == 4 ? "selector.max_quarantined" : "");
		}
	CHECK(n_bad == 4);					/* the rest is not leased any more */
	h = hello_of(s, WIRE_ROLE_TRAINER, 5, &plan);
	say(s, TRAINER, &h);
	CHECK_STR(refused(s, TRAINER, 65), "selector.max_quarantined");
	sim_stop(s);
	s->cfg.max_quarantined = 0.2;
	sim_start(s);
	say(s, TRAINER, &h);
	CHECK(take(s, TRAINER, WIRE_WELCOME).msg.type == WIRE_WELCOME);
	sim_end(s);
}

/* Two teachers vanish with a sequence, a third reports it; selectord restarts after each: all three count. */
static void
test_failures_kept(void)
{
	struct sim *s = sim_new();
	struct wire_plan plan = plan_of(3, WIRE_MODE_NONE, 4);
	uint64_t bad = UINT64_MAX;
	struct core_message m;

	for (uint64_t t = 1; t <= 3; t++) {
		sim_start(s);
		hello_trainer(s, TRAINER, &plan);
		hello_teacher(s, t, t);
		for (int i = 0; i < 6 && s->n_quarantine == 0; i++) {
			credit(s, t, 1);
			if ((m = take(s, t, WIRE_LEASE)).msg.type == WIRE_LEASE) {
				if (bad == UINT64_MAX)
					bad = m.msg.lease.seqs[0];	/* the first teacher vanishes with all four */
				else
					work(s, t, &m, bad);
				if (t == 3 && m.msg.lease.seqs[0] == bad)
					report(s, t, m.msg.lease.lease_id, bad);
				done_with(&m);
			}
			pass(s, 6000);
		}
		CHECK(t < 3 ? s->n_quarantine == 0 && s->attempts[bad].n_dead == t : s->n_quarantine == 1 && s->quarantine[0].seq == bad);
		sim_stop(s);
	}
	sim_end(s);
}

#ifdef FAILING_MALLOC
static long fail_next, fail_left;

static void
fail_begin(void)
{
	fail_at = fail_next;
}

static void
fail_end(void)
{
	fail_left = fail_at;
	fail_at = 0;
}

/*
 * While the core processes a good result, the n-th allocation fails, for n = 1, 2, ... until none does. The
 * teacher is either refused with a time to retry, or its rows are acknowledged; it sends again what was not
 * acknowledged.
 */
static void
test_result_without_memory(void)
{
	int n_refused = 0, n_cut = 0;

	for (fail_next = 1, fail_left = 0; fail_left == 0; fail_next++) {
		struct sim *s = sim_new();
		struct wire_plan plan = plan_of(3, WIRE_MODE_SALT_DS, 16);
		struct core_message lease, m;
		struct core_stats st;
		bool told = false;

		REQUIRE(fail_next < 1000);
		sim_start(s);
		hello_trainer(s, TRAINER, &plan);
		hello_teacher(s, 1, 1);
		credit(s, 1, 1);
		REQUIRE((lease = take(s, 1, WIRE_LEASE)).msg.type == WIRE_LEASE);
		s->before = fail_begin;
		s->after = fail_end;
		work(s, 1, &lease, UINT64_MAX);
		s->before = s->after = NULL;
		core_stats(s->core, &st);
		CHECK(st.n_bad_results == 0 && st.n_errors == 0 && st.n_quarantined == 0 && st.n_away == 0 && st.n_teachers == 1);
		n_cut += st.n_labels < lease.msg.lease.n_seqs;
		while ((m = take(s, 1, WIRE_REFUSE)).msg.type == WIRE_REFUSE) {
			CHECK(m.msg.refuse.retry_ms > 0 && !m.end && strcmp(m.msg.refuse.field, "memory") == 0);
			told = true;
		}
		CHECK(told || st.n_labels == lease.msg.lease.n_seqs || st.n_no_memory > 0);
		n_refused += told;
		hello_teacher(s, 1, 1);
		work(s, 1, &lease, UINT64_MAX);
		core_stats(s->core, &st);
		CHECK(st.n_labels == lease.msg.lease.n_seqs && st.n_bad_results == 0);
		done_with(&lease);
		work_all(s, (const uint64_t[]){1}, 1);
		core_stats(s->core, &st);
		CHECK(st.n_quarantined == 0 && st.n_away == 0 && st.rows_ready == 16);
		sim_end(s);
	}
	CHECK(n_refused > 4 && n_cut > 4);
}
#endif

int
main(void)
{
#ifdef FAILING_MALLOC
	test_result_without_memory();
#endif
	test_plan_sizes();
	test_far_rows();
	test_far_blocks();
	test_rights();
	test_fair();
	test_fair_leases();
	test_faulty_teacher();
	test_faulty_fleet(48);
	test_faulty_fleet(8);
	test_error_budget();
	test_share();
	test_failures_kept();
	return check_done();
}
