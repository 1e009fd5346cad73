/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads files through four compression libraries, which one table describes. libarchive would be one library,
 * but it does not verify the checksum of gzip members, and it takes a damaged header between members for the
 * end of the file, so that text would be lost without an error.
 */
#include "data/text/text_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (256u << 10)
#define MAX_READ_BYTES (1u << 30) /* zlib and bzip2 count in 32 bits */
#define WIDE_BYTES (64u << 10)
#define ZSTD_WINDOW_LOG 31 /* as zstd --long=31 writes: up to 2 GiB of memory, only for files that need it */
#define XZ_MEMORY_BYTES (UINT64_C(4) << 30)

/*
 * A step is one call of a library: it reads from raw[in .. n_in) and writes at most *n bytes; *n: how many.
 */
enum outcome { GO_ON, MEMBER_END, DAMAGED, NO_MEMORY };

struct text__codec {
	const char *name, *ending;
	unsigned char magic[6];
	size_t n_magic;
	bool (*begin)(struct text__source *s);
	enum outcome (*step)(struct text__source *s, void *p, size_t *n, const char **why);
	void (*end)(struct text__source *s);
};

static enum outcome
outcome_of(int rc, int end, int ok, int also_ok, int no_memory)
{
	return rc == end ? MEMBER_END : rc == ok || rc == also_ok ? GO_ON : rc == no_memory ? NO_MEMORY : DAMAGED;
}

static bool
gzip_begin(struct text__source *s)
{
	memset(&s->z, 0, sizeof(s->z));
	return inflateInit2(&s->z.gzip, 16 + MAX_WBITS) == Z_OK;
}

static enum outcome
gzip_step(struct text__source *s, void *p, size_t *n, const char **why)
{
	z_stream *z = &s->z.gzip;
	int rc;

	z->next_in = s->raw + s->in;
	z->avail_in = (unsigned)(s->n_in - s->in);
	z->next_out = p;
	z->avail_out = (unsigned)*n;
	rc = inflate(z, Z_NO_FLUSH);
	s->in = s->n_in - z->avail_in;
	*n -= z->avail_out;
	*why = z->msg;
	return outcome_of(rc, Z_STREAM_END, Z_OK, Z_BUF_ERROR, Z_MEM_ERROR);
}

static void
gzip_end(struct text__source *s)
{
	inflateEnd(&s->z.gzip);
}

static bool
bzip2_begin(struct text__source *s)
{
	memset(&s->z, 0, sizeof(s->z));
	return BZ2_bzDecompressInit(&s->z.bzip2, 0, 0) == BZ_OK;
}

static enum outcome
bzip2_step(struct text__source *s, void *p, size_t *n, const char **why)
{
	bz_stream *z = &s->z.bzip2;
	int rc;

	z->next_in = (char *)s->raw + s->in;
	z->avail_in = (unsigned)(s->n_in - s->in);
	z->next_out = p;
	z->avail_out = (unsigned)*n;
	rc = BZ2_bzDecompress(z);
	s->in = s->n_in - z->avail_in;
	*n -= z->avail_out;
	*why = rc == BZ_DATA_ERROR_MAGIC ? "wrong magic bytes" : "a wrong checksum or damaged data";
	return outcome_of(rc, BZ_STREAM_END, BZ_OK, BZ_OK, BZ_MEM_ERROR);
}

static void
bzip2_end(struct text__source *s)
{
	BZ2_bzDecompressEnd(&s->z.bzip2);
}

static bool
xz_begin(struct text__source *s)
{
	memset(&s->z, 0, sizeof(s->z));
	return lzma_stream_decoder(&s->z.xz, XZ_MEMORY_BYTES, 0) == LZMA_OK;
}

static enum outcome
xz_step(struct text__source *s, void *p, size_t *n, const char **why)
{
	lzma_stream *z = &s->z.xz;
	lzma_ret rc;

	z->next_in = s->raw + s->in;
	z->avail_in = s->n_in - s->in;
	z->next_out = p;
	z->avail_out = *n;
	rc = lzma_code(z, LZMA_RUN);
	s->in = s->n_in - z->avail_in;
	*n -= z->avail_out;
	*why = rc == LZMA_FORMAT_ERROR ? "wrong magic bytes" :
	    rc == LZMA_OPTIONS_ERROR   ? "options that liblzma does not have" :
	    rc == LZMA_MEMLIMIT_ERROR  ? "data that needs over 4 GiB of memory" :
					 "a wrong checksum or damaged data";
	return outcome_of((int)rc, LZMA_STREAM_END, LZMA_OK, LZMA_BUF_ERROR, LZMA_MEM_ERROR);
}

static void
xz_end(struct text__source *s)
{
	lzma_end(&s->z.xz);
}

static bool
zstd_begin(struct text__source *s)
{
	if ((s->z.zstd = ZSTD_createDStream()) == NULL)
		return false;
	ZSTD_DCtx_setParameter(s->z.zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	return true;
}

static enum outcome
zstd_step(struct text__source *s, void *p, size_t *n, const char **why)
{
	ZSTD_outBuffer out = {.dst = p, .size = *n};
	ZSTD_inBuffer in = {.src = s->raw, .size = s->n_in, .pos = s->in};
	size_t hint = ZSTD_decompressStream(s->z.zstd, &out, &in);

	s->in = in.pos;
	*n = out.pos;
	*why = ZSTD_getErrorName(hint);
	return ZSTD_isError(hint) ? DAMAGED : hint == 0 ? MEMBER_END : GO_ON;
}

static void
zstd_end(struct text__source *s)
{
	ZSTD_freeDStream(s->z.zstd);
}

static const struct text__codec codecs[] = {
	{"gzip", ".gz", {0x1f, 0x8b}, 2, gzip_begin, gzip_step, gzip_end},
	{"bzip2", ".bz2", {'B', 'Z', 'h'}, 3, bzip2_begin, bzip2_step, bzip2_end},
	{"xz", ".xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, xz_begin, xz_step, xz_end},
	{"zstd", ".zst", {0x28, 0xb5, 0x2f, 0xfd}, 4, zstd_begin, zstd_step, zstd_end},
};

#define N_CODECS (sizeof(codecs) / sizeof(codecs[0]))

static const struct text__codec *
codec_of(const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < N_CODECS; i++)
		if (n >= codecs[i].n_magic && memcmp(p, codecs[i].magic, codecs[i].n_magic) == 0 &&
		    (codecs[i].begin != bzip2_begin ||
			(n > 9 && p[3] >= '1' && p[3] <= '9' && (p[4] == 0x31 || p[4] == 0x17))))
			return &codecs[i];
	/* A zstd file may begin with a skippable frame, as pzstd writes it. */
	return n >= 4 && (p[0] & 0xf0) == 0x50 && memcmp(p + 1, "\x2a\x4d\x18", 3) == 0 ?
	    &codecs[N_CODECS - 1] :
	    NULL;
}

const char *
text__source_codec(const struct text__source *s)
{
	return s->codec != NULL ? s->codec->name : NULL;
}

const char *
text__codec_ending(const char *name, const char **format)
{
	for (size_t i = 0; i < N_CODECS; i++) {
		*format = codecs[i].name;
		if (text__ends_with(name, codecs[i].ending))
			return codecs[i].ending;
	}
	return NULL;
}

int
text__source_open(struct text__source *s, const char *path, struct err_note *note)
{
	s->name = strcmp(path, "-") == 0 ? "standard input" : path;
	s->fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0)
		return err_note_set(note, errno, "%s", s->name);
	s->n_raw = 0;
	s->started = s->at_end = s->inside = s->wide_end = false;
	s->codec = NULL;
	s->encoding = NULL;
	s->in = s->n_in = s->n_wide = 0;
	if (s->raw == NULL && (s->raw = malloc(READ_BYTES)) == NULL)
		return ENOMEM;
	return 0;
}

void
text__source_close(struct text__source *s)
{
	if (s->inside)
		s->codec->end(s);
	if (s->encoding != NULL)
		iconv_close(s->converter);
	if (s->fd > STDIN_FILENO)
		close(s->fd);
	s->inside = false;
	s->encoding = NULL;
	s->fd = -1;
}

void
text__source_free(struct text__source *s)
{
	free(s->raw);
	free(s->wide);
}

/* Reads up to n bytes of the file; sets at_end at its end. */
static int
read_file(struct text__source *s, void *p, size_t n, size_t *got, struct err_note *note)
{
	ssize_t r;

	do
		r = read(s->fd, p, n);
	while (r < 0 && errno == EINTR);
	*got = 0;
	if (r < 0)
		return err_note_set(note, errno, "%s", s->name);
	*got = (size_t)r;
	s->n_raw += *got;
	s->at_end = *got == 0;
	return 0;
}

static int
start(struct text__source *s, struct err_note *note)
{
	size_t got;
	int rc = 0;

	s->started = true;
	while (s->n_in < 16 && !s->at_end &&
	    (rc = read_file(s, s->raw + s->n_in, READ_BYTES - s->n_in, &got, note)) == 0)
		s->n_in += got;
	if (rc == 0 && (s->codec = codec_of(s->raw, s->n_in)) != NULL)
		rc = (s->inside = s->codec->begin(s)) ? 0 : ENOMEM;
	return rc;
}

static int
unpack(struct text__source *s, void *p, size_t n, size_t *got, struct err_note *note)
{
	const char *why = NULL;
	enum outcome outcome;
	int rc;

	while (*got == 0) {
		if (s->in == s->n_in && !s->at_end) {
			s->in = 0;
			if ((rc = read_file(s, s->raw, READ_BYTES, &s->n_in, note)) != 0)
				return rc;
		}
		if (!s->inside) { /* between members; zeros there are padding */
			while (s->in < s->n_in && s->raw[s->in] == 0)
				s->in++;
			if (s->in == s->n_in && s->at_end)
				return 0;
			if (s->in == s->n_in)
				continue;
			if (!(s->inside = s->codec->begin(s)))
				return ENOMEM;
		}
		*got = n;
		outcome = s->codec->step(s, p, got, &why);
		if (outcome == NO_MEMORY)
			return ENOMEM;
		if (outcome == DAMAGED)
			return err_expect_at(note, ERR_FORMAT, "%s", "near byte %llu", "%s data", "%s",
			    s->name, (unsigned long long)(s->n_raw - (s->n_in - s->in)), s->codec->name,
			    why != NULL ? why : "damaged data");
		if (outcome == MEMBER_END) {
			s->codec->end(s);
			s->inside = false;
		} else if (*got == 0 && s->in == s->n_in && s->at_end) {
			return err_expect_at(note, ERR_FORMAT, "%s", "byte %llu", "the rest of the %s data",
			    "the end of the file", s->name, (unsigned long long)s->n_raw, s->codec->name);
		}
	}
	return 0;
}

static int
read_bytes(struct text__source *s, void *p, size_t n, size_t *got, struct err_note *note)
{
	int rc;

	*got = 0;
	if (!s->started && (rc = start(s, note)) != 0)
		return rc;
	if (s->codec != NULL)
		return unpack(s, p, n, got, note);
	if (s->in == s->n_in)
		return s->at_end ? 0 : read_file(s, p, n, got, note);
	*got = n < s->n_in - s->in ? n : s->n_in - s->in; /* bytes that start() read */
	memcpy(p, s->raw + s->in, *got);
	s->in += *got;
	return 0;
}

int
text__source_convert(
    struct text__source *s, const char *encoding, const void *head, size_t n, struct err_note *note)
{
	s->converter = iconv_open("UTF-8", encoding);
	if (s->converter == (iconv_t)-1)
		return err_expect(note, errno == EINVAL ? ERR_UNSUPPORTED : errno, "%s", "UTF-8, or iconv with %s", "%s",
		    s->name, encoding, encoding);
	s->encoding = encoding;
	free(s->wide);
	if ((s->wide = malloc(n + WIDE_BYTES)) == NULL)
		return ENOMEM;
	memcpy(s->wide, head, n);
	s->n_wide = n;
	return 0;
}

int
text__source_read(struct text__source *s, void *p, size_t n, size_t *got, struct err_note *note)
{
	char *in, *out = p;
	size_t room, more;
	int rc;

	n = n < MAX_READ_BYTES ? n : MAX_READ_BYTES;
	room = n;
	if (s->encoding == NULL)
		return read_bytes(s, p, n, got, note);
	*got = 0;
	for (;;) {
		in = s->wide;
		if (iconv(s->converter, &in, &s->n_wide, &out, &room) == (size_t)-1 && errno == EILSEQ &&
		    room == n)
			return err_expect(note, ERR_FORMAT, "%s",
			    "%s throughout, because it begins with its byte order mark", "bytes that are not",
			    s->name, s->encoding);
		memmove(s->wide, in, s->n_wide);
		if ((*got = n - room) > 0)
			return 0;
		if (s->wide_end)
			return s->n_wide == 0 ?
			    0 :
			    err_expect(note, ERR_FORMAT, "%s", "whole characters of %s",
				"the end of the file within a character", s->name, s->encoding);
		if ((rc = read_bytes(s, s->wide + s->n_wide, WIDE_BYTES - s->n_wide, &more, note)) != 0)
			return rc;
		s->n_wide += more;
		s->wide_end = more == 0;
	}
}
