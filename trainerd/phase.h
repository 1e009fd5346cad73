/*
 * phase - when phase one ends and how much the teacher's word weighs until then. Pure.
 *
 *   weight w of step s, switch step n (phase one is steps 0 .. n-1), hand-over over its last h steps, f = (n - s) / h there, else 1:
 *     step    w                          linear   w f                       ratio   r f / (1 + r f) with r = w / (1 - w)
 * With until_margin n is not known at first: the margin met after step s makes it s (+ h for linear and ratio); it is then stored
 * with the checkpoint and never moves.
 */
#ifndef SALT_PHASE_H
#define SALT_PHASE_H

#include <stdbool.h>
#include <stdint.h>

#define PHASE_UNKNOWN UINT64_MAX

enum phase_handover { PHASE_HANDOVER_STEP, PHASE_HANDOVER_LINEAR, PHASE_HANDOVER_RATIO };

struct phase {
	uint64_t total_steps;			/* of the run */
	uint64_t switch_step;			/* n; 0: no phase one; PHASE_UNKNOWN: margin not met so far */
	double margin_nats;			/* NaN: by steps */
	float weight;				/* w */
	enum phase_handover handover;
	uint64_t handover_steps;		/* h */
};

bool phase_is_one(const struct phase *p, uint64_t step);
float phase_weight(const struct phase *p, uint64_t step);

/*
 * phase_margin - after the evaluation before step `step`: is the student's held-out loss within the margin of the teacher's?
 * Sets switch_step and returns true if so. Never when either loss is not a number, by-steps, or already decided.
 */
bool phase_margin(struct phase *p, uint64_t step, double student_nats, double teacher_nats);

/* phase_max_rows - rows that phase one can need at the most. */
uint64_t phase_max_rows(const struct phase *p, uint64_t batch);

#endif
