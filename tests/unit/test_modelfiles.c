/* SPDX-License-Identifier: Apache-2.0 */
#include "data/modelfiles/modelfiles.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"

static char dir[64];

static void
put(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	REQUIRE((f = fopen(path, "w")) != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void
drop(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	REQUIRE(unlink(path) == 0);
}

static struct hash128
now(void)
{
	struct err_note note = {.name = ""};
	struct hash128 h = {0, 0};

	REQUIRE(modelfiles_hash(dir, &h, &note) == 0);
	return h;
}

/* The hash by its definition, with other calls: names in byte order ('Z' before 'a'), hash of each file. */
static struct hash128
by_hand(const char *const *names, size_t n)
{
	struct hash_state *h = hash_new();
	struct hash128 root, all;
	char path[256];

	hash_field_str(h, "salt_model_files", "1");
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		REQUIRE(hash_file(path, &root, NULL) == 0);
		hash_field_str(h, "name", names[i]);
		hash_field(h, "file", &root, sizeof(root));
	}
	all = hash_digest(h);
	hash_destroy(&h);
	return all;
}

static void
test_what_counts(void)
{
	static const char *const names[] = {"Z.safetensors", "config.json", "model-1.safetensors"};
	struct hash128 first, h;

	put("config.json", "{}");
	put("model-1.safetensors", "one");
	put("Z.safetensors", "two");
	first = now();
	h = by_hand(names, 3);
	CHECK(hash_equal(first, h));
	put("tokenizer.json", "x");
	put(".hidden.safetensors", "x");
	put("pytorch_model.bin", "x");
	put("config.json.old", "x");
	CHECK(hash_equal(first, now()));
	put("config.json", "{ }");
	CHECK(!hash_equal(first, now()));
	put("config.json", "{}");
	put("Z.safetensors", "twp");
	CHECK(!hash_equal(first, now()));
	drop("Z.safetensors");
	h = now();
	CHECK(!hash_equal(first, h));
	put("z.safetensors", "two");			/* another name */
	CHECK(!hash_equal(first, now()) && !hash_equal(h, now()));
}

static void
test_refused(void)
{
	struct err_note note = {.name = ""};
	struct hash128 h;
	char path[256];

	drop("model-1.safetensors");
	drop("z.safetensors");
	CHECK(modelfiles_hash(dir, &h, &note) == ERR_NOT_FOUND && strstr(note.expected, "safetensors") != NULL);
	CHECK_STR(note.name, dir);
	put("model.safetensors", "x");
	drop("config.json");
	CHECK(modelfiles_hash(dir, &h, &note) == ENOENT && strstr(note.name, "config.json") != NULL);
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	CHECK(modelfiles_hash(path, &h, &note) == ENOTDIR && strstr(note.expected, "folder") != NULL);
	CHECK(modelfiles_hash(check_missing(), &h, &note) == ENOENT);
}

int
main(void)
{
	char command[128];

	snprintf(dir, sizeof(dir), "/tmp/salt_modelfiles.XXXXXX");
	REQUIRE(mkdtemp(dir) != NULL);
	test_what_counts();
	test_refused();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
