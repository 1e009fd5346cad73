/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log/log.h"
#include "base/random/random.h"
#include "base/random/shuffle.h"
#include "files.h"

/* Known answers of Philox4x32-10, from the Random123 distribution of its authors. */
static void
philox_known_answers(void)
{
	static const struct {
		const char *what;
		uint32_t key[2], counter[4], want[4];
	} rows[] = {
		{"zeros", {0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{"ones", {~0u, ~0u}, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{"pi", {0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
		    {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t out[4];

		random_philox(rows[i].key, rows[i].counter, out);
		CHECK_ROW(rows[i].what, memcmp(out, rows[i].want, sizeof(out)) == 0);
	}
}

/* A shuffle order is a bijection in every epoch, can be inverted, and differs between seeds and epochs. */
static void
order_is_a_bijection(void)
{
	static const uint64_t sizes[] = {1, 2, 3, 5, 16, 17, 1000, 4097};

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint64_t n = sizes[s], moved = 0;

		for (uint64_t epoch = 0; epoch < 2; epoch++) {
			unsigned char *seen = calloc(n, 1);

			for (uint64_t p = 0; p < n; p++) {
				uint64_t seq = shuffle_order(17, n, epoch * n + p);

				REQUIRE(seq < n);
				CHECK(seen[seq]++ == 0);
				CHECK(shuffle_position(17, n, epoch, seq) == p);
				moved += seq != shuffle_order(18, n, p);
			}
			free(seen);
		}
		CHECK(n < 16 || moved > n);
	}
	CHECK(shuffle_order(1, UINT64_MAX, UINT64_MAX - 1) < UINT64_MAX);
}

/* tests/golden/order_of.py computes these in Python from the text of docs/formats.md, with its own Philox. */
static void
order_golden(void)
{
	static const uint64_t want[8] = {253, 84, 708, 848, 979, 122, 378, 210};

	for (uint64_t p = 0; p < 8; p++)
		CHECK(shuffle_order(1234, 1000, 995 + p) == want[p]);
}

static void
hex_round_trip(void)
{
	struct hash128 h = hash_bytes("salt", 4), back;
	char hex[HASH_HEX_BYTES];

	CHECK(hash_from_hex(&back, hash_hex(h, hex)) == 0 && hash_equal(h, back));
	hex[5] = 'g';
	CHECK(hash_from_hex(&back, hex) == ERR_FORMAT);
	CHECK(hash_from_hex(&back, "12") == ERR_FORMAT);
}

/* Three blocks, the last one short. */
enum { FILE_BYTES = 2 * HASH_BLOCK_BYTES + 1000 };

/* Changes a byte of the file and keeps size and times, as a failing disk does. */
static void
rot(int fd, off_t at)
{
	struct timespec times[2];
	struct stat st;
	uint8_t byte;

	REQUIRE(fstat(fd, &st) == 0 && pread(fd, &byte, 1, at) == 1);
	byte ^= 4;
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	REQUIRE(pwrite(fd, &byte, 1, at) == 1 && futimens(fd, times) == 0);
}

static int
all_blocks(const char *path, int fd, struct hash128 *root, struct err_note *note)
{
	struct hash_blocks *b;
	int rc = hash_blocks_open(&b, fd, path, root, note);

	if (rc == 0)
		rc = hash_blocks_check(b, fd, 0, FILE_BYTES, false, note);
	hash_blocks_close(&b);
	return rc;
}

static void
blocks(const char *path, const char *side, int fd)
{
	static char data[FILE_BYTES];
	struct hash128 a, b, piece;
	struct hash_state *h = hash_new();
	struct hash_blocks *kept;
	char text[200], hex[HASH_HEX_BYTES];
	struct err_note note;
	struct stat st;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 7 + i / 251);
	REQUIRE(write(fd, data, sizeof(data)) == (ssize_t)sizeof(data) && fstat(fd, &st) == 0);
	piece = hash_bytes(data, sizeof(data));
	hash_field(h, "piece", &piece, sizeof(piece));
	hash_field_u64(h, "size", sizeof(data));
	CHECK(hash_file(path, &a, &note) == 0 && hash_equal(a, hash_digest(h)));
	hash_destroy(&h);
	CHECK(all_blocks(path, fd, &b, &note) == 0 && hash_equal(a, b) && access(side, R_OK) == 0);
	CHECK(all_blocks(path, fd, &b, &note) == 0 && hash_equal(a, b));

	/* A damaged block is found when it is read, not before, and no other block is reported. */
	REQUIRE(hash_blocks_open(&kept, fd, path, &b, &note) == 0);
	CHECK(hash_blocks_check(kept, fd, 0, 1, false, &note) == 0);
	rot(fd, 5);
	rot(fd, HASH_BLOCK_BYTES + 17);
	/* was checked before */
	CHECK(hash_blocks_check(kept, fd, 100, 1, false, &note) == 0);
	CHECK(hash_blocks_check(kept, fd, 2 * HASH_BLOCK_BYTES, 1000, false, &note) == 0);
	CHECK(hash_blocks_check(kept, fd, HASH_BLOCK_BYTES - 1, 2, false, &note) == ERR_CORRUPT);
	CHECK_STR(note.name, path);
	CHECK_STR(note.place, "block 1 (bytes 262144 to 524288)");
	CHECK(hash_blocks_check(kept, fd, 100, 1, true, &note) == ERR_CORRUPT && strncmp(note.place, "block 0 ", 8) == 0);
	rot(fd, 5);
	rot(fd, HASH_BLOCK_BYTES + 17);
	CHECK(hash_blocks_check(kept, fd, 0, FILE_BYTES, true, &note) == 0);

	/* The file is truncated while it is open. */
	REQUIRE(ftruncate(fd, FILE_BYTES - 1) == 0);
	CHECK(hash_blocks_check(kept, fd, FILE_BYTES - 5, 2, true, &note) == ERR_CORRUPT && strstr(note.found, "cut short") != NULL);
	REQUIRE(pwrite(fd, data + FILE_BYTES - 1, 1, FILE_BYTES - 1) == 1);
	hash_blocks_close(&kept);
	/* new time: read again */
	CHECK(all_blocks(path, fd, &b, &note) == 0 && hash_equal(a, b));

	/* A side file of the older form is upgraded, unless the bytes do not match it. */
	REQUIRE(fstat(fd, &st) == 0);
	snprintf(text, sizeof(text), "salthash1 %s %d %lld.%09ld %llu\n", hash_hex(a, hex), FILE_BYTES, (long long)st.st_mtim.tv_sec,
	    st.st_mtim.tv_nsec, (unsigned long long)st.st_ino);
	spill_text(side, text);
	CHECK(all_blocks(path, fd, &b, &note) == 0 && hash_equal(a, b));
	REQUIRE(stat(side, &st) == 0);
	CHECK(st.st_size > 3 * 8 + 100);
	spill_text(side, text);
	rot(fd, 3);
	CHECK(all_blocks(path, fd, &b, &note) == ERR_CORRUPT && strstr(note.found, "bytes changed") != NULL);
	rot(fd, 3);

	/* A damaged side file is written again, and does not hide damage of the file. */
	unlink(side);
	CHECK(all_blocks(path, fd, &b, &note) == 0);
	REQUIRE(stat(side, &st) == 0);
	for (off_t at = 0; at < st.st_size; at++) {
		int s = open(side, O_RDWR);

		rot(s, at);
		close(s);
		b = (struct hash128){0, 0};
		CHECK(all_blocks(path, fd, &b, &note) == 0 && hash_equal(a, b));
	}
	spill_text(side, "");
	CHECK(all_blocks(path, fd, &b, &note) == 0 && hash_equal(a, b));
}

/* A file of four pieces, which several threads read; the last piece is short. */
static void
pieces(const char *path, const char *side, int fd)
{
	const size_t piece = (size_t)64 << 20, size = 3 * piece + 12345;
	struct hash_state *h = hash_new();
	unsigned char *data = calloc(1, size);
	struct hash128 root, found;
	struct hash_blocks *b;
	struct err_note note;

	unlink(side);
	REQUIRE(data != NULL && ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)size) == 0);
	for (size_t i = 0; i < size; i += 100003)
		REQUIRE(pwrite(fd, memset(data + i, (int)(1 + i % 255), 1), 1, (off_t)i) == 1);
	for (size_t at = 0; at < size; at += piece) {
		struct hash128 one = hash_bytes(data + at, size - at < piece ? size - at : piece);

		hash_field(h, "piece", &one, sizeof(one));
	}
	hash_field_u64(h, "size", size);
	root = hash_digest(h);
	CHECK(hash_file(path, &found, &note) == 0 && hash_equal(found, root));
	REQUIRE(hash_blocks_open(&b, fd, path, &found, &note) == 0);
	CHECK(hash_equal(found, root) && hash_blocks_check(b, fd, 0, size, true, &note) == 0);
	hash_blocks_close(&b);
	CHECK(access(side, R_OK) == 0);
	hash_destroy(&h);
	free(data);
	/* The call returns an error that occurs in a thread. */
	CHECK(hash_file("/", &found, &note) == EISDIR);
}

/* A file that takes long is reported while it is read. The reader is stopped meanwhile, so that it does not compute for these seconds. */
static void
progress(const char *path, int fd)
{
	char line[512] = "";
	struct pollfd p = {.events = POLLIN};
	struct hash128 root;
	int ends[2];
	pid_t child = -1;

	REQUIRE(ftruncate(fd, (off_t)1 << 40) == 0 && pipe(ends) == 0 && (child = fork()) >= 0);
	if (child == 0) {
		dup2(ends[1], STDERR_FILENO);
		log_init("test", LOG_LEVEL_INFO);
		hash_file(path, &root, NULL);
		_exit(0);
	}
	close(ends[1]);
	p.fd = ends[0];
	usleep(200000);
	kill(child, SIGSTOP);
	sleep(6);
	kill(child, SIGCONT);
	CHECK(poll(&p, 1, 60000) == 1 && read(ends[0], line, sizeof(line) - 1) > 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(ends[0]);
	CHECK_ROW(line, strstr(line, "event=file.hashing") != NULL && strstr(line, path) != NULL && strstr(line, "of_bytes=1099511627776") != NULL);
}

static void
files(void)
{
	char path[] = "/tmp/salt_hash_XXXXXX", side[64];
	struct err_note note;
	struct hash128 a;
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	snprintf(side, sizeof(side), "%s.salthash", path);
	log_init("test", LOG_LEVEL_ERROR);
	blocks(path, side, fd);
	pieces(path, side, fd);
	progress(path, fd);
	close(fd);
	unlink(path);
	unlink(side);
	CHECK(hash_file(path, &a, &note) == 2);
	CHECK(strstr(note.name, path) != NULL);
}

static void
chance_is_fair(void)
{
	double sum = 0, square = 0;
	uint32_t u[4];

	for (uint32_t i = 0; i < 20000; i++) {
		float z[2];

		random_words(7, RANDOM_PURPOSE_INIT, 3, i, 0, u);
		CHECK(random_uniform53(u[2], u[3]) < 1);
		random_normal(u[0], u[1], z);
		sum += z[0] + z[1];
		square += z[0] * z[0] + z[1] * z[1];
	}
	CHECK_NEAR(sum / 40000, 0, 0.02);
	CHECK_NEAR(square / 40000, 1, 0.03);
}

/* Normal numbers made in bulk equal those made singly: lengths around a block, groups around 2^32. */
static void
normals(void)
{
	static const struct {
		uint32_t seed;
		uint64_t seq, first;
		size_t n;
	} rows[] = {
		{11, 0, 0, 1}, {11, 1, 5, 63}, {11, 2, 1, 64}, {11, 3, 9, 65}, {11, 4, UINT64_C(0xffffffc0), 200}, {11, 5, 77, 1 << 19},
		/* so near to the middle of two floats that the C library decides */
		{12, 9, 628084, 1},
	};
	float *out = malloc(4 * ((1 << 19) + 1) * sizeof(*out)), want[4];
	uint32_t w[4];

	REQUIRE(out != NULL);
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		size_t differ = 0;

		out[4 * rows[r].n] = 7;
		random_normals(rows[r].seed, RANDOM_PURPOSE_INIT, rows[r].seq, rows[r].first, rows[r].n, out);
		for (size_t i = 0; i < rows[r].n; i++) {
			random_words(rows[r].seed, RANDOM_PURPOSE_INIT, rows[r].seq, (uint32_t)(rows[r].first + i),
			    (uint32_t)((rows[r].first + i) >> 32), w);
			random_normal(w[0], w[1], want);
			random_normal(w[2], w[3], want + 2);
			differ += memcmp(out + 4 * i, want, sizeof(want)) != 0;
		}
		CHECK(differ == 0 && out[4 * rows[r].n] == 7);
	}
	free(out);
}

/* Vectors of RFC 3720, B.4, and the check value of the CRC catalogues. */
static void
crc32c(void)
{
	unsigned char p[32];

	memset(p, 0, sizeof(p));
	CHECK(hash_crc32c(p, sizeof(p)) == 0x8a9136aa);
	memset(p, 0xff, sizeof(p));
	CHECK(hash_crc32c(p, sizeof(p)) == 0x62a8ab43);
	for (unsigned i = 0; i < sizeof(p); i++)
		p[i] = (unsigned char)i;
	CHECK(hash_crc32c(p, sizeof(p)) == 0x46dd794e);
	CHECK(hash_crc32c("123456789", 9) == 0xe3069283);
	CHECK(hash_crc32c("", 0) == 0);
}

int
main(void)
{
	philox_known_answers();
	order_is_a_bijection();
	order_golden();
	hex_round_trip();
	files();
	chance_is_fair();
	normals();
	crc32c();
	return check_done();
}
