/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modelfiles - the identity of a model folder by the bytes of its files, for any architecture. A fleet that
 * declares teacher.compute_class identifies its models by it; without a declared class the engine's
 * fingerprint is used (engine/weights).
 */
#ifndef SALT_MODELFILES_H
#define SALT_MODELFILES_H

#include "base/err/err.h"
#include "base/hash/hash.h"

/*
 * modelfiles_hash - hashes config.json and every *.safetensors file directly in DIR, except hidden ones:
 * their names in byte order, and hash_file of each. A copy has the same hash; the same weights saved in
 * another way (other shards, another config.json) have another one. Symbolic links are followed. Reads every
 * byte. Returns 0; ENOENT (no DIR or no config.json); ERR_NOT_FOUND (no safetensors); ENAMETOOLONG; ENOMEM;
 * errno. The note names the file. Any thread.
 */
int modelfiles_hash(const char *dir, struct hash128 *out, struct err_note *note);

#endif
