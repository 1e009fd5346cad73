/* SPDX-License-Identifier: Apache-2.0 */
/* report - merges the results of several benches. */
#ifndef SALT_BENCH_REPORT_H
#define SALT_BENCH_REPORT_H

/*
 * report_write - writes the rows of n files (in the format of bench/README.md) to the file json and, as a
 * Markdown table, to the file table. Of several rows with the same name the last one with a value counts, or
 * else the last. A file that is missing or is not JSON becomes a row without a value. Returns the exit code:
 * 0, 73 (cannot write) or 65 (there was such a file).
 */
int report_write(const char *json, const char *table, char *const *files, int n);

#endif
