/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tb_event - one event of a TensorBoard file as protobuf bytes. trainerd/tensorboard.c frames them.
 */
#ifndef SALT_WIRE_TB_EVENT_H
#define SALT_WIRE_TB_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TB_SCALARS_MAX = 32, TB_EVENT_BYTES_MAX = 4096 };

struct tb_scalar {
	const char *tag;		/* "train/loss": up to the slash is the group that TensorBoard shows */
	float value;
};

struct tb_event {
	double wall_time;		/* seconds since 1970 */
	int64_t step;
	const char *file_version;	/* NULL: none */
	bool session_start;		/* readers drop what they have of this step and later ones */
	const struct tb_scalar *scalars;
	size_t n_scalars;
};

/*
 * tb_event_encode - into buf; its length, or 0: more than TB_SCALARS_MAX scalars or size bytes. Pure; any
 * thread.
 */
size_t tb_event_encode(const struct tb_event *e, uint8_t *buf, size_t size);

#endif
