/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/shard.h"

#include "check.h"
#include "engine/kernels/kernels.h"

/*
 * For every R the ranges of a part are disjoint, cover it and start on blocks; at every level the two
 * partners share one range.
 */
static void
halves(const struct optim_split *split, int part, bool blocks)
{
	const struct optim_part *whole = &split->parts[part];

	for (int ranks = 1; ranks <= 16; ranks *= 2) {
		int64_t covered = 0;
		struct shard all[16];

		for (int r = 0; r < ranks; r++)
			shard_range(&all[r], split, r, ranks);
		for (int r = 0; r < ranks; r++) {
			struct shard_part *s = &all[r].parts[part];

			covered += s->end - s->begin;
			CHECK(s->begin <= s->end && (!blocks || s->begin == s->end || (s->begin - whole->begin) % KERNELS_NORM_BLOCK == 0));
			for (int o = 0; o < r; o++)
				CHECK(all[o].parts[part].end <= s->begin || all[o].parts[part].begin >= s->end || s->begin == s->end ||
				    all[o].parts[part].begin == all[o].parts[part].end);
			for (int level = 0; level < all[r].n_levels; level++) {
				struct shard_part *p = &all[r ^ 1 << level].parts[part];

				CHECK(p->level_begin[level] == s->level_begin[level] && p->level_end[level] == s->level_end[level]);
				CHECK(p->level_end[level + 1] - p->level_begin[level + 1] + s->level_end[level + 1] - s->level_begin[level + 1] ==
				    s->level_end[level] - s->level_begin[level]);
			}
		}
		CHECK(covered == whole->end - whole->begin);
	}
}

/* Whether tensor t is inside one range of the middle part. */
static bool
whole_tensor(const struct optim_split *split, const struct model_tensor *t, int ranks)
{
	for (int r = 0; r < ranks; r++) {
		struct shard s;

		shard_range(&s, split, r, ranks);
		if (s.parts[1].begin <= t->offset && t->offset + t->n_elements <= s.parts[1].end)
			return true;
	}
	return false;
}

static void
muon(enum model_family family, bool tied)
{
	const struct model_config cfg = {.family = family, .vocab_size = 3000, .context = 64, .d_model = 96, .n_layers = 5, .n_heads = 4,
	    .n_kv_heads = 4, .head_dim = 24, .d_ff = 384, .norm_eps = 1e-5f, .tied = tied, .attention_bias = true, .mlp_bias = true,
	    .rope_theta = 10000};
	struct optim_split *split = NULL;
	struct model *m = NULL;
	int64_t n_second = 0, covered = 0;
	double most = 0, all = 0;

	REQUIRE(model_new(&m, &cfg, NULL) == 0 && optim_split_new(&split, m, OPTIM_MUON) == 0);
	CHECK(split->n == m->n_params && split->n_parts == 3);
	for (int i = 0; i < split->n_parts; i++) {
		CHECK(split->parts[i].begin == covered);
		covered = split->parts[i].end;
		halves(split, i, split->parts[i].pieces == NULL);
	}
	CHECK(covered == m->n_params);
	for (int i = 0; i < m->n_tensors; i++) {
		const struct model_tensor *t = &m->tensors[i];
		bool matrix = t->n_dims == 2 && t->layer >= 0 && t->layer < 5;
		int64_t elements = 0;

		CHECK_ROW(t->name, (t->n_matrices > 0) == matrix && optim_split_second(split, t->offset) == n_second);
		n_second += matrix ? 0 : t->n_elements;
		for (int ranks = 1; ranks <= 16; ranks *= 2)
			CHECK_ROW(t->name, !matrix || whole_tensor(split, t, ranks));
		for (int j = 0; j < t->n_matrices; j++)
			elements += model_matrix(m, i, j).rows * model_matrix(m, i, j).cols;
		CHECK_ROW(t->name, elements == (matrix ? t->n_elements : 0));
	}
	CHECK(split->n_second == n_second && optim_split_second(split, split->n) == n_second);
	/* With two ranks neither has more than half of the work plus half of that of the largest tensor. */
	for (int i = 0; i < split->parts[1].n_pieces; i++) {
		all += split->parts[1].pieces[i].cost;
		most = fmax(most, split->parts[1].pieces[i].cost);
	}
	for (int r = 0; r < 2; r++) {
		double mine = 0;
		struct shard s;

		shard_range(&s, split, r, 2);
		for (int i = 0; i < split->parts[1].n_pieces; i++)
			if (split->parts[1].pieces[i].begin >= s.parts[1].begin && split->parts[1].pieces[i].end <= s.parts[1].end)
				mine += split->parts[1].pieces[i].cost;
		CHECK(mine <= all / 2 + most / 2);
	}
	optim_split_destroy(&split);
	model_destroy(&m);
}

int
main(void)
{
	static const int64_t sizes[] = {1, KERNELS_NORM_BLOCK - 1, KERNELS_NORM_BLOCK, 5 * KERNELS_NORM_BLOCK + 17, 29 * KERNELS_NORM_BLOCK + 3};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		const struct optim_split whole = optim_split_whole(sizes[i]);

		halves(&whole, 0, true);
	}
	muon(MODEL_FAMILY_GPT2, true);
	muon(MODEL_FAMILY_LLAMA, false);
	muon(MODEL_FAMILY_NEOX, false);
	return check_done();
}
