/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static int
bad(const char *text, const char *found, struct err_note *note)
{
	return err_expect(note, ERR_CONFIG, "%s", "tcp://HOST:PORT or ipc://PATH", "%s", text, found);
}

static bool
is_loopback6(const struct in6_addr *in)
{
	return IN6_IS_ADDR_LOOPBACK(in) || (IN6_IS_ADDR_V4MAPPED(in) && in->s6_addr[12] == 127);
}

/*
 * ZeroMQ binds to addresses and interface names only. A name that does not resolve is left as it is: it may
 * be an interface. IPv4 comes first, as in ZeroMQ.
 */
static void
resolve(struct bus__endpoint *e, char number[INET6_ADDRSTRLEN + 2])
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
	char text[INET6_ADDRSTRLEN];

	number[0] = 0;
	if (getaddrinfo(e->host, NULL, &hints, &found) == 0 && found != NULL) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)found->ai_addr;

		inet_ntop(AF_INET, &in->sin_addr, number, INET6_ADDRSTRLEN);
		e->loopback = ntohl(in->sin_addr.s_addr) >> 24 == 127;
	} else if (hints.ai_family = AF_INET6, getaddrinfo(e->host, NULL, &hints, &found) == 0 && found != NULL) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)found->ai_addr;

		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		snprintf(number, INET6_ADDRSTRLEN + 2, "[%s]", text);
		e->loopback = is_loopback6(&in6->sin6_addr);
		e->ipv6 = true;
	}
	e->loopback_name = e->loopback && strcmp(e->host, "localhost") != 0;
	if (found != NULL)
		freeaddrinfo(found);
}

int
bus__endpoint_parse(const char *text, struct bus__endpoint *out, struct err_note *note)
{
	const char *colon, *host;
	char number[INET6_ADDRSTRLEN + 2], six[sizeof(out->host)], *end;
	struct in6_addr in6;
	struct in_addr in;
	long port;

	*out = (struct bus__endpoint){0};
	if (text == NULL || strlen(text) >= BUS_ENDPOINT_MAX)
		return bad(text == NULL ? "endpoint" : text, text == NULL ? "nothing" : "a longer text",
		    note);
	if (strncmp(text, "ipc://", 6) == 0 && text[6] != 0) {
		if (strlen(text + 6) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
			return err_expect(note, ERR_CONFIG, "%s", "a path of at most %zu bytes", "%zu", text,
			    sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1, strlen(text + 6));
		out->ipc = out->loopback = true;
		snprintf(out->bindable, sizeof(out->bindable), "%s", text);
		return 0;
	}
	if (strncmp(text, "tcp://", 6) != 0 || (colon = strrchr(host = text + 6, ':')) == NULL || colon == host)
		return bad(text, "an unknown scheme, or no port", note);
	if ((size_t)(colon - host) >= sizeof(out->host) || strlen(colon + 1) >= sizeof(out->port))
		return bad(text, "a host or port that is too long", note);
	memcpy(out->host, host, (size_t)(colon - host));
	strcpy(out->port, colon + 1);
	if (strcmp(out->port, "*") == 0)
		strcpy(out->port, "0");
	port = strtol(out->port, &end, 10);
	if (!isdigit((unsigned char)out->port[0]) || *end != 0 || port > 65535)
		return bad(text, "a port outside 0 to 65535", note);
	out->any = strcmp(out->host, "*") == 0 || strcmp(out->host, "0.0.0.0") == 0 || strcmp(out->host,
	    "[::]") == 0;
	snprintf(number, sizeof(number), "%s", "");
	if (out->host[0] == '[') {
		out->ipv6 = true;
		snprintf(six, sizeof(six), "%.*s", (int)strlen(out->host) - 2, out->host + 1);
		out->loopback = inet_pton(AF_INET6, six, &in6) == 1 && is_loopback6(&in6);
	} else if (inet_pton(AF_INET, out->host, &in) == 1)
		out->loopback = ntohl(in.s_addr) >> 24 == 127;
	else if (!out->any)
		resolve(out, number);
	snprintf(out->bindable, sizeof(out->bindable), "tcp://%s:%s", number[0] != 0 ? number : out->host,
	    port == 0 ? "*" : out->port);
	return 0;
}

void
bus__peer_address(int fd, char *out, size_t size)
{
	char host[INET6_ADDRSTRLEN + 8], port[8];
	struct sockaddr_storage at;
	socklen_t n = sizeof(at), n_cred = sizeof(struct ucred);
	struct ucred cred;

	if (getpeername(fd, (struct sockaddr *)&at, &n) != 0)
		snprintf(out, size, "?");
	else if (at.ss_family == AF_UNIX && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n_cred) == 0)
		snprintf(out, size, "pid:%ld", (long)cred.pid);
	else if (getnameinfo((struct sockaddr *)&at, n, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(out, size, "?");
	else
		snprintf(out, size, at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}
