/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define A_COMMIT 256

static void
check(int rc, const char *what)
{
	struct err_note note = {0};

	if (rc == 0)
		return;
	err_note_set(&note, ERR_LIBRARY, "%s: %s", what, mdb_strerror(rc));
	die(ERR_LIBRARY, &note, "bare LMDB");
}

struct lmdb {
	MDB_env *env;
	MDB_dbi dbi;
	char path[512];
	uint8_t *record;			/* [max_len] */
	uint64_t n;				/* records written, and the next key */
};

struct lmdb *
lmdb_open(const char *dir, const struct records *r)
{
	struct lmdb *b = calloc(1, sizeof(*b));
	MDB_txn *txn;

	if (b == NULL || (b->record = malloc(r->max_len)) == NULL)
		die(ENOMEM, NULL, "bare LMDB");
	snprintf(b->path, sizeof(b->path), "%s/bare", dir);
	if (mkdir(b->path, 0777) != 0)
		die(errno, NULL, b->path);
	check(mdb_env_create(&b->env), "create");
	check(mdb_env_set_mapsize(b->env, (size_t)64 << 30), "map");
	check(mdb_env_open(b->env, b->path, 0, 0666), "open");
	check(mdb_txn_begin(b->env, NULL, 0, &txn), "begin");
	check(mdb_dbi_open(txn, NULL, 0, &b->dbi), "table");
	check(mdb_txn_commit(txn), "commit");
	return b;
}

double
lmdb_write(struct lmdb *b, const struct records *r, uint64_t n)
{
	MDB_txn *txn = NULL;
	uint8_t key[8];
	double start = seconds_now();

	for (uint64_t i = 0; i < n; i++, b->n++) {
		size_t len = records_patch(r, b->n, (struct hash128){b->n, 3}, b->record);
		MDB_val k = {sizeof(key), key}, v = {len, b->record};

		for (int byte = 0; byte < 8; byte++)
			key[byte] = (uint8_t)(b->n >> (56 - 8 * byte));
		if (txn == NULL)
			check(mdb_txn_begin(b->env, NULL, 0, &txn), "begin");
		check(mdb_put(txn, b->dbi, &k, &v, 0), "put");
		if ((i + 1) % A_COMMIT == 0 || i + 1 == n) {
			check(mdb_txn_commit(txn), "commit");
			txn = NULL;
		}
	}
	return seconds_now() - start;
}

void
lmdb_close(struct lmdb **b)
{
	char file[600];

	mdb_env_close((*b)->env);
	snprintf(file, sizeof(file), "%s/data.mdb", (*b)->path);
	unlink(file);
	snprintf(file, sizeof(file), "%s/lock.mdb", (*b)->path);
	unlink(file);
	rmdir((*b)->path);
	free((*b)->record);
	free(*b);
	*b = NULL;
}
