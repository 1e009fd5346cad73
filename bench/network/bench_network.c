/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_network - latency and bandwidth between ranks, with the trainer's way of using the network: mpirun -n
 * 2 bench_network --json FILE. All pairs of neighbours (0 and 1, 2 and 3, ...) exchange at the same time.
 * alpha is the median time of an exchange of one float; beta is the rate of an exchange of --bytes in each
 * direction, after alpha is subtracted. Place the two ranks on two hosts to measure a network, on one host to
 * measure its memory. It also measures how fast a rank adds received numbers. `saltctl plan --network FILE`
 * reads the file.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err/err.h"
#include "base/json/json.h"
#include "bench/common/bench.h"
#include "engine/kernels/kernels.h"
#include "trainerd/comm.h"

#define ROUNDS 21

/* Median seconds of one exchange of n floats; `often` consecutive exchanges are timed together. */
static double
exchange(struct comm *c, float *out, float *in, int64_t n, int often)
{
	double seconds[ROUNDS], nothing = 0;

	for (int i = 0; i < ROUNDS; i++) {
		double start;

		comm_sum(c, &nothing, 1);		/* used as a barrier */
		start = bench_now();
		for (int k = 0; k < often; k++)
			comm_exchange(c, comm_rank(c) ^ 1, out, (size_t)n * sizeof(float), in, (size_t)n * sizeof(float));
		seconds[i] = (bench_now() - start) / often;
	}
	return bench_median(seconds, ROUNDS);
}

static int
put(struct json *list, const char *name, double value, const char *unit)
{
	struct json *o = json_new_object();

	printf("%-28s %12.5g %s\n", name, value, unit);
	return json_put(o, "name", json_new_text(name)) != 0 || json_put(o, "value", json_new_num(value)) != 0 ||
	    json_put(o, "unit", json_new_text(unit)) != 0 || json_put(o, "peer", json_new_null()) != 0 ||
	    json_put(o, "peer_value", json_new_null()) != 0 || json_put(o, "ratio", json_new_null()) != 0 || json_push(list, o) != 0;
}

static int
write_out(const char *path, double latency, double rate, double sum)
{
	struct json *list = json_new_array();
	char *text = NULL;
	FILE *f;
	int bad = put(list, "latency_seconds", latency, "s") | put(list, "bytes_per_second", rate, "B/s") |
	    put(list, "sum_bytes_per_second", sum, "B/s");

	if (!bad && path != NULL) {
		bad = (text = json_print(list, true)) == NULL || (f = fopen(path, "we")) == NULL;
		if (!bad) {
			bad = fputs(text, f) < 0;
			bad |= fclose(f) != 0;
		}
		if (bad)
			fprintf(stderr, "bench_network: %s: %s\n", path, strerror(errno));
	}
	free(text);
	json_close(&list);
	return bad;
}

int
main(int argc, char **argv)
{
	struct kernels_options ko = {.threads = 1, .dtype = KERNELS_DTYPE_FP32};
	struct err_note note = {.name = ""};
	struct kernels *k = NULL;
	struct comm *c = NULL;
	const char *path = NULL;
	double latency, large, start, sum;
	int64_t n = INT64_C(4) << 20;		/* floats */
	float *out, *in, *x, *y;
	int bad = 1, rc;

	if ((rc = comm_init(&c, &argc, &argv)) != 0)
		return err_exit_code(rc);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0 && i + 1 < argc)
			path = argv[++i];
		else if (strcmp(argv[i], "--bytes") == 0 && i + 1 < argc && (n = atoll(argv[++i]) / 4) > 0 && n <= INT64_C(1) << 30)
			continue;
		else
			n = 0;
	}
	if (n == 0 || comm_size(c) < 2 || comm_size(c) % 2 != 0) {
		if (comm_rank(c) == 0)
			fprintf(stderr, "usage: mpirun -n 2 bench_network [--bytes N] [--json FILE]; an even number of ranks\n");
		comm_finalize(&c);
		return 64;
	}
	if ((rc = kernels_new(&k, &ko, &note)) != 0)
		comm_abort(c, err_exit_code(rc));
	out = calloc((size_t)n, sizeof(float));
	in = calloc((size_t)n, sizeof(float));
	x = kernels_alloc(k, (size_t)n * sizeof(float));
	y = kernels_alloc(k, (size_t)n * sizeof(float));
	if (out == NULL || in == NULL || x == NULL || y == NULL)
		comm_abort(c, 71);
	exchange(c, out, in, n, 1);
	latency = exchange(c, out, in, 1, 100);
	large = exchange(c, out, in, n, 1);
	kernels_accumulate(k, y, x, n);
	start = bench_now();
	for (int i = 0; i < 8; i++)
		kernels_accumulate(k, y, x, n);
	sum = 8 * 4.0 * (double)n / (bench_now() - start);
	bad = comm_rank(c) == 0 ? write_out(path, latency, 4.0 * (double)n / (large > latency ? large - latency : large), sum) : 0;
	free(out);
	free(in);
	kernels_free(k, x);
	kernels_free(k, y);
	kernels_destroy(&k);
	comm_finalize(&c);
	return bad ? 74 : 0;
}
