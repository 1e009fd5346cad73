/* SPDX-License-Identifier: Apache-2.0 */
#include "data/phase/phase.h"

#include "check.h"

/* Weights by hand: w = 2/3, switch at 10, handover over 4 steps: f = 1, 3/4, 1/2, 1/4 at steps 6..9. */
static void
handover(void)
{
	static const struct {
		const char *what;
		enum phase_handover handover;
		uint64_t step;
		double want;
	} rows[] = {
		{"step, first", PHASE_HANDOVER_STEP, 0, 2.0 / 3}, {"step, last of one", PHASE_HANDOVER_STEP, 9, 2.0 / 3},
		{"step, first of two", PHASE_HANDOVER_STEP, 10, 0}, {"linear before", PHASE_HANDOVER_LINEAR, 5, 2.0 / 3},
		{"linear full", PHASE_HANDOVER_LINEAR, 6, 2.0 / 3}, {"linear half", PHASE_HANDOVER_LINEAR, 8, 1.0 / 3},
		{"linear last", PHASE_HANDOVER_LINEAR, 9, 1.0 / 6}, {"linear over", PHASE_HANDOVER_LINEAR, 10, 0},
		/* r = 2: r f = 1.5, 1, 0.5 */
		{"ratio 3/4", PHASE_HANDOVER_RATIO, 7, 1.5 / 2.5}, {"ratio 1/2", PHASE_HANDOVER_RATIO, 8, 0.5},
		{"ratio 1/4", PHASE_HANDOVER_RATIO, 9, 0.5 / 1.5},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct phase p = {.total_steps = 20, .switch_step = 10, .margin_nats = NAN, .weight = 2.0f / 3.0f, .handover = rows[i].handover,
		    .handover_steps = 4};

		CHECK_ROW(rows[i].what, fabs(phase_weight(&p, rows[i].step) - rows[i].want) < 1e-6);
		CHECK_ROW(rows[i].what, phase_is_one(&p, rows[i].step) == (rows[i].step < 10));
	}
}

static void
margin(void)
{
	struct phase p = {.total_steps = 100, .switch_step = PHASE_UNKNOWN, .margin_nats = 0.1, .weight = 0.5f,
	    .handover = PHASE_HANDOVER_LINEAR, .handover_steps = 5};

	CHECK(phase_is_one(&p, 99) && !phase_is_one(&p, 100));
	CHECK(phase_max_rows(&p, 8) == 800);
	CHECK(!phase_margin(&p, 10, 3.2, 3.0));
	CHECK(!phase_margin(&p, 10, NAN, 3.0) && !phase_margin(&p, 10, 3.0, NAN));
	CHECK(p.switch_step == PHASE_UNKNOWN && phase_weight(&p, 10) == 0.5f);
	CHECK(phase_margin(&p, 20, 3.05, 3.0) && p.switch_step == 25);
	CHECK(!phase_margin(&p, 30, 1.0, 3.0) && p.switch_step == 25);
	CHECK(phase_max_rows(&p, 8) == 200);
	p = (struct phase){.total_steps = 22, .switch_step = PHASE_UNKNOWN, .margin_nats = 0, .handover = PHASE_HANDOVER_LINEAR, .handover_steps = 5};
	CHECK(phase_margin(&p, 20, 1, 1) && p.switch_step == 22);
	p = (struct phase){.total_steps = 22, .switch_step = PHASE_UNKNOWN, .margin_nats = 0, .handover = PHASE_HANDOVER_STEP};
	CHECK(phase_margin(&p, 20, 1, 1) && p.switch_step == 20 && !phase_is_one(&p, 20));
}

int
main(void)
{
	handover();
	margin();
	return check_done();
}
