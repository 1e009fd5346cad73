/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints without crashes: from any number of ranks to any other, rejected files, search, pruning. */
#include "crash/save.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"
#include "base/log/log.h"

static char root[512];

static void
shell(const char *fmt, const char *arg)
{
	char command[2048];

	snprintf(command, sizeof(command), fmt, root, arg);
	REQUIRE(system(command) == 0);
}

static const char *
step_path(uint64_t step)
{
	static char path[600];

	snprintf(path, sizeof(path), "%s/step_%08d", root, (int)step);
	return path;
}

static void
any_ranks(void)
{
	static const unsigned ranks[] = {1, 2, 3, 8};

	for (size_t i = 0; i < 4; i++) {
		struct checkpoint *c;
		struct err_note note;
		float x[700];
		uint64_t total, worst = 0;

		shell("rm -rf '%s'", "");
		REQUIRE(save_all(root, 100, ranks[i], &note) == 0);
		CHECK(save_good(step_path(100), 100));
		REQUIRE(checkpoint_open(&c, step_path(100), CHECKPOINT_SIZES, &note) == 0);
		total = checkpoint_optim_total(c, "v");
		/* ranges across those of the writers */
		for (uint64_t at = 0; at < total; at += 611) {
			uint64_t n = total - at < 700 ? total - at : 700;

			REQUIRE(checkpoint_read_optim(c, "v", at, n, x, &note) == 0);
			for (uint64_t k = 0; k < n; k++)
				worst += x[k] != save_value(100, 1, at + k);
		}
		CHECK(worst == 0 && total > 4000);
		CHECK(checkpoint_read_optim(c, "v", total, 0, x, &note) == 0);
		CHECK(checkpoint_read_optim(c, "v", total - 1, 2, x, &note) == ERR_RANGE);
		CHECK(checkpoint_read_optim(c, "w", 0, 1, x, &note) == ERR_NOT_FOUND && strstr(note.name, "w") != NULL);
		checkpoint_close(&c);
	}
}

static void
damage(void)
{
	static const struct {
		const char *what, *command;	/* shell command that damages the newer of two */
		enum checkpoint_check check;
		int rc;
		const char *name;
	} rows[] = {
		{"whole", "true '%s'", CHECKPOINT_HASHES, 0, ""},
		{"sizes do not see a flipped bit", "printf x | dd of='%s'/step_00000002/optim_00001_of_00002.safetensors bs=1 seek=4000 conv=notrunc status=none",
		    CHECKPOINT_SIZES, 0, ""},
		{"hashes do", "printf x | dd of='%s'/step_00000002/optim_00001_of_00002.safetensors bs=1 seek=4000 conv=notrunc status=none",
		    CHECKPOINT_HASHES, ERR_CORRUPT, "optim_00001_of_00002"},
		{"cut", "truncate -s -1 '%s'/step_00000002/config.json", CHECKPOINT_SIZES, ERR_CORRUPT, "config.json"},
		{"longer", "echo >>'%s'/step_00000002/state.json", CHECKPOINT_SIZES, ERR_CORRUPT, "state.json"},
		{"file gone", "rm '%s'/step_00000002/model-00001-of-*.safetensors", CHECKPOINT_SIZES, ERR_NOT_FOUND, "model-00001"},
		{"manifest cut", "truncate -s 100 '%s'/step_00000002/MANIFEST.json", CHECKPOINT_SIZES, ERR_FORMAT, "MANIFEST"},
		{"another format", "sed -i s/saltfleet-checkpoint/other/ '%s'/step_00000002/MANIFEST.json", CHECKPOINT_SIZES, ERR_FORMAT, "MANIFEST"},
		{"a later version", "sed -i 's/\"version\": 1/\"version\": 2/' '%s'/step_00000002/MANIFEST.json", CHECKPOINT_SIZES, ERR_VERSION, "MANIFEST"},
		{"a name that climbs", "sed -i 's/\"state.json\"/\"..\\/state.json\"/' '%s'/step_00000002/MANIFEST.json", CHECKPOINT_SIZES, ERR_FORMAT, "MANIFEST"},
		{"manifest gone", "rm '%s'/step_00000002/MANIFEST.json", CHECKPOINT_SIZES, ENOENT, "MANIFEST"},
		{"no hash", "sed -i 's/xxh3_128/xxh/' '%s'/step_00000002/MANIFEST.json", CHECKPOINT_SIZES, ERR_FORMAT, "MANIFEST"},
		{"renamed by hand", "mv '%1$s'/step_00000002 '%1$s'/step_00000009 && cp -r '%1$s'/step_00000009 '%1$s'/step_00000002 && "
		    "sed -i 's/\"step\": 2/\"step\": 3/' '%1$s'/step_00000002/MANIFEST.json && rm -r '%1$s'/step_00000009", CHECKPOINT_SIZES, ERR_MISMATCH, "step_00000002"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct checkpoint_info info;
		struct err_note note = {0};

		shell("rm -rf '%s'", "");
		REQUIRE(save_all(root, 1, 1, NULL) == 0 && save_all(root, 2, 2, NULL) == 0);
		shell(rows[i].command, "");
		CHECK_ROW(rows[i].what, checkpoint_verify(step_path(2), rows[i].check, &note) == rows[i].rc);
		CHECK_ROW(rows[i].what, strstr(note.name, rows[i].name) != NULL);
		CHECK_ROW(rows[i].what, checkpoint_find_latest(root, rows[i].check, &info, NULL) == 0 && info.step == (rows[i].rc == 0 ? 2 : 1));
		/* If the newest checkpoint is damaged, no older one is pruned. */
		if (strcmp(rows[i].what, "hashes do") == 0) {
			size_t n = 7;

			CHECK(checkpoint_prune(root, 1, NULL, 0, &n, &note) == ERR_CORRUPT && n == 0 && save_good(step_path(1), 1));
			shell("cp '%1$s'/step_00000002/config.json '%1$s'/step_00000001/state.json", "");
			CHECK(checkpoint_find_latest(root, CHECKPOINT_HASHES, &info, &note) == ERR_CORRUPT && strstr(note.name, "step_00000002") != NULL);
		}
	}
}

/*
 * A folder with the name of a checkpoint and without a manifest is a damaged checkpoint, not none: a run must
 * not start afresh in silence.
 */
static void
only_one_without_manifest(void)
{
	struct checkpoint_info info, *list;
	struct err_note note = {0};
	size_t n;

	shell("rm -rf '%s'", "");
	CHECK(!checkpoint_any(root));
	REQUIRE(save_all(root, 2, 1, NULL) == 0);
	shell("rm '%s'/step_00000002/MANIFEST.json", "");
	CHECK(checkpoint_any(root) && checkpoint_list(root, &list, &n, &note) == 0 && n == 0 && list == NULL);
	CHECK(checkpoint_find_latest(root, CHECKPOINT_SIZES, &info, &note) == ERR_CORRUPT &&
	    strstr(note.name, "step_00000002") != NULL);
	CHECK(strstr(note.expected, "MANIFEST.json in it") != NULL);
	shell("rm -rf '%1$s' && mkdir '%1$s'", "");
	CHECK(!checkpoint_any(root));
}

static void
finding(void)
{
	struct checkpoint_info info, *list;
	uint64_t keep[] = {3, 77};
	struct err_note note;
	size_t n;

	shell("rm -rf '%s'", "");
	CHECK(checkpoint_list(root, &list, &n, &note) == 0 && n == 0);
	CHECK(checkpoint_find_latest(root, CHECKPOINT_SIZES, &info, &note) == ERR_NOT_FOUND);
	CHECK(checkpoint_clean(root, &n, &note) == 0 && n == 0);
	for (uint64_t s = 1; s <= 5; s++)
		REQUIRE(save_all(root, s, 1, &note) == 0);
	/* nine digits are sorted as a number too */
	REQUIRE(save_all(root, 123456789, 1, &note) == 0);
	shell("mkdir '%1$s'/step_00000007.tmp '%1$s'/step_00000008 '%1$s'/other && touch '%1$s'/step_x", "");
	REQUIRE(checkpoint_list(root, &list, &n, &note) == 0 && n == 6);
	CHECK(list[0].step == 1 && list[5].step == 123456789);
	free(list);
	CHECK(checkpoint_find_latest(root, CHECKPOINT_HASHES, &info, &note) == 0 && info.step == 123456789);
	CHECK(checkpoint_prune(root, 2, keep, 2, &n, &note) == 0 && n == 3);
	REQUIRE(checkpoint_list(root, &list, &n, &note) == 0 && n == 3);
	CHECK(list[0].step == 3 && list[1].step == 5 && list[2].step == 123456789);
	free(list);
	CHECK(checkpoint_prune(root, 0, NULL, 0, &n, &note) == 0 && n == 2);
	CHECK(checkpoint_clean(root, &n, &note) == 0 && n == 1);
	CHECK(save_all(root, 123456789, 1, &note) == ERR_EXISTS);
	CHECK(save_all(root, CHECKPOINT_MAX_STEP + 1, 1, &note) == ERR_RANGE);
}

/* Pruning does not follow links, removes foreign files in old checkpoints, skips what it cannot remove. */
static void
prune_foreign(void)
{
	struct checkpoint_info *list;
	struct err_note note;
	size_t n;

	shell("rm -rf '%1$s' '%1$s'.elsewhere", "");
	for (uint64_t s = 1; s <= 5; s++)
		REQUIRE(save_all(root, s, 1, &note) == 0);
	shell("mkdir '%1$s'.elsewhere && mv '%1$s'/step_00000001 '%1$s'.elsewhere && ln -s '%1$s'.elsewhere/step_00000001 '%1$s'", "");
	shell("mkdir -p '%1$s'/step_00000002/.ipynb_checkpoints/deep && ln -s '%1$s'.elsewhere '%1$s'/step_00000002/link", "");
	shell("ln -s '%1$s'.elsewhere/step_00000001 '%1$s'/step_00000009.tmp", "");
	CHECK(checkpoint_clean(root, &n, &note) == 0 && n == 1);
	CHECK(checkpoint_prune(root, 2, NULL, 0, &n, &note) == 0 && n == 2);
	REQUIRE(checkpoint_list(root, &list, &n, &note) == 0 && n == 3);
	CHECK(list[0].step == 1 && list[1].step == 4 && list[2].step == 5);
	CHECK(checkpoint_verify(list[0].path, CHECKPOINT_HASHES, &note) == 0);
	free(list);
	CHECK(checkpoint_clean(root, &n, &note) == 0 && n == 0);
	/* A leftover with a mounted file system cannot be removed; start, save and pruning still work. */
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		return;			/* needs root */
	shell("mkdir -p '%1$s'/step_00000004/m '%1$s'/step_00000006.tmp/m && mount -t tmpfs none '%1$s'/step_00000004/m", "");
	shell("mount -t tmpfs none '%1$s'/step_00000006.tmp/m && touch '%1$s'/step_00000006.tmp/m/keep", "");
	CHECK(checkpoint_clean(root, &n, &note) == 0 && n == 0);
	CHECK(save_all(root, 6, 1, &note) == 0);
	shell("test -e '%1$s'/step_00000006.tmp.left-1/m/keep", "");
	CHECK(checkpoint_prune(root, 1, NULL, 0, &n, &note) == 0 && n == 1);
	CHECK(checkpoint_clean(root, &n, &note) == 0 && n == 0);
	shell("umount '%1$s'/step_00000004.tmp/m '%1$s'/step_00000006.tmp.left-1/m", "");
	shell("rm -rf '%1$s' '%1$s'.elsewhere", "");
}

static void
finish_refuses(void)
{
	static float x[10];
	struct checkpoint_array mv[] = {{"m", weights_source_array, x}, {"v", weights_source_array, x}};
	struct checkpoint_array only_m[] = {{"m", weights_source_array, x}};
	struct checkpoint_files list = {0};
	struct weights_file entry, other;
	char dir[CHECKPOINT_PATH_BYTES];
	struct json *state = json_new_object(), *text = json_new_text("x");
	struct err_note note;
	struct json *wrong[] = {text, NULL};

	shell("rm -rf '%s'", "");
	REQUIRE(checkpoint_begin(root, 5, dir, &note) == 0);
	for (size_t i = 0; i < 2; i++)
		CHECK(checkpoint_write_state(dir, wrong[i], &list, &note) == ERR_FORMAT);
	CHECK(checkpoint_write_optim(dir, 2, 2, 0, 10, 10, mv, 2, &entry, &note) == ERR_RANGE);
	CHECK(checkpoint_write_optim(dir, 0, 2, 0, 11, 10, mv, 2, &entry, &note) == ERR_RANGE);
	CHECK(checkpoint_write_optim(dir, 0, 2, 3, 2, 10, mv, 2, &entry, &note) == ERR_RANGE);
	REQUIRE(checkpoint_write_optim(dir, 0, 2, 0, 4, 10, mv, 2, &entry, &note) == 0);
	CHECK(checkpoint_write_optim(dir, 0, 2, 0, 4, 10, mv, 2, &other, &note) == EEXIST);
	REQUIRE(checkpoint_files_add(&list, &entry) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_NOT_FOUND && strcmp(note.place, "config.json") == 0);
	REQUIRE(weights_file_write(dir, "config.json", "{}", 2, &other, &note) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_MISMATCH && strcmp(note.place, "config.json") == 0);	/* not reported */
	REQUIRE(checkpoint_files_add(&list, &other) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_NOT_FOUND && strcmp(note.place, "state.json") == 0);
	REQUIRE(checkpoint_write_state(dir, state, &list, &note) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_NOT_FOUND && strcmp(note.found, "1 of 2") == 0);
	/* gap at 4 */
	REQUIRE(checkpoint_write_optim(dir, 1, 2, 5, 10, 10, mv, 2, &entry, &note) == 0);
	REQUIRE(checkpoint_files_add(&list, &entry) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_FORMAT && strcmp(note.found, "[5, 10)") == 0 && strstr(note.expected, "from 4") != NULL);
	shell("rm '%s'/step_00000005.tmp/optim_00001*", "");
	CHECK(checkpoint_finish(root, 5, &list, &note) == ENOENT && strstr(note.place, "optim_00001") != NULL);
	list.n--;
	REQUIRE(checkpoint_write_optim(dir, 1, 2, 4, 10, 10, only_m, 1, &entry, &note) == 0);
	REQUIRE(checkpoint_files_add(&list, &entry) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_MISMATCH && strstr(note.expected, "arrays") != NULL);
	shell("rm '%s'/step_00000005.tmp/optim_00001*", "");
	list.n--;
	REQUIRE(checkpoint_write_optim(dir, 1, 2, 4, 10, 11, mv, 2, &entry, &note) == 0);
	REQUIRE(checkpoint_files_add(&list, &entry) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_MISMATCH && strstr(note.expected, "total") != NULL);
	shell("rm '%s'/step_00000005.tmp/optim_00001*", "");
	list.n--;
	REQUIRE(checkpoint_write_optim(dir, 1, 2, 4, 10, 10, mv, 2, &entry, &note) == 0);
	entry.size_bytes++;
	REQUIRE(checkpoint_files_add(&list, &entry) == 0);
	CHECK(checkpoint_finish(root, 5, &list, &note) == ERR_MISMATCH && strstr(note.expected, "size") != NULL);
	list.files[list.n - 1].size_bytes--;
	CHECK(checkpoint_finish(root, 5, &list, &note) == 0);
	CHECK(checkpoint_verify(step_path(5), CHECKPOINT_HASHES, &note) == 0);
	CHECK(checkpoint_abort(root, 5, &note) == 0 && checkpoint_verify(step_path(5), CHECKPOINT_HASHES, &note) == 0);
	free(list.files);
	json_close(&state);
	json_close(&text);
}

int
main(void)
{
	const char *tmp = getenv("TMPDIR");
	char base[128];

	log_init("test", LOG_LEVEL_ERROR);
	snprintf(base, sizeof(base), "%.90s/checkpoint.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE(mkdtemp(base) != NULL);
	/* checkpoint_begin makes both folders */
	snprintf(root, sizeof(root), "%.128s/run/checkpoints", base);
	any_ranks();
	damage();
	only_one_without_manifest();
	finding();
	finish_refuses();
	prune_foreign();
	snprintf(root, sizeof(root), "%.128s", base);
	shell("rm -rf '%s'", "");
	return check_done();
}
