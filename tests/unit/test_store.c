/* SPDX-License-Identifier: Apache-2.0 */
/* selectord's store: reads single rows from pieces of blocks, which it keeps after checking them. */
#include "check.h"
#include "failing_malloc.h"

#include <unistd.h>

#include "selectord/store.h"

/* two pieces per block, and more blocks than pieces that are kept */
enum { ROWS = STORE_ROWS + 1000, BLOCKS = STORE_ROWS_KEPT + 4 };

static const struct hash128 plans[2] = {{7, 1}, {7, 2}};

static struct cache_row
row_of(uint64_t plan, uint64_t block, uint64_t i)
{
	return (struct cache_row){block * 2 * ROWS + i, plan << 40 | block << 20 | i, (float)i / 2, i % 7 == 0 ? CACHE_ROW_QUARANTINED : 0};
}

static struct cache *
filled(const char *dir)
{
	struct cache_row *rows = calloc(ROWS, sizeof(*rows));
	struct err_note note;
	struct cache *c;

	REQUIRE(rows != NULL && cache_open(&c, dir, CACHE_WRITE, 64 << 20, &note) == 0);
	REQUIRE(cache_write_begin(c) == 0);
	for (uint64_t p = 0; p < 2; p++)
		for (uint64_t block = 0; block < BLOCKS; block++) {
			for (uint64_t i = 0; i < ROWS; i++)
				rows[i] = row_of(p, block, i);
			REQUIRE(cache_write_rows(c, plans[p], block, rows, ROWS, NULL) == 0);
		}
	REQUIRE(cache_write_commit(c) == 0);
	free(rows);
	return c;
}

static int
ask(struct store *s, uint64_t plan, uint64_t block, uint64_t i, struct cache_row *out)
{
	return s->ask.rows(s->ask.arg, plans[plan], block, i, 1, out);
}

static bool
right(struct store *s, uint64_t plan, uint64_t block, uint64_t i)
{
	struct cache_row want = row_of(plan, block, i), got;

	return ask(s, plan, block, i, &got) == 0 && memcmp(&want, &got, sizeof(want)) == 0;
}

int
main(void)
{
	struct labels_spec spec = {.context = 4};
	char dir[] = "/tmp/salt-store-XXXXXX", path[64], command[64];
	struct cache_row got;
	struct store s;
	struct cache *c;

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/c", dir);
	c = filled(path);
	REQUIRE(store_init(&s, c, NULL, NULL, &spec) == 0);
	for (uint64_t n = 0; n < 20000; n++)		/* various rows, and those at the ends of pieces */
		CHECK(right(&s, n % 2, n * 7 % BLOCKS, n % 3 == 0 ? STORE_ROWS - 1 + n / 3 % 2 : n * 2654435761u % ROWS));
	CHECK(ask(&s, 0, 0, ROWS, &got) == ERR_RANGE && ask(&s, 0, 0, 2 * STORE_ROWS, &got) == ERR_RANGE);
	CHECK(ask(&s, 0, BLOCKS, 0, &got) == ERR_NOT_FOUND);
#ifdef FAILING_MALLOC
	CHECK(right(&s, 0, 0, 0) && right(&s, 1, 5, 0));
	/* without memory for a piece the row is still read */
	for (uint64_t block = 0; block < BLOCKS; block++) {
		fail_at = 1;
		CHECK(right(&s, 0, block, 3));
	}
	CHECK(fail_at == 0);
#endif
	/* A piece is read once: rows of a piece in memory need no disk access. */
	CHECK(right(&s, 1, 0, 8));
	store_end(&s);
	REQUIRE(cache_write_begin(c) == 0 && cache_drop_rows(c, plans[1], 0) == 0 && cache_drop_rows(c, plans[1], 1) == 0 &&
	    cache_write_commit(c) == 0);
	CHECK(right(&s, 1, 0, 9));
	for (uint64_t block = 2; block < BLOCKS; block++)
		CHECK(right(&s, 1, block, 0));
	CHECK(ask(&s, 1, 0, 9, &got) == ERR_NOT_FOUND);		/* the piece was replaced by others */
	store_free(&s);
	cache_destroy(&c);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
