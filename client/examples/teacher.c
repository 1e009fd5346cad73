/* SPDX-License-Identifier: Apache-2.0 */
/*
 * teacher FLEET.YAML MODEL_DIR VOCAB [NAME] - a complete teacher with libsaltfleet: leases, logits, results,
 * stop on SIGTERM. Its model has no weights: an id is as probable as it was frequent in the sequence so far.
 * MODEL_DIR only provides an identity, and must have the files of teacher.model. fleet.yaml needs
 * teacher.compute_class.
 *	cc teacher.c $(pkg-config --cflags --libs saltfleet) -lm -o teacher
 */
#include <math.h>
#include <saltfleet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t stopped;

static void
stop(int signal)
{
	stopped = signal;
}

/* logits[t, v], t < context: after tokens[0..t]. count: [vocab]. */
static void
forward(const int32_t *tokens, uint32_t context, uint32_t vocab, float *count, float *logits)
{
	for (uint32_t v = 0; v < vocab; v++)
		count[v] = 0.1f;
	for (uint32_t t = 0; t < context; t++) {
		count[tokens[t]]++;
		for (uint32_t v = 0; v < vocab; v++)
			logits[(size_t)t * vocab + v] = logf(count[v]);
	}
}

/* Computes every sequence of a lease. selectord gives a sequence that fails to another teacher. */
static int
compute(struct salt *s, struct salt_lease *lease, uint32_t vocab, struct salt_error *e)
{
	float *logits = malloc((size_t)lease->context * vocab * sizeof(*logits)), *count = malloc(vocab * sizeof(*count));
	int rc = logits != NULL && count != NULL ? 0 : salt_submit_error(s, lease, 0, "no memory", e);

	for (uint32_t i = 0; i < lease->n && rc == 0 && logits != NULL && count != NULL; i++) {
		forward(lease->tokens + i * ((size_t)lease->context + 1), lease->context, vocab, count, logits);
		rc = salt_submit_logits(s, lease, i, logits, vocab, e);
		if (rc == SALT_NONFINITE)		/* reported; the next one may be good */
			rc = 0;
	}
	free(logits);
	free(count);
	return rc == SALT_CLOSED ? 0 : rc;		/* selectord restarted: it leases again what it
							   needs */
}

int
main(int argc, char **argv)
{
	struct salt_model model = {.dir = argc > 2 ? argv[2] : ".", .vocab = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0,
	    .max_context = UINT32_MAX, .serves_score = 1, .serves_label = 1};
	struct salt_options o = {.size = sizeof(o), .role = SALT_TEACHER, .config = argc > 1 ? argv[1] : NULL, .models = &model,
	    .n_models = 1, .name = argc > 4 ? argv[4] : NULL};
	struct salt_view view = {.size = sizeof(view)};
	struct salt_lease *lease;
	struct salt_error e;
	struct salt *s;
	int rc;

	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	if (salt_open(&s, &o, &e) != 0)
		return fprintf(stderr, "%s\n", e.text), e.exit_code;
	while ((rc = salt_lease(s, 200, &lease, &e)) == 0 || rc == SALT_TIMEOUT) {
		if (rc == 0)
			rc = compute(s, lease, model.vocab, &e);
		salt_return(s, &lease);			/* takes NULL */
		if (rc != 0 && rc != SALT_TIMEOUT)
			break;
		if (stopped)
			salt_drain(s, &e);		/* leases fetched ahead go back; salt_lease then
							   returns SALT_END */
	}
	if (rc == SALT_END)
		rc = salt_flush(s, 10000, &e);		/* waits until all results are on selectord's disk */
	salt_view(s, &view, NULL);
	if (rc != 0)
		fprintf(stderr, "%s: %s\n", salt_code_name(rc), e.text);
	printf("%llu sequences, %llu not confirmed\n", (unsigned long long)view.sequences, (unsigned long long)view.unconfirmed);
	salt_close(&s);
	return rc != 0 ? e.exit_code : 0;
}
