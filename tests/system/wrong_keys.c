/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connects to the status socket of a daemon with ten kinds of wrong keys:
 *   wrong_keys KEYS SERVER ENDPOINT LOG
 * KEYS: security.curve_dir; SERVER: the daemon's key there; LOG: its log file.
 * Prints a table. Exit code 0: none got an answer, and each was counted and logged.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>
#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"

enum { PATIENCE_MS = 5000, ANSWER_MAX = 1 << 20, KEY = 41 };

static void *ctx;
static const char *keys, *endpoint, *log_path;
static char server[KEY];

static void
die(const char *what)
{
	fprintf(stderr, "wrong_keys: %s\n", what);
	exit(70);
}

static void
read_key(const char *name, const char *suffix, char public_key[KEY], char secret_key[KEY])
{
	char path[600], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.%s", keys, name, suffix);
	if ((f = fopen(path, "r")) == NULL)
		die(path);
	while (fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "public=", 7) == 0)
			snprintf(public_key, KEY, "%.40s", line + 7);
		if (secret_key != NULL && strncmp(line, "secret=", 7) == 0)
			snprintf(secret_key, KEY, "%.40s", line + 7);
	}
	fclose(f);
}

static void *
dealer(void)
{
	void *s = zmq_socket(ctx, ZMQ_DEALER);
	int linger = 0, never = -1;

	zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof(linger));
	zmq_setsockopt(s, ZMQ_RECONNECT_IVL, &never, sizeof(never));	/* one handshake for each case */
	return s;
}

static void
set_keys(void *s, const char *public_key, const char *secret_key, const char *server_key)
{
	if (zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, public_key, KEY) != 0 || zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, secret_key, KEY) != 0 ||
	    zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, server_key, KEY) != 0)
		die("a key that is none");
}

/* Reads handshakes_refused_total as an authorized client. */
static long
counted(void *good)
{
	static char answer[ANSWER_MAX];
	zmq_pollitem_t item = {good, 0, ZMQ_POLLIN, 0};
	const char *at;
	int n;

	zmq_send(good, "json", 4, 0);
	if (zmq_poll(&item, 1, PATIENCE_MS) != 1 || (n = zmq_recv(good, answer, sizeof(answer) - 1, 0)) < 0)
		die("the right key gets no answer");
	answer[n < ANSWER_MAX ? n : ANSWER_MAX - 1] = '\0';
	if ((at = strstr(answer, "\"handshakes_refused_total\"")) == NULL)
		die("no handshakes_refused_total in the answer");
	return atol(strchr(at, ':') + 1);
}

/* Number of log lines about refused handshakes, including those that were suppressed. */
static long
logged(void)
{
	FILE *f = fopen(log_path, "r");
	char line[8192];
	const char *at;
	long n = 0;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strstr(line, "event=bus.refused") != NULL)
			n += 1 + ((at = strstr(line, "left_out=")) != NULL ? atol(at + 9) : 0);
	if (f != NULL)
		fclose(f);
	return n;
}

static void
prepare(int which, void *s)
{
	static const char plain[] = "someone";
	char pub[KEY], sec[KEY], other[KEY], other_secret[KEY], path[600], text[200];
	FILE *f;

	read_key("client", "key", pub, sec);
	zmq_curve_keypair(other, other_secret);
	snprintf(path, sizeof(path), "%s/odd.pub", keys);
	switch (which) {
	case 0:
		return;
	case 1:
		zmq_setsockopt(s, ZMQ_PLAIN_USERNAME, plain, strlen(plain));
		zmq_setsockopt(s, ZMQ_PLAIN_PASSWORD, plain, strlen(plain));
		return;
	case 3:
		set_keys(s, pub, sec, other);
		return;
	case 4:
		set_keys(s, pub, other_secret, server);
		return;
	case 6:
		set_keys(s, "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs", server);
		return;
	case 5: case 7: case 8: case 9:		/* a file with this key exists, but must not be accepted */
		if (which == 5)
			snprintf(path, sizeof(path), "%s/odd.pub.removed", keys);
		if ((f = fopen(path, "w")) == NULL)
			die(path);
		snprintf(text, sizeof(text), "role=%s\npublic=%s\n", which == 8 ? "admin" : "client", which == 9 ? "short" : other);
		fputs(text, f);
		fclose(f);
		chmod(path, which == 7 ? 0666 : 0644);
		/* fall through */
	default:
		set_keys(s, other, other_secret, server);
	}
}

int
main(int argc, char **argv)
{
	static const char *const cases[] = {"no keys", "PLAIN", "unknown key", "another server's key", "secret of another key", "removed key",
	    "keys of the ZeroMQ manual", "public key that all may write", "public key of an unknown role", "public key cut short"};
	char pub[KEY], sec[KEY], path[600], byte;
	int bad = 0;
	void *good;

	if (argc != 5)
		die("usage: wrong_keys KEYS SERVER ENDPOINT LOG");
	keys = argv[1];
	endpoint = argv[3];
	log_path = argv[4];
	ctx = zmq_ctx_new();
	read_key(argv[2], "pub", server, NULL);
	read_key("client", "key", pub, sec);
	good = dealer();
	set_keys(good, pub, sec, server);
	if (zmq_connect(good, endpoint) != 0)
		die(endpoint);
	for (int i = 0; i < (int)(sizeof(cases) / sizeof(cases[0])); i++) {
		long before = counted(good), lines = logged(), after = before;
		int64_t end = clock_now_ms() + PATIENCE_MS;
		bool answered = false, fine;
		void *s = dealer();

		prepare(i, s);
		zmq_connect(s, endpoint);
		zmq_send(s, "json", 4, ZMQ_DONTWAIT);
		while ((after == before || logged() == lines) && !answered && clock_now_ms() < end) {
			answered = zmq_recv(s, &byte, 1, ZMQ_DONTWAIT) >= 0;
			stop_sleep_ms(20);
			after = counted(good);
		}
		answered = answered || zmq_recv(s, &byte, 1, ZMQ_DONTWAIT) >= 0;
		fine = !answered && after > before && logged() > lines;
		printf("%-10s %-30s %-9s counted %ld logged %ld\n", argv[2], cases[i], answered ? "ANSWERED" : "refused", after - before, logged() - lines);
		bad += !fine;
		zmq_close(s);
		snprintf(path, sizeof(path), "%s/odd.pub", keys);
		unlink(path);
		snprintf(path, sizeof(path), "%s/odd.pub.removed", keys);
		unlink(path);
	}
	zmq_close(good);
	zmq_ctx_term(ctx);
	return bad != 0;
}
