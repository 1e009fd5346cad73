/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report - the results of several benches as one.
 */
#ifndef SALT_BENCH_REPORT_H
#define SALT_BENCH_REPORT_H

/*
 * report_write - the rows of n files (bench/README.md's form) into the files json and, as a Markdown table, table. Of rows with one name the last
 * that has a value counts, or the last. A file that is missing or is no JSON becomes a row without a value. Returns the exit code: 0, 73 (cannot
 * write) or 65 (such a file).
 */
int report_write(const char *json, const char *table, char *const *files, int n);

#endif
