/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "base/hash/hash.h"
#include "data/modelfiles/modelfiles.h"
#include "saltctl/model/lm.h"
#include "base/json/json.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/weights/weights.h"

static const struct cli_option options[] = {
	{"context", "L", "tokens of a sequence, for FLOPs and memory; default: the model's longest", false},
	{"micro-batch", "N", "sequences of a micro-batch, for the memory of training; default 1", false},
	{"tensors", NULL, "list the tensors", false},
	CTL_JSON, CTL_END
};

struct facts {
	const char *path;
	struct model *model;
	uint64_t context, micro_batch;
	bool has_weights;
	char fingerprint[HASH_HEX_BYTES], files[HASH_HEX_BYTES];	/* of the weights; modelfiles_hash */
	char remarks[512];			/* weights_model_remarks */
	struct json *origin;			/* lm_origin */
	size_t train_bytes, infer_bytes;	/* activations of a session; 0: too large */
	double flops;				/* forward and backward per token */
	char compute[128];
	char compute_reason[192];
	struct kernels_device gpu;		/* memory_bytes 0: none */
};

static void
shape(const struct model_tensor *t, char *buf, size_t size)
{
	size_t n = 0;

	for (int d = 0; d < t->n_dims && n < size; d++)
		n += (size_t)snprintf(buf + n, size - n, d > 0 ? " x %lld" : "%lld", (long long)t->dims[d]);
}

static void
print_tensors(const struct model *m)
{
	struct ctl_table *t = ctl_table_new("tensor\t>shape\t>elements\tdecay");
	char buf[128];

	for (int i = 0; i < m->n_tensors; i++) {
		const struct model_tensor *e = &m->tensors[i];

		shape(e, buf, sizeof(buf));
		ctl_table_add(t, "%s\t%s\t%" PRId64 "\t%s", e->name, buf, e->n_elements, e->decay ? "yes" : "no");
	}
	ctl_table_end(&t);
}

static int64_t
layers_with(const struct model_config *c, bool (*has)(const struct model_config *, int))
{
	int64_t n = 0;

	for (int i = 0; i < c->n_layers; i++)
		n += has(c, i);
	return n;
}

static int
print_json(const struct facts *f, bool tensors)
{
	const struct model_config *c = &f->model->config;
	struct json *list = ctl_array(), *o = ctl_record(CTL("family", model_family_name(c->family)),
	    CTL("layers", c->n_layers), CTL("width", c->d_model), CTL("heads", c->n_heads),
	    CTL("kv_heads", c->n_kv_heads), CTL("head_dim", c->head_dim), CTL("ff", c->d_ff),
	    CTL("vocabulary", c->vocab_size), CTL("max_context", c->context), CTL("tied", c->tied),
	    CTL("window", ctl_known(c->window > 0, c->window)), CTL("window_layers", layers_with(c, model_layer_local)),
	    CTL("no_rope_layers", layers_with(c, model_layer_nope)),
	    CTL("rope_scaling", model_traits(c->family)->rope ? model_rope_scaling_name(c->rope_scaling.type) : NULL),
	    CTL("params", f->model->n_params), CTL("context", f->context), CTL("flops_per_token", f->flops),
	    CTL("flops_per_token_forward", f->flops / 3), CTL("param_bytes", f->model->n_params * 4),
	    CTL("train_activation_bytes", ctl_known(f->train_bytes > 0, (int64_t)f->train_bytes)),
	    CTL("label_activation_bytes", ctl_known(f->infer_bytes > 0, (int64_t)f->infer_bytes)),
	    CTL("fingerprint", f->has_weights ? f->fingerprint : NULL), CTL("files_hash", f->has_weights ? f->files : NULL),
	    CTL("remarks", f->remarks), CTL("compute", f->compute),
	    CTL("compute_reason", f->compute_reason), CTL("machine", ctl_cpus()));
	char buf[128];

	for (int i = 0; tensors && i < f->model->n_tensors; i++) {
		shape(&f->model->tensors[i], buf, sizeof(buf));
		ctl_push(list, ctl_record(CTL("name", f->model->tensors[i].name), CTL("shape", buf),
		    CTL("elements", f->model->tensors[i].n_elements)));
	}
	if (tensors)
		ctl_put(o, "tensors", list);
	else
		json_close(&list);
	if (f->origin != NULL)
		ctl_put(o, "grown_from", f->origin);
	if (f->gpu.memory_bytes > 0)
		ctl_put(o, "gpu", ctl_gpu(&f->gpu));
	return ctl_print_json(o);
}

static void
print_origin(const struct json *o)
{
	char noise[48] = "", from[HASH_HEX_BYTES], depth[16];

	/* The file may come from anywhere, so its texts go through ctl_printable. */
	snprintf(from, sizeof(from), "%s", ctl_text_of(o, "fingerprint", "?"));
	snprintf(depth, sizeof(depth), "%s", ctl_text_of(o, "depth", "?"));

	if (ctl_num_of(o, "noise", 0) > 0)
		snprintf(noise, sizeof(noise), ", noise %g of seed %" PRId64, ctl_num_of(o, "noise", 0), ctl_int_of(o, "seed", 0));
	ctl_line("grown from", "%s: %" PRId64 " layers, width %" PRId64 ", %" PRId64 " heads (%" PRId64 " key/value), feed-forward %" PRId64
	    "; depth %s%s", ctl_printable(from), ctl_int_of(o, "layers", 0), ctl_int_of(o, "width", 0), ctl_int_of(o, "heads", 0),
	    ctl_int_of(o, "kv_heads", 0), ctl_int_of(o, "ff", 0), ctl_printable(depth), noise);
}

static void
print_text(const struct facts *f)
{
	const struct model_config *c = &f->model->config;
	double params = (double)f->model->n_params;
	char a[32], b[32];

	ctl_line("model", "%s", f->path);
	ctl_line("family",
	    "%s: %" PRId64 " layers, width %" PRId64 ", %" PRId64 " heads (%" PRId64 " key/value) of %" PRId64
	    ", feed-forward %" PRId64, model_family_name(c->family), c->n_layers, c->d_model, c->n_heads,
	    c->n_kv_heads, c->head_dim, c->d_ff);
	ctl_line("vocabulary", "%" PRId64 ", output layer %s", c->vocab_size,
	    c->tied ? "tied to the embedding" : "of its own");
	ctl_line("longest sequence", "%" PRId64 " tokens", c->context);
	if (c->window > 0)
		ctl_line("window", "%" PRId64 " tokens in %" PRId64 " layers", c->window, layers_with(c, model_layer_local));
	if (layers_with(c, model_layer_nope) > 0)
		ctl_line("no rotary positions", "in %" PRId64 " layers", layers_with(c, model_layer_nope));
	if (c->rope_scaling.type != MODEL_ROPE_DEFAULT)
		ctl_line("rotary scaling", "%s", model_rope_scaling_name(c->rope_scaling.type));
	ctl_line("parameters", "%" PRId64 " in %d tensors, %s as fp32", f->model->n_params,
	    f->model->n_tensors, ctl_bytes(4 * params, a));
	ctl_line("FLOPs a token", "%s forward and backward, %s forward, at context %" PRIu64, ctl_count(f->flops, a),
	    ctl_count(f->flops / 3, b), f->context);
	if (f->train_bytes > 0)
		ctl_line("memory to train",
		    "%s of parameters, gradients and both moments, %s of activations at %" PRIu64 " x %" PRIu64,
		    ctl_bytes(16 * params, a), ctl_bytes((double)f->train_bytes, b), f->micro_batch, f->context);
	if (f->infer_bytes > 0)
		ctl_line("memory to label", "%s of parameters, %s of activations a thread", ctl_bytes(4 * params, a),
		    ctl_bytes((double)f->infer_bytes, b));
	ctl_line("fingerprint", "%s", f->has_weights ? f->fingerprint : "none: no weights here");
	if (f->has_weights)
		ctl_line("hash of files", "%s", f->files);
	if (f->remarks[0] != '\0')
		ctl_line("weights", "%s", f->remarks);
	if (f->origin != NULL)
		print_origin(f->origin);
	ctl_line("compute here", "%s", f->compute);
	ctl_line("because", "%s", f->compute_reason);
	if (f->gpu.memory_bytes > 0)
		ctl_line_gpu(&f->gpu);
	ctl_line_cpus();
}

static int
look(struct facts *f, struct err_note *note)
{
	struct model_session_options train = {.max_batch = (int64_t)f->micro_batch,
	    .max_tokens = (int64_t)f->context, .training = true};
	struct model_session_options infer = {.max_batch = 1, .max_tokens = (int64_t)f->context};
	struct kernels_options ko = {.threads = 0};
	struct kernels *k = NULL;
	struct weights_model *w = NULL;
	struct hash128 fingerprint, files;
	bool checkpoint;
	int rc;

	/* A folder with only config.json is just a shape. Weights are read as eval would read them. */
	if (weights_present(f->path)) {
		if ((rc = weights_model_open(&w, f->path, f->model, note)) != 0)
			return rc;
		snprintf(f->remarks, sizeof(f->remarks), "%s", weights_model_remarks(w));
		if ((rc = checkpoint_verify_model(f->path, &checkpoint, note)) == 0)
			rc = weights_model_fingerprint(w, f->path, &fingerprint, note);
		if (rc == 0)
			rc = modelfiles_hash(f->path, &files, note);
		weights_model_close(&w);
		if (rc != 0)
			return rc;
		f->has_weights = true;
		hash_hex(fingerprint, f->fingerprint);
		hash_hex(files, f->files);
	}
	f->flops = model_flops_per_token(&f->model->config, (int64_t)f->context);
	if (model_session_plan(&f->model->config, DTYPE_F32, &train, &f->train_bytes, NULL) != 0)
		f->train_bytes = 0;
	if (model_session_plan(&f->model->config, DTYPE_F32, &infer, &f->infer_bytes, NULL) != 0)
		f->infer_bytes = 0;
	if ((rc = kernels_new(&k, &ko, note)) != 0)
		return rc;
	snprintf(f->compute, sizeof(f->compute), "%s", kernels_describe(k));
	snprintf(f->compute_reason, sizeof(f->compute_reason), "%s", kernels_reason(k));
	if (!kernels_on_device(k, &f->gpu))
		f->gpu.memory_bytes = 0;
	kernels_destroy(&k);
	return 0;
}

/* Prints what a model's files say if the engine does not support its architecture. Returns an exit code. */
static int
foreign_info(const struct ctl_args *args, const char *dir, int rc, const struct err_note *why)
{
	struct err_note note = {.name = ""};
	struct lm_foreign m;
	struct hash128 files;
	char hex[HASH_HEX_BYTES], a[32];

	if (rc != ERR_UNSUPPORTED || lm_foreign(dir, &m, &note) != 0)
		return ctl_fail(args, rc, why);
	if ((rc = modelfiles_hash(dir, &files, &note)) != 0)
		return ctl_fail(args, rc, &note);
	hash_hex(files, hex);
	if (ctl_has(args, "json"))
		return ctl_print_json(ctl_record(CTL("family", m.type), CTL("known", (bool)false), CTL("why", why->found), CTL("params", m.n_params),
		    CTL("tensors", m.n_tensors), CTL("bytes", m.bytes), CTL("files_hash", hex)));
	ctl_line("model", "%s", dir);
	ctl_line("family", "%s, which teacherd and trainerd do not compute (%s: %s)", m.type, why->place, why->found);
	ctl_line("as a teacher", "in PyTorch or vLLM, with teacher.compute_class");
	ctl_line("parameters", "%" PRId64 " in %" PRId64 " tensors, %s as stored", m.n_params, m.n_tensors, ctl_bytes(m.bytes, a));
	ctl_line("hash of files", "%s", hex);
	return 0;
}

static int
model_info(struct ctl_args *args)
{
	struct facts f = {.path = args->operands[0], .micro_batch = 1};
	struct err_note note = {.name = ""};
	struct model_config cfg;
	int exit_code = 0, rc;

	if ((exit_code = ctl_get_u64(args, "micro-batch", 1, 1u << 20, &f.micro_batch)) != 0)
		return exit_code;
	if ((rc = weights_config_load(f.path, &cfg, &note)) != 0)
		return foreign_info(args, f.path, rc, &note);
	if ((rc = model_new(&f.model, &cfg, &note)) != 0)
		return ctl_fail(args, rc, &note);
	f.context = (uint64_t)cfg.context;
	if ((exit_code = ctl_get_u64(args, "context", 1, (uint64_t)cfg.context, &f.context)) != 0)
		goto out;
	f.origin = lm_origin(f.path);
	if ((rc = look(&f, &note)) != 0) {
		exit_code = ctl_fail(args, rc, &note);
	} else if (ctl_has(args, "json")) {
		exit_code = print_json(&f, ctl_has(args, "tensors"));
		f.origin = NULL;		/* print_json took ownership */
	} else {
		print_text(&f);
		if (ctl_has(args, "tensors")) {
			putchar('\n');
			print_tensors(f.model);
		}
	}
out:
	json_close(&f.origin);
	model_destroy(&f.model);
	return exit_code;
}

const struct ctl_verb ctl_model_info = {
	.name = "model info", .operands = "MODEL", .summary = "shape, parameters, memory, FLOPs and fingerprint of a model",
	.about = "MODEL is a folder of the Hugging Face kind, a trainer's checkpoint, or a config.json. FLOPs are\n"
	    "counted as for PaLM: 6 for each parameter of a matrix product, and those of attention.",
	.example = "saltctl model info run/checkpoints/step_00000200",
	.options = options, .min_operands = 1, .max_operands = 1, .run = model_info,
};
