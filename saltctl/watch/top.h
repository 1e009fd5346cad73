/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top - shows a fleet on a live screen. Four files:
 *   top_model.c   the daemons' answers -> struct top: trainer's step, loss and pace; rows ahead; daemons
 *   top_view.c    struct top and the size of a screen -> lines of text; uses no clock and no terminal
 *   top_screen.c  lines -> terminal, and keys; the only file that uses ncurses
 *   top.c         the verb and its loop
 */
#ifndef SALT_CTL_TOP_H
#define SALT_CTL_TOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fleet;

enum { TOP_POINTS_MAX = 2048, TOP_PACES_MAX = 128, TOP_COLS_MAX = 500, TOP_ROWS_MAX = 4096 };

/* ---- what is shown (top_model.c) ---- */

struct top_daemon {
	char role[16], name[64], host[64], state[64];
	bool answers;
	char why[64];			/* reason, if it does not answer */
	char rates[128], queues[128], gpu[128], error[256];	/* gpu: "": none */
	double rate;			/* the first of its rates, to sort by */
};

/* A loss: the mean of the steps first .. last. */
struct top_point {
	int64_t first, last;
	double loss;
};

struct top {
	const char *title;		/* owned by the caller */
	double tokens_per_step;		/* batch * context; 0: not known */
	struct top_daemon *daemons;	/* by role and name */
	size_t n, cap, n_silent;
	/* trainer: rank 0, or the first that answers */
	bool trains;			/* a trainer answers */
	char phase[16], state[64];
	int64_t step, steps;
	bool knows_switch;		/* switch_step is decided; it is 0 if there is no phase one */
	int64_t switch_step;
	double loss, heldout;		/* NaN: not known */
	double tokens_per_s, trainer_ahead;	/* ahead: number of steps whose rows it has */
	double state_since_s;		/* when this state was first seen */
	/* selectord, all shards together */
	bool selects;
	double rows_ahead, labels_per_s, scores_per_s, teachers;
	int64_t rows_ready, rows_total;
	/* history */
	struct top_point points[TOP_POINTS_MAX];
	size_t n_points, per_point;	/* steps per point; doubled when points is full */
	struct { double at_s; int64_t step; } paces[TOP_PACES_MAX];	/* of the last two minutes */
	size_t n_paces;
};

void top_init(struct top *t, const char *title, double tokens_per_step);
void top_free(struct top *t);

/* top_loss - adds the loss of one step; the losses of repeated steps replace the earlier ones. */
void top_loss(struct top *t, int64_t step, double loss);

/* top_seed - reads losses from the last 8 MiB of RUN/metrics.jsonl, if it exists. Returns 0 or errno. */
int top_seed(struct top *t, const char *path);

/* top_feed - updates t from the present answers of the fleet. now_s: monotonic clock. */
void top_feed(struct top *t, const struct fleet *f, double now_s);

/* top_pace - steps per second, waits included: of the last minute or the trainer's rate; 0: not known. */
double top_pace(const struct top *t);

/* ---- lines (top_view.c) ---- */

/* TOP_BY_STATE: silent daemons first */
enum top_sort { TOP_BY_ROLE, TOP_BY_NAME, TOP_BY_RATE, TOP_BY_STATE, TOP_SORTS };
enum top_attr { TOP_PLAIN, TOP_TITLE, TOP_HEAD, TOP_BAD, TOP_WAIT, TOP_HELP };

struct top_look {
	int rows, cols;			/* rows 0: as many as needed, without the line of keys */
	bool utf8, paused, errors;	/* errors: show the last error of each daemon instead of its rates */
	enum top_sort sort;
	size_t scroll;			/* first daemon shown; top_draw keeps it in range */
	double now_s;			/* monotonic, as in top_feed */
	const char *clock;		/* "12:34:56"; "" for none */
};

struct top_line {
	enum top_attr attr;
	char text[TOP_COLS_MAX * 4 + 1];	/* at most cols characters */
};

struct top_lines {
	struct top_line *line;
	size_t n, cap;
};

/* top_draw - replaces out by the screen, at most look->rows lines. Call top_lines_free. */
void top_draw(const struct top *t, struct top_look *look, struct top_lines *out);
void top_lines_free(struct top_lines *lines);

/*
 * top_spark - draws the losses as width characters, low values at the bottom, into out (4 bytes per character
 * and a NUL). A character is the mean of several points if there are more points than characters.
 */
void top_spark(const struct top_point *points, size_t n, size_t width, bool utf8, char *out);

/* ---- terminal (top_screen.c) ---- */

enum top_key {
	TOP_KEY_NONE, TOP_KEY_QUIT, TOP_KEY_PAUSE, TOP_KEY_SORT, TOP_KEY_ERRORS, TOP_KEY_UP, TOP_KEY_DOWN,
	    TOP_KEY_PAGE_UP,
	TOP_KEY_PAGE_DOWN, TOP_KEY_HOME, TOP_KEY_END, TOP_KEY_RESIZE
};

bool top_screen_open(bool colour);	/* false: the terminal is not suitable, and nothing was changed */
void top_screen_close(void);
void top_screen_size(int *rows, int *cols);
enum top_key top_screen_key(void);	/* never waits */
void top_screen_show(const struct top_lines *lines);

#endif
