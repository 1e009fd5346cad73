/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench - shared by the benches: clock, median, results as JSON, and comparison programs, which report their
 * own time.
 *
 * The exit code of a bench reports errors (no memory, no such file), never slowness.
 */
#ifndef SALT_BENCH_H
#define SALT_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

/* bench_now - seconds of the monotonic clock, or of the process's processor time with --cpu-time. */
double bench_now(void);

/* bench_median - median of n >= 1 values, which it sorts; the mean of the two middle ones if n is even. */
double bench_median(double *x, int n);

/*
 * bench_need - returns p, or exits with 71 if it is NULL. bench_fail - prints the note and exits with the
 * exit code of rc.
 */
void *bench_need(void *p);
void bench_fail(const char *what, int rc, const struct err_note *note) __attribute__((noreturn));

/* ---- results ---- */

struct bench_results;

struct bench_results *bench_results_new(void);
/*
 * bench_row - prints and stores a row. peer: name of the comparison program, whose ratio = value /
 * peer_value; NULL: none, and peer_value is ignored.
 */
void bench_row(struct bench_results *r, const char *name, double value, const char *unit, const char *peer, double peer_value);
/* bench_no_row - a row without a value: the reason is printed, and stored as "why". */
void bench_no_row(struct bench_results *r, const char *name, const char *unit, const char *why);
/* bench_results_end - writes the rows to path (NULL: no file), frees them. Returns an exit code, 0 or 73. */
int bench_results_end(struct bench_results **r, const char *path);

/* ---- shapes ---- */

struct bench_shape {
	const char *name;
	int64_t batch, tokens, lanes, micro_batch;
	struct model_config config;
};

/*
 * bench_shape - "gpt2_124m" (4 x 256), "small" (32 x 256), "llama_135m" (4 x 512), "gpt2_124m_16" (16 x 256),
 * "llama_3m" (16 x 256, micro-batches of 2); for GPUs "gpt2_124m_gpu" (128 x 1024, micro-batches of 32),
 * "gpt2_1558m_gpu" (32 x 1024, micro-batches of 8), "llama_135m_gpu" (64 x 1024). tiny: very small models of
 * the same families. Returns NULL for any other name.
 */
const struct bench_shape *bench_shape(const char *name, int tiny);

/* ---- comparison programs ---- */

struct bench_peer;

/*
 * bench_peer_open - starts a comparison program: a shell command that prints "ready NAME" and then answers
 * lines (bench/peers/torch_peer.py). Returns NULL, with the reason printed, if it does not start.
 * bench_peer_name - its NAME.
 */
struct bench_peer *bench_peer_open(const char *command);
void bench_peer_close(struct bench_peer **p);		/* *p may be NULL */
const char *bench_peer_name(const struct bench_peer *p);

/*
 * bench_peer_seconds - seconds that it takes for "WORK DTYPE" at a shape; below 0: it cannot do that. The
 * first question about a work takes long.
 * bench_peer_variant - the variant that gave the last answer ("compiled").
 */
double bench_peer_seconds(struct bench_peer *p, const char *work, const char *dtype, const struct bench_shape *shape);
const char *bench_peer_variant(const struct bench_peer *p);

#define BENCH_PEERS_MAX 4
#define BENCH_ROUNDS_MAX 100

/* ---- arguments of all benches ---- */

struct bench_args {
	int threads;			/* --threads N: 0 = all */
	enum kernels_backend backend;	/* --backend NAME: auto, openblas, onednn or cuda */
	int rounds;			/* --rounds N: number of rounds of the compared programs */
	int tiny;			/* --tiny: very small shapes, to check that everything runs */
	const char *only;		/* --only NAME, or NULL */
	const char *json;		/* --json FILE, or NULL */
	const char *peer[BENCH_PEERS_MAX];	/* --peer COMMAND, one for each comparison program */
	int n_peers;
};

/* bench_args - parses the arguments; exits with 64 at an unknown one. */
void bench_args(struct bench_args *a, int argc, char **argv);
/* bench_wanted - whether this name is to be measured (see --only). */
int bench_wanted(const struct bench_args *a, const char *name);

#endif
