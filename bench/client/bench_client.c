/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_client FLEET SKIP THREADS - a trainer with libsaltfleet that discards its rows, over all steps of
 * phase one. Prints one line for the steps from SKIP on: tokens, tokens/s, processor seconds of this process
 * per million tokens, label entries per token. client.sh runs it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "bench/common/bench.h"
#include "client/saltfleet.h"

static int
failed(const struct salt_error *e)
{
	fprintf(stderr, "bench_client: %s\n", e->text);
	return e->exit_code;
}

static double
processor_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

int
main(int argc, char **argv)
{
	struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER};
	struct salt_plan plan = {.size = sizeof(plan)};
	double start = 0, cpu = 0, tokens = 0, entries = 0;
	struct salt_rows *rows;
	struct salt_error e;
	uint64_t skip;
	struct salt *s;

	if (argc != 4) {
		fprintf(stderr, "usage: bench_client FLEET SKIP THREADS\n");
		return 64;
	}
	o.config = argv[1];
	o.threads = (uint32_t)atoi(argv[3]);
	skip = strtoull(argv[2], NULL, 10);
	if (salt_open(&s, &o, &e) != 0 || salt_plan(s, &plan, &e) != 0)
		return failed(&e);
	for (uint64_t step = 0; step < plan.switch_step; step++) {
		if (step == skip) {
			start = bench_now();
			cpu = processor_s();
		}
		if (salt_rows(s, step, 0, plan.batch, 120000, &rows, &e) != 0)
			return failed(&e);
		if (step >= skip) {
			tokens += (double)(rows->n * rows->context);
			entries += rows->offsets != NULL ? (double)rows->offsets[rows->n * rows->context] : 0;
		}
		salt_rows_free(&rows);
	}
	start = bench_now() - start;
	printf("%.0f %.0f %.3f %.2f\n", tokens, tokens / start, (processor_s() - cpu) / tokens * 1e6, entries / tokens);
	salt_close(&s);
	return 0;
}
