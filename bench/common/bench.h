/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench - what the benches share: clock, median, the JSON of results, peers that answer how long they take.
 *
 * A bench ends with an exit code for what it could not do (no memory, no such file), never for being slow.
 */
#ifndef SALT_BENCH_H
#define SALT_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

/* bench_now - seconds of the monotonic clock. */
double bench_now(void);

/* bench_median - of n >= 1 values, which it sorts; the mean of the two middle ones where n is even. */
double bench_median(double *x, int n);

/* bench_need - p, or the end of the process (71) where it is NULL. bench_fail - the end with the note and the exit code of rc. */
void *bench_need(void *p);
void bench_fail(const char *what, int rc, const struct err_note *note) __attribute__((noreturn));

/* ---- results ---- */

struct bench_results;

struct bench_results *bench_results_new(void);
/* A row: printed and kept. peer NULL: none (peer_value is not looked at); else ratio = value / peer_value. */
void bench_row(struct bench_results *r, const char *name, double value, const char *unit, const char *peer, double peer_value);
/* A row without a figure: the reason is printed, and stands in the file as "why". */
void bench_no_row(struct bench_results *r, const char *name, const char *unit, const char *why);
/* bench_results_end - writes path (NULL: no file), frees. Returns the exit code, 0 or 73. */
int bench_results_end(struct bench_results **r, const char *path);

/* ---- shapes ---- */

struct bench_shape {
	const char *name;
	int64_t batch, tokens, lanes, micro_batch;
	struct model_config config;
};

/*
 * bench_shape - "gpt2_124m" (4 x 256), "small" (32 x 256), "llama_135m" (4 x 512), "gpt2_124m_16" (16 x 256), "llama_3m" (16 x 256 by two); for
 * GPUs "gpt2_124m_gpu" (128 x 1024 by 32), "gpt2_1558m_gpu" (32 x 1024 by 8), "llama_135m_gpu" (64 x 1024). tiny: the same families in a moment.
 * NULL: none such.
 */
const struct bench_shape *bench_shape(const char *name, int tiny);

/* ---- peers ---- */

struct bench_peer;

/*
 * bench_peer_open - start a peer: a shell command that says "ready NAME" and then answers lines (bench/peers/torch_peer.py).
 * NULL, with the reason printed, where it does not start. bench_peer_name: NAME.
 */
struct bench_peer *bench_peer_open(const char *command);
void bench_peer_close(struct bench_peer **p);		/* takes NULL */
const char *bench_peer_name(const struct bench_peer *p);

/*
 * bench_peer_seconds - how long it takes for "WORK DTYPE" at a shape; below 0: it cannot. The first question about a work takes long.
 * bench_peer_variant: in which way, of the last answer ("compiled").
 */
double bench_peer_seconds(struct bench_peer *p, const char *work, const char *dtype, const struct bench_shape *shape);
const char *bench_peer_variant(const struct bench_peer *p);

#define BENCH_PEERS_MAX 4
#define BENCH_ROUNDS_MAX 100

/* ---- arguments that all benches take ---- */

struct bench_args {
	int threads;			/* --threads N: 0 = all */
	enum kernels_backend backend;	/* --backend NAME: auto, openblas, onednn or cuda */
	int rounds;			/* --rounds N: what is compared takes turns this often */
	int tiny;			/* --tiny: shapes of a moment, to see that it runs */
	const char *only;		/* --only NAME, or NULL */
	const char *json;		/* --json FILE, or NULL */
	const char *peer[BENCH_PEERS_MAX];	/* --peer COMMAND, as often as there are peers */
	int n_peers;
};

/* bench_args - ends the process (64) at what it does not know. */
void bench_args(struct bench_args *a, int argc, char **argv);
/* bench_wanted - is this name asked for? */
int bench_wanted(const struct bench_args *a, const char *name);

#endif
