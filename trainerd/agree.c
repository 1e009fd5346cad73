/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/agree.h"

#include <string.h>

struct agree_word {
	int rc;
	struct err_note note;
};

int
agree(struct comm *comm, int rc, struct err_note *note)
{
	int64_t who = rc != 0 ? comm_size(comm) - comm_rank(comm) : 0;
	struct agree_word word;

	comm_max(comm, &who, 1);
	if (who == 0)
		return 0;
	memset(&word, 0, sizeof(word));
	word.rc = rc;
	if (note != NULL)
		word.note = *note;
	comm_bcast(comm, comm_size(comm) - (int)who, &word, sizeof(word));
	if (note != NULL)
		*note = word.note;
	return word.rc;
}
