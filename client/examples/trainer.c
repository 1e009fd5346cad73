/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trainer FLEET.YAML [STEP] - a complete trainer with libsaltfleet, from step STEP on: rows, weights,
 * checkpoints, the switch. Its model is the smallest possible: one logit per id. For labels of kind sampled
 * or topk, residual true_token and token_weight constant.
 *	cc trainer.c $(pkg-config --cflags --libs saltfleet) -lm -o trainer
 */
#include <math.h>
#include <saltfleet.h>
#include <stdio.h>
#include <stdlib.h>

/* One step of gradient descent on b[vocab]; the mean loss in nats. q[v]: share of id v in the targets of these rows. */
static double
train(double *b, double *q, const struct salt_rows *r)
{
	double z = 0, loss = 0, share = 1.0 / (double)(r->n * r->context);

	for (uint32_t v = 0; v < r->vocab; v++) {
		q[v] = 0;
		z += exp(b[v]);
	}
	for (uint64_t p = 0; p < r->n * r->context; p++) {
		uint64_t i = p / r->context;
		double w = r->kd_weight[i];		/* 0: no label */

		q[r->tokens[i * (r->context + 1) + p % r->context + 1]] += share * (1 - w + (w > 0 ? w * r->tail[p] : 0));
		for (int64_t at = w > 0 ? r->offsets[p] : 0; w > 0 && at < r->offsets[p + 1]; at++)
			q[r->ids[at]] += share * w * r->weights[at];
	}
	for (uint32_t v = 0; v < r->vocab; v++) {
		loss -= q[v] * (b[v] - log(z));
		b[v] -= 100 * (exp(b[v]) / z - q[v]);
	}
	return loss;
}

int
main(int argc, char **argv)
{
	struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = argc > 1 ? argv[1] : NULL};
	struct salt_plan plan = {.size = sizeof(plan)};
	struct salt_rows *rows;
	struct salt_error e;
	struct salt *s;
	int rc;

	if (salt_open(&s, &o, &e) != 0 || salt_plan(s, &plan, &e) != 0)
		return fprintf(stderr, "%s\n", e.text), e.exit_code;
	double *b = calloc(plan.vocab, sizeof(*b)), *q = malloc(plan.vocab * sizeof(*q));

	rc = b == NULL || q == NULL;
	for (uint64_t step = argc > 2 ? strtoull(argv[2], NULL, 10) : 0; step < plan.steps && rc == 0; step++) {
		if (step > 0 && step == plan.switch_step)	/* a real trainer has its checkpoint on disk
								   by now */
			salt_release(s, step, &e);
		else if (plan.checkpoint_every > 0 && step % plan.checkpoint_every == 0)
			salt_checkpointed(s, step, &e);
		while ((rc = salt_rows(s, step, 0, plan.batch, 1000, &rows, &e)) == SALT_TIMEOUT)
			fprintf(stderr, "waiting: %s\n", e.text);
		if (rc == 0)
			printf("step %llu phase %d loss %.4f\n", (unsigned long long)step, rows->phase, train(b, q, rows));
		salt_rows_free(&rows);
	}
	if (rc == 0)
		rc = salt_flush(s, 10000, &e);
	if (rc != 0)
		fprintf(stderr, "%s: %s\n", salt_code_name(rc), e.text);
	salt_close(&s);
	free(b);
	free(q);
	return rc != 0 ? e.exit_code : 0;
}
