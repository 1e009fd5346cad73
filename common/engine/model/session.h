/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session - struct model_session, for forward.c, backward.c and loss.c.
 */
#ifndef SALT_MODEL_SESSION_H
#define SALT_MODEL_SESSION_H

#include "engine/model/model_internal.h"

/*
 * Activations. A table in session.c gives the width, number of copies and dtype of each buffer, from which
 * its offset in the allocation follows. The residual stream and its gradient (X, MID, D_X) are always fp32,
 * because dozens of small terms are added to them.
 */
enum buffer {
	BUFFER_X,			/* input of each layer, then of the final norm */
	BUFFER_NORM1, BUFFER_NORM1_MEAN, BUFFER_NORM1_RSTD,
	BUFFER_QKV,
	BUFFER_QK, BUFFER_QUERY_RSTD, BUFFER_KEY_RSTD,	/* q and k heads after their norm; BUFFER_QKV has them
							 * before it */
	BUFFER_LSE, BUFFER_ATT,
	BUFFER_MID,			/* x + attention. In inference X is updated in place, so this is X's
					 * memory; a layer with parallel residuals uses the next X */
	BUFFER_NORM2, BUFFER_NORM2_MEAN, BUFFER_NORM2_RSTD,
	BUFFER_ATT_OUT, BUFFER_MLP_OUT,	/* a branch's output before its norm, if not added at once */
	BUFFER_POST1_RSTD, BUFFER_POST2_RSTD, BUFFER_BRANCH,	/* statistics of that norm, and its result */
	BUFFER_GATE, BUFFER_UP, BUFFER_ACT,
	BUFFER_FINAL, BUFFER_FINAL_MEAN, BUFFER_FINAL_RSTD,
	BUFFER_LOGITS,
	/* single rows: 1 + g; ones, zeros and sinks of gradients, for norms without parameters */
	BUFFER_GAIN, BUFFER_ONES, BUFFER_ZEROS, BUFFER_SINK_G, BUFFER_SINK_B,
	/* for backward, one copy each */
	BUFFER_D_X, BUFFER_D_BRANCH,	/* D_X rounded to the compute dtype, for products */
	BUFFER_D_NORM, BUFFER_D_QKV, BUFFER_D_ATT, BUFFER_D_GATE, BUFFER_D_UP,
	BUFFER_COUNT
};

struct model__place {
	size_t offset;			/* bytes from the start of the allocation */
	size_t copy_bytes;
	int copies;			/* 0: this session does not have the buffer */
	int64_t width;			/* elements of a row */
	enum dtype dtype;
};

enum session_state { STATE_EMPTY, STATE_FORWARD, STATE_LOSS };

struct model_session {
	const struct model *model;
	struct kernels *kernels;
	struct model_session_options options;
	struct model_hooks hooks;
	const struct model_traits *traits;
	struct model__place places[BUFFER_COUNT];
	char *data;			/* from kernels_alloc */
	size_t bytes;
	float *rope_freq;		/* host [MODEL__ROPE_COUNT, rotary_dim / 2]; NULL without rope */
	int32_t *tokens;		/* host, tokens of the last forward */
	int32_t *starts;		/* host, of the last forward, see kernels.h; NULL: sequences are not
					 * divided into documents */
	int32_t document_end;		/* see model_session_documents */
	enum session_state state;
	int64_t b, t;			/* of the last forward */
	bool fresh;			/* the next gradients overwrite matrices (model_gradients_zero) */
	int slots_layer;		/* the layer whose activations are in the buffers with a single copy;
					 * -1: none */
};

/* The view [B*T, width] (width 1: [B*T]) of a buffer; layer selects the copy if there are several. */
struct tensor model__buffer(const struct model_session *s, enum buffer buffer, int layer);
/* The device address of an fp32 buffer: means, rstds, lse. */
float *model__floats(const struct model_session *s, enum buffer buffer, int layer);

/* q, k, v inside a fused row of BUFFER_QKV or BUFFER_D_QKV. */
struct model__heads {
	struct kernels_heads q, k, v;
};
struct model__heads model__heads(const struct model_session *s, enum buffer buffer, int layer);
/* The heads as their norm sees them: each head, or all heads as one wide head. */
struct kernels_heads model__norm_view(const struct model_session *s, struct kernels_heads heads);
/* The inputs of attention: the heads of BUFFER_QKV, with q and k from BUFFER_QK where they are normed. */
struct model__heads model__attention_heads(const struct model_session *s, int layer);
/* Applies rope to q and k of these heads in place, if the layer has rope. */
void model__rope(struct model_session *s, const struct model__heads *heads, int layer, bool inverse);
struct kernels_attention_form model__attention_form(const struct model_session *s, int layer);
/* True if a branch's output is scaled or normed before it is added to the residual stream. */
bool model__apart(const struct model_config *cfg);
/*
 * model__gain - the row that a norm multiplies by: g, 1 + g (in BUFFER_GAIN, valid until the next call), or
 * ones where the norm has no gain. model__or_row - t, or the first n elements of the row buffer if t is
 * absent; for biases and gradients of norms.
 */
struct tensor model__gain(struct model_session *s, const struct tensor *g);
struct tensor model__or_row(struct model_session *s, const struct tensor *t, enum buffer otherwise, int64_t n);
/* The residual stream between attention and mlp. */
struct tensor model__mid(const struct model_session *s, int layer);

void model__need(const struct model_session *s, int layer);
void model__done(const struct model_session *s, int layer);

/*
 * model__layer_forward - from X of the layer to X of the next. output false: computes only what backward
 * needs.
 */
void model__layer_forward(struct model_session *s, int layer, bool output);

#endif
