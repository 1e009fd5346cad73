/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/cuda/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "bench/common/bench.h"

#define ROWS_MAX 200

static const char *
text_of(const struct json *row, const char *key)
{
	const char *s;

	return json_text(json_get(row, key), &s) ? s : "";
}

static bool
has_value(const struct json *row)
{
	double v;

	return json_num(json_get(row, "value"), &v);
}

/* Prints a number without an exponent, since "4.71e+05" is hard to read in a table. */
static void
cell_number(FILE *f, const struct json *j)
{
	double v;

	if (json_num(j, &v))
		fprintf(f, v >= 1000 ? "%.0f" : "%.4g", v);
}

static void
table_row(FILE *f, const struct json *row)
{
	fprintf(f, "| `%s` | ", text_of(row, "name"));
	if (has_value(row)) {
		cell_number(f, json_get(row, "value"));
		fprintf(f, " %s | %s%s", text_of(row, "unit"), text_of(row, "peer"), text_of(row, "peer")[0] != '\0' ? ", " : text_of(row, "why"));
		cell_number(f, json_get(row, "peer_value"));
	} else {
		fprintf(f, "- | %s", text_of(row, "why"));
	}
	fprintf(f, " | ");
	cell_number(f, json_get(row, "ratio"));
	fprintf(f, " |\n");
}

/* Adds a row. It replaces an earlier row of the same name, unless only the earlier one has a value. */
static int
add(const struct json **rows, int n, const struct json *row)
{
	for (int i = 0; i < n; i++)
		if (strcmp(text_of(rows[i], "name"), text_of(row, "name")) == 0) {
			if (has_value(row) || !has_value(rows[i]))
				rows[i] = row;
			return n;
		}
	if (n < ROWS_MAX)
		rows[n++] = row;
	return n;
}

static struct json *
read_file(const char *path, int *bad)
{
	const char *slash = strrchr(path, '/');
	struct json *root = NULL;
	struct err_note note = {.name = ""};
	char why[600];
	int rc = json_parse_file(path, 0, &root, &note);

	if (rc == 0 && json_kind(root) == JSON_KIND_ARRAY)
		return root;
	if (rc == 0)
		rc = err_expect(&note, ERR_FORMAT, "%s", "an array of rows", "%s", path, json_kind_name(json_kind(root)));
	json_close(&root);
	*bad = 65;
	root = bench_need(json_new_array());
	json_push(root, json_build("{s:s, s:n, s:s, s:n, s:n, s:n, s:o}", "name", slash != NULL ? slash + 1 : path, "value", "unit", "", "peer",
	    "peer_value", "ratio", "why", json_new_text(err_note_str(&note, rc, why, sizeof(why)))));
	return root;
}

static int
finish(FILE *f, const char *path)
{
	int bad = f == NULL || ferror(f) != 0;

	if ((f != NULL && fclose(f) != 0) || bad) {
		fprintf(stderr, "bench_cuda: cannot write %s: %s\n", path, strerror(errno));
		return 73;
	}
	return 0;
}

int
report_write(const char *json, const char *table, char *const *files, int n)
{
	struct json **roots = bench_need(calloc((size_t)n + 1, sizeof(*roots)));
	const struct json *rows[ROWS_MAX];
	FILE *out = fopen(json, "w"), *markdown = fopen(table, "w");
	int n_rows = 0, bad = 0, rc;

	for (int i = 0; i < n; i++) {
		roots[i] = read_file(files[i], &bad);
		for (size_t j = 0; j < json_count(roots[i]); j++)
			n_rows = add(rows, n_rows, json_item(roots[i], j));
	}
	if (markdown != NULL)
		fprintf(markdown, "| row | result | compared with | ratio |\n|---|---|---|---|\n");
	for (int i = 0; i < n_rows && out != NULL && markdown != NULL; i++) {
		char *text = bench_need(json_print(rows[i], false));

		fprintf(out, "%s%s", i == 0 ? "[\n  " : ",\n  ", text);
		table_row(markdown, rows[i]);
		free(text);
	}
	if (out != NULL)
		fprintf(out, "%s\n]\n", n_rows == 0 ? "[" : "");
	rc = finish(out, json);
	if (finish(markdown, table) != 0)
		rc = 73;
	for (int i = 0; i < n; i++)
		json_close(&roots[i]);
	free(roots);
	return rc != 0 ? rc : bad;
}
