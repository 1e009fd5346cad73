/*
 * no_onednn - in the place of linear_onednn.c and onednn_primitive.c where a build has no oneDNN. kernels__onednn_isa and _new say that
 * there is none; what would take one is reached by nobody then.
 */
#include "engine/kernels/kernels_internal.h"

#include <stdio.h>

const struct kernels__tile *
kernels__onednn_tile(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, bool add)
{
	(void)ctx;
	(void)m;
	(void)n;
	(void)k;
	(void)a;
	(void)b;
	(void)c;
	(void)add;
	return NULL;
}

size_t
kernels__onednn_tile_room(const struct kernels__tile *tile)
{
	(void)tile;
	return 0;
}

void
kernels__onednn_tile_run(const struct kernels *ctx, const struct kernels__tile *tile, const void *a, const void *b, void *c, void *room)
{
	(void)ctx;
	(void)tile;
	(void)a;
	(void)b;
	(void)c;
	(void)room;
}

int
kernels__onednn_slow(const struct kernels__onednn *o)
{
	(void)o;
	return 0;
}

int
kernels__onednn_new(struct kernels__onednn **out, enum dtype dtype, int threads, struct kernels__onednn *share)
{
	(void)dtype;
	(void)threads;
	(void)share;
	*out = NULL;
	return ERR_UNSUPPORTED;
}

void
kernels__onednn_destroy(struct kernels__onednn **o)
{
	*o = NULL;
}

void
kernels__onednn_params(struct kernels__onednn *o, const void *params, size_t bytes, uint64_t generation)
{
	(void)o;
	(void)params;
	(void)bytes;
	(void)generation;
}

void
kernels__onednn_stale(struct kernels__onednn *o)
{
	(void)o;
}

void
kernels__onednn_matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	(void)ctx;
	(void)m;
	(void)n;
	(void)k;
	(void)a;
	(void)b;
	(void)c;
	(void)bias;
	(void)add;
}

void
kernels__onednn_version(char *buf, size_t size)
{
	snprintf(buf, size, "none");
}

const char *
kernels__onednn_isa(bool *bf16)
{
	*bf16 = false;
	return NULL;
}
