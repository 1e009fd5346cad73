/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a teacher's model: the hash that identifies it, and the check that its tokenizer has the corpus's ids. */
#include "client/leases_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

#include "base/json/json.h"
#include "base/mem/mem.h"
#include "data/modelfiles/modelfiles.h"
#include "data/tokenizer/tokenizer.h"

int
salt_model_identity(const char *dir, char hex[33], struct salt_error *e)
{
	struct err_note note = {.name = ""};
	struct hash128 hash;
	int rc = modelfiles_hash(dir, &hash, &note);

	if (rc != 0)
		return client__fail(e, rc, &note);
	hash_hex(hash, hex);
	return client__ok(e);
}

/* The token of each id, for any kind of tokenizer. Only the ids are compared, not how a text is split. */
struct ids {
	struct json *root;
	const char **token;		/* [n] NULL: no token has this id */
	size_t n, cap;
};

static int
put(struct ids *t, int64_t id, const char *token)
{
	size_t n = t->n;

	if (id < 0 || id >= TOKENIZER_MAX_VOCAB)
		return ERR_RANGE;
	if ((size_t)id >= n) {
		if (mem_grow((void **)&t->token, &t->cap, (size_t)id + 1, sizeof(*t->token)) != 0)
			return ENOMEM;
		memset(t->token + n, 0, ((size_t)id + 1 - n) * sizeof(*t->token));
		t->n = (size_t)id + 1;
	}
	t->token[id] = token;
	return 0;
}

/* model.vocab is {token: id} (BPE, WordPiece, WordLevel) or [[token, score], ...] (Unigram); added_tokens come on top. */
static int
ids_load(struct ids *t, const char *path, struct err_note *note)
{
	const struct json *vocab, *added;
	const char *token;
	int64_t id;
	int rc = json_parse_file(path, TOKENIZER_MAX_FILE_BYTES, &t->root, note);

	if (rc != 0)
		return rc;
	vocab = json_get(json_get(t->root, "model"), "vocab");
	for (void *it = json_first(vocab); rc == 0 && it != NULL; it = json_next(vocab, it))
		rc = json_int(json_value(it), &id) ? put(t, id, json_key(it)) : ERR_FORMAT;
	for (size_t i = 0; rc == 0 && json_kind(vocab) == JSON_KIND_ARRAY && i < json_count(vocab); i++)
		rc = json_text(json_item(json_item(vocab, i), 0), &token) ? put(t, (int64_t)i, token) : ERR_FORMAT;
	added = json_get(t->root, "added_tokens");
	for (size_t i = 0; rc == 0 && i < json_count(added); i++)
		rc = json_int(json_get(json_item(added, i), "id"), &id) && json_text(json_get(json_item(added, i), "content"), &token) ?
		    put(t, id, token) : ERR_FORMAT;
	if (rc == ENOMEM)
		return err_note_set(note, rc, "%s", path);
	return rc != 0 || t->n == 0 ? err_expect(note, ERR_FORMAT, "%s", "a tokenizer.json with ids 0 to %u in model.vocab and added_tokens",
	    "other content", path, TOKENIZER_MAX_VOCAB - 1) : 0;
}

static void
ids_free(struct ids *t)
{
	json_close(&t->root);
	free(t->token);
}

static int
compare(const char *corpus, const char *model, uint32_t vocab, struct salt_error *e)
{
	struct ids ours = {.n = 0}, theirs = {.n = 0};
	struct err_note note = {.name = ""};
	int rc;

	if ((rc = ids_load(&ours, corpus, &note)) != 0 || (rc = ids_load(&theirs, model, &note)) != 0) {
		rc = client__fail(e, rc, &note);
		goto out;
	}
	if (ours.n > vocab)
		rc = client__error(e, SALT_MISMATCH, "options.models.vocab: expected at least %zu, the ids of %s, found %" PRIu32, ours.n, corpus, vocab);
	for (size_t i = 0; rc == 0 && i < ours.n; i++) {
		const char *found = i < theirs.n ? theirs.token[i] : NULL;

		if (ours.token[i] != NULL && (found == NULL || strcmp(ours.token[i], found) != 0))
			rc = client__error(e, SALT_MISMATCH, "%s: id %zu: expected token \"%.60s\", as in %s, found %s%.60s%s; the two models' tokenizers "
			    "must agree in all of the corpus's ids", model, i, ours.token[i], corpus, found != NULL ? "\"" : "",
			    found != NULL ? found : "no token", found != NULL ? "\"" : "");
	}
out:
	ids_free(&ours);
	ids_free(&theirs);
	return rc;
}

int
client__model_tokenizer(const struct salt_model *m, struct wire_id *id, struct salt_error *e)
{
	struct err_note note = {.name = ""};
	char own[4200], why[600];
	const char *path = m->corpus_tokenizer;
	int rc;

	snprintf(own, sizeof(own), "%s/tokenizer.json", m->dir);
	*id = (struct wire_id){false, {0, 0}};
	if (path == NULL) {
		if (access(own, F_OK) != 0)
			return SALT_OK;			/* HELLO states no tokenizer */
		path = own;
	} else if ((rc = compare(path, own, m->vocab, e)) != 0) {
		return rc;
	}
	if ((rc = tokenizer_identify(path, &id->hash, why, sizeof(why), &note)) != 0)
		return client__fail(e, rc, &note);
	id->known = true;
	return SALT_OK;
}
