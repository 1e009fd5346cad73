/* SPDX-License-Identifier: Apache-2.0 */
/* value - converts a value between its text and its field in struct config. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "data/corpus/blend.h"
#include "fabric/config/config_internal.h"

static void *
field_of(const struct config *cfg, const struct config__option *o)
{
	return (char *)(uintptr_t)cfg + o->offset;
}

/* Appends to a buffer of fixed size; what does not fit is dropped. */
struct text {
	char *buf;
	size_t size, len;
};

static void __attribute__((format(printf, 2, 3)))
text_add(struct text *t, const char *fmt, ...)
{
	size_t room = t->len < t->size ? t->size - t->len : 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(room > 0 ? t->buf + t->len : NULL, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += (size_t)n;
}

/* Numbers in files have a decimal point in any locale. */
static double
to_double(const char *s, char **end)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	double v = c != (locale_t)0 ? strtod_l(s, end, c) : strtod(s, end);

	if (c != (locale_t)0)
		freelocale(c);
	return v;
}

static const char *
float_text(double v, char *buf, size_t size)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = (locale_t)0;

	if (c != (locale_t)0)
		before = uselocale(c);
	for (int digits = fabs(v) < 1e15 && v == floor(v) ? 17 : 1; digits <= 17; digits++) {	/* 60, not 6e+01 */
		snprintf(buf, size, "%.*g", digits, v);
		if (strtod(buf, NULL) == v)
			break;
	}
	if (c != (locale_t)0) {
		uselocale(before);
		freelocale(c);
	}
	return buf;
}

const char *
config__expected(const struct config__option *o, char *buf, size_t size)
{
	struct text t = { buf, size, 0 };
	char lo[32], hi[32];
	const char *item = o->type == CONFIG__NUMBERS ? "a list of whole numbers" : "a whole number";

	switch (o->type) {
	case CONFIG__PATH:
		text_add(&t, "a path");
		break;
	case CONFIG__CORPUS:
		text_add(&t, "a path, or a list of {prefix: PATH, weight: a number above 0}");
		break;
	case CONFIG__COMPUTE_CLASS:
		text_add(&t, "auto, or 1 to %d letters, digits and / . _ + -, such as bf16/torch-cuda", LABELS_CLASS_BYTES - 1);
		break;
	case CONFIG__ENDPOINT:
		text_add(&t, "tcp://HOST:PORT or ipc://PATH");
		break;
	case CONFIG__ENDPOINTS:
		text_add(&t, "a list of one or more different tcp://HOST:PORT or ipc://PATH");
		break;
	case CONFIG__PATHS:
		text_add(&t, "a list of at most %d different paths", CONFIG__PATHS_MAX);
		break;
	case CONFIG__U32:
	case CONFIG__U64:
	case CONFIG__NUMBERS:
		text_add(&t, "%s from %" PRIu64 " to %" PRIu64, item, o->lo, o->hi);
		break;
	case CONFIG__BYTES:
		text_add(&t, "bytes from %" PRIu64 " to %" PRIu64 " (KiB, MiB, GiB, TiB allowed)", o->lo, o->hi);
		break;
	case CONFIG__FLOAT:
		text_add(&t, "a number in %c%s, %s]", o->open ? '(' : '[', float_text(o->flo, lo, sizeof(lo)),
		    float_text(o->fhi, hi, sizeof(hi)));
		break;
	case CONFIG__PAIR:
		text_add(&t, "a list of two numbers in [%s, %s]", float_text(o->flo, lo, sizeof(lo)),
		    float_text(o->fhi, hi, sizeof(hi)));
		break;
	case CONFIG__FLAG:
		text_add(&t, "true or false");
		break;
	case CONFIG__CHOICE:
		for (const struct config__word *w = o->choices; w->word != NULL; w++)
			text_add(&t, "%s%s", w == o->choices ? "" : w[1].word == NULL ? " or " : ", ", w->word);
		break;
	}
	if (o->word != NULL)
		text_add(&t, " or %s", o->word);
	return buf;
}

static bool
parse_u64(const char *s, const struct config__option *o, uint64_t *out)
{
	static const struct { const char *name; unsigned shift; } units[] = {
		{ "KiB", 10 }, { "MiB", 20 }, { "GiB", 30 }, { "TiB", 40 } };
	uint64_t v = 0;
	const char *p = s;

	if (o->word != NULL && strcmp(s, o->word) == 0) {
		*out = UINT64_MAX;
		return true;
	}
	for (; isdigit((unsigned char)*p); p++) {
		unsigned digit = (unsigned)(*p - '0');

		if (v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	if (p == s)
		return false;
	if (*p != '\0' && o->type == CONFIG__BYTES) {
		p += *p == ' ';
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			if (strcmp(p, units[i].name) == 0) {
				if (v > UINT64_MAX >> units[i].shift)
					return false;
				v <<= units[i].shift;
				p += 3;
				break;
			}
	}
	if (*p != '\0' || v < o->lo || v > o->hi)
		return false;
	*out = v;
	return true;
}

static bool
parse_float(const char *s, const struct config__option *o, double *out)
{
	char *end = NULL;
	double v;

	if (o->word != NULL && strcmp(s, o->word) == 0) {
		*out = (double)NAN;
		return true;
	}
	if (*s == '\0' || s[strspn(s, "0123456789+-.eE")] != '\0')	/* no hex, inf, nan */
		return false;
	v = to_double(s, &end);
	if (*end != '\0' || !(v >= o->flo) || !(v <= o->fhi) || (o->open && !(v > o->flo)))
		return false;
	*out = v;
	return true;
}

/* Valid UTF-8 without control bytes, so that it can be written to a file and read back. */
static bool
clean_text(const char *s)
{
	/* U+FEFF, U+FFFE and U+FFFF are not printable in yaml; U+2028 and U+2029 break lines there */
	static const char *const not_printable[] = {"\xEF\xBB\xBF", "\xEF\xBF\xBE", "\xEF\xBF\xBF", "\xE2\x80\xA8", "\xE2\x80\xA9"};
	const unsigned char *p = (const unsigned char *)s;

	for (size_t i = 0; i < sizeof(not_printable) / sizeof(not_printable[0]); i++)
		if (strstr(s, not_printable[i]) != NULL)
			return false;
	while (*p != 0) {
		unsigned more = *p < 0x80 ? 0 : *p >= 0xC2 && *p < 0xE0 ? 1 : *p >= 0xE0 && *p < 0xF0 ? 2 : *p >= 0xF0 && *p < 0xF5 ? 3 : 9;

		if (*p < 0x20 || *p == 0x7F || more == 9)
			return false;
		if ((*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F) || (*p == 0xF0 && p[1] < 0x90) || (*p == 0xF4 && p[1] > 0x8F))
			return false;
		if (*p == 0xC2 && p[1] < 0xA0)		/* C1 controls are not printable in yaml */
			return false;
		for (p++; more > 0; more--, p++)
			if ((*p & 0xC0) != 0x80)
				return false;
	}
	return (size_t)(p - (const unsigned char *)s) <= CONFIG__TEXT_BYTES_MAX;
}

/* Whether s can stand unquoted in log lines, messages and file names. */
static bool
class_ok(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n < LABELS_CLASS_BYTES &&
	    strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+-") == n;
}

/* The longest PATH of a Unix socket; for a status socket (bind), PATH.events must fit too. */
static size_t
ipc_max(bool bind)
{
	return sizeof(((struct sockaddr_un *)0)->sun_path) - 1 - (bind ? strlen(".events") : 0);
}

/* The error for a bad endpoint; it states the limit if the path is too long. */
static int
bad_endpoint(const char *s, bool bind, struct err_note *note)
{
	if (strncmp(s, "ipc://", 6) == 0 && strlen(s + 6) > ipc_max(bind)) {
		err_note_expected(note, "an ipc path of at most %zu bytes%s", ipc_max(bind),
		    bind ? ", because .events is appended and the limit is 107" : "");
		err_note_found(note, "%zu bytes: %s", strlen(s + 6), s);
	}
	return ERR_CONFIG;
}

static bool
endpoint_ok(const char *s, bool bind)
{
	const char *host, *colon, *port;
	size_t n;
	unsigned long v;

	if (!clean_text(s) || strlen(s) > 200)		/* buffers of announcements and of ZeroMQ have 256 */
		return false;
	if (strncmp(s, "ipc://", 6) == 0)
		return s[6] != '\0' && strlen(s + 6) <= ipc_max(bind);
	if (strncmp(s, "tcp://", 6) != 0)
		return false;
	host = s + 6;
	colon = strrchr(host, ':');
	if (colon == NULL || colon == host)
		return false;
	n = (size_t)(colon - host);
	if (host[0] == '[') {
		if (n < 4 || host[n - 1] != ']' || strspn(host + 1, "0123456789abcdefABCDEF:.%") != n - 2)
			return false;
	} else if (!(n == 1 && host[0] == '*')) {
		for (size_t i = 0; i < n; i++)
			if (!isalnum((unsigned char)host[i]) && host[i] != '.' && host[i] != '-' && host[i] != '_')
				return false;
	}
	port = colon + 1;
	if (strcmp(port, "*") == 0)
		return bind;
	if (*port == '\0' || strlen(port) > 5 || port[strspn(port, "0123456789")] != '\0')
		return false;
	v = strtoul(port, NULL, 10);
	return v >= 1 && v <= 65535;
}

bool
config__loopback(const char *endpoint)
{
	const char *h = endpoint + 6;
	size_t n = strcspn(h, "]");
	char host[INET6_ADDRSTRLEN];
	struct in6_addr in;

	if (strncmp(endpoint, "ipc://", 6) == 0)
		return true;
	if (h[0] != '[')
		return strncmp(h, "127.", 4) == 0 || strncmp(h, "localhost:", 10) == 0;
	if (n < 1 || n > sizeof(host))
		return false;
	memcpy(host, h + 1, n - 1);
	host[n - 1] = '\0';
	return inet_pton(AF_INET6, host, &in) == 1 &&
	    (IN6_IS_ADDR_LOOPBACK(&in) || (IN6_IS_ADDR_V4MAPPED(&in) && in.s6_addr[12] == 127));
}

static char *
resolve_path(struct config *cfg, const char *s)
{
	const char *base = cfg->own->base_dir;
	size_t base_len = strlen(base), len = strlen(s);
	char *out;

	if (len == 0 || s[0] == '/')
		return mem_arena_strndup(cfg->own->arena, s, len);
	while (s[0] == '.' && s[1] == '/')
		for (s += 2; *s == '/'; s++)
			;
	len = strlen(s);
	while (base_len > 0 && base[base_len - 1] == '/')
		base_len--;
	if (strcmp(s, ".") == 0 || len == 0)
		return mem_arena_strndup(cfg->own->arena, base_len > 0 ? base : "/", base_len > 0 ? base_len : 1);
	out = mem_arena_alloc(cfg->own->arena, base_len + 1 + len + 1);
	if (out != NULL) {
		memcpy(out, base, base_len);
		out[base_len] = '/';
		memcpy(out + base_len + 1, s, len + 1);
	}
	return out;
}

static int
wrong(const struct config__option *o, const struct config__raw *raw, struct err_note *note)
{
	char buf[256];

	err_note_expected(note, "%s", config__expected(o, buf, sizeof(buf)));
	if (raw->is_list)
		err_note_found(note, "a list of %zu", raw->n);
	else if (raw->item[0][0] == '\0')
		err_note_found(note, "nothing");
	else
		err_note_found(note, raw->quoted[0] ? "text \"%s\"" : "%s", raw->item[0]);
	return ERR_CONFIG;
}

static bool
is_list(const struct config__option *o)
{
	return o->type == CONFIG__PAIR || o->type == CONFIG__NUMBERS || o->type == CONFIG__ENDPOINTS || o->type == CONFIG__PATHS;
}

static int
assign_list(struct config *cfg, const struct config__option *o, const struct config__raw *raw, struct err_note *note)
{
	struct config_texts texts = { raw->n, NULL };
	struct config_numbers numbers = { raw->n, NULL };
	double pair[2];
	char buf[256];
	size_t i, j = 0;

	if (!raw->is_list || raw->n > (o->type == CONFIG__PATHS ? CONFIG__PATHS_MAX : CONFIG__ITEMS_MAX))
		return wrong(o, raw, note);
	if (o->type == CONFIG__PAIR ? raw->n != 2 : o->type == CONFIG__ENDPOINTS && raw->n == 0)
		return wrong(o, raw, note);
	if (raw->n > 0) {
		texts.item = mem_arena_alloc(cfg->own->arena, raw->n * sizeof(*texts.item));
		numbers.item = mem_arena_alloc(cfg->own->arena, raw->n * sizeof(*numbers.item));
		if (texts.item == NULL || numbers.item == NULL)
			return ENOMEM;
	}
	for (i = 0; i < raw->n; i++) {
		const char *s = raw->item[i];

		if (o->type == CONFIG__PAIR) {
			if (raw->quoted[i] || !parse_float(s, o, &pair[i]))
				goto bad_item;
		} else if (o->type == CONFIG__NUMBERS) {
			if (raw->quoted[i] || !parse_u64(s, o, &numbers.item[i]))
				goto bad_item;
		} else {
			if (o->type == CONFIG__PATHS ? s[0] == '\0' || !clean_text(s) : !endpoint_ok(s, false))
				goto bad_item;
			texts.item[i] = o->type == CONFIG__PATHS ? resolve_path(cfg, s) : mem_arena_strndup(cfg->own->arena, s, strlen(s));
			if (texts.item[i] == NULL)
				return ENOMEM;
			for (j = 0; j < i; j++)
				if (strcmp(texts.item[i], texts.item[j]) == 0)
					goto bad_item;
		}
	}
	if (o->type == CONFIG__PAIR)
		memcpy(field_of(cfg, o), pair, sizeof(pair));
	else if (o->type == CONFIG__NUMBERS)
		memcpy(field_of(cfg, o), &numbers, sizeof(numbers));
	else
		memcpy(field_of(cfg, o), &texts, sizeof(texts));
	return 0;
bad_item:
	err_note_expected(note, "%s", config__expected(o, buf, sizeof(buf)));
	err_note_found(note, "%s as item %zu", raw->item[i][0] == '\0' ? "nothing" : raw->item[i], i + 1);
	return o->type == CONFIG__ENDPOINTS ? bad_endpoint(raw->item[i], false, note) : ERR_CONFIG;
}

/* A list of {prefix, weight} as the JSON text that corpus_open takes; a list of one is its prefix. */
static int
assign_corpora(struct config *cfg, const struct config__option *o, const struct config__raw *raw, struct err_note *note)
{
	size_t n = raw->n / 2;
	char *buf = mem_arena_alloc(cfg->own->arena, CONFIG__LIST_BYTES_MAX), number[40], expected[256];
	struct text t = { buf, CONFIG__LIST_BYTES_MAX, 0 };
	double weight;

	if (buf == NULL)
		return ENOMEM;
	if (n < 1 || n > BLEND_PARTS_MAX)
		return err_expect(note, ERR_CONFIG, "", "a list of 1 to %u corpora", "%zu", BLEND_PARTS_MAX, n);
	for (size_t i = 0; i < n; i++) {
		const char *s = raw->item[2 * i];
		char *path;

		if (s[0] == '\0' || !clean_text(s))
			return err_expect(note, ERR_CONFIG, "", "%s", "the prefix of item %zu", config__expected(o, expected, sizeof(expected)), i + 1);
		if (raw->quoted[2 * i + 1] || !parse_float(raw->item[2 * i + 1], o, &weight))
			return err_expect(note, ERR_CONFIG, "", "%s", "the weight %s of item %zu (%s)", config__expected(o, expected, sizeof(expected)),
			    raw->item[2 * i + 1], i + 1, s);
		if ((path = resolve_path(cfg, s)) == NULL)
			return ENOMEM;
		if (n == 1) {
			memcpy(field_of(cfg, o), &path, sizeof(path));
			return 0;
		}
		text_add(&t, "%s{\"prefix\": \"", i == 0 ? "[" : ", ");
		for (const char *p = path; *p != '\0'; p++)
			text_add(&t, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
		text_add(&t, "\", \"weight\": %s}", float_text(weight, number, sizeof(number)));
	}
	text_add(&t, "]");
	if (t.len >= t.size)
		return err_expect(note, ERR_CONFIG, "", "a list of corpora of less than %zu bytes as text", "%zu", t.size, t.len);
	memcpy(field_of(cfg, o), &buf, sizeof(buf));
	return 0;
}

int
config__assign(struct config *cfg, const struct config__option *o, const struct config__raw *raw, struct err_note *note)
{
	const char *s;
	bool plain;
	uint64_t u;
	uint32_t u32;
	double f;
	char *text;

	if (is_list(o))
		return assign_list(cfg, o, raw, note);
	if (o->type == CONFIG__CORPUS && raw->is_list)
		return assign_corpora(cfg, o, raw, note);
	if (raw->is_list)
		return wrong(o, raw, note);
	s = raw->item[0];
	plain = !raw->quoted[0];
	switch (o->type) {
	case CONFIG__COMPUTE_CLASS:
		if (!class_ok(s))
			return wrong(o, raw, note);
		if ((text = mem_arena_strndup(cfg->own->arena, s, strlen(s))) == NULL)
			return ENOMEM;
		memcpy(field_of(cfg, o), &text, sizeof(text));
		return 0;
	case CONFIG__PATH:
	case CONFIG__CORPUS:
	case CONFIG__ENDPOINT:
		if (!clean_text(s) || (o->type == CONFIG__ENDPOINT && !endpoint_ok(s, true))) {
			wrong(o, raw, note);
			if (!clean_text(s))
				err_note_found(note, "control bytes, invalid UTF-8 or more than %d bytes", CONFIG__TEXT_BYTES_MAX);
			return o->type == CONFIG__ENDPOINT ? bad_endpoint(s, true, note) : ERR_CONFIG;
		}
		text = o->type != CONFIG__ENDPOINT ? resolve_path(cfg, s) : mem_arena_strndup(cfg->own->arena, s, strlen(s));
		if (text == NULL)
			return ENOMEM;
		memcpy(field_of(cfg, o), &text, sizeof(text));
		return 0;
	case CONFIG__U32:
	case CONFIG__U64:
	case CONFIG__BYTES:
		if (!plain || !parse_u64(s, o, &u))
			return wrong(o, raw, note);
		if (o->type == CONFIG__U32) {
			u32 = (uint32_t)u;
			memcpy(field_of(cfg, o), &u32, sizeof(u32));
		} else {
			memcpy(field_of(cfg, o), &u, sizeof(u));
		}
		return 0;
	case CONFIG__FLOAT:
		if (!plain || !parse_float(s, o, &f))
			return wrong(o, raw, note);
		memcpy(field_of(cfg, o), &f, sizeof(f));
		return 0;
	case CONFIG__FLAG:
		if (!plain || (strcmp(s, "true") != 0 && strcmp(s, "false") != 0))
			return wrong(o, raw, note);
		*(bool *)field_of(cfg, o) = s[0] == 't';
		return 0;
	case CONFIG__CHOICE:
		for (const struct config__word *w = o->choices; w->word != NULL; w++)
			if (strcmp(w->word, s) == 0) {
				memcpy(field_of(cfg, o), &w->value, sizeof(w->value));
				return 0;
			}
		return wrong(o, raw, note);
	default:
		return ERR_INTERNAL;
	}
}

/* Splits [a, b] or a,b at commas, in place; removes spaces around items and one pair of quotes. */
static int
split_list(char *s, struct config__raw *raw)
{
	size_t len = strlen(s), cap = 0, cap_q = 0;

	if (len >= 2 && s[0] == '[' && s[len - 1] == ']') {
		s[len - 1] = '\0';
		s++;
	}
	raw->is_list = true;
	if (s[strspn(s, " ")] == '\0')
		return 0;
	while (s != NULL) {
		char *comma = strchr(s, ','), *end;

		if (comma != NULL)
			*comma = '\0';
		s += strspn(s, " ");
		for (end = s + strlen(s); end > s && end[-1] == ' '; )
			*--end = '\0';
		if (end - s >= 2 && (*s == '"' || *s == '\'') && end[-1] == *s) {
			end[-1] = '\0';
			s++;
		}
		if (mem_grow((void **)&raw->item, &cap, raw->n + 1, sizeof(*raw->item)) != 0 ||
		    mem_grow((void **)&raw->quoted, &cap_q, raw->n + 1, sizeof(*raw->quoted)) != 0)
			return ENOMEM;
		raw->item[raw->n] = s;
		raw->quoted[raw->n++] = false;
		s = comma != NULL ? comma + 1 : NULL;
	}
	return 0;
}

int
config__assign_text(struct config *cfg, const struct config__option *o, const char *text, struct err_note *note)
{
	struct config__raw raw = { 0 };
	char *copy = NULL;
	bool quoted = false;
	int rc;

	if (o->type == CONFIG__CORPUS && corpus_is_list(text))
		return config__yaml_value(cfg, o, text, note);
	if (!is_list(o)) {
		raw = (struct config__raw){ .n = 1, .item = &text, .quoted = &quoted };
		return config__assign(cfg, o, &raw, note);
	}
	if ((copy = strdup(text)) == NULL)
		return ENOMEM;
	if ((rc = split_list(copy, &raw)) == 0)
		rc = config__assign(cfg, o, &raw, note);
	free(raw.item);
	free(raw.quoted);
	free(copy);
	return rc;
}

static void
add_text(struct text *t, const char *s, bool quoted)
{
	if (!quoted) {
		text_add(t, "%s", s);
		return;
	}
	text_add(t, "\"");
	for (; *s != '\0'; s++)
		text_add(t, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
	text_add(t, "\"");
}

const char *
config__value(const struct config *cfg, const struct config__option *o, bool quoted, char *buf, size_t size)
{
	struct text t = { buf, size, 0 };
	const void *at = field_of(cfg, o);
	const struct config_texts *texts = at;
	const struct config_numbers *numbers = at;
	const double *f = at;
	uint64_t u = 0;
	int choice;
	char a[32], b[32];

	if (size > 0)
		buf[0] = '\0';
	switch (o->type) {
	case CONFIG__PATH:
	case CONFIG__ENDPOINT:
	case CONFIG__COMPUTE_CLASS:
	case CONFIG__CORPUS:
		add_text(&t, *(char *const *)at, quoted && !(o->type == CONFIG__CORPUS && corpus_is_list(*(char *const *)at)));
		break;
	case CONFIG__ENDPOINTS:
	case CONFIG__PATHS:
		text_add(&t, "[");
		for (size_t i = 0; i < texts->n; i++) {
			text_add(&t, "%s", i > 0 ? ", " : "");
			add_text(&t, texts->item[i], quoted);
		}
		text_add(&t, "]");
		break;
	case CONFIG__NUMBERS:
		text_add(&t, "[");
		for (size_t i = 0; i < numbers->n; i++)
			text_add(&t, "%s%" PRIu64, i > 0 ? ", " : "", numbers->item[i]);
		text_add(&t, "]");
		break;
	case CONFIG__U32:
	case CONFIG__U64:
	case CONFIG__BYTES:
		u = o->type == CONFIG__U32 ? *(const uint32_t *)at : *(const uint64_t *)at;
		if (o->word != NULL && u == UINT64_MAX)
			text_add(&t, "%s", o->word);
		else
			text_add(&t, "%" PRIu64, u);
		break;
	case CONFIG__FLOAT:
		text_add(&t, "%s", o->word != NULL && isnan(*f) ? o->word : float_text(*f, a, sizeof(a)));
		break;
	case CONFIG__PAIR:
		text_add(&t, "[%s, %s]", float_text(f[0], a, sizeof(a)), float_text(f[1], b, sizeof(b)));
		break;
	case CONFIG__FLAG:
		text_add(&t, "%s", *(const bool *)at ? "true" : "false");
		break;
	case CONFIG__CHOICE:
		memcpy(&choice, at, sizeof(choice));
		text_add(&t, "%s", config_word(o->key, choice));
		break;
	}
	return buf;
}
