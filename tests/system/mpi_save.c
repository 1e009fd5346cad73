/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mpi_save - saves or loads a checkpoint of a model whose arrays need several pieces of every staging buffer,
 * and compares every element with a function of its index. Any number of ranks can load what any number saved
 * (ranks_same_bits.sh).
 * usage: mpirun -n R mpi_save DIR save|load [gather] [muon]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainerd/save.h"

#define CHUNK 65536

static float
value(enum step_array array, uint64_t i)
{
	return (float)((i * 2654435761u + (uint64_t)array * 977) % 8388593) * 0x1p-20f;
}

static int
source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	(void)note;
	for (uint64_t i = 0; i < count; i++)
		out[i] = value(*(enum step_array *)arg, begin + i);
	return 0;
}

/* Number of this rank's elements that differ from those of source(). */
static int64_t
wrong(struct step *s, int rank)
{
	static float x[CHUNK];
	int64_t n_wrong = 0;

	for (int i = 0; i < STEP_ARRAYS * step_parts(s); i++) {
		enum step_array a = (enum step_array)(i % STEP_ARRAYS);
		int64_t at, end;

		step_range(s, a, rank, i / STEP_ARRAYS, &at, &end);
		for (int64_t n; at < end; at += n) {
			n = end - at < CHUNK ? end - at : CHUNK;
			step_read(s, a, at, n, x);
			for (int64_t j = 0; j < n; j++)
				n_wrong += x[j] != value(a, (uint64_t)(at + j));
		}
	}
	return n_wrong;
}

int
main(int argc, char **argv)
{
	const struct kernels_options ko = {.dtype = KERNELS_DTYPE_FP32, .threads = 1};
	const struct model_config cfg = {.family = MODEL_FAMILY_LLAMA, .vocab_size = 70001, .context = 8, .d_model = 72, .n_layers = 1,
	    .n_heads = 2, .n_kv_heads = 2, .head_dim = 36, .d_ff = 96, .norm_eps = 1e-5f, .tied = true, .rope_theta = 10000,
	    .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1};
	struct step_options so = {.context = 8, .batch = 4, .micro_batch = 1, .lanes = 4, .deterministic = true};
	struct state state = {.identity = {.compute_class = "c", .optimizer = "adamw", .mode = "m"}, .step = 7, .tokens = 99, .switch_step = 3};
	struct save_options save = {.root = argc > 1 ? argv[1] : "", .keep = 2};
	struct kernels *kernels = NULL;
	struct comm *comm = NULL;
	struct step *s = NULL;
	struct err_note note = {.name = ""};
	char text[1024];
	int64_t bad;
	bool found = true;
	int rc;

	if (comm_init(&comm, &argc, &argv) != 0)
		return 70;
	if (argc < 3)
		comm_abort(comm, 64);
	for (int i = 3; i < argc; i++) {
		save.gather = save.gather || strcmp(argv[i], "gather") == 0;
		if (strcmp(argv[i], "muon") == 0) {
			so.optim.kind = OPTIM_MUON;
			strcpy(state.identity.optimizer, "muon");
		}
	}
	if ((rc = kernels_new(&kernels, &ko, &note)) != 0 || (rc = step_new(&s, &cfg, kernels, comm, &so, &note)) != 0)
		goto out;
	if (strcmp(argv[2], "save") == 0) {
		for (enum step_array a = 0; a < STEP_ARRAYS && rc == 0; a++)
			rc = step_fill(s, a, source, &a, &note);
		if (rc == 0)
			rc = save_write(s, comm, &save, &state, &note);
	} else {
		memset(&state, 0, sizeof(state));
		rc = save_load(s, comm, &save, &state, &found, &note);
	}
out:
	if (rc != 0) {
		fprintf(stderr, "mpi_save: %s\n", err_note_str(&note, rc, text, sizeof(text)));
		comm_abort(comm, 1);
	}
	bad = wrong(s, comm_rank(comm)) + !found + (state.step != 7 || state.tokens != 99 || state.switch_step != 3);
	if (bad != 0)
		fprintf(stderr, "mpi_save: rank %d: %lld elements differ\n", comm_rank(comm), (long long)bad);
	comm_max(comm, &bad, 1);
	step_destroy(&s);
	kernels_destroy(&kernels);
	comm_finalize(&comm);
	return bad != 0;
}
