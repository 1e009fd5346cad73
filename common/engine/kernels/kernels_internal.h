/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_internal - what the API (api/) and the backends share: struct kernels and a backend's table of
 * functions.
 */
#ifndef SALT_KERNELS_INTERNAL_H
#define SALT_KERNELS_INTERNAL_H

#include "engine/kernels/kernels.h"

enum kernels__transfer { KERNELS__COPY, KERNELS__UPLOAD, KERNELS__DOWNLOAD, KERNELS__DOWNLOAD_START };

enum kernels__pointwise {
	KERNELS__GELU, KERNELS__GELU_BWD, KERNELS__GELU_ERF, KERNELS__GELU_ERF_BWD, KERNELS__SWIGLU, KERNELS__SWIGLU_BWD,
	KERNELS__RELU, KERNELS__RELU_BWD, KERNELS__RELU2, KERNELS__RELU2_BWD, KERNELS__GEGLU, KERNELS__GEGLU_BWD
};

/* A stored matrix and its form in a product. */
struct kernels__matrix {
	void *data;
	enum dtype dtype;
	int64_t ld;
	bool trans;
	bool keep;			/* B only: a weight of forward, whose repacked form may be kept
					 * (kernels_params) */
	bool again;			/* with keep: it is multiplied again before its values change */
};

struct kernels_peers_ops;
struct kernels_peers_offer;

/*
 * A backend. The functions are those of kernels.h, after the checks in api/; "absent" tensors are NULL here.
 * A backend whose calls are complete when they return leaves sync and the events NULL.
 */
struct kernels_ops {
	/* True if this machine multiplies bf16. units [size]: the instructions, or what is missing. */
	bool (*bf16_units)(char *units, size_t size);
	/* open sets the handle's fields `own` and `describe`. close is called even if open has failed. */
	int (*open)(struct kernels *k, const struct kernels_options *options, struct err_note *note);
	void (*close)(struct kernels *k);

	void *(*alloc)(struct kernels *k, size_t bytes);
	void (*free)(struct kernels *k, void *p);
	void *(*host_alloc)(struct kernels *k, size_t bytes);
	void (*host_free)(struct kernels *k, void *p);
	void (*zero)(struct kernels *k, void *p, size_t bytes);
	void *(*host_pointer)(struct kernels *k, void *p);	/* NULL: no access by the host */
	void (*transfer)(struct kernels *k, enum kernels__transfer kind, void *to, const void *from, size_t bytes);
	void (*sync)(struct kernels *k);
	int (*event_new)(struct kernels *k, void **event);
	void (*event_destroy)(struct kernels *k, void *event);
	void (*event_record)(struct kernels *k, void *event);
	bool (*event_done)(struct kernels *k, void *event);
	void (*event_wait)(struct kernels *k, void *event);
	void (*params)(struct kernels *k, const void *params, size_t bytes, uint64_t generation);

	/*
	 * C[m, n] = op(A) op(B) (+ C with add) (+ bias). A, B and bias have the compute dtype, C the same or
	 * fp32. Sums are fp32 and C is rounded once. The division into parts depends on (m, n, k) alone.
	 */
	void (*matmul)(struct kernels *k, int64_t m, int64_t n, int64_t inner, const struct kernels__matrix *a,
	    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add);
	void (*column_sums)(struct kernels *k, float *sums, const struct tensor *x);		/* sums += */
	void (*embed)(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte,
	    const struct tensor *wpe, int64_t m, int64_t t, const int32_t *starts);
	void (*embed_bwd)(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe,
	    const struct tensor *d_y, const int32_t *tokens, int64_t m, int64_t t, const int32_t *starts);
	/* LayerNorm; RMSNorm if b (d_b) and mean are NULL. */
	void (*norm)(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x,
	    const struct tensor *g, const struct tensor *b, float eps);
	void (*norm_bwd)(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b,
	    const struct tensor *d_y, const struct tensor *x, const struct tensor *g, const float *mean,
	    const float *rstd, bool add);
	void (*rmsnorm_heads)(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x,
	    const struct tensor *g, float eps, int64_t m);
	void (*rmsnorm_heads_bwd)(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g,
	    const struct kernels_heads *d_y, const struct kernels_heads *x, const struct tensor *g,
	    const float *rstd, int64_t m);
	/* n elements each; unused operands are NULL. Inputs are read before outputs are written. */
	void (*pointwise)(struct kernels *k, enum kernels__pointwise op, struct tensor *const out[2],
	    const struct tensor *const in[3], int64_t n);
	void (*affine)(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift);
	void (*add_scaled)(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor);
	void (*soft_cap)(struct kernels *k, struct tensor *x, float cap);
	void (*rope)(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t,
	    const int32_t *starts, bool inverse);
	/* form is never NULL here, and its scale is not 0. */
	void (*attention)(struct kernels *k, const struct kernels_heads *o, float *lse, const struct kernels_heads *q,
	    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form,
	    int64_t b, int64_t t);
	void (*attention_bwd)(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key,
	    struct kernels_heads *d_value, const struct kernels_heads *d_o, const struct kernels_heads *o,
	    const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
	    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
	/* more is never NULL here; its bias is NULL if it is absent. */
	void (*output_loss)(struct kernels *k, const struct tensor *h, const struct tensor *w_out,
	    const struct kernels_output *more, const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w,
	    struct kernels_loss_sums *sums);
	void (*output_label)(struct kernels *k, const struct tensor *h, const struct tensor *w_out,
	    const struct kernels_output *more, const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b,
	    int64_t t, struct kernels_labels *out);
	void (*accumulate)(struct kernels *k, float *y, const float *x, int64_t n);
	void (*norm_blocks)(struct kernels *k, const float *x, int64_t n, double *out);
	void (*adamw)(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy,
	    enum dtype copy_dtype, int64_t n, const struct kernels_adamw *a);
	void (*muon)(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a);
	void (*convert)(struct kernels *k, void *to, enum dtype to_dtype, const void *from,
	    enum dtype from_dtype, int64_t n);
	const struct kernels_peers_ops *peers;	/* NULL: no transfers between devices */
};

/* The functions of peers.h. close is called only for handles whose peers are open. */
struct kernels_peers_ops {
	int (*find)(struct kernels *k, struct kernels_peers_offer *offer, struct err_note *note);
	int (*id)(struct kernels *k, void *id, struct err_note *note);
	int (*open)(struct kernels *k, const void *id, int rank, int n_ranks, struct err_note *note);
	void (*close)(struct kernels *k);
	void (*begin)(struct kernels *k);
	void (*end)(struct kernels *k);
	void (*exchange)(struct kernels *k, int partner, const void *send, size_t n_send, void *recv, size_t n_recv);
	void (*add)(struct kernels *k, float *y, const float *x, int64_t n);
};

extern const struct kernels_ops kernels__openblas, kernels__onednn;

/*
 * A plug-in: a backend in a shared library of its own, opened at run time (api/plugin.c). It exports one
 * function,
 *	const struct kernels_plugin *salt_cuda_plugin(const struct kernels_plugin_host *host);
 * Program and plug-in share the structs of kernels.h and of this file. A change of one of them raises
 * KERNELS_PLUGIN_ABI.
 */
#define KERNELS_PLUGIN_ABI 2
#define KERNELS_PLUGIN_ENTRY "salt_cuda_plugin"

/* What the program passes to the plug-in; valid as long as the process. */
struct kernels_plugin_host {
	void (*fatal)(const char *event, const char *fields) __attribute__((noreturn));	/* log_fatal */
};

struct kernels_plugin {
	uint32_t abi;				/* KERNELS_PLUGIN_ABI; the first field in every version */
	uint32_t context_bytes, ops_bytes;	/* sizes of struct kernels and struct kernels_ops */
	const struct kernels_ops *ops;
	/* Describes the device that open would use. ERR_CONFIG: no device, no driver, or too old. */
	int (*device)(struct kernels_device *device, struct err_note *note);
};

/*
 * kernels__plugin - returns the plug-in of the backend cuda, which the first call opens; any thread. Returns
 * 0, or the error of the first call: ERR_CONFIG with the file or the directories that were searched.
 * kernels__plugin_device - true if auto may select cuda: driver, plug-in and device are there. device [size]:
 * the device's name. A plug-in that exists and cannot be used is logged once.
 */
int kernels__plugin(const struct kernels_plugin **plugin, struct err_note *note);
bool kernels__plugin_device(char *device, size_t size);

struct vec;

struct kernels {
	const struct kernels_ops
	    *ops; /* the table that the API calls: the backend's, or in the guard build the guard's */
	const struct kernels_ops *backend;	/* the backend's own table, for calls among its functions */
	void *own;				/* the backend's data */
	enum dtype dtype;
	int threads;
	int64_t row_tile;			/* kernels_row_tile; 0: none */
	char compute_class[32];
	char describe[128];
	char reason[192];
	char device[64];			/* kernels_device_versions; "" on the CPU backends */
	bool peers_open;			/* peers.h */
	/* For the CPU backends. */
	const struct vec *vec;
	int64_t small;				/* CPU__SMALL; tests lower it */
	int n_slow; /* shapes for which oneDNN has only its plain loops; each is logged once */
	float *scratch, *panels, *packed;	/* see cpu__scratch, cpu__panels, cpu__packed */
	size_t scratch_bytes, panels_bytes, packed_bytes;
	/* The two tables used last: local and global layers have different frequencies. */
	struct kernels__rope {
		float *table;			/* [T, D/2] cosines, then [T, D/2] sines, of freq, times magnitude */
		float *freq, magnitude;
		int64_t t, half;
	} ropes[2];
	int rope_next;				/* index of the one that a new table replaces */
};

static inline int64_t
kernels__head_stride(const struct kernels_heads *x)
{
	return x->head_stride != 0 ? x->head_stride : x->head_dim;
}

/* Rows and columns of a tensor as a matrix: the last dimension has the columns. */
static inline int64_t
kernels__cols(const struct tensor *t)
{
	return t->dims[t->n_dims - 1];
}

static inline int64_t
kernels__rows(const struct tensor *t)
{
	int64_t n = 1;

	for (int i = 0; i < t->n_dims - 1; i++)
		n *= t->dims[i];
	return n;
}

/* Address of element i of data. */
static inline void *
kernels__element(const void *data, enum dtype dtype, int64_t i)
{
	return (char *)(uintptr_t)data + i * (int64_t)dtype_size(dtype);
}

/* kernels__shape - ends the process if the operands of a kernel do not fit together. */
void kernels__shape(bool fits, const char *kernel);

#ifdef SALT_GUARD
/*
 * A table in front of the backend's in which addresses of device memory are not valid on the host:
 * tests/kernels/guard.c.
 */
const struct kernels_ops *kernels__guard(const struct kernels_ops *backend);
#endif

#endif
