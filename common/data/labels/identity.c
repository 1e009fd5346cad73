/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The identity of a label set or score set: xxh3-128 of a packed form (docs/formats.md has its offsets). It
 * is not the hash of the text, which locale or printf could change.
 */
#include "data/labels/labels_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {"?", "sampled", "topk", "dense"};

const char *
labels_kind_name(enum labels_kind kind)
{
	return kind >= LABELS_KIND_SAMPLED && kind <= LABELS_KIND_DENSE ? kind_names[kind] : kind_names[0];
}

int
labels_kind_from_name(const char *name, enum labels_kind *kind)
{
	for (int i = LABELS_KIND_SAMPLED; i <= LABELS_KIND_DENSE; i++)
		if (strcmp(name, kind_names[i]) == 0) {
			*kind = (enum labels_kind)i;
			return 0;
		}
	return ERR_NOT_FOUND;
}

uint32_t
labels__param(const struct labels_spec *spec)
{
	return spec->kind == LABELS_KIND_SAMPLED ? spec->n_samples : spec->kind == LABELS_KIND_TOPK ? spec->k : 0;
}

static int
out_of_range(struct err_note *note, const char *field, uint32_t v, uint32_t max)
{
	return err_expect_at(note, ERR_RANGE, "label spec", "%s", "1..%" PRIu32, "%" PRIu32, field, max, v);
}

int
labels_spec_check(const struct labels_spec *spec, struct err_note *note)
{
	if (spec->kind < LABELS_KIND_SAMPLED || spec->kind > LABELS_KIND_DENSE)
		return err_expect_at(note, ERR_RANGE, "label spec", "kind", "sampled, topk or dense", "%d",
		    (int)spec->kind);
	if (spec->version != LABELS_VERSION)
		return err_expect_at(note, ERR_VERSION, "label spec", "version", "%u", "%" PRIu32,
		    LABELS_VERSION, spec->version);
	if (spec->context < 1 || spec->context > LABELS_CONTEXT_MAX)
		return out_of_range(note, "context", spec->context, LABELS_CONTEXT_MAX);
	if (spec->vocab < 1 || spec->vocab > INT32_MAX)
		return out_of_range(note, "vocab", spec->vocab, INT32_MAX);
	if (spec->kind == LABELS_KIND_SAMPLED && (spec->n_samples < 1 || spec->n_samples > LABELS_SAMPLES_MAX))
		return out_of_range(note, "n_samples", spec->n_samples, LABELS_SAMPLES_MAX);
	if (spec->kind == LABELS_KIND_SAMPLED && spec->vocab > LABELS_UNIGRAM_VOCAB_MAX)
		return out_of_range(note, "vocab", spec->vocab, LABELS_UNIGRAM_VOCAB_MAX);
	if (spec->kind == LABELS_KIND_TOPK && (spec->k < 1 || spec->k > LABELS_PARAM_MAX || spec->k > spec->vocab))
		return out_of_range(note, "k", spec->k, spec->vocab < LABELS_PARAM_MAX ? spec->vocab : LABELS_PARAM_MAX);
	if (!(spec->tau > 0 && isfinite(spec->tau)))
		return err_expect_at(note, ERR_RANGE, "label spec", "tau", "a number above 0", "%g",
		    spec->tau);
	return 0;
}

int
labels__spec_ready(const struct labels_spec *spec, struct err_note *note)
{
	int rc = labels_spec_check(spec, note);

	if (rc != 0 || spec->kind != LABELS_KIND_SAMPLED || (spec->unigram != NULL && labels_unigram_vocab(spec->unigram) == spec->vocab))
		return rc;
	return err_expect_at(note, ERR_MISMATCH, "label spec", "unigram", "a table of %" PRIu32 " ids",
	    "%" PRIu32, spec->vocab, spec->unigram != NULL ? labels_unigram_vocab(spec->unigram) : 0);
}

/* Packs the spec into 52 bytes; fields that the kind does not use are 0. Returns the end. */
static uint8_t *
pack_spec(uint8_t *p, const struct labels_spec *spec)
{
	int sampled = spec->kind == LABELS_KIND_SAMPLED;
	struct hash128 unigram;
	uint64_t tau;

	memcpy(&tau, &spec->tau, sizeof(tau));
	labels__put(p, spec->context, 4);
	labels__put(p + 4, spec->vocab, 4);
	labels__put(p + 8, spec->kind, 4);
	labels__put(p + 12, sampled ? spec->n_samples : 0, 4);
	labels__put(p + 16, spec->kind == LABELS_KIND_TOPK ? spec->k : 0, 4);
	labels__put(p + 20, sampled ? spec->seed : 0, 4);
	labels__put(p + 24, tau, 8);
	labels__put(p + 32, spec->version, 4);
	unigram = sampled ? spec->unigram != NULL ? labels_unigram_hash(spec->unigram) : spec->unigram_hash : (struct hash128){0, 0};
	labels__put(p + 36, unigram.hi, 8);
	labels__put(p + 44, unigram.lo, 8);
	return p + 52;
}

/* Packs tag, corpus, model and compute class into 88 bytes. Returns the end. */
static uint8_t *
pack_models(uint8_t *p, const char *tag, struct hash128 corpus, struct hash128 model, const char *compute_class)
{
	memset(p, 0, 88);
	memcpy(p, tag, 8);
	labels__put(p + 8, corpus.hi, 8);
	labels__put(p + 16, corpus.lo, 8);
	labels__put(p + 24, model.hi, 8);
	labels__put(p + 32, model.lo, 8);
	memcpy(p + 40, compute_class, strnlen(compute_class, LABELS_CLASS_BYTES));
	return p + 88;
}

struct hash128
labels_set_hash(const struct labels_set *set)
{
	uint8_t packed[140];

	pack_spec(pack_models(packed, "SALTLSET", set->corpus, set->teacher, set->compute_class), &set->spec);
	return hash_bytes(packed, sizeof(packed));
}

struct hash128
labels_scores_set_hash(const struct labels_scores_set *set)
{
	uint8_t packed[96], *p = pack_models(packed, "SALTSSET", set->corpus, set->scorer, set->compute_class);

	labels__put(p, set->context, 4);
	labels__put(p + 4, set->version, 4);
	return hash_bytes(packed, sizeof(packed));
}

const char *
labels_set_text(const struct labels_set *set, char *buf, size_t size)
{
	const struct labels_spec *spec = &set->spec;
	char id[HASH_HEX_BYTES], corpus[HASH_HEX_BYTES], teacher[HASH_HEX_BYTES], param[48] = "";

	if (spec->kind == LABELS_KIND_SAMPLED)
		snprintf(param, sizeof(param), " n=%" PRIu32 " seed=%" PRIu32, spec->n_samples, spec->seed);
	else if (spec->kind == LABELS_KIND_TOPK)
		snprintf(param, sizeof(param), " k=%" PRIu32, spec->k);
	snprintf(buf, size, "labels=%s corpus=%s L=%" PRIu32 " vocab=%" PRIu32 " teacher=%s compute=%.*s tau=%.9g kind=%s%s version=%" PRIu32,
	    hash_hex(labels_set_hash(set), id), hash_hex(set->corpus, corpus), spec->context, spec->vocab, hash_hex(set->teacher, teacher),
	    LABELS_CLASS_BYTES, set->compute_class, spec->tau, labels_kind_name(spec->kind), param, spec->version);
	return buf;
}

const char *
labels_scores_set_text(const struct labels_scores_set *set, char *buf, size_t size)
{
	char id[HASH_HEX_BYTES], corpus[HASH_HEX_BYTES], scorer[HASH_HEX_BYTES];

	snprintf(buf, size, "scores=%s corpus=%s L=%" PRIu32 " scorer=%s compute=%.*s version=%" PRIu32,
	    hash_hex(labels_scores_set_hash(set), id), hash_hex(set->corpus, corpus), set->context, hash_hex(set->scorer, scorer),
	    LABELS_CLASS_BYTES, set->compute_class, set->version);
	return buf;
}
