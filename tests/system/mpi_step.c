/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mpi_step - some optimizer steps of a small model on artificial tokens with soft labels. Prints one line per
 * step and a hash of all parameters and moments at the end. The lines must be the same for any R
 * (ranks_same_bits.sh compares them).
 * usage: mpirun -n R mpi_step [any] [recompute] [bf16] [margin] [documents] [weights] [bucket=ELEMENTS]
 * [muon] [gpt2]
 *     [threads=N] [cuda] [steps=N]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash/hash.h"
#include "base/random/random.h"
#include "trainerd/comm_device.h"
#include "trainerd/step.h"

#define CONTEXT 24
#define BATCH 16
#define VOCAB 211

/* Makes sequence `seq`: a noisy cycle, so that the model can learn something. */
static void
make_tokens(uint64_t seq, int32_t *out)
{
	uint32_t u[4];

	for (uint32_t t = 0; t <= CONTEXT; t++) {
		random_words(5, RANDOM_PURPOSE_GENERATE, seq, t, 0, u);
		out[t] = u[0] % 8 == 0 ? (int32_t)(u[1] % VOCAB) : (int32_t)((seq + 3 * t) % VOCAB);
	}
}

static int
heldout(void *arg, uint64_t i, int32_t *out)
{
	(void)arg;
	make_tokens(1000000 + i, out);
	return 0;
}

int
main(int argc, char **argv)
{
	struct kernels_options ko = {.dtype = KERNELS_DTYPE_FP32, .threads = 1};
	struct model_config cfg = {.family = MODEL_FAMILY_LLAMA, .vocab_size = VOCAB, .context = CONTEXT, .d_model = 120, .n_layers = 3,
	    .n_heads = 6, .n_kv_heads = 2, .head_dim = 20, .d_ff = 352, .norm_eps = 1e-5f, .tied = true, .rope_theta = 10000,
	    .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1};
	struct step_options so = {.context = CONTEXT, .batch = BATCH, .micro_batch = 1, .lanes = 8, .deterministic = true,
	    .optim = {.lr = 3e-3, .steps = 12, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1.0}};
	struct kernels *kernels = NULL;
	struct comm *comm = NULL;
	struct step *step = NULL;
	struct err_note note = {.name = ""};
	char text[1024];
	int32_t *tokens, *ids;
	float *weight, *loss_weight, *values;
	bool weighted = false;
	int64_t *offsets, rows;
	double sums[STEP_ARRAYS] = {0};
	float *own;
	int rc, steps = 12;

	if ((rc = comm_init(&comm, &argc, &argv)) != 0)
		return 1;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "any") == 0)
			so.deterministic = false;
		else if (strcmp(argv[i], "recompute") == 0)
			so.recompute = true;
		else if (strcmp(argv[i], "bf16") == 0)
			ko.dtype = KERNELS_DTYPE_BF16;
		else if (strcmp(argv[i], "margin") == 0)
			so.token_weight = KERNELS_TOKEN_WEIGHT_MARGIN;
		else if (strcmp(argv[i], "documents") == 0)		/* a frequent token ends documents */
			so.isolate_documents = (so.document_end = 3) > 0;
		else if (strcmp(argv[i], "weights") == 0)
			weighted = true;
		else if (strcmp(argv[i], "muon") == 0)
			so.optim.kind = OPTIM_MUON;
		else if (strcmp(argv[i], "gpt2") == 0)		/* fused queries, keys and values */
			cfg = (struct model_config){.family = MODEL_FAMILY_GPT2, .vocab_size = VOCAB, .context = CONTEXT, .d_model = 120, .n_layers = 2,
			    .n_heads = 6, .n_kv_heads = 6, .head_dim = 20, .d_ff = 300, .norm_eps = 1e-5f, .attention_bias = true, .mlp_bias = true,
			    .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1};
		else if (strcmp(argv[i], "cuda") == 0)
			ko.backend = KERNELS_BACKEND_CUDA;
		else if (strncmp(argv[i], "steps=", 6) == 0)
			steps = atoi(argv[i] + 6);
		else if (strncmp(argv[i], "threads=", 8) == 0)
			ko.threads = atoi(argv[i] + 8);
		else if (strncmp(argv[i], "bucket=", 7) == 0)
			so.bucket = atoll(argv[i] + 7);
		else
			comm_abort(comm, 64);
	}
	if ((rc = kernels_new(&kernels, &ko, &note)) != 0 || (rc = step_new(&step, &cfg, kernels, comm, &so, &note)) != 0 ||
	    (rc = step_init(step, 3, &note)) != 0) {
		fprintf(stderr, "%s\n", err_note_str(&note, rc, text, sizeof(text)));
		comm_abort(comm, err_exit_code(rc));
	}
	rows = BATCH / comm_size(comm);
	tokens = calloc((size_t)(rows * (CONTEXT + 1)), sizeof(*tokens));
	weight = calloc((size_t)rows, sizeof(*weight));
	loss_weight = calloc((size_t)(rows * CONTEXT), sizeof(*loss_weight));
	offsets = calloc((size_t)(rows * CONTEXT + 1), sizeof(*offsets));
	ids = calloc((size_t)(rows * CONTEXT * 2), sizeof(*ids));
	values = calloc((size_t)(rows * CONTEXT * 2), sizeof(*values));
	comm_device_peers(comm, kernels);
	step_spread(step);
	for (int s = 0; s < steps; s++) {
		struct step_rows in = {.n_rows = rows, .tokens = tokens};
		struct step_result out;

		for (int64_t r = 0; r < rows; r++) {
			make_tokens((uint64_t)(s * BATCH + comm_rank(comm) * rows + r), tokens + r * (CONTEXT + 1));
			weight[r] = 0.5f;
			for (int64_t t = 0; t < CONTEXT; t++) {
				int64_t at = (r * CONTEXT + t) * 2;
				int32_t y = tokens[r * (CONTEXT + 1) + t + 1];

				ids[at] = y < VOCAB - 1 ? y : 0;
				ids[at + 1] = y < VOCAB - 1 ? y + 1 : y;
				loss_weight[r * CONTEXT + t] = (float)((s * BATCH + comm_rank(comm) * rows + r + t / 10) % 4) * 0.7f;
				values[at] = y < VOCAB - 1 ? 0.75f : 0.25f;
				values[at + 1] = y < VOCAB - 1 ? 0.25f : 0.75f;
				offsets[r * CONTEXT + t + 1] = at + 2;
			}
		}
		in.loss_weight = weighted ? loss_weight : NULL;
		if (s < 6) {
			in.weight = weight;
			in.offsets = offsets;
			in.ids = ids;
			in.values = values;
		}
		step_run(step, &in, 3e-3f, s + 1, &out);
		if (comm_rank(comm) == 0)
			printf("step %d loss %.17g hard %.17g soft %.17g norm %.17g accuracy %.17g weight %.17g\n", s + 1, out.loss, out.hard,
			    out.soft, out.grad_norm, out.accuracy, out.weight);
	}
	struct step_eval e;

	if ((rc = step_evaluate(step, steps == 12 ? 37 : 5, heldout, NULL, NULL, &e)) != 0)
		comm_abort(comm, 70);
	/* Every rank adds the bits of its range as integers below 2^53, which is exact in any order. */
	own = calloc((size_t)step_model(step)->n_params, sizeof(*own));
	for (int i = 0; i < STEP_ARRAYS * step_parts(step); i++) {
		int a = i % STEP_ARRAYS;
		int64_t begin, end;

		step_range(step, (enum step_array)a, comm_rank(comm), i / STEP_ARRAYS, &begin, &end);
		step_read(step, (enum step_array)a, begin, end - begin, own);
		for (int64_t j = 0; j < end - begin; j++) {
			union { float f; uint32_t u; } bits = {.f = own[j]};

			sums[a] += bits.u;
		}
	}
	comm_sum(comm, sums, STEP_ARRAYS);
	if (comm_rank(comm) == 0) {
		size_t bytes = (size_t)step_model(step)->n_params * dtype_size(step_model(step)->dtype);
		void *params = malloc(bytes);
		char hex[HASH_HEX_BYTES];

		kernels_download(kernels, params, step_model(step)->params, bytes);
		printf("eval %.17g %.17g\nparams %s moments %.17g %.17g masters %.17g\n", e.loss, e.accuracy,
		    hash_hex(hash_bytes(params, bytes), hex), sums[STEP_M], sums[STEP_V], sums[STEP_MASTERS]);
		free(params);
	}
	free(own);
	free(values);
	free(ids);
	free(offsets);
	free(loss_weight);
	free(weight);
	free(tokens);
	step_destroy(&step);
	kernels_destroy(&kernels);
	comm_finalize(&comm);
	return 0;
}
