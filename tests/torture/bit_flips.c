/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bit_flips FOLDER COUNT SEED - COUNT times it flips one bit in a file of FOLDER/cache, a checkpoint, the
 * corpus FOLDER/train or a teacher (FOLDER/model), as a failing disk does, mostly with the file's times kept;
 * reads everything as the daemons do, in a child process; and flips the bit back. Good results are an error,
 * an identity other than that in labels, rows and checkpoints, or unchanged content (the bit has no meaning).
 * Other content, a signal or more than 20 seconds is a fault. The last line has the number of each result;
 * exit code 0: no fault.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../crash/save.h"
#include "data/cache/cache.h"
#include "data/corpus/corpus.h"

enum { L = 16, FILES_MAX = 64, READ_S = 20 };
enum verdict { ERROR, IDENTITY, SAME, FAULT, VERDICTS };

struct found {
	int rc;
	struct hash128 identity, content;
};

static char root[1024];

/* ---- readers: everything that they accept is hashed ---- */

struct sink {
	struct hash_state *h;
	int rc;
};

static void
take(struct sink *s, const void *bytes, size_t len)
{
	hash_update(s->h, bytes, len);
}

static void
take_text(struct sink *s, const char *text)
{
	take(s, text, strlen(text) + 1);
}

static int
each_identity(void *arg, const char *name, const char *value)
{
	take_text(arg, name);
	take_text(arg, value);
	return 0;
}

static int
each_item(void *arg, const struct cache_item *item)
{
	struct sink *s = arg;

	if (item->rc != 0 || !item->key_ok)
		s->rc = ERR_CORRUPT;
	take(s, item->key, item->key_len);
	take(s, item->bytes.bytes, item->bytes.len);
	return 0;
}

static void
read_cache(struct sink *s, struct hash128 *identity)
{
	char path[1100];
	struct cache *c = NULL;
	uint8_t *codes = NULL;
	size_t n;

	(void)identity;
	snprintf(path, sizeof(path), "%s/cache", root);
	if ((s->rc = cache_open(&c, path, CACHE_READ, 0, NULL)) != 0)
		return;
	if ((s->rc = cache_identity_each(c, each_identity, s)) == 0 && (s->rc = cache_unigram_get(c, &codes, &n)) == 0)
		take(s, codes, n);
	for (int t = CACHE_TABLE_SCORES; t < CACHE_TABLES && s->rc == 0; t++) {
		int rc = cache_each(c, (enum cache_table)t, each_item, s);

		if (s->rc == 0)
			s->rc = rc;
	}
	/* an identity with a wrong checksum is counted and left out */
	if (s->rc == 0 && cache_n_corrupt(c) > 0)
		s->rc = ERR_CORRUPT;
	free(codes);
	cache_destroy(&c);
}

static void
read_weights(struct sink *s, const char *path, struct hash128 *identity)
{
	struct weights_model *w = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	bool checkpoint;
	float *x = NULL;
	uint64_t n;

	if ((s->rc = checkpoint_verify_model(path, &checkpoint, NULL)) != 0 || (s->rc = weights_config_load(path, &cfg, NULL)) != 0 ||
	    (s->rc = model_new(&model, &cfg, NULL)) != 0 || (s->rc = weights_model_open(&w, path, model, NULL)) != 0 ||
	    (s->rc = weights_model_fingerprint(w, path, identity, NULL)) != 0)
		goto out;
	n = (uint64_t)model->n_params;
	if ((x = malloc(n * sizeof(*x))) == NULL || (s->rc = weights_model_read(w, 0, n, x, NULL)) != 0)
		goto out;
	take(s, x, n * sizeof(*x));
	take(s, &cfg.n_heads, sizeof(cfg.n_heads));
	take(s, &cfg.rope_theta, sizeof(cfg.rope_theta));
	take(s, &cfg.norm_eps, sizeof(cfg.norm_eps));
out:
	free(x);
	weights_model_close(&w);
	model_destroy(&model);
}

static void
read_teacher(struct sink *s, struct hash128 *identity)
{
	char path[1100];

	snprintf(path, sizeof(path), "%s/model", root);
	read_weights(s, path, identity);
}

static void
read_checkpoint(struct sink *s, struct hash128 *identity)
{
	static const char *const arrays[] = {"m", "v"};
	struct checkpoint *c = NULL;
	struct checkpoint_info info;
	char path[1100], *text = NULL;
	float *x = NULL;

	snprintf(path, sizeof(path), "%s/checkpoints", root);
	if ((s->rc = checkpoint_find_latest(path, CHECKPOINT_HASHES, &info, NULL)) != 0 ||
	    (s->rc = checkpoint_open(&c, info.path, CHECKPOINT_SIZES, NULL)) != 0)
		return;
	take(s, &info.step, sizeof(info.step));
	if ((text = json_print(checkpoint_state(c), false)) != NULL)
		take_text(s, text);
	if ((x = malloc(checkpoint_optim_total(c, "m") * sizeof(*x))) == NULL)
		s->rc = ENOMEM;
	for (int i = 0; i < 2 && s->rc == 0; i++)
		if ((s->rc = checkpoint_read_optim(c, arrays[i], 0, checkpoint_optim_total(c, arrays[i]), x, NULL)) == 0)
			take(s, x, checkpoint_optim_total(c, arrays[i]) * sizeof(*x));
	free(x);
	free(text);
	checkpoint_close(&c);
	if (s->rc == 0)
		read_weights(s, info.path, identity);
}

static void
read_corpus(struct sink *s, struct hash128 *identity)
{
	char path[1100];
	struct corpus *c = NULL;
	int32_t tokens[L + 1];
	uint64_t *counts = NULL;
	uint32_t vocab;

	snprintf(path, sizeof(path), "%s/train", root);
	if ((s->rc = corpus_open(&c, path, NULL)) != 0 || (s->rc = corpus_fingerprint(c, identity, NULL)) != 0)
		goto out;
	vocab = corpus_info(c)->vocab;
	take(s, &vocab, sizeof(vocab));
	take(s, &corpus_info(c)->eod, sizeof(corpus_info(c)->eod));
	take(s, &corpus_info(c)->tokenizer, sizeof(corpus_info(c)->tokenizer));
	for (uint64_t i = 0, n = corpus_n_windows(c, L); i < n && s->rc == 0; i++)
		if ((s->rc = corpus_window(c, i, L, tokens, NULL)) == 0)
			take(s, tokens, sizeof(tokens));
	if (s->rc == 0 && (counts = calloc(vocab, sizeof(*counts))) != NULL && (s->rc = corpus_counts(c, vocab, counts, NULL)) == 0)
		take(s, counts, vocab * sizeof(*counts));
out:
	free(counts);
	corpus_destroy(&c);
}

/* ---- flips ---- */

static const struct kind {
	/* its files: those in root/folder whose names begin with prefix */
	const char *name, *folder, *prefix;
	void (*read)(struct sink *, struct hash128 *);
} kinds[] = {
	{"cache", "cache", "data.mdb", read_cache},
	{"checkpoint", "checkpoints/step_00000007", "", read_checkpoint},
	{"corpus", "", "train.", read_corpus},
	{"teacher", "model", "", read_teacher},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

struct file {
	char path[1500];
	uint8_t *bytes;
	size_t len;
	struct timespec times[2];
};

static struct file files[KINDS][FILES_MAX];
static size_t n_files[KINDS];

static void
need(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "bit_flips: %s: %s\n", what, strerror(errno));
		exit(2);
	}
}

static uint8_t *
whole(const char *path, size_t *len, struct timespec times[2])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *p;

	if (fd < 0)
		return NULL;
	need(fstat(fd, &st) == 0 && (p = malloc((size_t)st.st_size + 1)) != NULL && read(fd, p, (size_t)st.st_size) == st.st_size, path);
	close(fd);
	*len = (size_t)st.st_size;
	if (times != NULL) {
		times[0] = st.st_atim;
		times[1] = st.st_mtim;
	}
	return p;
}

static void
list_files(size_t k)
{
	char dir[1200];
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/%s", root, kinds[k].folder);
	need((d = opendir(dir)) != NULL, dir);
	while ((e = readdir(d)) != NULL) {
		struct file *f = &files[k][n_files[k]];
		struct stat st;

		snprintf(f->path, sizeof(f->path), "%s/%s", dir, e->d_name);
		if (strncmp(e->d_name, kinds[k].prefix, strlen(kinds[k].prefix)) != 0 || stat(f->path, &st) != 0 || !S_ISREG(st.st_mode) ||
		    st.st_size == 0)
			continue;
		need(n_files[k]++ < FILES_MAX - 1, "more files than there is room for");
		need((f->bytes = whole(f->path, &f->len, f->times)) != NULL, f->path);
	}
	closedir(d);
	need(n_files[k] > 0, dir);
}

/* Restores all files, also side files (of hashes) that a reader wrote. */
static void
put_back(size_t k)
{
	for (size_t i = 0; i < n_files[k]; i++) {
		const struct file *f = &files[k][i];
		size_t len = 0;
		uint8_t *now = whole(f->path, &len, NULL);
		int fd;

		if (now == NULL || len != f->len || memcmp(now, f->bytes, len) != 0) {
			need((fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) >= 0, f->path);
			need(write(fd, f->bytes, f->len) == (ssize_t)f->len, f->path);
			close(fd);
		}
		utimensat(AT_FDCWD, f->path, f->times, 0);
		free(now);
	}
}

/* Reads in a child process, because it may crash. False if it did, or did not finish in READ_S seconds. */
static bool
read_apart(size_t k, struct found *out)
{
	int pipes[2], status;
	pid_t pid;
	bool whole_answer;

	need(pipe(pipes) == 0 && (pid = fork()) >= 0, "fork");
	if (pid == 0) {
		struct sink s = {.h = hash_new()};
		struct found f = {0};
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		dup2(null, 2);
		alarm(READ_S);
		kinds[k].read(&s, &f.identity);
		f.rc = s.rc;
		f.content = hash_digest(s.h);
		_exit(write(pipes[1], &f, sizeof(f)) == sizeof(f) ? 0 : 1);
	}
	close(pipes[1]);
	whole_answer = read(pipes[0], out, sizeof(*out)) == sizeof(*out);
	close(pipes[0]);
	need(waitpid(pid, &status, 0) == pid, "waitpid");
	return whole_answer && status == 0;
}

/* xorshift64* (Vigna, 2016) */
static uint64_t state;

static uint64_t
draw(uint64_t below)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * UINT64_C(2685821657736338717) >> 16) % below;
}

static const struct file *
draw_file(size_t k)
{
	uint64_t total = 0, at;

	if (draw(2) == 0)
		return &files[k][draw(n_files[k])];
	for (size_t i = 0; i < n_files[k]; i++)
		total += files[k][i].len;
	at = draw(total);
	for (size_t i = 0;; at -= files[k][i++].len)
		if (at < files[k][i].len)
			return &files[k][i];
}

static enum verdict
flip(size_t k, const struct found *good, unsigned long n)
{
	const struct file *f = draw_file(k);
	uint64_t at = draw(f->len), bit = draw(8);
	bool times_kept = draw(4) != 0, ended;
	uint8_t byte = (uint8_t)(f->bytes[at] ^ 1u << bit);
	struct found found = {0};
	enum verdict v;
	int fd;

	need((fd = open(f->path, O_WRONLY | O_CLOEXEC)) >= 0 && pwrite(fd, &byte, 1, (off_t)at) == 1, f->path);
	close(fd);
	if (times_kept)
		utimensat(AT_FDCWD, f->path, f->times, 0);
	ended = read_apart(k, &found);
	put_back(k);
	v = !ended ? FAULT : found.rc != 0 ? ERROR : hash_equal(found.content, good->content) ? SAME :
	    !hash_equal(found.identity, good->identity) ? IDENTITY : FAULT;
	if (v == FAULT)
		fprintf(stderr, "FAULT in flip %lu: %s byte %" PRIu64 " bit %" PRIu64 "%s: %s\n", n, f->path, at, bit,
		    times_kept ? ", times kept" : "", ended ? "other content is accepted" : "the reader crashed or hung");
	return v;
}

int
main(int argc, char **argv)
{
	unsigned long count, counts[KINDS][VERDICTS] = {0}, faults = 0;
	struct found good[KINDS];
	struct err_note note = {0};
	char text[1200];
	int rc;

	if (argc != 4)
		return 64;
	snprintf(root, sizeof(root), "%s", argv[1]);
	count = strtoul(argv[2], NULL, 10);
	state = strtoull(argv[3], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
	snprintf(text, sizeof(text), "%s/checkpoints", root);
	if ((rc = save_all(text, 7, 2, &note)) != 0) {
		fprintf(stderr, "bit_flips: %s\n", err_note_str(&note, rc, text, sizeof(text)));
		return 2;
	}
	for (size_t k = 0; k < KINDS; k++) {
		struct found again;

		/* the first reading writes side files of hashes, on which later ones rely */
		if (!read_apart(k, &good[k]) || good[k].rc != 0 || !read_apart(k, &again) || !hash_equal(again.content, good[k].content)) {
			fprintf(stderr, "bit_flips: %s: not readable before any flip (%s)\n", kinds[k].name, err_str(good[k].rc));
			return 2;
		}
		list_files(k);
	}
	for (unsigned long n = 0; n < count; n++)
		counts[n % KINDS][flip(n % KINDS, &good[n % KINDS], n)]++;
	for (size_t k = 0; k < KINDS; k++) {
		faults += counts[k][FAULT];
		printf("%s%s: %lu errors, %lu other identity, %lu without meaning, %lu faults", k > 0 ? "; " : "", kinds[k].name, counts[k][ERROR],
		    counts[k][IDENTITY], counts[k][SAME], counts[k][FAULT]);
	}
	printf("\n");
	return faults == 0 ? 0 : 1;
}
