/* SPDX-License-Identifier: Apache-2.0 */
/* Compares saltctl plan's arithmetic with figures computed by hand, and its shares with the trainer's. */
#include "saltctl/plan/price.h"

#include "check.h"
#include "engine/kernels/kernels.h"
#include "trainerd/shard.h"

#define BLOCK KERNELS_NORM_BLOCK	/* 65,536 */

static const struct model_config tiny = {.family = MODEL_FAMILY_GPT2, .vocab_size = 100, .context = 16, .d_model = 8, .n_layers = 1,
    .n_heads = 2, .n_kv_heads = 2, .head_dim = 4, .d_ff = 32, .norm_eps = 1e-5f, .tied = true};

static void
shares(void)
{
	static const int64_t sizes[] = {1, BLOCK, 3 * BLOCK + 5, 64 * BLOCK, 1001 * BLOCK + 1};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int ranks = 1; ranks <= 64; ranks *= 2) {
			const struct optim_split whole = optim_split_whole(sizes[i]);
			int64_t most = 0;
			struct shard s;

			for (int r = 0; r < ranks; r++) {
				shard_range(&s, &whole, r, ranks);
				most = s.parts[0].end - s.parts[0].begin > most ? s.parts[0].end - s.parts[0].begin : most;
			}
			CHECK_NEAR(price_share(&whole, ranks) * (double)sizes[i], (double)most, 1e-6);
		}
}

/* Each of Muon's matrices belongs to one rank. */
static void
muon_shares(void)
{
	struct optim_split *split = NULL;
	struct model *m = NULL;

	REQUIRE(model_new(&m, &tiny, NULL) == 0 && optim_split_new(&split, m, OPTIM_MUON) == 0);
	CHECK(price_share(split, 1) == 1 && price_share(split, 4) < 1 && price_share(split, 4) >= 0.25);
	optim_split_destroy(&split);
	model_destroy(&m);
}

static void
work(void)
{
	struct price_work w;

	price_work(&w, 1000, 512, 512, false, true, 0);
	CHECK(w.labelled == 1000 && w.stored == 1000 && w.scored == 0 && !w.one_pass);
	/* sequences of a second epoch are labelled once */
	price_work(&w, 1000, 512, 512, false, true, 700);
	CHECK(w.labelled == 700);
	price_work(&w, 1000, 100, 40, true, false, 0);		/* 25 blocks of 100, 40 chosen from each */
	CHECK(w.blocks == 25 && w.scored == 2500 && w.labelled == 1000 && !w.one_pass);
	price_work(&w, 1001, 100, 40, true, true, 0);
	CHECK(w.blocks == 26 && w.scored == 2600 && w.labelled == 2600 && w.stored == 1040 && w.one_pass);
	price_work(&w, 0, 100, 40, true, true, 0);
	CHECK(w.blocks == 0 && w.scored == 0 && w.labelled == 0);
	CHECK_NEAR(price_unique(50), 12, 1e-9);
	CHECK_NEAR(price_unique(13), 5, 1e-9);
	CHECK_NEAR(price_unique(1), 1, 1e-9);
}

/* 4 blocks of parameters = 1 MiB of fp32 gradients; 8 micro-batches of 1 s on 2 cores; AdamW takes 0.4 s. */
static void
seconds(void)
{
	const struct optim_split whole = optim_split_whole(4 * BLOCK);
	const struct fit_shape s = {.model = &tiny, .split = &whole, .n_params = 4 * BLOCK, .dtype = DTYPE_F32,
	    .batch = 16, .micro_batch = 2, .lanes = 8,
	    .context = 10};
	const struct price_compute c = {.micro_s = 1, .update_s = 0.4, .other_s = 0.05, .cores = 2};
	struct price_machine m = {.cores = 2, .threads = 0, .ranks_per_host = 1, .between = {0.001, 1048576}, .within = {0, 1048576 * 4},
	    .sum_bytes_per_s = INFINITY};
	struct price_time one, t;

	price_time(&one, &s, &m, &c, 1);
	CHECK_NEAR(one.step_s, 8 + 0.4 + 0.05, 1e-12);
	CHECK(one.reduce_s == 0 && one.bytes == 0);
	/* four hosts: halves of 512 KiB and 256 KiB each way */
	price_time(&t, &s, &m, &c, 4);
	CHECK(t.hosts == 4 && t.cores == 2);
	CHECK_NEAR(t.compute_s, 2, 1e-12);
	CHECK_NEAR(t.update_s, 0.1, 1e-12);
	CHECK_NEAR(t.reduce_s, 0.002 + 0.5 + 0.25, 1e-12);
	CHECK_NEAR(t.gather_s, 0.752, 1e-12);
	CHECK_NEAR(t.small_s, 2 * (5 * 0.001 + 32 / 1048576.0), 1e-9);
	CHECK_NEAR(t.bytes, 2 * 786432, 1e-9);
	CHECK_NEAR(t.step_s, 2 + 0.1 + 0.752 + 0.752 + t.small_s + 0.05, 1e-12);
	CHECK_NEAR(price_efficiency(&one, &t), 8.45 / (4 * t.step_s), 1e-12);
	/* overlap of half of the reduction; of all of it, limited by the backward of one micro-batch */
	m.overlap = 0.5;
	price_time(&t, &s, &m, &c, 4);
	CHECK_NEAR(t.hidden_s, 0.376, 1e-12);
	m.overlap = 1;
	price_time(&t, &s, &m, &c, 4);
	CHECK_NEAR(t.hidden_s, 2.0 / 3, 1e-12);
	/* two hosts of two ranks: distance 1 within a host, 2 over a link that two share; a core each */
	m.overlap = 0;
	m.ranks_per_host = 2;
	price_time(&t, &s, &m, &c, 4);
	CHECK(t.hosts == 2 && t.cores == 1);
	CHECK_NEAR(t.compute_s, 4, 1e-12);
	CHECK_NEAR(t.reduce_s, 0.5 / 4 + 0.001 + 2 * 0.25, 1e-12);
	/* four ranks on two cores: each has half a core, copies take twice as long; additions count */
	m.ranks_per_host = 4;
	m.threads = 1;
	m.sum_bytes_per_s = 1048576 * 8;
	price_time(&t, &s, &m, &c, 4);
	CHECK(t.hosts == 1 && t.cores == 0.5);
	CHECK_NEAR(t.compute_s, 2 * 4, 1e-12);
	CHECK_NEAR(t.reduce_s, 2 * 0.75 / 4 + 4 * 0.75 / 8, 1e-12);
	/* one thread per rank on two cores: with one rank a core is idle */
	price_time(&t, &s, &m, &c, 1);
	CHECK_NEAR(t.compute_s, 16, 1e-12);
}

/*
 * A 1.5B teacher for a 2.8B student: 1 + 1.5 / 8.4. A saving of 0.27 pays for a teacher that was trained on
 * 0.504 of the student's tokens.
 */
static void
worth(void)
{
	struct price_worth w;

	price_worth(&w, 2.8e9, 1.5e9, 1e21, 0, 1e11, 0.27);
	CHECK_NEAR(w.inline_factor, 1.178571, 1e-6);
	CHECK_NEAR(w.made_share, 0.535714, 1e-6);
	CHECK_NEAR(w.teacher_tokens / 1e11, 0.504, 1e-9);
	price_worth(&w, 2.8e9, 1.5e9, 1e21, 3e19, 1e11, 0.27);	/* labels cost 3 % */
	CHECK_NEAR(w.label_share, 0.03, 1e-12);
	CHECK_NEAR(w.net_saving, 0.24, 1e-12);
	CHECK_NEAR(w.made_net_saving, 0.27 - 0.03 - 1.5 / 2.8, 1e-12);
	CHECK_NEAR(w.teacher_tokens / 1e11, 0.24 * 2.8 / 1.5, 1e-9);
}

int
main(void)
{
	shares();
	muon_shares();
	work();
	seconds();
	worth();
	return check_done();
}
