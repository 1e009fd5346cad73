#include "base/err/err.h"

#include <errno.h>
#include "check.h"

int
main(void)
{
	struct err_note note;
	char buf[256];

	for (int rc = ERR_NOT_FOUND; rc < ERR_END; rc++) {
		CHECK(strstr(err_str(rc), "unknown") == NULL);
		CHECK(err_exit_code(rc) >= 64 && err_exit_code(rc) <= 78);
	}
	CHECK(strstr(err_str(ERR_END), "unknown") != NULL);
	CHECK_STR(err_str(0), "ok");
	CHECK(err_exit_code(0) == 0);
	CHECK(err_exit_code(ENOENT) == 66);
	CHECK(err_exit_code(ENOSPC) == 74);
	CHECK(err_exit_code(ERR_MISMATCH) == 78);
	CHECK(err_note_set(&note, ERR_FORMAT, "%s", "a.idx") == ERR_FORMAT);
	err_note_place(&note, "byte %d", 9);
	err_note_expected(&note, "version %d", 1);
	err_note_found(&note, "%d", 7);
	CHECK_STR(err_note_str(&note, ERR_FORMAT, buf, sizeof(buf)), "a.idx: byte 9: expected version 1, found 7: malformed input");
	CHECK_STR(err_note_str(NULL, ERR_FULL, buf, sizeof(buf)), "no room left");
	CHECK(err_note_set(NULL, 5, "x") == 5);
	return check_done();
}
