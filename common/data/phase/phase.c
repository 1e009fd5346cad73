/* SPDX-License-Identifier: Apache-2.0 */
#include "data/phase/phase.h"

#include <math.h>

bool
phase_is_one(const struct phase *p, uint64_t step)
{
	return step < p->switch_step && step < p->total_steps;
}

float
phase_weight(const struct phase *p, uint64_t step)
{
	double f, r;

	if (!phase_is_one(p, step))
		return 0.0f;
	if (p->handover == PHASE_HANDOVER_STEP || p->switch_step == PHASE_UNKNOWN || p->switch_step - step >= p->handover_steps)
		return p->weight;
	f = (double)(p->switch_step - step) / (double)p->handover_steps;
	if (p->handover == PHASE_HANDOVER_LINEAR)
		return (float)(p->weight * f);
	r = p->weight / (1.0 - p->weight) * f;
	return isfinite(r) ? (float)(r / (1.0 + r)) : p->weight;
}

bool
phase_margin(struct phase *p, uint64_t step, double student_nats, double teacher_nats)
{
	if (p->switch_step != PHASE_UNKNOWN || !(student_nats <= teacher_nats + p->margin_nats))
		return false;
	p->switch_step = step + (p->handover == PHASE_HANDOVER_STEP ? 0 : p->handover_steps);
	if (p->switch_step > p->total_steps)
		p->switch_step = p->total_steps;
	return true;
}

uint64_t
phase_max_rows(const struct phase *p, uint64_t batch)
{
	return (p->switch_step < p->total_steps ? p->switch_step : p->total_steps) * batch;
}
