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

double
lmdb_write(const char *dir, const struct records *r, uint64_t n)
{
	uint8_t *record = malloc(r->max_len), key[8];
	char path[512], file[600];
	MDB_env *env;
	MDB_txn *txn = NULL;
	MDB_dbi dbi = 0;
	double start, bytes = 0, seconds;

	snprintf(path, sizeof(path), "%s/bare", dir);
	if (record == NULL || mkdir(path, 0777) != 0)
		die(errno, NULL, path);
	check(mdb_env_create(&env), "create");
	check(mdb_env_set_mapsize(env, (size_t)64 << 30), "map");
	check(mdb_env_open(env, path, 0, 0666), "open");
	start = seconds_now();
	for (uint64_t i = 0; i < n; i++) {
		size_t len = records_patch(r, i, (struct hash128){i, 3}, record);
		MDB_val k = {sizeof(key), key}, v = {len, record};

		for (int b = 0; b < 8; b++)
			key[b] = (uint8_t)(i >> (56 - 8 * b));
		if (txn == NULL) {
			check(mdb_txn_begin(env, NULL, 0, &txn), "begin");
			check(mdb_dbi_open(txn, NULL, 0, &dbi), "table");
		}
		check(mdb_put(txn, dbi, &k, &v, 0), "put");
		bytes += (double)len;
		if ((i + 1) % A_COMMIT == 0 || i + 1 == n) {
			check(mdb_txn_commit(txn), "commit");
			txn = NULL;
		}
	}
	seconds = seconds_now() - start;
	mdb_env_close(env);
	free(record);
	snprintf(file, sizeof(file), "%s/data.mdb", path);
	unlink(file);
	snprintf(file, sizeof(file), "%s/lock.mdb", path);
	unlink(file);
	rmdir(path);
	return bytes / seconds;
}
