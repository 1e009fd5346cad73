/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct salt_corpus {
	struct corpus *corpus;
	pthread_mutex_t lock;		/* the first call of corpus_fingerprint must run alone */
	bool has_fingerprint;
	struct hash128 fingerprint;
};

static int
dtype_of(const char *name, enum corpus_dtype *dtype)
{
	static const enum corpus_dtype all[] = {CORPUS_DTYPE_UINT16, CORPUS_DTYPE_UINT32, CORPUS_DTYPE_INT32};

	*dtype = CORPUS_DTYPE_NONE;
	for (size_t i = 0; name != NULL && i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(name, corpus_dtype_name(all[i])) == 0)
			*dtype = all[i];
	return name == NULL || *dtype != CORPUS_DTYPE_NONE ? 0 : ERR_RANGE;
}

int
salt_corpus_open(struct salt_corpus **out, const char *prefix, const char *dtype, struct salt_error *e)
{
	struct err_note note = {.name = ""};
	enum corpus_dtype stated;
	struct salt_corpus *c;
	int rc;

	*out = NULL;
	if (dtype_of(dtype, &stated) != 0)
		return client__error(e, SALT_RANGE, "dtype: expected uint16, uint32 or int32, found %.40s", dtype);
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return client__fail(e, ENOMEM, NULL);
	if ((rc = corpus_open_as(&c->corpus, prefix, stated, &note)) != 0) {
		free(c);
		return client__fail(e, rc, &note);
	}
	pthread_mutex_init(&c->lock, NULL);
	*out = c;
	return client__ok(e);
}

void
salt_corpus_close(struct salt_corpus **corpus)
{
	struct salt_corpus *c = *corpus;

	if (c == NULL)
		return;
	corpus_destroy(&c->corpus);
	pthread_mutex_destroy(&c->lock);
	free(c);
	*corpus = NULL;
}

int
salt_corpus_info(struct salt_corpus *c, struct salt_corpus_info *out, struct salt_error *e)
{
	const struct corpus_info *i = corpus_info(c->corpus);
	struct salt_corpus_info info = {.size = out->size, .n_tokens = i->n_tokens, .n_documents = i->n_documents, .n_bytes = i->n_bytes,
	    .vocab = i->vocab, .eod = i->eod};
	struct err_note note = {.name = ""};
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	if (!c->has_fingerprint && (rc = corpus_fingerprint(c->corpus, &c->fingerprint, &note)) == 0)
		c->has_fingerprint = true;
	pthread_mutex_unlock(&c->lock);
	if (rc != 0)
		return client__fail(e, rc, &note);
	snprintf(info.kind, sizeof(info.kind), "%s", corpus_kind_name(i->kind));
	snprintf(info.dtype, sizeof(info.dtype), "%s", corpus_dtype_name(i->dtype));
	if (i->has_tokenizer)
		hash_hex(i->tokenizer, info.tokenizer);
	hash_hex(c->fingerprint, info.fingerprint);
	memcpy(out, &info, out->size < sizeof(info) ? out->size : sizeof(info));
	return client__ok(e);
}

int
salt_corpus_window(struct salt_corpus *c, uint64_t index, uint32_t context, int32_t *tokens, struct salt_error *e)
{
	struct err_note note = {.name = ""};
	int rc = corpus_window(c->corpus, index, context, tokens, &note);

	return rc == 0 ? client__ok(e) : client__fail(e, rc, &note);
}
