/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint - a directory that is either complete or does not exist.
 *
 *   ROOT/step_00000100/          a Hugging Face model directory: config.json, model.safetensors (fp32
 *                                masters), tokenizer.json
 *       optim_00000_of_00002.safetensors ...   ranges [begin, end) of the optimiser's arrays in flat canonical order
 *       state.json               the trainer's state; this module does not read it
 *       MANIFEST.json            size and xxh3-128 of every file; written last
 *   ROOT/step_00000101.tmp/      incomplete, or left by a crash: never read. The next begin of that step and
 *                                checkpoint_clean remove it
 *
 * The calls of one save, in order:
 *   rank 0    checkpoint_begin            makes the temporary directory; its path is sent to all ranks
 *   each      checkpoint_write_optim      writes the rank's range; the entry is sent to rank 0
 *   rank 0    checkpoint_write_model, checkpoint_write_state
 *   rank 0    checkpoint_finish           with all entries: manifest, fsync directory, rename, fsync parent
 *   After any failure rank 0 calls checkpoint_abort; the previous checkpoint is not touched.
 * A failed write or fsync is never retried: the files are removed, and the note names the step that failed.
 *
 * Crash points (err/crash.h), in order: checkpoint.begin, checkpoint.optim, checkpoint.model, checkpoint.state,
 * checkpoint.manifest, checkpoint.sync, checkpoint.rename, checkpoint.parent; checkpoint.prune, checkpoint.pruned.
 */
#ifndef SALT_CHECKPOINT_H
#define SALT_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "engine/weights/weights.h"

#define CHECKPOINT_PATH_BYTES 4096
#define CHECKPOINT_MAX_STEP UINT64_C(9999999999)

/*
 * The files of a save so far. {0} is empty; free(list.files) at the end. Entries may be sent to other ranks
 * as bytes.
 */
struct checkpoint_files {
	struct weights_file *files;
	size_t n, cap;
};

int checkpoint_files_add(struct checkpoint_files *list, const struct weights_file *file);	/* 0 or ENOMEM */

/*
 * checkpoint_begin - removes what a crash left of ROOT/step_XXXXXXXX.tmp, creates ROOT if needed and the
 * directory, and writes its path to dir. Returns 0, ERR_EXISTS (that step exists), ERR_RANGE, errno.
 */
int checkpoint_begin(const char *root, uint64_t step, char dir[CHECKPOINT_PATH_BYTES], struct err_note *note);

struct checkpoint_range {
	uint64_t begin, end, total;
};

/*
 * One array of the optimiser ("m", "v", in any order). source writes its elements, numbered by the flat order
 * of the parameters; own is then NULL. An array that omits parameters has an order of its own, of which `own`
 * is the rank's range.
 */
struct checkpoint_array {
	const char *name;
	weights_source *source;
	void *arg;
	const struct checkpoint_range *own;
};

/*
 * checkpoint_write_optim - writes one rank's range [begin, end) of n_total elements, end >= begin, with the
 * same arrays on all ranks; a rank with several ranges counts as several. Writes and syncs
 * optim_RRRRR_of_NNNNN.safetensors, and fills entry (to be sent to rank 0). Sources are called for one array
 * after the other, with adjacent ranges of at most WEIGHTS_SOURCE_MAX elements.
 */
int checkpoint_write_optim(const char *dir, unsigned rank, unsigned n_ranks, uint64_t begin, uint64_t end, uint64_t n_total,
    const struct checkpoint_array *arrays, size_t n_arrays, struct weights_file *entry, struct err_note *note);

/*
 * checkpoint_write_model - writes config.json, model.safetensors as float32 from source (sharded above
 * max_shard_bytes, 0: never), and a copy of tokenizer (path of a tokenizer.json; NULL: none). Adds its files
 * to list.
 */
int checkpoint_write_model(const char *dir, const struct model *model, const char *tokenizer, weights_source *source, void *arg,
    uint64_t max_shard_bytes, struct checkpoint_files *list, struct err_note *note);

/* checkpoint_write_state - writes state.json. @state: any JSON object. */
int checkpoint_write_state(const char *dir, const struct json *state, struct checkpoint_files *list, struct err_note *note);

/*
 * checkpoint_finish - compares the files of all writers with the temporary directory (names and sizes, none
 * missing, no others, the optimiser's ranges without gaps), then writes MANIFEST.json, syncs, renames to
 * ROOT/step_XXXXXXXX and syncs ROOT. Returns 0: the checkpoint is durable. After any other rc it does not
 * exist, and the caller must call checkpoint_abort. The one exception is a failed fsync of ROOT after the
 * rename, which the note names: the new checkpoint may or may not survive a power cut; the previous one does.
 */
int checkpoint_finish(const char *root, uint64_t step, const struct checkpoint_files *list, struct err_note *note);

/* checkpoint_abort - removes the temporary directory of step. Returns 0, also if there is none, or errno. */
int checkpoint_abort(const char *root, uint64_t step, struct err_note *note);

/*
 * checkpoint_clean - removes every temporary directory in ROOT; n_removed may be NULL. What cannot be removed
 * stays, with a warning (event checkpoint.left). Do not call it during a save.
 */
int checkpoint_clean(const char *root, size_t *n_removed, struct err_note *note);

/* ---- finding ---- */

struct checkpoint_info {
	uint64_t step;
	char path[CHECKPOINT_PATH_BYTES];
};

/*
 * checkpoint_list - lists the directories of ROOT that have a manifest, by step; free() the list. Returns 0
 * with *n = 0 if there are none or ROOT does not exist.
 */
int checkpoint_list(const char *root, struct checkpoint_info **list, size_t *n, struct err_note *note);
/*
 * checkpoint_any - whether ROOT has a directory with the name of a checkpoint, even a damaged one without a
 * manifest; true also if ROOT cannot be read.
 */
bool checkpoint_any(const char *root);

enum checkpoint_check {
	CHECKPOINT_SIZES,			/* the manifest is well-formed, every file has its size */
	CHECKPOINT_HASHES			/* also the hashes; reads all data */
};

/* checkpoint_verify - 0; ERR_CORRUPT, ERR_FORMAT, ERR_MISMATCH, ERR_NOT_FOUND or errno; note: the file */
int checkpoint_verify(const char *path, enum checkpoint_check check, struct err_note *note);

/*
 * checkpoint_verify_model - call it before the model in a directory is used. If the directory is a
 * checkpoint, it checks the model's files (all but the optimiser and the trainer's state) against the hashes
 * of the manifest. *is: the directory is a checkpoint. Returns 0 or as checkpoint_verify.
 */
int checkpoint_verify_model(const char *dir, bool *is, struct err_note *note);

/*
 * checkpoint_find_latest - finds the newest checkpoint that passes the check. Those that fail are logged
 * (event checkpoint.skipped) and skipped. Returns 0, ERR_NOT_FOUND (there are none; the note only names
 * ROOT), ERR_CORRUPT (none passes; the note is that of the newest), errno.
 */
int checkpoint_find_latest(const char *root, enum checkpoint_check check, struct checkpoint_info *out, struct err_note *note);

/*
 * checkpoint_prune - removes all checkpoints but the n_keep newest (0 counts as 1), the steps in keep_steps,
 * and symbolic links to checkpoints elsewhere. Files that a user put into an old checkpoint are removed too.
 * Nothing is removed unless the newest one passes CHECKPOINT_HASHES. What cannot be removed stays, with a
 * warning (event checkpoint.left). n_removed may be NULL.
 */
int checkpoint_prune(const char *root, unsigned n_keep, const uint64_t *keep_steps, size_t n_keep_steps, size_t *n_removed,
    struct err_note *note);

/* ---- reading ---- */

struct checkpoint;

/*
 * checkpoint_open - verifies a checkpoint directory, reads state.json and maps the optimiser's shards. The
 * model is read separately, by weights_config_load and weights_model_open from the same path.
 */
int checkpoint_open(struct checkpoint **c, const char *path, enum checkpoint_check check, struct err_note *note);
void checkpoint_close(struct checkpoint **c);		/* accepts NULL */
const struct json *checkpoint_state(const struct checkpoint *c);	/* valid until checkpoint_close */
uint64_t checkpoint_optim_total(const struct checkpoint *c, const char *array);	/* 0: no such array */

/*
 * checkpoint_read_optim - reads elements [begin, begin + count) of an array from the shards that hold them:
 * the number of ranks may change between save and load. Rejects NaN and infinity. Returns 0, ERR_NOT_FOUND
 * (no such array), ERR_RANGE, ERR_NONFINITE.
 */
int checkpoint_read_optim(const struct checkpoint *c, const char *array, uint64_t begin, uint64_t count, float *out,
    struct err_note *note);

#endif
