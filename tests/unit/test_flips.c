/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_unit_flips [COUNT [SEED]] - flips single bits in files of corpora, of a checkpoint and of a teacher's
 * weights that were used before; size and times are kept, as on a failing disk. Each flip must cause an error
 * before the damaged data is used. A flip that is not found is printed with file, byte and bit.
 */
#include "engine/checkpoint/checkpoint.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log/log.h"
#include "base/random/random.h"
#include "crash/save.h"
#include "data/corpus/corpus.h"
#include "files.h"

static struct err_note note;

/* ---- use: read a target as a daemon does; return 0 or the error ---- */

static int
use_corpus(const char *prefix)
{
	static uint64_t counts[1000];
	struct corpus *c;
	struct hash128 h;
	int32_t out[512];
	int rc = corpus_open(&c, prefix, &note);

	if (rc == 0 && (rc = corpus_fingerprint(c, &h, &note)) == 0 && corpus_info(c)->has_counts)
		rc = corpus_counts(c, 1000, counts, &note);
	for (uint64_t i = 0; rc == 0 && i < corpus_n_windows(c, 511); i++)
		rc = corpus_window(c, i, 511, out, &note);
	corpus_destroy(&c);
	return rc;
}

static int
use_model(const char *path)
{
	struct weights_model *w = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	struct hash128 h;
	bool checkpoint;
	int rc;

	if ((rc = checkpoint_verify_model(path, &checkpoint, &note)) == 0 && (rc = weights_config_load(path, &cfg, &note)) == 0 &&
	    (rc = model_new(&model, &cfg, &note)) == 0 && (rc = weights_model_open(&w, path, model, &note)) == 0 && !checkpoint)
		rc = weights_model_fingerprint(w, path, &h, &note);
	weights_model_close(&w);
	model_destroy(&model);
	return rc;
}

static int
use_checkpoint(const char *path)
{
	int rc = checkpoint_verify(path, CHECKPOINT_HASHES, &note);

	if (rc == 0)
		CHECK(save_good(path, 7));
	return rc;
}

/* ---- the targets ---- */

static const struct target {
	const char *what, *path;		/* path: a separate folder */
	int (*use)(const char *path);
	const char *prefix;			/* argument of use, in dir */
	bool model_only;			/* use neither reads optimizer and state nor checks them */
} targets[] = {
	{"corpus", "own", use_corpus, "own/c", false}, {"foreign corpus", "foreign", use_corpus, "foreign/c.bin", false},
	{"raw corpus", "raw", use_corpus, "raw/c.bin", false}, {"teacher weights", "teacher", use_model, "teacher", false},
	{"sharded weights", "sharded", use_model, "sharded", false}, {"checkpoint", "run/step_00000007", use_checkpoint, "run/step_00000007", false},
	{"checkpoint as a model", "run/step_00000007", use_model, "run/step_00000007", true},
};
enum { N_TARGETS = sizeof(targets) / sizeof(targets[0]) };

static void
copy(const char *from, const char *to)
{
	char command[300];

	snprintf(command, sizeof(command), "cp -r tests/golden/weights/%s %s && rm -f %s/.salt_fingerprint", from, in_dir(to), in_dir(to));
	REQUIRE(system(command) == 0);
}

static void
make(void)
{
	static int32_t ids[300000];
	static struct {
		int32_t header[256];
		uint16_t ids[300000];
	} foreign = {.header = {20240520, 1, 300000}};
	struct corpus_writer_options o = {.vocab = 1000, .eod = 2};
	struct corpus_writer *w;
	struct corpus *c;
	bool written;

	for (int i = 0; i < 300000; i++)
		foreign.ids[i] = (uint16_t)(ids[i] = (int32_t)((uint32_t)i * 2654435761u >> 8) % 1000);
	REQUIRE(corpus_writer_new(&w, in_dir("own/c"), &o, &note) == 0);
	for (int i = 0; i < 300; i++)
		REQUIRE(corpus_writer_document(w, ids + 1000 * i, 1000, 4000, &note) == 0);
	REQUIRE(corpus_writer_finish(w, NULL, &note) == 0);
	corpus_writer_destroy(&w);
	REQUIRE(mkdir(in_dir("foreign"), 0777) == 0 && mkdir(in_dir("raw"), 0777) == 0);
	spill(in_dir("foreign/c.bin"), &foreign, sizeof(foreign));
	spill(in_dir("raw/c.bin"), ids, sizeof(ids));
	REQUIRE(corpus_open_as(&c, in_dir("raw/c.bin"), CORPUS_DTYPE_UINT32, &note) == 0);
	REQUIRE(corpus_remember(c, &written, &note) == 0 && written);
	corpus_destroy(&c);
	copy("llama", "teacher");
	copy("llama_sharded", "sharded");
	REQUIRE(save_all(in_dir("run"), 7, 2, &note) == 0);
}

/* ---- flipping ---- */

/*
 * Draws a file of the target: every second time with a probability in proportion to its size, else uniformly.
 * Hidden files and .salthash files, which saltfleet writes beside it, are excluded.
 */
static off_t
draw_file(const struct target *t, const uint32_t u[4], char *path, size_t size)
{
	char names[32][NAME_MAX + 1], folder[128];
	off_t sizes[32], total = 0, at;
	struct dirent *e;
	DIR *d = opendir(in_dir(t->path));
	struct stat st;
	size_t n = 0, k = 0;

	REQUIRE(d != NULL);
	while ((e = readdir(d)) != NULL && n < 32) {
		snprintf(path, size, "%s/%s", in_dir(t->path), e->d_name);
		if (e->d_name[0] == '.' || strstr(e->d_name, ".salthash") != NULL || stat(path, &st) != 0 || !S_ISREG(st.st_mode))
			continue;
		if (t->model_only && strncmp(e->d_name, "model", 5) != 0 && strncmp(e->d_name, "config", 6) != 0)
			continue;
		snprintf(names[n], sizeof(names[n]), "%s", e->d_name);
		sizes[n++] = st.st_size;
		total += st.st_size;
	}
	closedir(d);
	REQUIRE(n > 0);
	snprintf(folder, sizeof(folder), "%s", in_dir(t->path));
	if (u[0] % 2 == 0) {
		k = u[1] % n;
	} else {
		at = (off_t)(((uint64_t)u[1] << 32 | u[2]) % (uint64_t)total);
		while (at >= sizes[k])
			at -= sizes[k++];
	}
	snprintf(path, size, "%s/%.255s", folder, names[k]);
	return (off_t)(((uint64_t)u[2] << 32 | u[3]) % (uint64_t)sizes[k]);
}

static void
flip(const char *path, off_t at, unsigned bit)
{
	struct timespec times[2];
	int fd = open(path, O_RDWR);
	struct stat st;
	uint8_t byte;

	REQUIRE(fd >= 0 && fstat(fd, &st) == 0 && pread(fd, &byte, 1, at) == 1);
	byte ^= (uint8_t)(1u << bit);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	REQUIRE(pwrite(fd, &byte, 1, at) == 1 && futimens(fd, times) == 0 && close(fd) == 0);
}

int
main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 140, seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 20261129;
	unsigned tried[N_TARGETS] = {0}, found[N_TARGETS] = {0};
	char path[512];

	log_init("test", LOG_LEVEL_ERROR);
	files_begin();
	make();
	for (int k = 0; k < N_TARGETS; k++)
		REQUIRE(targets[k].use(in_dir(targets[k].prefix)) == 0);
	for (uint64_t i = 0; i < count; i++) {
		unsigned k = (unsigned)(i % N_TARGETS), bit;
		const struct target *t = &targets[k];
		uint32_t u[4];
		off_t at;

		random_words((uint32_t)seed, RANDOM_PURPOSE_INIT, i, 0, 0, u);
		bit = u[0] / 2 % 8;
		at = draw_file(t, u, path, sizeof(path));
		flip(path, at, bit);
		tried[k]++;
		if (t->use(in_dir(t->prefix)) != 0)
			found[k]++;
		else
			fprintf(stderr, "flip %llu: %s byte %lld bit %u was not found\n", (unsigned long long)i, path, (long long)at, bit);
		flip(path, at, bit);
	}
	for (int k = 0; k < N_TARGETS; k++) {
		printf("%-22s %u flips, %u found\n", targets[k].what, tried[k], found[k]);
		CHECK_ROW(targets[k].what, tried[k] == found[k]);
		CHECK_ROW(targets[k].what, targets[k].use(in_dir(targets[k].prefix)) == 0);
	}
	files_end();
	return check_done();
}
