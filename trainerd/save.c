/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file/file.h"
#include "engine/checkpoint/checkpoint.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "trainerd/agree.h"
#include "engine/weights/weights.h"

int
save_same_file_system(struct comm *comm, const struct save_options *o, struct err_note *note)
{
	char path[CHECKPOINT_PATH_BYTES + 64], nonce[64] = "", *seen = NULL;
	size_t n;
	int rc = 0;

	if (o->gather || comm_size(comm) == 1)
		return 0;
	snprintf(path, sizeof(path), "%s/.nonce", o->root);
	if (comm_rank(comm) == 0) {
		snprintf(nonce, sizeof(nonce), "%ld-%d", (long)time(NULL), (int)getpid());
		rc = file_replace_all(path, nonce, strlen(nonce), false, note);
	}
	comm_bcast(comm, 0, nonce, sizeof(nonce));
	if ((rc = agree(comm, rc, note)) != 0)
		return rc;
	if (file_read(path, sizeof(nonce), &seen, &n, NULL) != 0 || strcmp(seen, nonce) != 0) {
		rc = err_expect_at(note, ERR_CONFIG, "%s", "rank %d",
		    "the directory that rank 0 writes to, or checkpoint.gather: true",
		    "a different directory or file system", o->root, comm_rank(comm));
	}
	free(seen);
	rc = agree(comm, rc, note);
	if (comm_rank(comm) == 0)
		unlink(path);
	return rc;
}

/* ---- from the owners' device memory to files, through one piece of host memory ---- */

#define PIECE ((int64_t)WEIGHTS_SOURCE_MAX)	/* elements */

/* Names in checkpoints; the masters are the model itself. */
static const char *const array_names[STEP_ARRAYS] = {[STEP_M] = "m", [STEP_V] = "v"};

struct gather {
	struct step *step;
	struct comm *comm;
	enum step_array array;
	int64_t begin, end;			/* range of the flat order that piece holds; the owner's next
						   piece begins at end */
	float *piece;				/* [PIECE] */
};

/* The rank that owns element at of the array, and where the owner's range ends. */
static int
owner_of(const struct gather *g, int64_t at, int64_t *end)
{
	int64_t begin;

	for (int part = 0; part < step_parts(g->step); part++)
		for (int r = 0; r < comm_size(g->comm); r++) {
			step_range(g->step, g->array, r, part, &begin, end);
			if (begin <= at && at < *end)
				return r;
		}
	log_fatal("checkpoint.owner", "element=%lld", (long long)at);
}

static int64_t
piece_end(int64_t begin, int64_t end)
{
	return end - begin < PIECE ? end : begin + PIECE;
}

/* Rank 0: reads or receives the piece that begins at g->end. */
static void
gather_next(struct gather *g)
{
	int64_t end;
	int owner = owner_of(g, g->end, &end);

	g->begin = g->end;
	g->end = piece_end(g->begin, end);
	if (owner == comm_rank(g->comm))
		step_read(g->step, g->array, g->begin, g->end - g->begin, g->piece);
	else
		comm_recv(g->comm, owner, g->piece, g->end - g->begin);
}

/* A weights_source; elements of one owner are requested in order. */
static int
gather_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	struct gather *g = arg;
	int64_t at = (int64_t)begin, end = at + (int64_t)count;

	(void)note;
	for (int64_t n; at < end; at += n, out += n) {
		if (at >= g->end)
			gather_next(g);
		n = (end < g->end ? end : g->end) - at;
		memcpy(out, g->piece + (at - g->begin), (size_t)n * sizeof(float));
	}
	return 0;
}

/* The other ranks: send their ranges, in the pieces that gather_next receives. */
static void
gather_send(struct gather *g, int part)
{
	int64_t at, all;

	step_range(g->step, g->array, comm_rank(g->comm), part, &at, &all);
	for (int64_t end; at < all; at = end) {
		end = piece_end(at, all);
		step_read(g->step, g->array, at, end - at, g->piece);
		comm_send(g->comm, 0, g->piece, end - at);
	}
}

/* Writes the optimiser's shard for rank r and a part; r sends it if it is not this rank. */
static int
write_shard(struct gather *g, int r, int part, const char *dir, struct weights_file *entry, struct err_note *note)
{
	unsigned size = (unsigned)comm_size(g->comm), n = 0;
	struct gather each[STEP_ARRAYS];
	struct checkpoint_array arrays[STEP_ARRAYS];
	struct checkpoint_range ranges[STEP_ARRAYS];
	int64_t begin, end, total = step_total(g->step, STEP_MASTERS);
	int rc;

	for (enum step_array a = STEP_M; a <= STEP_V; a++, n++) {
		step_range(g->step, a, r, part, &begin, &end);
		each[n] = *g;
		each[n].array = a;
		each[n].begin = each[n].end = begin;
		ranges[n] = (struct checkpoint_range){(uint64_t)begin, (uint64_t)end, (uint64_t)step_total(g->step, a)};
		arrays[n] = (struct checkpoint_array){.name = array_names[a], .source = gather_source, .arg = &each[n],
		    .own = step_total(g->step, a) != total ? &ranges[n] : NULL};
	}
	step_range(g->step, STEP_MASTERS, r, part, &begin, &end);
	rc = checkpoint_write_optim(dir, (unsigned)part * size + (unsigned)r, (unsigned)step_parts(g->step) * size, (uint64_t)begin,
	    (uint64_t)end, (uint64_t)total, arrays, n, entry, note);
	for (unsigned i = 0; i < n; i++)	/* after a failure: receive what r sends in any case */
		while (r != comm_rank(g->comm) && (uint64_t)each[i].end < ranges[i].end)
			gather_next(&each[i]);
	return rc;
}

/* Writes the optimiser's state: every rank writes its shards, or, with gather, rank 0 writes them all. */
static int
write_optim(struct gather *g, bool gather, const char *dir, struct checkpoint_files *files, struct err_note *note)
{
	int rank = comm_rank(g->comm), size = comm_size(g->comm), rc = 0;
	struct weights_file entry = {.name = ""}, *all = NULL;

	for (int part = 0; part < step_parts(g->step) && gather; part++) {
		for (g->array = STEP_M; g->array <= STEP_V && rank != 0; g->array++)
			gather_send(g, part);
		for (int r = 0; r < size && rank == 0; r++) {
			struct err_note later = {.name = ""};
			int one = write_shard(g, r, part, dir, &entry, rc == 0 ? note : &later);

			if (one == 0)
				one = checkpoint_files_add(files, &entry);
			rc = rc == 0 ? one : rc;
		}
	}
	if (gather)
		return agree(g->comm, rc, note);
	if (rank == 0 && (all = mem_alloc((size_t)size, sizeof(*all))) == NULL)
		rc = ENOMEM;
	for (int part = 0; part < step_parts(g->step); part++) {
		if (rc == 0)
			rc = write_shard(g, rank, part, dir, &entry, note);
		if ((rc = agree(g->comm, rc, note)) != 0)
			break;
		comm_gather(g->comm, 0, &entry, sizeof(entry), all);
		for (int r = 0; rank == 0 && r < size && rc == 0; r++)
			rc = checkpoint_files_add(files, &all[r]);
	}
	rc = agree(g->comm, rc, note);
	free(all);
	return rc;
}

/*
 * Rank 0 writes model and state, then the manifest, and renames the directory. The other ranks send their
 * masters.
 */
static int
write_rest(struct gather *g, const struct save_options *o, const char *dir, const struct state *state, struct checkpoint_files *files,
    struct err_note *note)
{
	struct json *j;
	int rc;

	g->array = STEP_MASTERS;
	g->begin = g->end = 0;
	if (comm_rank(g->comm) != 0) {
		for (int part = 0; part < step_parts(g->step); part++)
			gather_send(g, part);
		return 0;
	}
	rc = (j = state_to_json(state)) == NULL ? ENOMEM : 0;
	if (rc == 0 && (rc = checkpoint_write_model(dir, step_model(g->step), o->tokenizer, gather_source, g, 0, files, note)) == 0 &&
	    (rc = checkpoint_write_state(dir, j, files, note)) == 0)
		rc = checkpoint_finish(o->root, state->step, files, note);
	while (g->end < step_total(g->step, STEP_MASTERS))	/* after a failure: receive what the others
								   send in any case */
		gather_next(g);
	json_close(&j);
	return rc;
}

/*
 * Called when the directory of the new checkpoint exists already. If it is complete, *there is set and
 * nothing is left to do. If it is damaged (a resume skipped it), it is renamed and the save continues.
 */
static int
take_place(const struct save_options *o, uint64_t step, char *dir, int *there, struct err_note *note)
{
	char path[CHECKPOINT_PATH_BYTES], aside[CHECKPOINT_PATH_BYTES + 32], text[1024], quoted[1200];
	struct err_note why = {.name = ""};
	int rc;

	snprintf(path, sizeof(path), "%s/step_%08llu", o->root, (unsigned long long)step);
	if ((rc = checkpoint_verify(path, CHECKPOINT_HASHES, &why)) == 0) {
		*there = 1;
		return 0;
	}
	for (int i = 1; i < 100; i++) {
		snprintf(aside, sizeof(aside), "%s.damaged-%d", path, i);
		if (access(aside, F_OK) == 0)
			continue;
		if (rename(path, aside) != 0)
			return err_note_set(note, errno, "%s", path);
		log_warn("checkpoint.damaged", "path=%s kept_as=%s why=%s", path, aside,
		    log_quote(err_note_str(&why, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		return checkpoint_begin(o->root, step, dir, note);
	}
	return err_note_set(note, ERR_EXISTS, "%s", path);
}

int
save_write(struct step *s, struct comm *comm, const struct save_options *o, const struct state *state, struct err_note *note)
{
	struct gather g = {.step = s, .comm = comm, .piece = mem_alloc((size_t)PIECE, sizeof(float))};
	struct checkpoint_files files = {0};
	char dir[CHECKPOINT_PATH_BYTES] = "", text[1024];
	struct err_note prune_note = {.name = ""};
	int rc = g.piece == NULL ? ENOMEM : 0, there = 0, pruned;

	if (rc == 0 && comm_rank(comm) == 0 && (rc = checkpoint_begin(o->root, state->step, dir, note)) == ERR_EXISTS)
		rc = take_place(o, state->step, dir, &there, note);
	comm_bcast(comm, 0, &there, sizeof(there));
	if ((rc = agree(comm, rc, note)) != 0 || there)
		goto out;
	comm_bcast(comm, 0, dir, sizeof(dir));
	if ((rc = write_optim(&g, o->gather, dir, &files, note)) == 0)
		rc = agree(comm, write_rest(&g, o, dir, state, &files, note), note);
	if (comm_rank(comm) == 0) {
		if (rc != 0)
			checkpoint_abort(o->root, state->step, NULL);
		else if ((pruned = checkpoint_prune(o->root, o->keep, o->keep_steps, o->n_keep_steps, NULL, &prune_note)) != 0)
			log_warn("checkpoint.prune", "why=\"%s\"", err_note_str(&prune_note, pruned, text, sizeof(text)));
	}
out:
	free(files.files);
	free(g.piece);
	return rc;
}

/* An array of a checkpoint, as a step_source. */
struct stored {
	const struct checkpoint *checkpoint;
	const struct weights_model *weights;
	enum step_array array;
};

static int
stored_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	const struct stored *from = arg;

	if (from->array == STEP_MASTERS)
		return weights_model_read(from->weights, begin, count, out, note);
	return checkpoint_read_optim(from->checkpoint, array_names[from->array], begin, count, out, note);
}

/* Receives what send_ranges sends. */
static int
received_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	(void)begin;
	(void)note;
	comm_recv(arg, 0, out, (int64_t)count);
	return 0;
}

/* Rank 0: sends all arrays of rank r's ranges, in the pieces that step_fill requests. */
static void
send_ranges(struct step *s, struct comm *comm, struct stored *from, int r)
{
	float *piece = mem_alloc((size_t)STEP_PIECE, sizeof(*piece));
	struct err_note note = {.name = ""};
	char text[1024];
	int rc;

	if (piece == NULL)
		log_fatal("checkpoint.gather", "need_elements=%lld", (long long)STEP_PIECE);
	for (int i = 0; i < STEP_ARRAYS * step_parts(s); i++) {
		int64_t at, end;

		from->array = (enum step_array)(i / step_parts(s));
		step_range(s, from->array, r, i % step_parts(s), &at, &end);
		for (int64_t n; at < end; at += n) {
			n = end - at < STEP_PIECE ? end - at : STEP_PIECE;
			if ((rc = stored_source(from, (uint64_t)at, (uint64_t)n, piece, &note)) != 0)
				log_fatal("checkpoint.read", "rank=%d why=\"%s\"", r, err_note_str(&note, rc, text, sizeof(text)));
			comm_send(comm, r, piece, n);
		}
	}
	free(piece);
}

/* Loads weights and optimiser state of the checkpoint at path. With gather rank 0 reads for all. */
static int
load_from(struct step *s, struct comm *comm, bool gather, const char *path, struct state *state, struct err_note *note)
{
	static const char *const optimizers[] = OPTIM_NAMES;
	bool reads = !gather || comm_rank(comm) == 0;
	struct weights_model *weights = NULL;
	struct checkpoint *c = NULL;
	struct stored from;
	int rc = 0;

	if (reads) {
		if ((rc = checkpoint_open(&c, path, CHECKPOINT_SIZES, note)) != 0 ||
		    (rc = state_from_json(checkpoint_state(c), state, note)) != 0 ||
		    (rc = state_optimizer_check(&state->identity, optimizers[step_optim(s)], path, note)) != 0 ||
		    (rc = weights_model_open(&weights, path, step_model(s), note)) != 0)
			goto agree;
		from = (struct stored){.checkpoint = c, .weights = weights};
		for (enum step_array a = STEP_M; a <= STEP_V && rc == 0; a++)
			if (checkpoint_optim_total(c, array_names[a]) != (uint64_t)step_total(s, a))
				rc = err_expect_at(note, ERR_MISMATCH, "%s", "optimiser array %s", "%lld elements", "%llu", path, array_names[a],
				    (long long)step_total(s, a), (unsigned long long)checkpoint_optim_total(c, array_names[a]));
		for (from.array = 0; from.array < STEP_ARRAYS && rc == 0; from.array++)
			rc = step_fill(s, from.array, stored_source, &from, note);
	}
agree:
	rc = agree(comm, rc, note);
	if (rc == 0 && gather && comm_size(comm) > 1) {
		comm_bcast(comm, 0, state, sizeof(*state));
		for (int r = 1; r < comm_size(comm) && reads; r++)
			send_ranges(s, comm, &from, r);
		for (enum step_array a = 0; a < STEP_ARRAYS && !reads && rc == 0; a++)
			rc = step_fill(s, a, received_source, comm, note);
		rc = agree(comm, rc, note);
	}
	weights_model_close(&weights);
	checkpoint_close(&c);
	if (rc == 0)
		step_spread(s);
	return rc;
}

int
save_load(struct step *s, struct comm *comm, const struct save_options *o, struct state *state, bool *found, struct err_note *note)
{
	struct checkpoint_info info = {.step = 0};
	int rc = 0;

	*found = false;
	if (comm_rank(comm) == 0 && (rc = checkpoint_clean(o->root, NULL, note)) == 0 &&
	    (rc = checkpoint_find_latest(o->root, CHECKPOINT_HASHES, &info, note)) == ERR_NOT_FOUND) {
		info.path[0] = '\0';
		rc = 0;
	}
	if ((rc = agree(comm, rc, note)) != 0)
		return rc;
	comm_bcast(comm, 0, &info, sizeof(info));
	if (info.path[0] == '\0')
		return 0;
	if ((rc = load_from(s, comm, o->gather, info.path, state, note)) != 0)
		return rc;
	*found = true;
	return 0;
}
