/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a cache: lock, checks of file system and file. Space and map. Helpers for the other files. */
#include "data/cache/cache_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/mem/mem.h"

/* A map grows to twice its size, by at least and at most this. */
#define MAP_STEP_MIN (UINT64_C(16) << 20)
#define MAP_STEP_MAX (UINT64_C(1) << 40)

static const char *const table_names[CACHE_TABLES] = {"meta", "scores", "labels", "rows", "plans", "attempts", "quarantine"};

const char *
cache_table_name(enum cache_table table)
{
	return (unsigned)table < CACHE_TABLES ? table_names[table] : "?";
}

int
cache__rc(int rc)
{
	switch (rc) {
	case MDB_NOTFOUND:
		return ERR_NOT_FOUND;
	case MDB_KEYEXIST:
		return ERR_EXISTS;
	case MDB_MAP_FULL:
		return ERR_FULL;
	case MDB_VERSION_MISMATCH:
		return ERR_VERSION;
	case MDB_INVALID:
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
		return ERR_CORRUPT;
	case MDB_PANIC:			/* a write of a meta page failed: the disk's state is unknown */
		return EIO;
	case MDB_READERS_FULL:
		return ERR_AGAIN;
	default:
		return rc > 0 || rc == 0 ? rc : ERR_LIBRARY;
	}
}

void
cache__put_u32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

void
cache__put_u64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

uint32_t
cache__get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t
cache__get_u64(const uint8_t *p)
{
	return (uint64_t)cache__get_u32(p) | (uint64_t)cache__get_u32(p + 4) << 32;
}

void
cache__key_u8(struct cache__key *key, uint8_t v)
{
	key->bytes[key->len++] = v;
}

static void
key_u32(struct cache__key *key, uint32_t v)
{
	for (int i = 3; i >= 0; i--)
		cache__key_u8(key, (uint8_t)(v >> 8 * i));
}

void
cache__key_u64(struct cache__key *key, uint64_t v)
{
	key_u32(key, (uint32_t)(v >> 32));
	key_u32(key, (uint32_t)v);
}

void
cache__key_hash(struct cache__key *key, struct hash128 h)
{
	cache__key_u64(key, h.hi);
	cache__key_u64(key, h.lo);
}

struct cache__key
cache__key_labels(uint64_t seq)
{
	struct cache__key key = {.len = 0};

	cache__key_u8(&key, 0);		/* a cache has one label set; the byte is there for more */
	cache__key_u64(&key, seq);
	return key;
}

struct cache__key
cache__key_scores(enum cache_scores set, uint64_t seq)
{
	struct cache__key key = {.len = 0};

	cache__key_u8(&key, (uint8_t)set);
	cache__key_u64(&key, seq);
	return key;
}

struct cache__key
cache__key_rows(struct hash128 plan, uint64_t block, uint32_t chunk)
{
	struct cache__key key = {.len = 0};

	cache__key_hash(&key, plan);
	cache__key_u64(&key, block);
	key_u32(&key, chunk);
	return key;
}

static uint64_t
checksum(const void *key, size_t key_len, const void *bytes, size_t len)
{
	return hash_bytes64(bytes, len) ^ hash_bytes64(key, key_len);
}

int
cache__verify(struct cache *c, const MDB_val *key, const MDB_val *value, struct cache_bytes *out)
{
	size_t len;

	if (value->mv_size < CACHE__CHECKSUM_BYTES || value->mv_size > (size_t)CACHE_VALUE_MAX + CACHE__CHECKSUM_BYTES)
		goto damaged;
	len = value->mv_size - CACHE__CHECKSUM_BYTES;
	if (checksum(key->mv_data, key->mv_size, value->mv_data, len) != cache__get_u64((const uint8_t *)value->mv_data + len))
		goto damaged;
	out->bytes = value->mv_data;
	out->len = len;
	return 0;
damaged:
	atomic_fetch_add(&c->n_corrupt, 1);
	return ERR_CORRUPT;
}

int
cache__get(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, struct cache_bytes *out)
{
	MDB_val k = {key_len, (void *)(uintptr_t)key}, v;
	int rc;

	if ((rc = mdb_get(txn, c->dbi[table], &k, &v)) != 0)
		return cache__rc(rc);
	return cache__verify(c, &k, &v, out);
}

static int
put(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, const void *bytes, size_t len, unsigned flags)
{
	MDB_val k = {key_len, (void *)(uintptr_t)key}, v = {len + CACHE__CHECKSUM_BYTES, NULL};
	int rc;

	if (len > CACHE_VALUE_MAX)
		return ERR_RANGE;
	if ((rc = mdb_put(txn, c->dbi[table], &k, &v, MDB_RESERVE | flags)) != 0)
		return cache__rc(rc);
	if (len > 0)
		memcpy(v.mv_data, bytes, len);
	cache__put_u64((uint8_t *)v.mv_data + len, checksum(key, key_len, v.mv_data, len));
	return 0;
}

int
cache__put(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, const void *bytes, size_t len)
{
	return put(c, txn, table, key, key_len, bytes, len, 0);
}

int
cache__put_new(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, const void *bytes, size_t len)
{
	return put(c, txn, table, key, key_len, bytes, len, MDB_NOOVERWRITE);
}

int
cache__drop(struct cache *c, enum cache_table table, const void *key, size_t key_len)
{
	MDB_val k = {key_len, (void *)(uintptr_t)key};
	int rc;

	if (c->write == NULL)
		return ERR_INTERNAL;
	rc = mdb_del(c->write, c->dbi[table], &k, NULL);
	return rc == MDB_NOTFOUND ? 0 : cache__rc(rc);
}

/* Rejects file systems on which memory maps and locks are not coherent across hosts. */
static int
check_file_system(const char *dir, struct err_note *note)
{
	static const struct {
		uint32_t magic;
		const char *name;
	} bad[] = {
		{0x6969, "NFS"}, {0x517b, "SMB"}, {0xfe534d42, "SMB2"}, {0xff534d42, "CIFS"}, {0x65735546, "FUSE"}, {0x01021997, "9p"},
		{0x00c36400, "Ceph"}, {0x5346414f, "AFS"}, {0x6b414653, "AFS"}, {0x73757245, "Coda"}, {0x564c, "NCP"}, {0x01161970, "GFS2"},
		{0x7461636f, "OCFS2"}, {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"}, {0x19830326, "BeeGFS"}, {0x20030528, "PVFS2"},
		{0x786f4256, "vboxsf"}, {0xbacbacbc, "vmhgfs"}, {0xaad7aaea, "PanFS"},
	};
	struct statfs fs;

	if (statfs(dir, &fs) != 0)
		return err_note_set(note, errno, "%s", dir);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if ((uint32_t)fs.f_type != bad[i].magic)
			continue;
		return err_expect(note, ERR_UNSUPPORTED, "cache.dir %s",
		    "a local file system (ext4, xfs, btrfs, tmpfs, ...)", "%s (magic 0x%" PRIx32 ")", dir,
		    bad[i].name, bad[i].magic);
	}
	return 0;
}

/* selectord.lock contains "pid N on HOST\n" of its owner. It is locked by flock, until the process ends. */
static int
take_lock(struct cache *c, struct err_note *note)
{
	char path[4096], host[128] = "?", line[256] = "";
	ssize_t n;
	int rc;

	snprintf(path, sizeof(path), "%s/selectord.lock", c->dir);
	if ((c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
		return err_note_set(note, errno, "%s", path);
	if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		rc = errno == EWOULDBLOCK ? ERR_BUSY : errno;
		err_note_set(note, rc, "cache.dir %s", c->dir);
		if (rc != ERR_BUSY)
			return rc;
		if ((n = pread(c->lock_fd, line, sizeof(line) - 1, 0)) > 0)
			line[strcspn(line, "\n")] = '\0';
		return err_expect(note, rc, "",
		    "no other writer: stop it first (a selectord: deploy/local.sh down)",
		    "%s", line[0] != '\0' ? line : "an unknown process");
	}
	if (gethostname(host, sizeof(host) - 1) != 0)
		snprintf(host, sizeof(host), "?");
	n = snprintf(line, sizeof(line), "pid %ld on %s\n", (long)getpid(), host);
	if (ftruncate(c->lock_fd, 0) != 0 || pwrite(c->lock_fd, line, (size_t)n, 0) != n)
		return err_note_set(note, errno != 0 ? errno : EIO, "%s", path);
	crash_point("cache.locked");
	return 0;
}

/* Returns 0, or ERR_CORRUPT if the file is more than slack bytes shorter than its last commit recorded. */
static int
check_length(struct cache *c, uint64_t slack, struct err_note *note)
{
	mdb_filehandle_t fd;
	MDB_envinfo info;
	MDB_stat st;
	uint64_t used;
	off_t end;

	if (mdb_env_info(c->env, &info) != 0 || mdb_env_stat(c->env, &st) != 0 || mdb_env_get_fd(c->env, &fd) != 0)
		return err_note_set(note, ERR_LIBRARY, "cache.dir %s", c->dir);
	used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
	end = lseek(fd, 0, SEEK_END);
	if (end < 0 || (uint64_t)end + slack >= used)
		return 0;
	return err_expect(note, ERR_CORRUPT, "%s/data.mdb",
	    "%" PRIu64 " bytes, as recorded by its last commit", "%lld: the file was cut short", c->dir,
	    used, (long long)end);
}

static int
open_tables(struct cache *c, struct err_note *note)
{
	unsigned flags = c->mode == CACHE_WRITE ? MDB_CREATE : 0;
	struct cache_bytes v;
	char text[32];
	MDB_txn *txn = NULL;
	MDB_stat st;
	int rc;

	err_note_set(note, 0, "cache.dir %s", c->dir);
	if ((rc = cache__rc(mdb_txn_begin(c->env, NULL, c->mode == CACHE_READ ? MDB_RDONLY : 0, &txn))) != 0)
		return rc;
	for (int t = 0; t < CACHE_TABLES; t++) {
		if ((rc = mdb_dbi_open(txn, table_names[t], 0, &c->dbi[t])) == MDB_NOTFOUND) {
			if ((rc = check_length(c, 0, note)) != 0)	/* a truncated page reads as an empty one */
				goto out;
			rc = mdb_dbi_open(txn, table_names[t], flags, &c->dbi[t]);
		}
		if (rc != 0) {
			rc = rc == MDB_NOTFOUND ? ERR_NOT_FOUND : rc == MDB_INCOMPATIBLE ? ERR_CORRUPT : cache__rc(rc);
			err_note_expected(note, "table %s", table_names[t]);
			goto out;
		}
	}
	if ((rc = cache__get(c, txn, CACHE_TABLE_META, "format", 6, &v)) == ERR_CORRUPT) {
		err_note_expected(note, "the format version in table meta");
		err_note_found(note, "a damaged record: copy data.mdb back from a backup, or move the folder away");
	}
	if (rc == ERR_NOT_FOUND && c->mode == CACHE_WRITE) {
		if ((rc = cache__rc(mdb_stat(txn, c->dbi[CACHE_TABLE_LABELS], &st))) != 0)
			goto out;
		if (st.ms_entries > 0) {		/* the version was removed from a cache with data */
			rc = ERR_CORRUPT;
			err_note_expected(note, "the format version in table meta");
			goto out;
		}
		snprintf(text, sizeof(text), "%u", CACHE_FORMAT_VERSION);
		rc = cache__put(c, txn, CACHE_TABLE_META, "format", 6, text, strlen(text));
	} else if (rc == 0) {
		snprintf(text, sizeof(text), "%.*s", v.len < 20 ? (int)v.len : 20, (const char *)v.bytes);
		if (strtoul(text, NULL, 10) != CACHE_FORMAT_VERSION) {
			rc = ERR_VERSION;
			err_note_expected(note, "cache format %u", CACHE_FORMAT_VERSION);
			err_note_found(note, "%s; with the saltctl that made it type: saltctl cache export --cache %s DIR, then with this one: "
			    "saltctl cache import --cache NEW DIR", text, c->dir);
		}
	}
	if (rc == 0) {
		/* Committed in read mode too, because an abort would close the table handles. */
		crash_point("cache.tables");
		rc = cache__rc(mdb_txn_commit(txn));
		txn = NULL;
	}
out:
	mdb_txn_abort(txn);			/* takes NULL */
	return rc;
}

static int
check_metas(const char *dir, const char *path, struct err_note *note)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return err_note_set(note, errno, "%s", path);
	rc = cache__check_metas(dir, fd, note);
	close(fd);
	return rc;
}

int
cache_open(struct cache **out, const char *dir, enum cache_mode mode, uint64_t map_bytes, struct err_note *note)
{
	struct cache *c;
	struct stat st;
	char path[4096];
	bool is_new;
	int rc, n_dead;

	*out = NULL;
	if (strlen(dir) + 32 > sizeof(path))
		return err_note_set(note, ENAMETOOLONG, "cache.dir %s", dir);
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return err_note_set(note, ENOMEM, "cache.dir %s", dir);
	c->lock_fd = -1;
	c->mode = mode;
	pthread_rwlock_init(&c->map_lock, NULL);
	if ((c->dir = strdup(dir)) == NULL) {
		rc = ENOMEM;
		goto out;
	}
	if (mode == CACHE_WRITE && (rc = file_make_dirs(dir, 0777, note)) != 0)
		goto out;
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	is_new = (rc = stat(path, &st)) != 0 || st.st_size == 0;	/* empty: its first start was interrupted */
	if (is_new && mode != CACHE_WRITE) {
		rc = err_expect(note, ERR_NOT_FOUND, "cache.dir %s", "a cache made by selectord", "%s", dir,
		    rc == 0 ? "an empty data.mdb: start selectord, which fills it" : "");
		goto out;
	}
	if ((rc = check_file_system(dir, note)) != 0)
		goto out;
	if (mode != CACHE_READ && (rc = take_lock(c, note)) != 0)
		goto out;
	if (!is_new && (rc = check_metas(dir, path, note)) != 0)
		goto out;
	if ((rc = mdb_env_create(&c->env)) != 0) {
		rc = err_note_set(note, cache__rc(rc), "cache.dir %s", dir);
		goto out;
	}
	if (map_bytes == 0 && mode == CACHE_WRITE)
		map_bytes = CACHE_MAP_BYTES_DEFAULT;
	if ((rc = mdb_env_set_maxdbs(c->env, CACHE_TABLES)) != 0 || (rc = mdb_env_set_maxreaders(c->env, 126)) != 0 ||
	    (mode != CACHE_READ && map_bytes > 0 && (rc = mdb_env_set_mapsize(c->env, (size_t)map_bytes)) != 0) ||
	    (rc = mdb_env_open(c->env, dir, MDB_NOTLS | (mode == CACHE_READ ? MDB_RDONLY : 0), 0666)) != 0) {
		rc = err_note_set(note, cache__rc(rc), "cache.dir %s", dir);
		if (rc == ENOMEM)
			err_note_place(note, "mapping %" PRIu64 " bytes of address space (cache.map_size)", map_bytes);
		if (rc == ERR_CORRUPT || rc == ERR_VERSION)
			err_note_expected(note, "data.mdb to be an LMDB file that selectord made");
		goto out;
	}
	mdb_reader_check(c->env, &n_dead);
	/*
	 * Reading past the end of a truncated file raises SIGBUS. LMDB may leave its last few pages unwritten
	 * when they were freed before the commit, so a slightly shorter file is valid.
	 */
	if (!is_new && ((rc = check_length(c, UINT64_C(1) << 20, note)) != 0 || (rc = cache_check_pages(c, false, note)) != 0))
		goto out;
	if ((rc = open_tables(c, note)) != 0)
		goto out;
	if (is_new && (rc = file_sync_dir(dir, note)) != 0)
		goto out;
	*out = c;
	return 0;
out:
	cache_destroy(&c);
	return rc;
}

void
cache_destroy(struct cache **c)
{
	if (*c == NULL)
		return;
	cache_write_abort(*c);
	if ((*c)->env != NULL)
		mdb_env_close((*c)->env);
	if ((*c)->lock_fd >= 0)
		close((*c)->lock_fd);		/* releases the lock; the file stays: unlinking it would admit two writers */
	pthread_rwlock_destroy(&(*c)->map_lock);
	free((*c)->dir);
	free(*c);
	*c = NULL;
}

uint64_t
cache_n_corrupt(const struct cache *c)
{
	return atomic_load(&c->n_corrupt);
}

static uint64_t
reserve_of(const struct statvfs *fs)
{
	uint64_t all = (uint64_t)fs->f_blocks * fs->f_frsize;

	return all / 50 < UINT64_C(64) << 20 ? all / 50 : UINT64_C(64) << 20;
}

int
cache_room(struct cache *c, double *map_ratio)
{
	struct statvfs fs;
	MDB_envinfo info;
	MDB_stat st;
	double ratio;
	int rc;

	pthread_rwlock_rdlock(&c->map_lock);
	rc = mdb_env_info(c->env, &info) != 0 || mdb_env_stat(c->env, &st) != 0 ? ERR_LIBRARY : 0;
	pthread_rwlock_unlock(&c->map_lock);
	if (rc != 0)
		return rc;
	ratio = (double)(info.me_last_pgno + 1) * (double)st.ms_psize / (double)info.me_mapsize;
	if (map_ratio != NULL)
		*map_ratio = ratio;
	if (statvfs(c->dir, &fs) != 0)
		return errno;
	if ((uint64_t)fs.f_bavail * fs.f_frsize < reserve_of(&fs))
		return ENOSPC;
	return ratio <= 0.95 ? 0 : ERR_FULL;
}

int
cache_there(const struct cache *c)
{
	struct stat ours, there;
	char path[4096];
	mdb_filehandle_t fd;

	snprintf(path, sizeof(path), "%s/data.mdb", c->dir);
	if (mdb_env_get_fd(c->env, &fd) != 0 || fstat(fd, &ours) != 0)
		return ERR_LIBRARY;
	return stat(path, &there) == 0 && there.st_ino == ours.st_ino && there.st_dev == ours.st_dev ? 0 : ENOENT;
}

int
cache_room_inside(struct cache *c)
{
	uint64_t n_pages = 0;
	struct statvfs fs;
	MDB_cursor *cursor;
	MDB_txn *txn;
	MDB_stat st;
	MDB_val k, v;
	size_t n;
	int rc;

	if (statvfs(c->dir, &fs) != 0)
		return errno;
	if ((rc = cache__read_begin(c, &txn)) != 0)
		return cache__rc(rc);
	/* Table 0 is LMDB's free list. It has a record for each commit: number of freed pages, the pages. */
	if ((rc = mdb_stat(txn, 0, &st)) == 0 && (rc = mdb_cursor_open(txn, 0, &cursor)) == 0) {
		while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0 && v.mv_size >= sizeof(n)) {
			memcpy(&n, v.mv_data, sizeof(n));
			n_pages += n;
		}
		mdb_cursor_close(cursor);
	}
	cache__read_end(c, txn);
	if (rc != 0 && rc != MDB_NOTFOUND)
		return cache__rc(rc);
	return n_pages * st.ms_psize >= reserve_of(&fs) ? 0 : ENOSPC;
}

int
cache_grow(struct cache *c, uint64_t *map_bytes)
{
	MDB_envinfo info;
	uint64_t bytes;
	int rc;

	if (c->write != NULL)
		return ERR_INTERNAL;
	pthread_rwlock_wrlock(&c->map_lock);
	if ((rc = mdb_env_info(c->env, &info)) == 0) {
		bytes = (uint64_t)info.me_mapsize;
		bytes += bytes < MAP_STEP_MIN ? MAP_STEP_MIN : bytes < MAP_STEP_MAX ? bytes : MAP_STEP_MAX;
		if ((rc = mdb_env_set_mapsize(c->env, (size_t)bytes)) == 0)
			*map_bytes = bytes;
	}
	pthread_rwlock_unlock(&c->map_lock);
	return cache__rc(rc);
}

int
cache_reader_check(struct cache *c, int *n_dead)
{
	int n = 0, rc = mdb_reader_check(c->env, &n);

	if (n_dead != NULL)
		*n_dead = n;
	return cache__rc(rc);
}

double
cache_disk_free(const struct cache *c)
{
	struct statvfs fs;

	return statvfs(c->dir, &fs) == 0 && fs.f_blocks > 0 ? (double)fs.f_bavail / (double)fs.f_blocks : NAN;
}
