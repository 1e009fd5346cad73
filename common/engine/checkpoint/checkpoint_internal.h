/* Shared by the files of this room only. */
#ifndef SALT_CHECKPOINT_OWN_H
#define SALT_CHECKPOINT_OWN_H

#include "engine/checkpoint/checkpoint.h"

#define CHECKPOINT__MANIFEST "MANIFEST.json"
#define CHECKPOINT__TEMP ".tmp"

/* ROOT/step_XXXXXXXX and, with temp, its name while it is not whole. ENAMETOOLONG or 0. */
int checkpoint__path(const char *root, uint64_t step, bool temp, char out[CHECKPOINT_PATH_BYTES], struct err_note *note);

/* step_XXXXXXXX (temp: with .tmp at its end) to step; false for any other name. */
bool checkpoint__name(const char *name, bool temp, uint64_t *step);

int checkpoint__sync_dir(const char *path, struct err_note *note);

/* Removes a directory of plain files. 0 if there is none. */
int checkpoint__remove(const char *path, struct err_note *note);

/* The manifest's files and step, every number checked; nothing else is looked at. */
int checkpoint__manifest(const char *path, struct checkpoint_files *list, uint64_t *step, struct err_note *note);

/* What the name of an optimiser shard says. */
bool checkpoint__optim_name(const char *name, unsigned *rank, unsigned *n_ranks);

/* The optimiser's shards among the files: arrays and total alike, ranges that join from 0 to the total. None at all is fine. */
int checkpoint__check_optim(const char *path, const struct checkpoint_files *list, struct err_note *note);

#endif
