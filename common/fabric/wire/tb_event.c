/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/tb_event.h"

#include "tensorboard.pb-c.h"

#define SESSION_START 1

size_t
tb_event_encode(const struct tb_event *e, uint8_t *buf, size_t size)
{
	Salt__V1__TbValue values[TB_SCALARS_MAX], *list[TB_SCALARS_MAX];
	Salt__V1__TbSummary summary = SALT__V1__TB_SUMMARY__INIT;
	Salt__V1__TbSession session = SALT__V1__TB_SESSION__INIT;
	Salt__V1__TbEvent event = SALT__V1__TB_EVENT__INIT;

	if (e->n_scalars > TB_SCALARS_MAX)
		return 0;
	for (size_t i = 0; i < e->n_scalars; i++) {
		salt__v1__tb_value__init(&values[i]);
		values[i].tag = (char *)(uintptr_t)e->scalars[i].tag;
		values[i].what_case = SALT__V1__TB_VALUE__WHAT_SIMPLE_VALUE;
		values[i].simple_value = e->scalars[i].value;
		list[i] = &values[i];
	}
	summary.values = list;
	summary.n_values = e->n_scalars;
	session.status = SESSION_START;
	event.wall_time = e->wall_time;
	event.step = e->step;
	if (e->file_version != NULL)
		event.file_version = (char *)(uintptr_t)e->file_version;
	if (e->n_scalars > 0)
		event.summary = &summary;
	if (e->session_start)
		event.session = &session;
	if (salt__v1__tb_event__get_packed_size(&event) > size)
		return 0;
	return salt__v1__tb_event__pack(&event, buf);
}
