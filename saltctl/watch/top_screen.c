/* SPDX-License-Identifier: Apache-2.0 */
/* The only file that uses ncurses. */
#include <ncurses.h>

#include "saltctl/watch/top.h"

static SCREEN *screen;
static bool coloured;

bool
top_screen_open(bool colour)
{
	if ((screen = newterm(NULL, stdout, stdin)) == NULL)
		return false;
	set_term(screen);
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	set_escdelay(50);
	curs_set(0);
	coloured = colour && has_colors() && start_color() == OK && use_default_colors() == OK;
	if (coloured) {
		init_pair(TOP_BAD, COLOR_RED, -1);
		init_pair(TOP_WAIT, COLOR_YELLOW, -1);
	}
	return true;
}

void
top_screen_close(void)
{
	if (screen == NULL)
		return;
	endwin();
	delscreen(screen);
	screen = NULL;
}

void
top_screen_size(int *rows, int *cols)
{
	getmaxyx(stdscr, *rows, *cols);
}

enum top_key
top_screen_key(void)
{
	switch (getch()) {
	case 'q':
	case 'Q':
		return TOP_KEY_QUIT;
	case 'p':
	case ' ':
		return TOP_KEY_PAUSE;
	case 's':
		return TOP_KEY_SORT;
	case 'e':
		return TOP_KEY_ERRORS;
	case 'k':
	case KEY_UP:
		return TOP_KEY_UP;
	case 'j':
	case KEY_DOWN:
		return TOP_KEY_DOWN;
	case KEY_PPAGE:
		return TOP_KEY_PAGE_UP;
	case KEY_NPAGE:
		return TOP_KEY_PAGE_DOWN;
	case 'g':
	case KEY_HOME:
		return TOP_KEY_HOME;
	case 'G':
	case KEY_END:
		return TOP_KEY_END;
	case KEY_RESIZE:
		clearok(stdscr, TRUE);		/* redraw all: the terminal has wrapped the old lines */
		return TOP_KEY_RESIZE;
	default:
		return TOP_KEY_NONE;
	}
}

/* Colour is an addition only: the text has all information. */
static attr_t
attributes(enum top_attr attr)
{
	switch (attr) {
	case TOP_TITLE:
	case TOP_HELP:
		return A_REVERSE;
	case TOP_HEAD:
		return A_BOLD;
	case TOP_BAD:
	case TOP_WAIT:
		return A_BOLD | (coloured ? (attr_t)COLOR_PAIR(attr) : 0);
	default:
		return A_NORMAL;
	}
}

void
top_screen_show(const struct top_lines *lines)
{
	int rows, cols;

	getmaxyx(stdscr, rows, cols);
	erase();
	for (size_t i = 0; i < lines->n && (int)i < rows; i++) {
		enum top_attr attr = lines->line[i].attr;

		attrset((int)attributes(attr));
		if (attr == TOP_TITLE || attr == TOP_HELP)
			mvhline((int)i, 0, ' ' | attributes(attr), cols);
		mvaddstr((int)i, 0, lines->line[i].text);
	}
	attrset(A_NORMAL);
	refresh();
}
