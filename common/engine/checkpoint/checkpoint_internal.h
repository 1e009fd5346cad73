/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this module only. */
#ifndef SALT_CHECKPOINT_INTERNAL_H
#define SALT_CHECKPOINT_INTERNAL_H

#include "engine/checkpoint/checkpoint.h"

#define CHECKPOINT__MANIFEST "MANIFEST.json"
#define CHECKPOINT__TEMP ".tmp"

/* The path ROOT/step_XXXXXXXX, or with temp that of its temporary directory. Returns 0 or ENAMETOOLONG. */
int checkpoint__path(const char *root, uint64_t step, bool temp, char out[CHECKPOINT_PATH_BYTES], struct err_note *note);

/* Parses a name step_XXXXXXXX (temp: followed by .tmp); returns false for any other name. */
bool checkpoint__name(const char *name, bool temp, uint64_t *step);

/* Sets a note: path, place in it and what was expected (may be ""). Returns rc. */
int checkpoint__note(struct err_note *note, int rc, const char *path, const char *place, const char *expected);

/*
 * Removes what a crash left under the temporary name. What cannot be removed (a mounted file system, files of
 * another user) is renamed to TEMP.left-1, -2, ... with a warning, so that the name is free.
 */
int checkpoint__make_way(const char *temp, struct err_note *note);

/* Reads and checks the manifest: files and step. Does not check the files themselves. */
int checkpoint__manifest(const char *path, struct checkpoint_files *list, uint64_t *step, struct err_note *note);

/* Keys of a shard's range in its metadata: begin, end, total. */
extern const char *const checkpoint__range_keys[3];

/* Parses rank and number of ranks from the name of an optimiser shard; returns false for any other name. */
bool checkpoint__optim_name(const char *name, unsigned *rank, unsigned *n_ranks);

/*
 * Checks the optimiser's shards among the files: the same arrays and totals, and adjacent ranges from 0 to
 * the total. No shards at all is valid.
 */
int checkpoint__check_optim(const char *path, const struct checkpoint_files *list, struct err_note *note);

#endif
