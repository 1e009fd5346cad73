/* What the files of labels share; labels.h has the format. */
#ifndef SALT_LABELS_INTERNAL_H
#define SALT_LABELS_INTERNAL_H

#include "labels/labels.h"

#define LABELS__CODE_ZERO 65535u	/* t = 0 */
#define LABELS__SUM_SLACK 1e-3
#define LABELS__VARINT_MAX 5u		/* bytes */

/* u8 each of a little-endian number of `bytes` bytes */
void labels__put(uint8_t *p, uint64_t v, unsigned bytes);
uint64_t labels__get(const uint8_t *p, unsigned bytes);

unsigned labels__id_bytes(uint32_t vocab);	/* of an id in a topk payload */
uint32_t labels__param(const struct labels_spec *spec);

double labels__code_value(uint32_t code);	/* t of a code */
uint32_t labels__code(double nats);		/* of -ln t >= 0, infinity included */

/* Room for `rows` more rows and `entries` more sparse entries (or the dense floats of the rows). 0 or ENOMEM, nothing changed. */
int labels__batch_reserve(struct labels_batch *batch, const struct labels_spec *spec, size_t rows, size_t entries);

#endif
