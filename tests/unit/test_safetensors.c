/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing safetensors files: rejections, values as numpy reads them, streaming, model shards. */
#include "engine/weights/weights.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/json/json.h"
#include "files.h"

/* Makes a file with this header and n_data bytes of data, and opens it. */
static int
open_made(const char *header, size_t n_data, struct weights **w, struct err_note *note)
{
	unsigned char buf[4096] = {0};
	size_t n = strlen(header);

	for (int i = 0; i < 8; i++)
		buf[i] = (unsigned char)((uint64_t)n >> (8 * i));
	memcpy(buf + 8, header, n);
	spill(in_dir("made.safetensors"), buf, 8 + n + n_data);
	return weights_open(w, in_dir("made.safetensors"), note);
}

static void
refusals(void)
{
	static const struct {
		const char *what, *header;
		size_t n_data;
		int rc;
		const char *place, *expected, *found;	/* parts of the note */
	} rows[] = {
		{"good", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0, "", "", ""},
		{"good, padded, empty tensor", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
		    "\"e\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}   ", 8, 0, "", "", ""},
		{"no tensors", "{}", 0, 0, "", "", ""},
		{"not an object", "[1]", 0, ERR_FORMAT, "byte 8", "'{'", "0x5b"},
		{"leading space", " {}", 0, ERR_FORMAT, "byte 8", "'{'", "0x20"},
		{"broken JSON", "{\"a\":", 0, ERR_FORMAT, "line 1", "JSON", ""},
		{"not UTF-8", "{\"\xff\":1}", 0, ERR_FORMAT, "line 1", "JSON", ""},
		{"duplicate name", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
		    "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, ERR_FORMAT, "line 1", "JSON", "duplicate"},
		{"hole at the start", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, ERR_FORMAT, "tensor a", "no hole", "byte"},
		{"overlap", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
		    "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, ERR_FORMAT, "tensor b", "no overlap", "byte"},
		{"bytes left at the end", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, ERR_FORMAT, "byte", "end where", "4 bytes more"},
		{"past the end", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, ERR_FORMAT, "tensor a", "<= 7", "[0, 8]"},
		{"end before begin", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}", 8, ERR_FORMAT, "tensor a", "begin <= end", "[8, 4]"},
		{"negative begin", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 8, ERR_FORMAT, "tensor a", "begin", "[-4, 0]"},
		{"shape and range differ", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, ERR_FORMAT, "tensor a", "12 bytes", "[0, 8]"},
		{"product wraps to 0", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, ERR_RANGE, "tensor a", "64 bits", ""},
		{"bytes wrap to 0", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, ERR_RANGE, "tensor a", "64 bits", ""},
		{"negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, ERR_FORMAT, "tensor a, shape", "integers", ""},
		{"float dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, ERR_FORMAT, "tensor a, shape", "integers", "number"},
		{"nine dimensions", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, ERR_RANGE, "tensor a", "8 dim", "9"},
		{"dtype missing", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ERR_FORMAT, "tensor a, dtype", "string", "nothing"},
		{"dtype unknown", "{\"a\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ERR_UNSUPPORTED, "tensor a", "F32", "F4"},
		{"shape missing", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, ERR_FORMAT, "tensor a, shape", "array", "nothing"},
		{"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, ERR_FORMAT, "tensor a, data_offsets", "two", "array"},
		{"entry is a number", "{\"a\":7}", 0, ERR_FORMAT, "tensor a, entry", "object", "integer"},
		{"metadata not strings", "{\"__metadata__\":{\"x\":1}}", 0, ERR_FORMAT, "__metadata__, x", "string", "integer"},
		{"metadata not an object", "{\"__metadata__\":[]}", 0, ERR_FORMAT, "__metadata__", "object", "array"},
	};
	unsigned char raw[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, '{', '}'};
	struct err_note note;
	struct weights *w;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int rc;

		memset(&note, 0, sizeof(note));
		rc = open_made(rows[i].header, rows[i].n_data, &w, &note);
		CHECK_ROW(rows[i].what, rc == rows[i].rc && (w == NULL) == (rc != 0));
		CHECK_ROW(rows[i].what, strstr(note.place, rows[i].place) != NULL);
		CHECK_ROW(rows[i].what, strstr(note.expected, rows[i].expected) != NULL);
		CHECK_ROW(rows[i].what, strstr(note.found, rows[i].found) != NULL);
		CHECK_ROW(rows[i].what, rc == 0 || strstr(note.name, "made.safetensors") != NULL);
		weights_close(&w);
	}
	spill(in_dir("made.safetensors"), raw, 10);
	CHECK(weights_open(&w, in_dir("made.safetensors"), &note) == ERR_FORMAT && strstr(note.place, "header length") != NULL);
	memset(raw, 0, 8);
	raw[0] = 3;					/* one byte more than the file has */
	spill(in_dir("made.safetensors"), raw, 10);
	CHECK(weights_open(&w, in_dir("made.safetensors"), &note) == ERR_FORMAT && strstr(note.expected, "2 to 2") != NULL);
	spill(in_dir("made.safetensors"), raw, 7);
	CHECK(weights_open(&w, in_dir("made.safetensors"), &note) == ERR_FORMAT && strstr(note.expected, "8 bytes") != NULL);
	spill(in_dir("made.safetensors"), raw, 0);
	CHECK(weights_open(&w, in_dir("made.safetensors"), &note) == ERR_FORMAT);
	CHECK(weights_open(&w, in_dir("none.safetensors"), &note) == ENOENT && w == NULL);
	CHECK(weights_open(&w, files_dir, &note) == ERR_NOT_FOUND && strstr(note.expected, "index") != NULL);
	REQUIRE(mkdir(in_dir("x.safetensors"), 0777) == 0);
	/* a folder without model */
	CHECK(weights_open(&w, in_dir("x.safetensors"), &note) == ERR_NOT_FOUND);
	rmdir(in_dir("x.safetensors"));
}

/* Header lengths whose bytes begin like a pickle (80 02), gzip (1f 8b) or UTF-16 (ff fe, fe ff). */
static void
header_like_a_signature(void)
{
	static const uint64_t lengths[] = {0x280, 0x8b1f, 0xfeff, 0xfffe};
	static char file[70000];
	struct err_note note;
	struct weights *w;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		memset(file, ' ', sizeof(file));
		memcpy(file, &lengths[i], 8);
		memcpy(file + 8, "{}", 2);
		spill(in_dir("made.safetensors"), file, 8 + lengths[i]);
		CHECK(weights_open(&w, in_dir("made.safetensors"), &note) == 0);
		weights_close(&w);
	}
}

/* The header may be 100 MB at most, whatever the file's size. */
static void
huge_header(void)
{
	unsigned char head[9] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{'};	/* 100,000,001 */
	struct err_note note;
	struct weights *w;

	spill(in_dir("made.safetensors"), head, sizeof(head));
	REQUIRE(truncate(in_dir("made.safetensors"), 200000000) == 0);
	CHECK(weights_open(&w, in_dir("made.safetensors"), &note) == ERR_FORMAT && strstr(note.expected, "2 to 100000000") != NULL);
	unlink(in_dir("made.safetensors"));
}

static void
numpy_values(void)
{
	static const float f16[] = {0.0f, -0.0f, 1.0f, -2.0f, 65504.0f, 6.0975552e-5f, 5.9604645e-8f, 0.33300781f};
	const struct weights_tensor *t;
	struct err_note note;
	struct weights *w;
	float x[16];

	REQUIRE(weights_open(&w, "tests/golden/weights/dtypes.safetensors", &note) == 0);
	CHECK(weights_count(w) == 8);
	CHECK_STR(weights_meta(w, "note"), "made by numpy");
	CHECK(weights_meta(w, "nope") == NULL);
	for (size_t i = 1; i < weights_count(w); i++)
		CHECK(strcmp(weights_at(w, i - 1)->name, weights_at(w, i)->name) < 0);
	CHECK(weights_find(w, "nope") == NULL && weights_at(w, 8) == NULL);
	REQUIRE((t = weights_find(w, "f16")) != NULL);
	CHECK(t->dtype == WEIGHTS_F16 && weights_read_f32(t, 0, 8, x, WEIGHTS_FINITE, &note) == 0);
	CHECK(memcmp(x, f16, sizeof(f16)) == 0);
	CHECK(weights_read_f32(t, 2, 3, x, 0, &note) == 0 && x[0] == 1.0f && x[2] == 65504.0f);
	CHECK(weights_read_f32(t, 7, 2, x, 0, &note) == ERR_RANGE && weights_read_f32(t, 9, 0, x, 0, &note) == ERR_RANGE);
	CHECK(weights_read_f32(t, UINT64_MAX, 2, x, 0, &note) == ERR_RANGE);
	REQUIRE((t = weights_find(w, "scalar")) != NULL);
	CHECK(t->n_dims == 0 && t->n_elements == 1 && weights_read_f32(t, 0, 1, x, 0, &note) == 0 && x[0] == 2.5f);
	REQUIRE((t = weights_find(w, "empty")) != NULL);
	CHECK(t->n_elements == 0 && weights_read_f32(t, 0, 0, x, 0, &note) == 0);
	REQUIRE((t = weights_find(w, "i64")) != NULL);
	CHECK(weights_read_f32(t, 0, 1, x, 0, &note) == ERR_UNSUPPORTED && strcmp(note.found, "I64") == 0);
	weights_close(&w);
	CHECK(w == NULL);
}

static const struct weights_spec specs[] = {
	{"b", WEIGHTS_F32, 2, {3, 5}}, {"none", WEIGHTS_F32, 1, {0}}, {"a", WEIGHTS_BF16, 1, {6}}, {"c", WEIGHTS_F16, 2, {2, 2}},
	{"s", WEIGHTS_F32, 0, {0}},
};

/* Values that bf16 and f16 represent exactly. */
static float
value(uint64_t i)
{
	return (float)((int)(i * 7 % 23) - 11) * 0.25f;
}

static int
write_set(const char *stem, uint64_t max_shard_bytes, size_t piece, struct weights_writer **w, struct err_note *note)
{
	struct weights_meta_pair meta[] = {{"begin", "12"}};
	float x[26];
	int rc;

	for (size_t i = 0; i < 26; i++)
		x[i] = value(i);
	if ((rc = weights_writer_new(w, files_dir, stem, specs, 5, meta, 1, max_shard_bytes, note)) != 0)
		return rc;
	for (size_t i = 0; i < 26; i += piece)
		if ((rc = weights_writer_f32(*w, x + i, 26 - i < piece ? 26 - i : piece, note)) != 0)
			return rc;
	return weights_writer_finish(*w, note);
}

static void
check_set(const char *path)
{
	struct err_note note;
	struct weights *w;
	uint64_t n = 0;

	REQUIRE(weights_open(&w, path, &note) == 0);
	CHECK(weights_count(w) == 5);
	CHECK_STR(weights_meta(w, "format"), "pt");
	CHECK_STR(weights_meta(w, "begin"), "12");
	for (size_t i = 0; i < 5; i++) {
		const struct weights_tensor *t = weights_find(w, specs[i].name);
		float x[16];

		REQUIRE(t != NULL && t->n_elements <= 16);
		CHECK(t->dtype == specs[i].dtype && t->n_dims == specs[i].n_dims);
		CHECK(weights_read_f32(t, 0, t->n_elements, x, WEIGHTS_FINITE, &note) == 0);
		for (uint64_t k = 0; k < t->n_elements; k++)
			CHECK(x[k] == value(n + k));
		n += t->n_elements;
	}
	CHECK(n == 26);
	weights_close(&w);
}

static void
round_trips(void)
{
	static const size_t pieces[] = {26, 1, 7};
	unsigned char bytes[4096];
	struct weights_writer *w;
	struct err_note note;
	struct json *index;
	int64_t v;
	size_t n;

	for (size_t i = 0; i < 3; i++) {
		REQUIRE(write_set("one", 0, pieces[i], &w, &note) == 0);
		REQUIRE(weights_writer_n_files(w) == 1);
		check_set(in_dir("one.safetensors"));
		n = slurp(in_dir("one.safetensors"), bytes, sizeof(bytes));
		CHECK(weights_writer_file(w, 0)->size_bytes == n && n == 8 + (bytes[0] | (size_t)bytes[1] << 8) + 60 + 12 + 8 + 4);
		CHECK((8 + bytes[0]) % 8 == 0);
		CHECK(hash_equal(weights_writer_file(w, 0)->hash, hash_bytes(bytes, n)));
		weights_writer_destroy(&w);
		unlink(in_dir("one.safetensors"));
	}
	REQUIRE(write_set("many", 24, 5, &w, &note) == 0);		/* 60 | 0 + 12 + 8 + 4 */
	CHECK(weights_writer_n_files(w) == 3);
	CHECK_STR(weights_writer_file(w, 1)->name, "many-00002-of-00002.safetensors");
	CHECK_STR(weights_writer_file(w, 2)->name, "many.safetensors.index.json");
	weights_writer_destroy(&w);
	check_set(in_dir("many.safetensors.index.json"));
	REQUIRE(json_parse_file(in_dir("many.safetensors.index.json"), 0, &index, &note) == 0);
	CHECK(json_int(json_get(json_get(index, "metadata"), "total_size"), &v) && v == 84);
	json_close(&index);
	CHECK(write_set("many", 24, 5, &w, &note) == EEXIST && w == NULL);
	CHECK_STR(note.place, "create");
	check_set(in_dir("many.safetensors.index.json"));			/* the old set is intact */
}

static void
writer_refusals(void)
{
	struct weights_spec twice[] = {{"a", WEIGHTS_F32, 1, {2}}, {"a", WEIGHTS_F32, 1, {2}}};
	struct weights_spec meta[] = {{"__metadata__", WEIGHTS_F32, 1, {2}}};
	struct weights_spec wide[] = {{"a", WEIGHTS_F32, 2, {UINT64_C(1) << 32, UINT64_C(1) << 32}}};
	struct weights_spec ints[] = {{"a", WEIGHTS_I32, 1, {2}}};
	struct weights_writer *w;
	struct err_note note;
	float x[4] = {0};

	CHECK(weights_writer_new(&w, files_dir, "bad", twice, 2, NULL, 0, 0, &note) == ERR_FORMAT && w == NULL);
	CHECK(weights_writer_new(&w, files_dir, "bad", meta, 1, NULL, 0, 0, &note) == ERR_FORMAT);
	CHECK(weights_writer_new(&w, files_dir, "bad", wide, 1, NULL, 0, 0, &note) == ERR_RANGE);
	CHECK(weights_writer_new(&w, in_dir("nowhere"), "bad", twice, 1, NULL, 0, 0, &note) == ENOENT && strcmp(note.place, "create") == 0);
	REQUIRE(weights_writer_new(&w, files_dir, "bad", ints, 1, NULL, 0, 0, &note) == 0);
	CHECK(weights_writer_f32(w, x, 1, &note) == ERR_UNSUPPORTED);
	weights_writer_destroy(&w);
	REQUIRE(weights_writer_new(&w, files_dir, "bad", twice, 1, NULL, 0, 0, &note) == 0);
	CHECK(weights_writer_f32(w, x, 3, &note) == ERR_RANGE);
	weights_writer_destroy(&w);
	REQUIRE(weights_writer_new(&w, files_dir, "bad", twice, 1, NULL, 0, 0, &note) == 0);
	CHECK(weights_writer_bytes(w, x, 3, &note) == 0 && weights_writer_f32(w, x, 1, &note) == ERR_RANGE);
	CHECK(weights_writer_finish(w, &note) == ERR_RANGE && strcmp(note.expected, "8 bytes") == 0 && strcmp(note.found, "3") == 0);
	weights_writer_destroy(&w);
	CHECK(access(in_dir("bad.safetensors"), F_OK) != 0);		/* an unfinished file is removed */
}

static void
nonfinite(void)
{
	/* F64: 1 plus more than half a float's step; one above float's range; one too small for it. */
	static const double doubles[] = {1 + 0x1.000002p-24, -1e39, 1e-60};
	struct weights_spec spec[] = {{"f", WEIGHTS_F32, 1, {10000}}, {"h", WEIGHTS_BF16, 1, {3}}, {"d", WEIGHTS_F64, 1, {3}}};
	float *x = calloc(10003, sizeof(*x)), y[3];
	struct weights_writer *w;
	struct err_note note;
	struct weights *r;

	REQUIRE(x != NULL);
	x[9999] = NAN;
	x[10001] = -INFINITY;
	REQUIRE(weights_writer_new(&w, files_dir, "nan", spec, 3, NULL, 0, 0, &note) == 0);
	REQUIRE(weights_writer_f32(w, x, 10003, &note) == 0 && weights_writer_bytes(w, doubles, sizeof(doubles), &note) == 0);
	REQUIRE(weights_writer_finish(w, &note) == 0);
	weights_writer_destroy(&w);
	REQUIRE(weights_open(&r, in_dir("nan.safetensors"), &note) == 0);
	CHECK(weights_read_f32(weights_find(r, "f"), 1, 9999, x, WEIGHTS_FINITE, &note) == ERR_NONFINITE);
	CHECK(strstr(note.place, "tensor f, element 9999 ") != NULL && strcmp(note.found, "NaN") == 0);
	CHECK(weights_read_f32(weights_find(r, "h"), 0, 3, y, WEIGHTS_FINITE, &note) == ERR_NONFINITE);
	CHECK(strstr(note.place, "tensor h, element 1 ") != NULL && strcmp(note.found, "infinity") == 0);
	CHECK(weights_read_f32(weights_find(r, "f"), 0, 10000, x, 0, &note) == 0 && isnan(x[9999]));
	CHECK(weights_read_f32(weights_find(r, "d"), 0, 3, y, WEIGHTS_FINITE, &note) == ERR_NONFINITE);
	CHECK(strstr(note.place, "tensor d, element 1 ") != NULL && strcmp(note.found, "infinity") == 0);
	CHECK(weights_read_f32(weights_find(r, "d"), 0, 3, y, 0, &note) == 0);
	CHECK(y[0] == 1 + 0x1p-23f && y[1] == -INFINITY && y[2] == 0);
	weights_close(&r);
	free(x);
}

static void
indices(void)
{
	static const struct {
		const char *what, *text;
		int rc;
		const char *place, *expected, *found;
	} rows[] = {
		{"no map", "{}", ERR_FORMAT, "weight_map", "object", "nothing"},
		{"empty map", "{\"weight_map\":{}}", ERR_FORMAT, "weight_map", "object", "empty"},
		{"up and away", "{\"weight_map\":{\"b\":\"../x.safetensors\"}}", ERR_FORMAT, "b", "same directory", "../x"},
		{"number", "{\"weight_map\":{\"b\":1}}", ERR_FORMAT, "b", "file name", "integer"},
		{"shard missing", "{\"weight_map\":{\"b\":\"gone.safetensors\"}}", ENOENT, "", "", ""},
		{"tensor missing", "{\"weight_map\":{\"b\":\"many-00001-of-00002.safetensors\",\"zz\":\"many-00001-of-00002.safetensors\"}}", ERR_FORMAT, "zz", "many-00001", "no file"},
		{"tensor elsewhere", "{\"weight_map\":{\"b\":\"many-00002-of-00002.safetensors\",\"a\":\"many-00001-of-00002.safetensors\"}}",
		    ERR_FORMAT, "", "many-0000", "many-0000"},
		{"tensor not in the map", "{\"weight_map\":{\"a\":\"many-00002-of-00002.safetensors\"}}", ERR_FORMAT, "weight_map", "an entry", "none"},
	};
	struct err_note note;
	struct weights *w;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		memset(&note, 0, sizeof(note));
		spill(in_dir("x.index.json"), rows[i].text, strlen(rows[i].text));
		CHECK_ROW(rows[i].what, weights_open(&w, in_dir("x.index.json"), &note) == rows[i].rc && w == NULL);
		CHECK_ROW(rows[i].what, strstr(note.place, rows[i].place) != NULL);
		CHECK_ROW(rows[i].what, strstr(note.expected, rows[i].expected) != NULL);
		CHECK_ROW(rows[i].what, strstr(note.found, rows[i].found) != NULL);
	}
}

static void
copies(void)
{
	unsigned char a[4096], b[4096];
	struct weights_file f;
	struct err_note note;
	size_t n;

	CHECK(weights_file_copy(files_dir, "copy", "tests/golden/weights/dtypes.safetensors", &f, &note) == 0);
	n = slurp("tests/golden/weights/dtypes.safetensors", a, sizeof(a));
	CHECK(slurp(in_dir("copy"), b, sizeof(b)) == n && memcmp(a, b, n) == 0);
	CHECK(f.size_bytes == n && hash_equal(f.hash, hash_bytes(a, n)) && strcmp(f.name, "copy") == 0);
	CHECK(weights_file_copy(files_dir, "copy", "tests/golden/weights/dtypes.safetensors", &f, &note) == EEXIST);
	CHECK(weights_file_copy(files_dir, "copy2", "tests/golden/weights/none", &f, &note) == ENOENT);
	CHECK(access(in_dir("copy2"), F_OK) != 0);
	CHECK(weights_file_write(files_dir, "../up", "x", 1, NULL, &note) != 0);
}

int
main(void)
{
	files_begin();
	refusals();
	header_like_a_signature();
	huge_header();
	numpy_values();
	round_trips();
	writer_refusals();
	nonfinite();
	indices();
	copies();
	files_end();
	return check_done();
}
