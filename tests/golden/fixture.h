/* SPDX-License-Identifier: Apache-2.0 */
/* fixture - reads a model of tests/golden/model: NAME.json and NAME.bin, described in make_fixtures.py. */
#ifndef SALT_FIXTURE_H
#define SALT_FIXTURE_H

#include <stdint.h>

#include "base/json/json.h"
#include "engine/model/model.h"

struct fixture {
	struct json *json;
	char *data;
	size_t data_bytes;
	struct model_config config;
	int64_t b, t;
};

/* fixture_open - reads a fixture; any error ends the test. */
void fixture_open(struct fixture *f, const char *name);
void fixture_close(struct fixture *f);

/*
 * fixture_array - data of an array of this dtype ("f32", "i32", "i64"), or NULL if there is none. *n (may be
 * NULL): the number of its elements.
 */
const void *fixture_array(const struct fixture *f, const char *name, const char *dtype, int64_t *n);
/* fixture_shape - sets dims and returns their number; 0 if there is no such array. */
int fixture_shape(const struct fixture *f, const char *name, int64_t dims[4]);
int fixture_count(const struct fixture *f, const char *prefix);

double fixture_num(const struct json *object, const char *key);
int64_t fixture_int(const struct json *object, const char *key);
bool fixture_flag(const struct json *object, const char *key);

#endif
