/* selectord's core and teachers that are away: nobody waits for their leases, and who comes back did not die of them. Called by test_core.c. */
#include "core_sim.h"

/* The last lease of a block is in somebody's hands: another teacher gets the next block's, and does not wait for it. */
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

/* A host that is cut off again and again: its teachers vanish with a sequence alone in hand, and come back, the same processes. No quarantine. */
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
	for (uint64_t boot = 3; boot <= 6; boot++) {	/* the first lease is of four, the others of one */
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

void
test_core_teachers(void)
{
	test_next_block();
	test_cut_off();
}
