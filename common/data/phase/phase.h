/* SPDX-License-Identifier: Apache-2.0 */
/*
 * phase - the end of phase one and the distillation weight of each step. Pure functions.
 *
 * The distillation weight of step s for the weight w and the switch step n (phase one is steps 0 .. n-1). The
 * handover takes the last h steps of phase one, in which f = (n - s) / h; before them f = 1:
 *     step    w
 *     linear  w f
 *     ratio   r f / (1 + r f) with r = w / (1 - w)
 * With until_margin n is not known at first. If the evaluation before step s meets the margin, n becomes s
 * for step and s + h for linear and ratio. Then it is stored with the checkpoint and does not change.
 */
#ifndef SALT_PHASE_H
#define SALT_PHASE_H

#include <stdbool.h>
#include <stdint.h>

#define PHASE_UNKNOWN UINT64_MAX

enum phase_handover { PHASE_HANDOVER_STEP, PHASE_HANDOVER_LINEAR, PHASE_HANDOVER_RATIO };

struct phase {
	uint64_t total_steps;			/* of the run */
	uint64_t switch_step;			/* n; 0: no phase one; PHASE_UNKNOWN: the margin is not met yet */
	double margin_nats;			/* NaN: n is configured */
	float weight;				/* w */
	enum phase_handover handover;
	uint64_t handover_steps;		/* h */
};

bool phase_is_one(const struct phase *p, uint64_t step);
float phase_weight(const struct phase *p, uint64_t step);

/*
 * phase_margin - call it after the evaluation before step `step`. If the student's held-out loss is within
 * the margin of the teacher's, sets switch_step and returns true. Returns false if it is not, if either loss
 * is NaN, or if switch_step is known already.
 */
bool phase_margin(struct phase *p, uint64_t step, double student_nats, double teacher_nats);

/* phase_max_rows - the largest number of rows that phase one can need. */
uint64_t phase_max_rows(const struct phase *p, uint64_t batch);

#endif
