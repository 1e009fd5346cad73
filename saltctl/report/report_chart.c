/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Charts as SVG without scripts, fonts or other files. Lines differ by colour, dashes and markers, so they
 * can be distinguished without colour.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "saltctl/report/report.h"

/* 560 x 380 units, scaled to the width of the page; text of 17 units is legible at the width of a phone. */
#define WIDTH 560.0
#define HEIGHT 380.0
#define LEFT 74.0
#define RIGHT 24.0
#define TOP 18.0
#define BOTTOM 62.0

/* Okabe and Ito's colours without yellow, which is too light for lines. */
static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"};
static const char *const dashes[] = {"", "10 4", "2 4", "12 4 2 4", "6 6"};

static const char *
colour_of(size_t look)
{
	return colours[look % (sizeof(colours) / sizeof(colours[0]))];
}

void
chart_text(const char *text, FILE *out)
{
	for (; *text != '\0'; text++)
		switch (*text) {
		case '&': fputs("&amp;", out); break;
		case '<': fputs("&lt;", out); break;
		case '>': fputs("&gt;", out); break;
		case '"': fputs("&quot;", out); break;
		case '\'': fputs("&#39;", out); break;
		default: fputc((unsigned char)*text < 32 ? ' ' : *text, out);
		}
}

/* Distance between ticks so that a range has about n of them: 1, 2 or 5 times a power of ten. */
static double
tick(double range, int n)
{
	double rough = range / n, power = pow(10, floor(log10(rough))), part = rough / power;

	return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

struct scale {
	double x0, x1, y0, y1;
};

static double
px(const struct scale *s, double x)
{
	return LEFT + (x - s->x0) / (s->x1 - s->x0) * (WIDTH - LEFT - RIGHT);
}

static double
py(const struct scale *s, double y)
{
	return HEIGHT - BOTTOM - (y - s->y0) / (s->y1 - s->y0) * (HEIGHT - TOP - BOTTOM);
}

/* Computes the range of all points; false: there are none. */
static bool
fit(const struct chart *c, struct scale *s)
{
	double pad;

	*s = (struct scale){.x0 = 0, .x1 = -INFINITY, .y0 = INFINITY, .y1 = -INFINITY};
	for (size_t i = 0; i < c->n_series; i++)
		for (size_t p = 0; p < c->series[i].n; p++) {
			if (!isfinite(c->series[i].y[p]))
				continue;
			s->x1 = fmax(s->x1, c->series[i].x[p]);
			s->y0 = fmin(s->y0, c->series[i].y[p]);
			s->y1 = fmax(s->y1, c->series[i].y[p]);
		}
	if (!isfinite(s->y0) || !(s->x1 > s->x0))
		return false;
	if (isfinite(c->y_max) && c->y_max > s->y0)
		s->y1 = fmin(s->y1, c->y_max);
	pad = s->y1 > s->y0 ? (s->y1 - s->y0) * 0.05 : fabs(s->y1) * 0.05 + 1e-9;
	s->y0 -= s->y0 >= 0 && s->y0 < pad ? s->y0 : pad;
	s->y1 += pad;
	return true;
}

static void
axes(const struct chart *c, const struct scale *s, FILE *out)
{
	double dx = tick(s->x1 - s->x0, 5), dy = tick(s->y1 - s->y0, 5), first;

	for (double y = ceil(s->y0 / dy) * dy; y <= s->y1 + dy * 1e-9; y += dy) {
		fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>", LEFT,
		    py(s, y), WIDTH - RIGHT, py(s, y));
		fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n", LEFT - 6,
		    py(s, y) + 6, fabs(y) < dy * 1e-6 ? 0 : y);
	}
	first = ceil(s->x0 / dx) * dx;
	for (double x = first; x <= s->x1 + dx * 1e-9; x += dx) {
		fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#888\"/>",
		    px(s, x), HEIGHT - BOTTOM, px(s, x), HEIGHT - BOTTOM + 5);
		fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.6g</text>\n", px(s, x),
		    HEIGHT - BOTTOM + 24, x);
	}
	fprintf(out,
	    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" stroke=\"#888\"/>\n",
	    LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14);
	chart_text(c->x_label, out);
	fprintf(out, "</text>\n");
}

static void
marker(size_t look, double x, double y, FILE *out)
{
	const char *colour = colour_of(look);

	switch (look % 4) {
	case 0: fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\" fill=\"%s\"/>", x, y, colour); break;
	case 1: fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\" fill=\"%s\"/>", x - 4,
	    y - 4, colour); break;
	case 2: fprintf(out, "<path d=\"M%.1f %.1fl5 9h-10z\" fill=\"%s\"/>", x, y - 5.5, colour); break;
	default: fprintf(out, "<path d=\"M%.1f %.1fl5.5 5.5l-5.5 5.5l-5.5 -5.5z\" fill=\"%s\"/>", x, y - 5.5, colour);
	}
}

static void
line(const struct chart_series *d, const struct scale *s, FILE *out)
{
	bool down = false;

	fprintf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2.5\" stroke-dasharray=\"%s\" d=\"",
	    colour_of(d->look), dashes[d->look % (sizeof(dashes) / sizeof(dashes[0]))]);
	for (size_t p = 0; p < d->n; p++) {
		if (!isfinite(d->y[p])) {
			down = false;
			continue;
		}
		fprintf(out, "%s%.1f %.1f", down ? "L" : "M", px(s, d->x[p]), py(s, d->y[p]));
		down = true;
	}
	fprintf(out, "\"/>\n");
}

/* Begins an inner svg, which clips lines to the frame and margin units around it. */
static void
clip_begin(double margin, FILE *out)
{
	double x = LEFT - margin, y = TOP - margin, width = WIDTH - LEFT - RIGHT + 2 * margin, height = HEIGHT - TOP - BOTTOM + 2 * margin;

	fprintf(out, "<svg x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" viewBox=\"%.1f %.1f %.1f %.1f\">\n", x, y, width, height, x, y,
	    width, height);
}

void
chart_svg(const struct chart *c, FILE *out)
{
	struct scale s;

	fprintf(out, "<figure><figcaption>");
	chart_text(c->title, out);
	fprintf(out, "</figcaption>\n");
	if (!fit(c, &s)) {
		fprintf(out, "<p>Nothing was measured here.</p></figure>\n");
		return;
	}
	fprintf(out,
	    "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" font-size=\"17\" font-family=\"sans-serif\" fill=\"#222\">\n<title>",
	    WIDTH, HEIGHT);
	chart_text(c->title, out);
	fprintf(out, "</title>\n");
	axes(c, &s, out);
	clip_begin(0, out);
	for (size_t i = 0; i < c->n_series; i++) {
		if (isfinite(c->series[i].mark_x) && c->series[i].mark_x <= s.x1)
			fprintf(out,
			    "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-dasharray=\"4 5\" stroke-width=\"1.5\"/>\n",
			    px(&s, c->series[i].mark_x), TOP, px(&s, c->series[i].mark_x), HEIGHT - BOTTOM,
			    colour_of(c->series[i].look));
		line(&c->series[i], &s, out);
	}
	fprintf(out, "</svg>\n");
	clip_begin(6, out);
	for (size_t i = 0; i < c->n_series; i++) {
		const struct chart_series *d = &c->series[i];

		for (size_t p = 0; d->markers && p < d->n; p++)
			if (isfinite(d->y[p]) && d->y[p] <= s.y1)
				marker(d->look, px(&s, d->x[p]), py(&s, d->y[p]), out);
	}
	fprintf(out, "</svg></svg>\n<p class=\"legend\">");
	for (size_t i = 0; i < c->n_series; i++) {
		const struct chart_series *d = &c->series[i];

		fprintf(out,
		    "<span><svg viewBox=\"0 0 44 16\" width=\"44\" height=\"16\"><path d=\"M0 8H44\" stroke=\"%s\" stroke-width=\"2.5\" "
		    "stroke-dasharray=\"%s\"/>", colour_of(d->look),
		    dashes[d->look % (sizeof(dashes) / sizeof(dashes[0]))]);
		if (d->markers)
			marker(d->look, 22, 8, out);
		fprintf(out, "</svg> ");
		chart_text(d->name, out);
		fprintf(out, "%s</span> ", isfinite(d->mark_x) ? " (thin line: its switch)" : "");
	}
	fprintf(out, "</p></figure>\n");
}
