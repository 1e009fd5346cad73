/* SPDX-License-Identifier: Apache-2.0 */
/* scores - shared by the verbs `saltctl scores ...`: a file with figures (columns: docs/formats.md). */
#ifndef SALT_CTL_SCORES_H
#define SALT_CTL_SCORES_H

#include "base/err/err.h"
#include "base/file/file.h"
#include "saltctl/core/ctl.h"

/* The figures of one sequence or document. */
struct scores_row {
	uint64_t number, begin, end;		/* tokens [begin, end) of the corpus */
	uint64_t tokens;			/* how many of them have a loss */
	uint64_t bytes;				/* of the tokens' text */
	double loss, bits_per_byte, rank_share;	/* loss in nats per token; NaN: not known */
	float score;				/* S(x) */
};

#define SCORES_COLUMNS 9

/* A file under construction; zero it first. The file appears complete or not at all. */
struct scores_out {
	char path[4096];
	bool with_bytes;
	uint64_t n;
	struct file_replace lines;		/* f is NULL for safetensors */
	const char *what;			/* first column: "sequence" or "document" */
	struct {
		uint8_t *bytes;
		size_t len, cap;
	} column[SCORES_COLUMNS];		/* for safetensors */
};

/* Whether the name ends in .safetensors. */
bool scores_is_safetensors(const char *path);

/*
 * scores_out_begin - starts a file. with_bytes: the length of the text is known. EEXIST if path is a file
 * that this function did not write, or any file for safetensors, unless replace is set.
 * scores_out_end - completes the file, or removes it if rc is an error. Returns rc or its own error. Both
 * fill the note.
 */
int scores_out_begin(struct scores_out *o, const char *path, const char *what, bool with_bytes, bool replace, struct err_note *note);
void scores_out_row(struct scores_out *o, const struct scores_row *row);
int scores_out_end(struct scores_out *o, int rc, struct err_note *note);

#endif
