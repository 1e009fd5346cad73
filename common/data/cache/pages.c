/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages - checks the pages of an LMDB file before LMDB follows them. LMDB (0.9) trusts its file: one flipped
 * bit in a page's header or in a node makes it read beyond its memory map. So every branch and leaf page is
 * first read with pread(2) and checked: headers, offsets, the order of keys, that each page is used once, and
 * that each table has as many pages and records as LMDB counted. Values are not checked, because they have
 * their own checksums.
 *
 * The layout is that of LMDB's mdb.c, structs MDB_page, MDB_node, MDB_db and MDB_meta, on 64-bit
 * little-endian hosts:
 *   page  0 number (8)  10 flags (2)  12 lower (2)  14 upper (2)  16 offsets of the nodes (2 each)
 *         of an overflow page: 12 number of its pages (4)
 *   node  0 size of the data or low half of the child (2)  2 high half (2)  4 flags, in a branch bits
 *         32 .. 47 of the child (2)  6 size of the key (2)  8 key, data
 *   db    4 flags (2)  6 depth (2)  8 branch pages (8)  16 leaf pages  24 overflow pages  32 records  40 root
 *   meta  16 magic (4)  20 version (4)  40 page size (4), in the free list's db at 40; main db at 88
 *         136 last page (8)  144 transaction (8)
 */
#include "data/cache/cache_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	HEADER = 16, NODE = 8, DB = 48, META_DBS = 40, META_LAST = 136, META_TXN = 144, META_BYTES = 152,
	DEPTH_MAX = 32,			/* LMDB's CURSOR_STACK */
	KEY_BYTES_MAX = 511,
	TRIES = 20			/* a writer may commit twice while a meta page is read */
};

enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8 };
enum { META_VERSION = 1 };
#define META_MAGIC 0xbeefc0deu
#define INVALID_META "no valid metadata of an LMDB file that selectord made (transaction %" PRIu64 ")"
enum { NODE_BIG = 1, NODE_TABLE = 2 };
enum { DB_INTEGER_KEYS = 8 };
#define NO_PAGE UINT64_MAX

struct db {
	uint64_t flags, depth, branches, leaves, overflows, records, root;
};

struct check {
	int fd;
	uint32_t page_bytes;
	uint64_t last;			/* number of the last page */
	bool all;			/* check headers of overflow pages too */
	uint8_t *used;			/* one bit for each page */
	const char *dir;
	struct err_note *note;
};

static uint16_t
u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static int
damaged(const struct check *c, uint64_t page, const char *fmt, uint64_t found)
{
	char what[160];

	snprintf(what, sizeof(what), fmt, found);
	return err_expect(c->note, ERR_CORRUPT, "%s/data.mdb", "pages as LMDB writes them",
	    "page %" PRIu64 " has %s: the file is damaged. Copy it back from a backup, or move the folder away: "
	    "selectord makes a new cache, and labels are computed again", c->dir, page, what);
}

static int
read_at(const struct check *c, uint64_t page, void *out, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t k = pread(c->fd, (char *)out + at, n - at, (off_t)(page * c->page_bytes + at));

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return err_note_set(c->note, errno, "%s/data.mdb: page %" PRIu64, c->dir, page);
		if (k == 0)
			return damaged(c, page, "no bytes: the file ends before it", 0);
		at += (size_t)k;
	}
	return 0;
}

/* Marks n pages as used; an error if one is outside the file or already used. from: the referring page. */
static int
use(const struct check *c, uint64_t from, uint64_t page, uint64_t n)
{
	if (page < 2 || page > c->last || n > c->last - page + 1)
		return damaged(c, from, "a reference to page %" PRIu64 ", which is outside of the file", page);
	for (uint64_t p = page; p < page + n; p++) {
		if ((c->used[p / 8] >> p % 8 & 1) != 0)
			return damaged(c, from, "a reference to page %" PRIu64 ", which is already in use",
			    p);
		c->used[p / 8] |= (uint8_t)(1u << p % 8);
	}
	return 0;
}

static void
take_db(const uint8_t *p, struct db *db)
{
	*db = (struct db){u16(p + 4), u16(p + 6), cache__get_u64(p + 8), cache__get_u64(p + 16), cache__get_u64(p + 24),
	    cache__get_u64(p + 32), cache__get_u64(p + 40)};
}

/* The last key so far, in key order. The record after a branch's key may have the same key. */
struct key {
	uint8_t bytes[KEY_BYTES_MAX];
	size_t len;
	bool known, of_branch;
};

/* Whether the key is above the last one; if so, it becomes the last one. */
static bool
follows(const struct db *db, struct key *last, const uint8_t *key, size_t len, bool leaf)
{
	int order;

	if (db->flags & DB_INTEGER_KEYS) {
		uint64_t a = cache__get_u64(last->bytes), b = cache__get_u64(key);

		order = a < b ? -1 : a > b;
	} else if ((order = memcmp(last->bytes, key, last->len < len ? last->len : len)) == 0) {
		order = last->len < len ? -1 : last->len > len;
	}
	if (last->known && (order > 0 || (order == 0 && !(leaf && last->of_branch))))
		return false;
	memcpy(last->bytes, key, len);
	last->len = len;
	last->known = true;
	last->of_branch = !leaf;
	return true;
}

static int check_db(const struct check *c, uint64_t from, const struct db *db, bool tables);

/* Checks a record of the free list: the count, then the free pages in descending order. */
static int
check_free(const struct check *c, uint64_t page, const uint8_t *value, uint64_t len)
{
	uint64_t n = len >= 8 ? cache__get_u64(value) : 0, before = NO_PAGE;
	int rc = 0;

	if (len < 8 || n > len / 8 - 1)
		return damaged(c, page, "a free list of %" PRIu64 " pages that is longer than its record", n);
	for (uint64_t i = 1; i <= n && rc == 0; i++) {
		uint64_t p = cache__get_u64(value + 8 * i);

		rc = p >= before ? damaged(c, page, "free page %" PRIu64 " out of order", p) : use(c, page, p, 1);
		before = p;
	}
	return rc;
}

static bool
is_table(const uint8_t *name, size_t len)
{
	for (int t = 0; t < CACHE_TABLES; t++)
		if (strlen(cache_table_name((enum cache_table)t)) == len && memcmp(cache_table_name((enum cache_table)t), name, len) == 0)
			return true;
	return false;
}

/* Checks the data of a leaf's node, which are in the page or in overflow pages. */
static int
check_data(const struct check *c, uint64_t page, const uint8_t *node, const uint8_t *end, struct db *seen, bool tables)
{
	uint64_t len = (uint64_t)u16(node) | (uint64_t)u16(node + 2) << 16, n, at;
	unsigned flags = u16(node + 4);
	const uint8_t *data = node + NODE + u16(node + 6);
	uint8_t head[HEADER], *value;
	struct db db;
	int rc;

	if (tables ? flags != NODE_TABLE : flags > NODE_BIG)
		return damaged(c, page, "a node with the flags 0x%" PRIx64, flags);
	if ((uint64_t)(end - data) < ((flags & NODE_BIG) ? 8 : len))
		return damaged(c, page, "a value of %" PRIu64 " bytes that goes beyond its page", len);
	if (flags & NODE_TABLE) {
		take_db(data, &db);
		if (!is_table(node + NODE, u16(node + 6)))
			return damaged(c, page, "a table with an unknown name of %" PRIu64 " bytes", u16(node + 6));
		if (len != DB)
			return damaged(c, page, "a table's record of %" PRIu64 " bytes", len);
		return check_db(c, page, &db, false);
	}
	if ((flags & NODE_BIG) == 0)
		return (seen->flags & DB_INTEGER_KEYS) ? check_free(c, page, data, len) : 0;
	at = cache__get_u64(data);
	n = (HEADER + len + c->page_bytes - 1) / c->page_bytes;
	seen->overflows += n;
	if ((rc = use(c, page, at, n)) != 0)
		return rc;
	if (c->all || (seen->flags & DB_INTEGER_KEYS)) {
		if ((rc = read_at(c, at, head, sizeof(head))) != 0)
			return rc;
		if (cache__get_u64(head) != at || u16(head + 10) != PAGE_OVERFLOW || cache__get_u32(head + 12) != n)
			return damaged(c, at, "a wrong header of %" PRIu64 " overflow pages", n);
	}
	if ((seen->flags & DB_INTEGER_KEYS) == 0)
		return 0;
	if ((value = malloc(n * c->page_bytes)) == NULL)
		return err_note_set(c->note, ENOMEM, "%s", c->dir);
	if ((rc = read_at(c, at, value, n * c->page_bytes)) == 0)
		rc = check_free(c, at, value + HEADER, len);
	free(value);
	return rc;
}

/* Checks a page and the pages below it. *last: the last key to its left. */
static int
check_page(const struct check *c, uint64_t from, uint64_t page, unsigned depth, struct db *seen, struct key *last, bool tables)
{
	uint8_t *p = NULL;
	unsigned lower, upper, n;
	bool leaf;
	int rc;

	if ((rc = use(c, from, page, 1)) != 0)
		return rc;
	if ((p = malloc(c->page_bytes)) == NULL)
		return err_note_set(c->note, ENOMEM, "%s", c->dir);
	if ((rc = read_at(c, page, p, c->page_bytes)) != 0)
		goto out;
	leaf = u16(p + 10) == PAGE_LEAF;
	lower = u16(p + 12);
	upper = u16(p + 14);
	n = (lower - HEADER) / 2;
	if (cache__get_u64(p) != page)
		rc = damaged(c, page, "the number %" PRIu64, cache__get_u64(p));
	else if (!leaf && u16(p + 10) != PAGE_BRANCH)
		rc = damaged(c, page, "the flags 0x%" PRIx64, u16(p + 10));
	else if (leaf != (depth == seen->depth))
		rc = damaged(c, page, "a kind that is wrong at depth %" PRIu64 " of its table", depth);
	else if (lower <= HEADER || lower % 2 != 0 || lower > upper || upper > c->page_bytes)
		rc = damaged(c, page, "%" PRIu64 " bytes of header, which do not fit in it", lower);
	if (rc != 0)
		goto out;
	*(leaf ? &seen->leaves : &seen->branches) += 1;
	for (unsigned i = 0; i < n && rc == 0; i++) {
		unsigned at = u16(p + HEADER + 2 * i);
		const uint8_t *node = p + at;
		unsigned key_len = at + NODE <= c->page_bytes ? u16(node + 6) : UINT32_MAX;
		bool has_key = leaf || i > 0;	/* the first key of a branch is not used */

		if (at < upper || at % 2 != 0 || at + NODE > c->page_bytes || key_len > KEY_BYTES_MAX || at + NODE + key_len > c->page_bytes ||
		    (has_key && ((seen->flags & DB_INTEGER_KEYS) ? key_len != 8 : key_len == 0)))
			rc = damaged(c, page,
			    "a node at %" PRIu64 ", which is outside of the page or has an invalid key", at);
		else if (has_key && !follows(seen, last, node + NODE, key_len, leaf))
			rc = damaged(c, page, "keys out of order at its node %" PRIu64, i);
		else if (leaf)
			rc = check_data(c, page, node, p + c->page_bytes, seen, tables);
		else
			rc = check_page(c, page, (uint64_t)u16(node) | (uint64_t)u16(node + 2) << 16 | (uint64_t)u16(node + 4) << 32,
			    depth + 1, seen, last, tables);
		seen->records += leaf;
	}
out:
	free(p);
	return rc;
}

/* Checks a table against its record (db), which is in page `from`. */
static int
check_db(const struct check *c, uint64_t from, const struct db *db, bool tables)
{
	struct db seen = {.flags = db->flags, .depth = db->depth, .root = db->root};
	struct key last = {.known = false};
	int rc;

	if ((db->flags & ~(uint64_t)DB_INTEGER_KEYS) != 0 || (tables && db->flags != 0))
		return damaged(c, from, "a table with the flags 0x%" PRIx64, db->flags);
	if (db->depth > DEPTH_MAX || (db->root == NO_PAGE) != (db->depth == 0))
		return damaged(c, from, "a table of depth %" PRIu64, db->depth);
	if (db->root != NO_PAGE && (rc = check_page(c, from, db->root, 1, &seen, &last, tables)) != 0)
		return rc;
	if (seen.branches != db->branches || seen.leaves != db->leaves || seen.overflows != db->overflows || seen.records != db->records)
		return damaged(c, from, "wrong counts for a table of %" PRIu64 " records", db->records);
	return 0;
}

/* Checks the file as of transaction txn, from its meta page on. ERR_AGAIN: the meta page was replaced. */
static int
check_meta(struct check *c, uint64_t txn)
{
	uint8_t meta[META_BYTES];
	struct db free_list, main_db;
	size_t bytes;
	int rc;

	if ((rc = read_at(c, txn & 1, meta, sizeof(meta))) != 0)
		return rc;
	if (cache__get_u64(meta + META_TXN) != txn)
		return ERR_AGAIN;
	c->last = cache__get_u64(meta + META_LAST);
	if (cache__get_u64(meta) != (txn & 1) || u16(meta + 10) != PAGE_META || cache__get_u32(meta + META_DBS) != c->page_bytes ||
	    c->last < 1 || c->last >= (uint64_t)INT64_MAX / c->page_bytes)
		return damaged(c, txn & 1, "invalid metadata (last page %" PRIu64 ")", c->last);
	take_db(meta + META_DBS, &free_list);
	take_db(meta + META_DBS + DB, &main_db);
	bytes = (size_t)(c->last / 8 + 1);
	if ((c->used = calloc(1, bytes)) == NULL)
		return err_note_set(c->note, ENOMEM, "%s: %zu bytes to check its pages", c->dir, bytes);
	if (free_list.flags != DB_INTEGER_KEYS)
		return damaged(c, txn & 1, "a free list with the flags 0x%" PRIx64, free_list.flags);
	if ((rc = check_db(c, txn & 1, &main_db, true)) == 0)
		rc = check_db(c, txn & 1, &free_list, false);
	free(c->used);
	c->used = NULL;
	return rc;
}

int
cache_check_pages(struct cache *c, bool all, struct err_note *note)
{
	struct check check = {.dir = c->dir, .all = all, .note = note};
	mdb_filehandle_t fd;
	MDB_stat st;
	MDB_txn *txn;
	int rc = ERR_AGAIN;

	if (mdb_env_get_fd(c->env, &fd) != 0 || mdb_env_stat(c->env, &st) != 0)
		return err_note_set(note, ERR_LIBRARY, "cache.dir %s", c->dir);
	check.fd = fd;
	check.page_bytes = st.ms_psize;
	/* While the transaction is open, LMDB does not reuse its pages. */
	for (int i = 0; i < TRIES && rc == ERR_AGAIN; i++) {
		if ((rc = cache__read_begin(c, &txn)) != 0)
			return err_note_set(note, cache__rc(rc), "cache.dir %s", c->dir);
		rc = check_meta(&check, mdb_txn_id(txn));
		cache__read_end(c, txn);
		free(check.used);
		check.used = NULL;
	}
	if (rc == ERR_AGAIN)
		return err_note_set(note, rc, "cache.dir %s: a meta page that keeps changing", c->dir);
	return rc;
}

/* Whether meta page `number` is valid; its page size and transaction. */
static bool
meta_ok(const uint8_t *m, unsigned number, uint32_t *page_bytes, uint64_t *txn)
{
	*page_bytes = cache__get_u32(m + META_DBS);
	*txn = cache__get_u64(m + META_TXN);
	return cache__get_u64(m) == number && u16(m + 10) == PAGE_META && cache__get_u32(m + 16) == META_MAGIC && cache__get_u32(m + 20) == META_VERSION &&
	    *page_bytes >= 512 && *page_bytes <= 65536 && (*page_bytes & (*page_bytes - 1)) == 0;
}

/*
 * LMDB uses the meta page with the higher transaction and trusts its page size. Transactions alternate
 * between the two pages, so their numbers differ by one. If they do not, one page is damaged, and LMDB might
 * lose the last commit.
 */
int
cache__check_metas(const char *dir, int fd, struct err_note *note)
{
	struct check c = {.fd = fd, .dir = dir, .note = note};
	uint8_t meta[2][META_BYTES];
	uint64_t txn[2];
	ssize_t n;
	int rc = 0;

	for (int i = 0; i < TRIES; i++) {
		if ((n = pread(fd, meta[0], META_BYTES, 0)) < 0)
			return err_note_set(note, errno, "%s/data.mdb", dir);
		if (n < META_BYTES || cache__get_u32(meta[0] + 16) != META_MAGIC)
			return 0;		/* nothing was written yet, or LMDB will reject the file */
		if (!meta_ok(meta[0], 0, &c.page_bytes, &txn[0])) {
			rc = damaged(&c, 0, INVALID_META, txn[0]);
			continue;
		}
		rc = read_at(&c, 1, meta[1], META_BYTES);
		if (rc == 0 && (!meta_ok(meta[1], 1, &c.page_bytes, &txn[1]) || c.page_bytes != cache__get_u32(meta[0] + META_DBS)))
			rc = damaged(&c, 1, INVALID_META, txn[1]);
		if (rc == 0 && (txn[0] != 0 || txn[1] != 0) && ((txn[0] & 1) != 0 || (txn[1] & 1) != 1 || (txn[0] + 1 != txn[1] && txn[1] + 1 != txn[0])))
			rc = damaged(&c, 1, "transaction %" PRIu64 ", not adjacent to that of page 0",
			    txn[1]);
		if (rc != ERR_CORRUPT)
			break;			/* else retry: a writer may just have replaced a page */
	}
	return rc;
}
