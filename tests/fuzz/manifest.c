/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: MANIFEST.json, and after a zero byte state.json, of a checkpoint whose other files exist: optimizer
 * files that fit together and some that do not. It is rejected, or the optimizer's arrays can be read to
 * their end.
 */
#include "engine/checkpoint/checkpoint.h"

#include "fuzz.h"

static char at[128];

/*
 * Writes optim_NAME.safetensors. meta: the members of its __metadata__; rest: the other members of its
 * header;
 * floats: number of its elements, all 1.0.
 */
static void
put_shard(const char *name, const char *meta, const char *rest, unsigned floats)
{
	static const uint8_t one[4] = {0, 0, 0x80, 0x3f};
	uint8_t file[1024];
	char file_name[128];
	uint64_t n = (uint64_t)snprintf((char *)file + 8, 900, "{\"__metadata__\":{%s},%s}", meta, rest);

	memcpy(file, &n, 8);
	for (unsigned i = 0; i < floats; i++)
		memcpy(file + 8 + n + 4 * i, one, 4);
	snprintf(file_name, sizeof(file_name), "step_00000003/optim_%s.safetensors", name);
	fuzz_file(file_name, file, 8 + n + 4 * floats);
}

static void
start(void)
{
	static const char two[] = "\"m\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}";
	static const char low[] = "\"begin\":\"0\",\"end\":\"2\",\"total\":\"4\"", high[] = "\"begin\":\"2\",\"end\":\"4\",\"total\":\"4\"";
	char sub[160];

	snprintf(at, sizeof(at), "%s/step_00000003", fuzz_dir());
	mkdir(at, 0777);
	snprintf(sub, sizeof(sub), "%s/folder", at);
	mkdir(sub, 0777);
	put_shard("00000_of_00002", low, two, 4);
	put_shard("00001_of_00002", high, two, 4);
	put_shard("00000_of_00003", "\"begin\":\"0\",\"end\":\"2\"", two, 4);				/* no total */
	put_shard("00001_of_00003", "\"begin\":\"2\",\"end\":\"4\",\"total\":\"5\"", two, 4);		/* another total */
	put_shard("00002_of_00003", high, "\"m\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 2);	/* no v */
	put_shard("00000_of_00004", "\"begin\":\"2\",\"end\":\"1\",\"total\":\"4\"", two, 4);
	put_shard("00001_of_00004", high, "\"m\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}", 3);
	put_shard("00002_of_00004", high, "\"m\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}", 4);
	put_shard("00003_of_00004", "\"begin\":\"99999999999999999999999\",\"end\":\"4\",\"total\":\"4\"", two, 4);
	fuzz_file("step_00000003/optim_00000_of_00005.safetensors", "short", 5);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct checkpoint *c;
	struct err_note note = {0};
	const char *state;
	bool is, verified;
	size_t state_len, n = fuzz_cut(data, len, &state, &state_len);
	int rc;

	if (at[0] == '\0')
		start();
	fuzz_file("step_00000003/MANIFEST.json", data, n);
	fuzz_file("step_00000003/state.json", state != NULL ? state : "{}", state != NULL ? state_len : 2);
	if ((rc = checkpoint_verify(at, CHECKPOINT_HASHES, &note)) != 0)
		FUZZ_REFUSED(rc, note);
	note = (struct err_note){0};
	verified = rc == 0;
	if ((rc = checkpoint_verify_model(at, &is, &note)) != 0)
		FUZZ_REFUSED(rc, note);
	FUZZ_CHECK(is && (rc == 0 || !verified || fuzz_faults));
	note = (struct err_note){0};
	if ((rc = checkpoint_open(&c, at, CHECKPOINT_SIZES, &note)) != 0) {
		FUZZ_CHECK(c == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	FUZZ_CHECK(checkpoint_state(c) != NULL || state != NULL);
	for (uint64_t i = 0, total = checkpoint_optim_total(c, "m"); i < total; i++) {
		float x = 0;

		FUZZ_CHECK(checkpoint_read_optim(c, "m", i, 1, &x, &note) == 0 && x == 1);
		FUZZ_CHECK(checkpoint_read_optim(c, "m", i, total - i + 1, &x, &note) == ERR_RANGE);
		FUZZ_CHECK(checkpoint_read_optim(c, "q", i, 1, &x, &note) == ERR_NOT_FOUND);
	}
	checkpoint_close(&c);
	return 0;
}
