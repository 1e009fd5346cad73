/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels - all arithmetic on tensor data, behind one handle, struct kernels. Letters as in tensor/tensor.h.
 *
 * Rules for every kernel:
 *  - The first argument is the kernels handle. Tensor data is device memory: only kernels/ dereferences it.
 *    On a GPU a call may return before its work is done (kernels_sync and kernels_download wait). Arguments
 *    marked "host" are host memory.
 *  - Callers guarantee the shapes. A wrong shape is a bug and ends the process (log_fatal).
 *  - Kernels are deterministic: the same inputs and shapes give the same bits for any number of threads.
 *    Reductions over rows use fixed blocks that depend on the shape only; there are no atomics on floats.
 *    Bits do depend on the processor (OpenBLAS's kernels, fused multiply-add) and on the backend.
 *  - Kernels whose comment says "adds" or "+=" accumulate; the others overwrite their result.
 *  - dtype: activations, their gradients and parameters have the handle's compute dtype, fp32 or bf16.
 *    Statistics (mean, rstd, lse, losses) and gradients of parameters are always fp32. With bf16 the residual
 *    stream may be fp32: y of embed, y of linear with add, x and d_x of the norms and of their backward,
 *    d_y of embed_bwd. In bf16 an operand is widened (exact), the arithmetic and every sum are fp32, and a
 *    result is rounded once, to nearest even, when it is stored. Matrix products take bf16 operands; logits
 *    and attention scores are fp32 and exist for one tile; attention probabilities are rounded where bf16
 *    units multiply them (onednn, cuda).
 *
 * tests/kernels has a scalar reference of each kernel and compares at odd sizes.
 */
#ifndef SALT_KERNELS_H
#define SALT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "base/random/random.h"
#include "engine/tensor/tensor.h"

/* ---- kernels handle ---- */

enum kernels_backend { KERNELS_BACKEND_AUTO, KERNELS_BACKEND_OPENBLAS, KERNELS_BACKEND_ONEDNN, KERNELS_BACKEND_CUDA };
enum kernels_dtype { KERNELS_DTYPE_AUTO, KERNELS_DTYPE_FP32, KERNELS_DTYPE_BF16 };

struct kernels_options {
	enum kernels_backend backend;
	enum kernels_dtype dtype;
	int threads;			/* OpenMP threads; 0: all processors that this process may run on */
	struct kernels *share;		/* NULL, or a handle of the same backend and dtype that outlives this
					 * one. Both then use one copy of repacked weights; parameters must
					 * not change while either runs */
};

struct kernels;

/*
 * kernels_new - makes a kernels handle. One host thread at a time uses it; several handles may run side by
 * side.
 *
 *   openblas fp32   on every processor
 *   onednn   bf16   the fastest, where the processor multiplies bf16 (avx512_bf16, amx_bf16)
 *   onednn   fp32   wherever oneDNN runs; slower or faster than OpenBLAS, depending on the processor
 *   openblas bf16   on every processor: bf16 storage; panels are widened and multiplied in fp32. It gives the
 *                   results of bf16 units up to the order of sums, but is slower than fp32: for continuing or
 *                   checking a bf16 run
 *   cuda     bf16   on NVIDIA GPUs of compute capability 8.0 or higher, also fp32; kernels_new opens the
 *                   plug-in libsalt_cuda.so
 *
 * auto selects cuda where driver, plug-in and device are there; else bf16 on onednn where processor and build
 * support it; else fp32 on openblas. kernels_reason says why. With backend auto and an explicit dtype the
 * fastest backend for this dtype is selected. dtype auto on cuda is bf16.
 * Returns 0, ERR_RANGE (threads), ERR_UNSUPPORTED (note: what the processor or build lacks), ERR_CONFIG
 * (cuda: no plug-in that fits this program, no driver or no device), ERR_LIBRARY (OpenBLAS is not its OpenMP
 * build; CUDA failed), ENOMEM.
 */
int kernels_new(struct kernels **k, const struct kernels_options *options, struct err_note *note);
void kernels_destroy(struct kernels **k);

enum dtype kernels_dtype(const struct kernels *k);
int kernels_threads(const struct kernels *k);
const char *kernels_compute_class(const struct kernels *k);	/* "fp32/openblas": part of label and score identities */
const char *kernels_describe(const struct kernels *k);		/* "OpenBLAS 0.3.21 Haswell fp32, 2 threads": for logs and status */
const char *kernels_reason(const struct kernels *k);		/* why this backend and dtype, for logs */
/* Bits depend on it besides the compute class: "sm_90 CUDA 13.0 cuBLASLt 13.1.0"; "" on CPU backends. */
const char *kernels_device_versions(const struct kernels *k);

/*
 * kernels_device - describes the GPU that the backend cuda computes on: the first one that
 * CUDA_VISIBLE_DEVICES leaves visible. Returns 0, or as kernels_new.
 */
struct kernels_device {
	char name[64];			/* "NVIDIA H200" */
	char arch[16];			/* "sm_90" */
	char pci_bus_id[32];		/* "0000:65:00.0": NVML identifies the device by it */
	uint64_t memory_bytes, free_bytes;	/* free_bytes: at the time of the call */
};
int kernels_device(struct kernels_device *device, struct err_note *note);
/* kernels_on_device - describes the GPU of a handle; returns false if the handle computes on the CPU. */
bool kernels_on_device(const struct kernels *k, struct kernels_device *device);

/*
 * kernels_gpu_bytes - working memory of the backend cuda, kept until the handle is destroyed: cuBLASLt's
 * workspace, and logits of some rows with their gradient (bf16 only; in fp32 it overwrites the logits), or
 * with the buffers in which labels are made. rows: rows of the largest call of the output layer. Pure: no
 * device is needed.
 */
enum kernels_gpu_use { KERNELS_GPU_TRAINS, KERNELS_GPU_LABELS, KERNELS_GPU_LABELS_DENSE };
size_t kernels_gpu_bytes(enum dtype dtype, int64_t rows, int64_t vocab, enum kernels_gpu_use use);

/*
 * kernels_params - declares that [params, params + n), in the compute dtype, are parameters with the values
 * of `generation` (a number that is never used twice; model_bind and model_changed draw it). A backend may
 * keep weights inside such a range repacked, in the format of its matrix units, until the same range comes
 * with another generation or the handle runs kernels_adamw or kernels_muon. Weights outside every range are
 * never kept. Only model_forward calls this.
 */
void kernels_params(struct kernels *k, const void *params, int64_t n, uint64_t generation);

/*
 * kernels_resolve - writes the compute class of the handle that kernels_new would make into buf. With backend
 * cuda, or with explicit backend and dtype, the result does not depend on this machine; otherwise auto is
 * decided here.
 * Returns 0 or ERR_RANGE.
 */
int kernels_resolve(const struct kernels_options *options, char *buf, size_t size, struct err_note *note);

/*
 * Device memory. kernels_alloc returns an address of the backend. Outside kernels/ it is only passed on (in
 * tensors, with an offset added), uploaded to, downloaded from and freed. In the preset `guard` any other
 * access ends the process with a report.
 *
 * Work and copies of one handle run in the order of the calls, as in one queue; on a GPU a call returns
 * before its work is done.
 *   kernels_upload          returns when `host` may be reused; later work of this handle sees the new values
 *   kernels_download        waits for all earlier work and returns when `host` is filled
 *   kernels_download_start  returns at once; `host` comes from kernels_host_alloc and is filled when an event
 *                           that is recorded afterwards is done
 *   kernels_sync            waits for all earlier work of this handle
 * On the CPU backends all of them are done when they return.
 *
 * kernels_alloc: aligned to 64 bytes, zeroed; NULL if memory is exhausted. The pages of large arrays are
 * created when they are first written: a process that allocates more than the machine has may be killed at
 * that point. kernels_free(NULL) does nothing.
 * kernels_host_alloc: host memory for transfers (page-locked where this makes them faster), aligned to 64
 * bytes, zeroed; NULL if memory is exhausted.
 */
void *kernels_alloc(struct kernels *k, size_t bytes);
void kernels_free(struct kernels *k, void *p);
void *kernels_host_alloc(struct kernels *k, size_t bytes);
void kernels_host_free(struct kernels *k, void *p);
void kernels_zero(struct kernels *k, void *p, size_t bytes);
void kernels_copy(struct kernels *k, void *to, const void *from, size_t bytes);		/* device to device */
void kernels_upload(struct kernels *k, void *to, const void *host, size_t bytes);
void kernels_download(struct kernels *k, void *host, const void *from, size_t bytes);
void kernels_download_start(struct kernels *k, void *host, const void *from, size_t bytes);
void kernels_sync(struct kernels *k);
/*
 * kernels_host_pointer - the address at which the host may read and write the device memory at p: p itself
 * where host and device share memory (CPU backends), else NULL, also in the preset guard. With NULL, data
 * must go through kernels_download and kernels_upload. It avoids copies of gigabytes within one memory. The
 * device must be done with the memory first (an event, kernels_sync).
 */
void *kernels_host_pointer(struct kernels *k, void *p);

/*
 * Events: a point in a handle's queue. kernels_event_record sets the event to all work given to k so far; it
 * may be called repeatedly. kernels_event_done says whether this work is done; kernels_event_wait blocks the
 * calling thread until it is. An event that was never recorded is done. kernels_event_new returns NULL if
 * memory is exhausted; destroy the event before the handle.
 */
struct kernels_event;
struct kernels_event *kernels_event_new(struct kernels *k);
void kernels_event_destroy(struct kernels *k, struct kernels_event **e);
void kernels_event_record(struct kernels *k, struct kernels_event *e);
bool kernels_event_done(struct kernels *k, const struct kernels_event *e);
void kernels_event_wait(struct kernels *k, const struct kernels_event *e);

/*
 * kernels_convert - to[i] = from[i] in another dtype (fp32, bf16), device to device. Widening is exact,
 * narrowing rounds to nearest even, NaN stays NaN. Equal dtypes are copied. to must not be from.
 */
void kernels_convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n);

/*
 * kernels_row_tile - from now on kernels_linear and kernels_output_label compute each `rows` rows as a
 * product of their own, so that the bits of a sequence of `rows` tokens do not depend on the other sequences
 * of its batch. 0: one product for all rows (the default). A number of rows that is not a multiple is
 * computed as one product.
 */
void kernels_row_tile(struct kernels *k, int64_t rows);

/* ---- linear layers ---- */

enum kernels_layout {
	KERNELS_OUT_IN,			/* w: [N, K], y = x w^T: torch Linear, embeddings as output layer */
	KERNELS_IN_OUT			/* w: [K, N], y = x w: GPT-2's Conv1D */
};

/*
 * y = x w^T + b or y = x w + b. x: [M, K], w as layout says, b: [N] or absent, y: [M, N], not x. add: adds to
 * y instead. y may be fp32 whatever the dtype of x and w (logits).
 */
void kernels_linear(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *w, const struct tensor *b,
    enum kernels_layout layout, bool add);
/* d_x = d_y w (by layout); add: d_x +=. */
void kernels_linear_bwd_x(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *w,
    enum kernels_layout layout, bool add);
/* d_w = d_y^T x (by layout); add: d_w +=. Adds the column sums of d_y to d_b unless it is absent. d_w, d_b fp32. */
void kernels_linear_bwd_w(struct kernels *k, struct tensor *d_w, struct tensor *d_b, const struct tensor *d_y, const struct tensor *x,
    enum kernels_layout layout, bool add);

/* ---- embeddings ---- */

/*
 * Documents. A sequence may hold several documents that must not see each other. For this, embed, rope and
 * attention take starts: host [B*T]; starts[m] is the index in its sequence, 0 .. m mod T, of the first token
 * of row m's document. The position of row m is then m mod T - starts[m], and the row attends to the rows of
 * its document up to itself. NULL: each sequence is one document, all starts are 0. The results of a
 * document's rows do not depend on the other documents, bit for bit, as long as the document stays at the
 * same index.
 */

/*
 * y[m, :] = wte[tokens[m], :] + wpe[position of m, :]. tokens: host [B*T], in range. wpe: absent means that
 * it is not added. y: [B*T, C].
 */
void kernels_embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe,
    int64_t b, int64_t t, const int32_t *starts);
/* Adds to d_wte (in order of m, so that bits are fixed) and to d_wpe unless it is absent. */
void kernels_embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y, const int32_t *tokens,
    int64_t b, int64_t t, const int32_t *starts);

/* ---- norms ---- x, y, d_*: [M, C]; g, b: [C]; mean, rstd: fp32 [M], written by forward, read by backward */

/* y = (x - mean(x)) * rstd * g + b, rstd = 1/sqrt(var(x) + eps), biased variance. y may be x. */
void kernels_layernorm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps);
/* add: adds to d_x. Always adds to d_g and d_b, which do not overlap. d_x may be d_y. */
void kernels_layernorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add);
/* y = x / rms(x) * g, rstd = 1/sqrt(mean(x^2) + eps). y may be x. */
void kernels_rmsnorm(struct kernels *k, struct tensor *y, float *rstd, const struct tensor *x, const struct tensor *g, float eps);
void kernels_rmsnorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, const struct tensor *d_y, const struct tensor *x,
    const struct tensor *g, const float *rstd, bool add);

/* ---- pointwise ---- */

/* gelu_new: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). bwd: d_x = d_y * gelu'(x); d_x may be d_y. */
void kernels_gelu(struct kernels *k, struct tensor *y, const struct tensor *x);
void kernels_gelu_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x);
/*
 * The exact GELU, x Phi(x) = 0.5 x (1 + erf(x / sqrt(2))), as in GPT-NeoX. bwd: d_x = d_y (Phi(x) + x
 * phi(x)); d_x may be d_y.
 */
void kernels_gelu_erf(struct kernels *k, struct tensor *y, const struct tensor *x);
void kernels_gelu_erf_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x);
/*
 * ReLU: y = max(x, 0) or, squared, max(x, 0)^2. bwd: d_x = d_y [x > 0], or d_y 2 max(x, 0); d_x may be d_y.
 */
void kernels_relu(struct kernels *k, struct tensor *y, const struct tensor *x, bool squared);
void kernels_relu_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x, bool squared);
/* SwiGLU: y = silu(gate) * up. bwd writes both; d_gate, d_up may be any of d_y, gate, up. */
void kernels_swiglu(struct kernels *k, struct tensor *y, const struct tensor *gate, const struct tensor *up);
void kernels_swiglu_bwd(struct kernels *k, struct tensor *d_gate, struct tensor *d_up, const struct tensor *d_y,
    const struct tensor *gate, const struct tensor *up);
/* GeGLU: y = gelu_new(gate) * up; otherwise as kernels_swiglu. */
void kernels_geglu(struct kernels *k, struct tensor *y, const struct tensor *gate, const struct tensor *up);
void kernels_geglu_bwd(struct kernels *k, struct tensor *d_gate, struct tensor *d_up, const struct tensor *d_y,
    const struct tensor *gate, const struct tensor *up);

/* y = factor * x + shift for each element; x and y have the same size, each fp32 or bf16. y may be x */
void kernels_affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift);
/* y = x + factor * branch. x, y: fp32, y may be x; branch: fp32 or bf16. */
void kernels_add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor);
/* x = cap * tanh(x / cap), fp32, in place. */
void kernels_soft_cap(struct kernels *k, struct tensor *x, float cap);

/* ---- attention ---- */

/*
 * A set of heads inside a wider row: element (b, t, h, d) is data[(b*T + t) * stride + h*S + d] with S =
 * head_stride. q, k and v of a fused [M, 3C] projection are three such sets with stride 3C and different
 * data; GPT-NeoX, whose row is [H, 3, D], has S = 3 D. Partial rotary embeddings take a view of the first R
 * of D elements of each head: head_dim R, head_stride D.
 */
struct kernels_heads {
	void *data;
	enum dtype dtype;
	int64_t stride;
	int64_t n_heads;
	int64_t head_dim;
	int64_t head_stride;		/* elements from one head to the next; 0: head_dim (adjacent heads) */
};

/*
 * RMSNorm of each head separately (Qwen3's q and k): y = x / rms(x) * g over D. x, y: m rows of heads; g:
 * [D]; rstd: fp32 [m, H]. y may be x. bwd overwrites d_x, which may be d_y, and adds to d_g.
 */
void kernels_rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x,
    const struct tensor *g, float eps, int64_t m);
void kernels_rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m);

/*
 * Rotary embedding in place, Hugging Face's half-split convention: for position t and j < D/2
 *   x'[j] = x[j] cos(t f_j) - x[j + D/2] sin(t f_j);  x'[j + D/2] = x[j + D/2] cos(t f_j) + x[j] sin(t f_j)
 * freq: host [D/2]; the model computes theta and scaling. cos and sin take the fp32 product (float)t * freq,
 * as in PyTorch; both are multiplied by magnitude (YaRN, LongRoPE; else 1). inverse: the transposed rotation,
 * which is the backward.
 */
void kernels_rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t,
    const int32_t *starts, bool inverse);

/*
 * Variants of attention; NULL or zeros: plain attention.
 * scale: factor of q k^T; 0: 1/sqrt(D).
 * soft_cap: scores s become soft_cap * tanh(s / soft_cap), after the scale and before the mask; 0: no cap.
 * window: a query sees itself and the window - 1 keys before it; 0: all keys before it.
 * starts: see Documents above.
 */
struct kernels_attention_form {
	float scale, soft_cap;
	int64_t window;
	const int32_t *starts;
};

/*
 * Causal attention: o = softmax(q k^T * scale, causal) v per head; head h uses key/value head h / (H/K). lse:
 * fp32 [B, H, T], the log-sum-exp of each row's scaled scores, for backward. o: [B*T, H*D]. Scores [T, T]
 * exist only for one tile at a time.
 */
void kernels_attention(struct kernels *k, struct tensor *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
/* Overwrites d_q, d_key, d_value. Grouped heads: d_key and d_value are sums over queries, in head order. */
void kernels_attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct tensor *d_o, const struct tensor *o, const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);

/* ---- output layer fused with the mixed-target loss ---- */

/*
 * What an output layer has besides its matrix; NULL or zeros: nothing. Logits are z = h w_out^T + bias; with
 * soft_cap, soft_cap * tanh(z / soft_cap) is used wherever logits are used.
 */
struct kernels_output {
	const struct tensor *bias;	/* [V]; NULL or absent: none */
	struct tensor *d_bias;		/* fp32 [V], added to if there is a bias and gradients are computed */
	float soft_cap;			/* 0: none */
	bool overwrite;			/* d_w is overwritten instead of added to */
};

enum kernels_residual { KERNELS_RESIDUAL_TRUE_TOKEN, KERNELS_RESIDUAL_GHOST, KERNELS_RESIDUAL_RENORMALISE };
enum kernels_token_weight {
	KERNELS_TOKEN_WEIGHT_CONSTANT, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, KERNELS_TOKEN_WEIGHT_MARGIN
};

/*
 * The training targets of M rows. Student logits z = h w_out^T, p = softmax(z), next token y, soft label t
 * with ids K, distillation weight w (0: plain LM; the soft label is not read):
 *   q = (1-w) onehot(y) + w t;  loss = logsumexp(z) - sum_v q_v z_v;  dloss/dz = p - q
 * Sparse t: ids offsets[m] .. offsets[m+1] with probabilities values (fp32, >= 0, sum <= 1 up to rounding);
 * the tail is t_tail = 1 - sum. residual says where it goes:
 *   true_token   the tail is added at y
 *   renormalise  t is divided by its sum (an empty t: all of it at y)
 *   ghost        the tail is one more class: loss_soft = -sum_K t_v log p_v - t_tail log P_tail, where P_tail
 *                is the sum of p outside K, from its own log-sum-exp; gradient outside K:
 *                p_v (1 - w t_tail / P_tail), inside p_v - w t_v; both minus (1-w) at y
 * Sampled labels (sum 1) are the same under all three. Dense t: [M, V] fp32 probabilities.
 *
 * token_weight: a row has the weight w g instead of w. t_y is the value of t at y after the residual rule,
 * p_y the student's. Where y is not in K and there is a ghost, both are those of the ghost class: t_tail and
 * P_tail. No gradient goes through g.
 *   constant             g = 1
 *   teacher_confidence   g = min(1, t_y)
 *   margin               g = max(0, 1 - p_y / t_y), 0 if t_y = 0
 * docs/training.md has the sources.
 */
#define KERNELS_NO_TARGET INT32_MIN

struct kernels_targets {
	int64_t n_rows;			/* M of the session's last forward */
	const int32_t *next;		/* host [M]: y; KERNELS_NO_TARGET: the row has no loss and no
					 * gradient, and is in no sum */
	const float *weight;		/* host [M]: w of each row, 0..1, before token_weight; NULL: all 0 */
	const float *loss_weight;	/* host [M]: a of each row, finite: factor of its loss and gradient;
					 * 0: as KERNELS_NO_TARGET; NULL: all 1 */
	const int64_t *offsets;		/* host [M + 1]; NULL: no sparse labels */
	const int32_t *ids;		/* host, in 0..V-1, ascending within a row, no duplicates */
	const float *values;		/* host */
	const float *dense;		/* host [M, V]; NULL: sparse */
	enum kernels_residual residual;
	enum kernels_token_weight token_weight;
	float *row_loss;		/* host [M] or NULL: the mixed loss of each row, nats, before
					 * loss_weight; 0 without a target */
	float *row_hard;		/* host [M] or NULL: -log p_y */
};

/*
 * Sums over the rows in row order, fp64. A mean loss is a sum divided by loss_weight or kd_loss_weight. These
 * are equal to rows and kd_rows if the targets have no loss_weight.
 */
struct kernels_loss_sums {
	double loss;			/* a times the mixed loss */
	double hard;			/* a times the LM loss, -log p_y, of every row with a target */
	double soft;			/* a times the cross-entropy to t after the residual rule; w > 0 */
	double entropy;			/* -a sum t log t after the residual rule (a ghost is one class), of
					 * rows with w > 0; KL(t || p) = soft - entropy */
	double loss_weight, kd_loss_weight;	/* sums of a over the rows counted in rows, in kd_rows */
	double weight;			/* w g, of rows with w > 0 */
	int64_t correct;		/* rows with a target where argmax z == y (lowest id wins ties) */
	int64_t rows, kd_rows;		/* with a target; of these, with w > 0 */
	bool finite;			/* every row's loss was a finite number */
};

/*
 * h: [M, C] final hidden states; w_out: [V, C]; more: see struct kernels_output. Works in chunks of rows:
 * logits exist for one chunk only. With d_h and d_w absent (data NULL) it only evaluates. Otherwise it
 * overwrites d_h = grad_scale * a (p - q) w_out and adds grad_scale * (a (p - q))^T h to d_w (fp32). *sums is
 * overwritten. With a soft cap p - q is multiplied by the cap's derivative.
 */
void kernels_output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w, struct kernels_loss_sums *sums);

/* ---- a teacher's scores and labels, without ever holding [M, V] ---- */

enum kernels_label_kind { KERNELS_LABEL_NONE, KERNELS_LABEL_SAMPLED, KERNELS_LABEL_TOPK, KERNELS_LABEL_DENSE };

struct kernels_label_spec {
	bool score;			/* fill loss_nats and rank */
	enum kernels_label_kind kind;
	int n;				/* N draws, or k; at most V' */
	float tau;			/* t = softmax(u / tau) for labels; scores always use u itself */
	uint32_t seed;			/* labels.seed */
	int64_t n_valid;		/* V': ids >= V' (beyond the tokenizer) are masked in labels and scores; 0: V */
};

/*
 * Rows are m = b*T + t; t is the position of a row in its sequence, seqs[b] the number of the sequence. u:
 * logits.
 * score:    loss_nats = logsumexp(u) - u_y; rank = number of v with u_v > u_y or (u_v == u_y and v < y).
 * sampled:  N draws from t. Draw d (from 0) uses words of random_words(seed, RANDOM_PURPOSE_LABEL, seq, t,
 * d/2):
 *           out[0..1] for even d, out[2..3] for odd, r = random_uniform53: the id is the smallest v whose
 *           cumulative probability exceeds r * total, in id order. counts: unique ids ascending with counts.
 * topk:     the k most probable ids, descending; ties: lower id first. values = log t.
 * dense:    values[m, v] = log t_v, masked ids -inf.
 * A row's bits depend only on its logits. (The bits of the logits may depend on the number of rows of the
 * product: a fixed tile gives fixed labels.) Weights exp((u - max) / tau) are rounded to multiples of 2^-33,
 * so sums of up to 2^20 of them are exact in fp64, and a draw does not depend on the order of summation; ids
 * less probable than 2^-34 of the best are never drawn. A row that is not finite still gets ids in range; its
 * loss is not finite.
 */
struct kernels_labels {
	float *loss_nats;		/* [M] if score */
	int32_t *rank;			/* [M] if score */
	int32_t *n_unique;		/* [M]      sampled */
	int32_t *ids;			/* [M, n]   sampled (first n_unique of a row), topk */
	int32_t *counts;		/* [M, n]   sampled */
	float *values;			/* [M, n]   topk; [M, V] dense */
};

/* h: [B*T, C]; next: host [B*T], or NULL without score; seqs: host [B]. All arrays of out are host memory. */
void kernels_output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t, struct kernels_labels *out);

/*
 * kernels_output_bytes - working memory of kernels_output_loss with gradients on the CPU backends, kept until
 * the handle is destroyed: logits of some rows, one row per thread (two with a soft cap), and in bf16 their
 * rounded gradient. rows: rows of the largest call.
 */
size_t kernels_output_bytes(enum dtype dtype, int64_t rows, int64_t vocab, bool soft_cap, int threads);

/* ---- the optimiser's arithmetic, on flat fp32 ranges ---- */

/* y += x, n elements: the step of which the tree of gradient sums consists. */
void kernels_accumulate(struct kernels *k, float *y, const float *x, int64_t n);

#define KERNELS_NORM_BLOCK (64 * 1024)

/*
 * Writes the sum of squares, fp64, of each block of KERNELS_NORM_BLOCK elements (the last may be short) to
 * host out[ceil(n / block)]. x must start where a block of the flat array starts (engine/optim/split.h), so
 * that blocks are the same for any sharding. A NaN or infinity gives a sum that is not finite.
 */
void kernels_norm_blocks(struct kernels *k, const float *x, int64_t n, double *out);

/*
 * AdamW (Loshchilov & Hutter, 2019; with PyTorch's order of operations), on one range:
 *   g = grad * grad_scale;  w -= lr * decay * w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   w -= lr * (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
 * step counts from 1. copy: NULL, or the compute-dtype copy of w (fp32 or bf16), written in the same pass.
 * Repacked weights are discarded.
 */
struct kernels_adamw {
	float lr, beta1, beta2, eps, decay, grad_scale;
	int64_t step;
};
void kernels_adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy, enum dtype copy_dtype, int64_t n,
    const struct kernels_adamw *a);

/*
 * Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/; as torch.optim.Muon), on one matrix
 * W [rows, cols]:
 *   g = grad * grad_scale;  M = momentum M + (1 - momentum) g;  U = (1 - momentum) g + momentum M  (Nesterov)
 *   W = W - lr * decay * W - lr * scale * NS(U)
 * NS(U): X = U / max(|U|, 1e-7), Frobenius norm; five times X = (a I + b G + c G^2) X with G = X X^T and
 * (a, b, c) = (3.4445, -4.7750, 2.0315), which brings all singular values near 1 (0.7 to 1.2).
 * X is always X_0 times a polynomial in G_0. So the CPU backends compute all five iterations on the smaller
 * side of the matrix: G and the product Q of the polynomials are symmetric and commute, G' = P G P, Q' = P Q,
 * and X_5 = Q X_0. The iteration is fp32, or bf16 with fp32 sums, as in torch.optim.Muon, where this is the
 * compute dtype and the backend multiplies it (onednn, cuda). onednn then rounds X, and computes G from it,
 * more than once; cuda computes the iterations as written above. W, M and U are fp32 either way. Transposing
 * W transposes the result, in bf16 within rounding. Repacked weights are discarded.
 */
struct kernels_muon {
	float lr, momentum, decay, grad_scale;
	enum dtype copy_dtype;
};

/*
 * Element (r, c) of w, m, grad and copy is element (r / group) * group_stride + (r % group) * ld + c: a
 * matrix may be some columns, or some groups of rows, of a wider one. copy: as in kernels_adamw, or NULL.
 */
struct kernels_muon_matrix {
	float *w, *m;
	const float *grad;
	void *copy;
	int64_t rows, cols, ld, group, group_stride;
	float scale;
};

/* kernels_muon - updates n matrices, which do not overlap. The list is host memory. */
void kernels_muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a);

/*
 * kernels_muon_bytes - working memory of kernels_muon in fp32 for matrices of at most this size, kept until
 * the handle is destroyed. bf16 takes less; for matrices of fewer than about 100 rows it takes up to a tenth
 * more, for oneDNN.
 */
size_t kernels_muon_bytes(int64_t rows, int64_t cols, int threads);

#endif
