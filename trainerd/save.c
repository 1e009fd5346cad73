#include "trainerd/save.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/checkpoint/checkpoint.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "trainerd/agree.h"
#include "engine/weights/weights.h"

int
save_same_file_system(struct comm *comm, const struct save_options *o, struct err_note *note)
{
	char path[CHECKPOINT_PATH_BYTES + 64], nonce[64] = "", seen[64] = "";
	int fd, rc = 0;

	if (o->gather || comm_size(comm) == 1)
		return 0;
	if (comm_rank(comm) == 0) {
		snprintf(nonce, sizeof(nonce), "%ld-%d", (long)time(NULL), (int)getpid());
		snprintf(path, sizeof(path), "%s/.nonce", o->root);
		if ((mkdir(o->root, 0777) != 0 && errno != EEXIST) ||
		    (fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0) {
			rc = err_note_set(note, errno, "%s", o->root);
		} else {
			if (write(fd, nonce, sizeof(nonce)) != (ssize_t)sizeof(nonce))
				rc = err_note_set(note, errno != 0 ? errno : EIO, "%s", path);
			close(fd);
		}
	}
	comm_bcast(comm, 0, nonce, sizeof(nonce));
	if ((rc = agree(comm, rc, note)) != 0)
		return rc;
	snprintf(path, sizeof(path), "%s/.nonce", o->root);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
		if (read(fd, seen, sizeof(seen)) != (ssize_t)sizeof(seen))
			seen[0] = '\0';
		close(fd);
	}
	if (memcmp(seen, nonce, sizeof(nonce)) != 0) {
		rc = err_note_set(note, ERR_CONFIG, "%s", o->root);
		err_note_place(note, "rank %d", comm_rank(comm));
		err_note_expected(note, "the directory that rank 0 writes to, or checkpoint.gather: true");
		err_note_found(note, "another file system");
	}
	rc = agree(comm, rc, note);
	if (comm_rank(comm) == 0)
		unlink(path);
	return rc;
}

/* This rank's part of the optimiser's state, or, with gather, every rank's through rank 0. */
static int
write_optim(struct step *s, struct comm *comm, bool gather, const char *dir, struct checkpoint_files *files, struct err_note *note)
{
	const struct shard *own = step_shard(s);
	struct checkpoint_array arrays[2] = {{"m", step_m(s)}, {"v", step_v(s)}};
	int rank = comm_rank(comm), size = comm_size(comm), rc = 0;
	struct weights_file entry = {.name = ""}, *all = NULL;
	int64_t widest = own->n;

	if (!gather) {
		rc = checkpoint_write_optim(dir, (unsigned)rank, (unsigned)size, (uint64_t)own->begin, (uint64_t)own->end, (uint64_t)own->n,
		    arrays, 2, &entry, note);
		if (rank == 0 && (all = mem_alloc((size_t)size, sizeof(*all))) == NULL)
			rc = ENOMEM;
		if ((rc = agree(comm, rc, note)) == 0) {
			comm_gather(comm, 0, &entry, sizeof(entry), all);
			for (int r = 0; rank == 0 && r < size && rc == 0; r++)
				rc = checkpoint_files_add(files, &all[r]);
			rc = agree(comm, rc, note);
		}
		free(all);
		return rc;
	}
	if (rank != 0) {
		comm_send(comm, 0, step_m(s), own->end - own->begin);
		comm_send(comm, 0, step_v(s), own->end - own->begin);
		return agree(comm, 0, note);
	}
	if (size > 1)
		widest = shard_scratch(own);
	float *m = mem_alloc((size_t)widest, sizeof(float)), *v = mem_alloc((size_t)widest, sizeof(float));

	if (m == NULL || v == NULL)
		log_fatal("checkpoint.gather", "need_bytes=%lld", (long long)(2 * widest * (int64_t)sizeof(float)));
	for (int r = 0; r < size; r++) {
		struct shard part;

		shard_range(&part, own->n, r, size);
		if (r > 0) {
			comm_recv(comm, r, m, part.end - part.begin);
			comm_recv(comm, r, v, part.end - part.begin);
			arrays[0].x = m;
			arrays[1].x = v;
		}
		if (rc == 0)
			rc = checkpoint_write_optim(dir, (unsigned)r, (unsigned)size, (uint64_t)part.begin, (uint64_t)part.end,
			    (uint64_t)part.n, arrays, 2, &entry, note);
		if (rc == 0)
			rc = checkpoint_files_add(files, &entry);
	}
	free(m);
	free(v);
	return agree(comm, rc, note);
}

/* ---- fp32 masters on their way to rank 0, which writes them as they come and never holds more than a piece of another's ---- */

#define PIECE (INT64_C(1) << 20)	/* elements */

struct masters {
	struct step *step;
	struct comm *comm;
	float *piece;				/* [PIECE] */
	int64_t begin, end;			/* of the flat order, what it holds; everything before end has come */
};

static int
owner_of(struct masters *m, int64_t at, struct shard *part)
{
	for (int r = 0; r < comm_size(m->comm); r++) {
		shard_range(part, step_shard(m->step)->n, r, comm_size(m->comm));
		if (part->begin <= at && at < part->end)
			return r;
	}
	log_fatal("checkpoint.owner", "element=%lld", (long long)at);
}

/* The next piece after m->end: from its owner, whose pieces come in order, or this rank's own. */
static void
masters_next(struct masters *m)
{
	struct shard part;
	int owner = owner_of(m, m->end, &part);

	m->begin = m->end;
	m->end = part.end - m->begin < PIECE ? part.end : m->begin + PIECE;
	if (owner == 0)
		memcpy(m->piece, step_masters(m->step) + (m->begin - part.begin), (size_t)(m->end - m->begin) * sizeof(float));
	else
		comm_recv(m->comm, owner, m->piece, m->end - m->begin);
}

static int
masters_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	struct masters *m = arg;
	int64_t at = (int64_t)begin, end = at + (int64_t)count;

	(void)note;
	while (at < end) {
		int64_t n;

		if (at >= m->end)
			masters_next(m);
		n = (end < m->end ? end : m->end) - at;
		memcpy(out, m->piece + (at - m->begin), (size_t)n * sizeof(float));
		out += n;
		at += n;
	}
	return 0;
}

/* The other ranks' side: their range in the pieces that masters_next asks for. */
static void
masters_send(struct step *s, struct comm *comm)
{
	const struct shard *own = step_shard(s);

	for (int64_t at = own->begin; at < own->end; at += PIECE)
		comm_send(comm, 0, step_masters(s) + (at - own->begin), own->end - at < PIECE ? own->end - at : PIECE);
}

/* Rank 0's part: model and state, then the manifest and the rename. */
static int
write_rest(struct step *s, struct comm *comm, const struct save_options *o, const char *dir, const struct state *state,
    struct checkpoint_files *files, struct err_note *note)
{
	struct masters m = {.step = s, .comm = comm};
	struct json *j;
	int rc;

	if (comm_rank(comm) != 0) {
		masters_send(s, comm);
		return 0;
	}
	if ((m.piece = mem_alloc((size_t)PIECE, sizeof(float))) == NULL)
		log_fatal("checkpoint.gather", "need_bytes=%lld", (long long)(PIECE * (int64_t)sizeof(float)));
	j = state_to_json(state);
	rc = j == NULL ? ENOMEM : 0;
	if (rc == 0 && (rc = checkpoint_write_model(dir, step_model(s), o->tokenizer, masters_source, &m, 0, files, note)) == 0 &&
	    (rc = checkpoint_write_state(dir, j, files, note)) == 0)
		rc = checkpoint_finish(o->root, state->step, files, note);
	while (m.end < step_shard(s)->n)	/* after a failure: the others are still sending */
		masters_next(&m);
	json_close(&j);
	free(m.piece);
	return rc;
}

/*
 * A directory stands where the checkpoint goes. Whole: nothing to do, *there is 1. Damaged (a resume passed it over): it keeps its
 * files under another name, and the place is free.
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
	struct checkpoint_files files = {0};
	char dir[CHECKPOINT_PATH_BYTES] = "", text[1024];
	struct err_note prune_note = {.name = ""};
	int rc = 0, there = 0;

	if (comm_rank(comm) == 0) {
		rc = checkpoint_begin(o->root, state->step, dir, note);
		if (rc == ERR_EXISTS)
			rc = take_place(o, state->step, dir, &there, note);
	}
	comm_bcast(comm, 0, &there, sizeof(there));
	if ((rc = agree(comm, rc, note)) != 0 || there)
		return rc;
	comm_bcast(comm, 0, dir, sizeof(dir));
	rc = write_optim(s, comm, o->gather, dir, &files, note);
	if (rc == 0)
		rc = agree(comm, write_rest(s, comm, o, dir, state, &files, note), note);
	if (comm_rank(comm) == 0) {
		if (rc != 0)
			checkpoint_abort(o->root, state->step, NULL);
		else if (checkpoint_prune(o->root, o->keep, o->keep_steps, o->n_keep_steps, NULL, &prune_note) != 0)
			log_warn("checkpoint.prune", "why=%s", err_note_str(&prune_note, EIO, text, sizeof(text)));
	}
	free(files.files);
	return rc;
}

/* Weights and optimiser of the checkpoint at path into this rank. With gather only rank 0 reads, and sends. */
static int
load_from(struct step *s, struct comm *comm, bool gather, const char *path, struct state *state, struct err_note *note)
{
	const struct shard *own = step_shard(s);
	bool reads = !gather || comm_rank(comm) == 0;
	struct weights_model *weights = NULL;
	struct checkpoint *c = NULL;
	int rc = 0;

	if (reads) {
		if ((rc = checkpoint_open(&c, path, CHECKPOINT_SIZES, note)) != 0 ||
		    (rc = state_from_json(checkpoint_state(c), state, note)) != 0 ||
		    (rc = weights_model_open(&weights, path, step_model(s), note)) != 0 ||
		    (rc = weights_model_read(weights, (uint64_t)own->begin, (uint64_t)(own->end - own->begin), step_masters(s), note)) != 0)
			goto agree;
		if (checkpoint_optim_total(c) != (uint64_t)own->n) {
			rc = err_note_set(note, ERR_MISMATCH, "%s", path);
			err_note_expected(note, "optimiser state of %lld parameters", (long long)own->n);
			err_note_found(note, "%llu", (unsigned long long)checkpoint_optim_total(c));
			goto agree;
		}
		if ((rc = checkpoint_read_optim(c, "m", (uint64_t)own->begin, (uint64_t)(own->end - own->begin), step_m(s), note)) != 0)
			goto agree;
		rc = checkpoint_read_optim(c, "v", (uint64_t)own->begin, (uint64_t)(own->end - own->begin), step_v(s), note);
	}
agree:
	rc = agree(comm, rc, note);
	if (rc == 0 && gather && comm_size(comm) > 1) {
		comm_bcast(comm, 0, state, sizeof(*state));
		for (int r = 1; r < comm_size(comm); r++) {
			struct shard part;
			float *x = NULL;

			if (comm_rank(comm) == r) {
				comm_recv(comm, 0, step_m(s), own->end - own->begin);
				comm_recv(comm, 0, step_v(s), own->end - own->begin);
				comm_recv(comm, 0, step_masters(s), own->end - own->begin);
			} else if (comm_rank(comm) == 0) {
				shard_range(&part, own->n, r, comm_size(comm));
				if ((x = mem_alloc((size_t)(part.end - part.begin), sizeof(float))) == NULL)
					log_fatal("checkpoint.gather", "need_elements=%lld", (long long)(part.end - part.begin));
				for (int i = 0; i < 3; i++) {
					uint64_t n = (uint64_t)(part.end - part.begin);

					if ((i < 2 ? checkpoint_read_optim(c, i == 0 ? "m" : "v", (uint64_t)part.begin, n, x, note) :
					    weights_model_read(weights, (uint64_t)part.begin, n, x, note)) != 0)
						log_fatal("checkpoint.read", "path=%s rank=%d", path, r);
					comm_send(comm, r, x, part.end - part.begin);
				}
				free(x);
			}
		}
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
	if (comm_rank(comm) == 0) {
		rc = checkpoint_clean(o->root, NULL, note);
		if (rc == 0)
			rc = checkpoint_find_latest(o->root, CHECKPOINT_HASHES, &info, note);
		if (rc == ERR_NOT_FOUND) {
			info.path[0] = '\0';
			rc = 0;
		}
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
