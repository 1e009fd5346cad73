/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_fields - every field of every message: the table beside proto/salt.proto, which has the meaning of
 * each field. wire.h includes it to declare the structs, fields.c to build the tables that encode, decode and
 * check them. It has no include guard, because it is included twice.
 *
 * To add a field, add one line to salt.proto and one line here, under the same name. A rule that involves two
 * fields belongs in check.c.
 *
 *   STRUCT(name, Name)          struct wire_name, from message Name
 *   PART(name, Name)            the same, for a message that is part of another and may be absent: `bool present` comes first
 *   F_U32, F_U64, F_I32         an integer within lo .. hi; 0 counts as absent where lo is over 0
 *   F_F32, F_F64, F_LOSS        a number within lo .. hi; F_LOSS is 0 .. 1e6 or NaN, not known
 *   F_ENUM, F_BOOL, F_VERSION   F_VERSION: wire_encode writes WIRE_VERSION in place of 0
 *   F_TEXT(name, size, need)    a char array of that size, ended by NUL
 *   F_HASH, F_ID(name, need)    16 bytes; F_HASH is always needed
 *   F_BYTES                     borrowed bytes of any length
 *   F_PART(name, part)          one PART
 *   F_ITEMS(name, part, lo, hi) n_name, and an array of hi structs within this one
 *   F_ROWS(name, row), F_SEQS   a pointer to an array, and n_name: 1 .. WIRE_ROWS_MAX, 1 .. WIRE_SEQS_MAX
 *   F_TOKENS                    int32 [n_seqs, context + 1]
 */

PART(corpus, Corpus)
	F_ID(fingerprint, OPTIONAL)
	F_U32(context, 1, WIRE_CONTEXT_MAX)		/* L, tokens */
	F_U64(n_windows, 0, WIRE_WINDOWS_MAX)
	F_ID(tokenizer, OPTIONAL)
	F_U32(vocab_size, 1, WIRE_VOCAB_MAX)
	F_U32(document_end, 0, WIRE_VOCAB_MAX)
END(corpus)

STRUCT(model, Model)				/* serves score, label or both */
	F_HASH(fingerprint)
	F_TEXT(compute_class, WIRE_CLASS_MAX, NEEDED)
	F_BOOL(serves_score)
	F_BOOL(serves_label)
	F_U32(vocab_size, 1, WIRE_VOCAB_MAX)
	F_U32(max_context, 1, UINT32_MAX)
	F_ID(tokenizer, OPTIONAL)
END(model)

/*
 * In HELLO any part may be unknown: hash and teacher by .known; compute_class ""; version 0; tau 0; kind
 * LABELS_KIND_NONE makes kind, n and seed unknown together. In WELCOME and LEASE all are known.
 */
PART(label_set, LabelSet)
	F_ID(hash, OPTIONAL)				/* labels_set_hash() */
	F_ID(teacher, OPTIONAL)
	F_TEXT(compute_class, WIRE_CLASS_MAX, OPTIONAL)
	F_ENUM(kind, labels_kind, LABELS_KIND_NONE, LABELS_KIND_DENSE)
	F_U32(n, 0, 1 << 20)				/* N of sampled, k of topk, 0 of dense */
	F_F32(tau, 0, 1e6)
	F_U32(seed, 0, UINT32_MAX)
	F_U32(version, 0, UINT32_MAX)
END(label_set)

PART(score_set, ScoreSet)
	F_ID(hash, NEEDED)				/* labels_scores_set_hash() */
	F_ID(scorer, NEEDED)
	F_TEXT(compute_class, WIRE_CLASS_MAX, NEEDED)
	F_U32(version, 1, UINT32_MAX)
END(score_set)

PART(plan, Plan)
	F_ID(hash, OPTIONAL)				/* wire_plan_hash(); unknown in HELLO while the score set is (salt_ds, file) */
	F_U32(seed, 0, UINT32_MAX)			/* run.seed */
	F_U32(batch, 1, UINT32_MAX)			/* sequences per step */
	F_ENUM(mode, wire_mode, WIRE_MODE_NONE, WIRE_MODE_FILE)
	F_U32(k, 0, UINT32_MAX)				/* needed by salt_ds */
	F_U64(window, 0, UINT64_MAX)			/* W; needed unless there is a pool */
	F_F64(keep, 0, 1)				/* over 0 in salt_ds and file */
	F_U64(pool, 0, WIRE_WINDOWS_MAX)		/* over 0: one block of so many sequences; window is not used */
	F_U64(n_rows, 1, UINT64_MAX)
	F_U64(label_ahead_rows, 0, UINT64_MAX)		/* UINT64_MAX: all */
	F_BOOL(by_part)					/* of a blend: rows are chosen within each part */
END(plan)

STRUCT(hello, Hello)
	F_VERSION(protocol_version)
	F_ENUM(role, wire_role, WIRE_ROLE_TEACHER, WIRE_ROLE_CLIENT)
	F_HASH(boot_id)					/* bus_boot_id() */
	F_TEXT(name, WIRE_NAME_MAX, NEEDED)
	F_TEXT(host, WIRE_NAME_MAX, OPTIONAL)
	F_U32(pid, 0, UINT32_MAX)
	F_U32(max_message, WIRE_MESSAGE_MIN, UINT32_MAX)
	F_PART(corpus, corpus)				/* trainer, client: needed; teacher: none */
	F_PART(heldout, corpus)
	F_ITEMS(models, model, 0, WIRE_MODELS_MAX)	/* teacher: at least 1; others: none */
	F_PART(plan, plan)				/* trainer without a phase one: none */
	F_PART(label_set, label_set)
	F_U32(rank, 0, UINT32_MAX)
	F_TEXT(status_endpoint, WIRE_ENDPOINT_MAX, OPTIONAL)
END(hello)

STRUCT(welcome, Welcome)
	F_VERSION(protocol_version)
	F_HASH(boot_id)
	F_U32(shard, 0, UINT32_MAX)			/* less than n_shards */
	F_U32(n_shards, 1, 65536)
	F_U32(max_message, WIRE_MESSAGE_MIN, UINT32_MAX)
	F_U32(lease_ms, 1, UINT32_MAX)
	F_PART(corpus, corpus)				/* absent while selectord has no corpus */
	F_PART(heldout, corpus)
	F_PART(label_set, label_set)
	F_PART(score_set, score_set)
	F_ID(plan_hash, OPTIONAL)
	F_LOSS(heldout_loss_nats)
	F_U64(rows_ready, 0, UINT64_MAX)
	F_BOOL(released)
	F_BYTES(unigram)				/* labels_unigram_bytes(); with a sampled label set, else empty */
END(welcome)

STRUCT(refuse, Refuse)
	F_I32(code, 64, 78)				/* sysexits */
	F_TEXT(field, WIRE_NAME_MAX, OPTIONAL)
	F_TEXT(expected, WIRE_TEXT_MAX, OPTIONAL)
	F_TEXT(found, WIRE_TEXT_MAX, OPTIONAL)
	F_TEXT(text, WIRE_TEXT_MAX, OPTIONAL)
	F_U32(retry_ms, 0, UINT32_MAX)			/* over 0: not final */
END(refuse)

STRUCT(lease_request, LeaseRequest)
	F_U32(credit, 1, UINT32_MAX)
END(lease_request)

STRUCT(lease, Lease)
	F_U64(lease_id, 1, UINT64_MAX)
	F_HASH(model)
	F_BOOL(want_score)				/* at least one of the two */
	F_BOOL(want_label)
	F_SEQS(seqs)
	F_TOKENS(tokens)				/* each 0 .. n_valid - 1 */
	F_U32(context, 1, WIRE_CONTEXT_MAX)
	F_U32(lease_ms, 1, UINT32_MAX)
	F_PART(label_set, label_set)			/* exactly with want_label */
	F_U32(n_valid, 1, WIRE_VOCAB_MAX)
	F_U32(document_end, 0, WIRE_VOCAB_MAX)
END(lease)

STRUCT(lease_renew, LeaseRenew)
	F_U64(lease_id, 1, UINT64_MAX)
	F_U64(progress, 0, UINT64_MAX)
END(lease_renew)

STRUCT(lease_return, LeaseReturn)
	F_U64(lease_id, 1, UINT64_MAX)
END(lease_return)

STRUCT(result_row, ResultRow)			/* either error and nothing else, or scores or label or both */
	F_U64(seq, 0, UINT64_MAX)
	F_BYTES(scores)
	F_BYTES(label)
	F_TEXT(error, WIRE_TEXT_MAX, OPTIONAL)
END(result_row)

STRUCT(result, Result)
	F_U64(lease_id, 1, UINT64_MAX)
	F_ROWS(rows, result_row)
END(result)

STRUCT(done, Done)
	F_U64(lease_id, 1, UINT64_MAX)
	F_SEQS(seqs)
END(done)

STRUCT(release_teacher, ReleaseTeacher)
	F_TEXT(reason, WIRE_TEXT_MAX, OPTIONAL)
END(release_teacher)

STRUCT(rows_request, RowsRequest)
	F_U64(request_id, 0, UINT64_MAX)
	F_HASH(plan_hash)
	F_U64(first_row, 0, UINT64_MAX)			/* first_row + count does not wrap */
	F_U32(count, 1, UINT32_MAX)
	F_U64(step, 0, UINT64_MAX)
END(rows_request)

STRUCT(row, Row)					/* label is empty exactly if quarantined */
	F_U64(seq, 0, UINT64_MAX)
	F_BOOL(quarantined)
	F_BYTES(label)
END(row)

STRUCT(rows, Rows)
	F_U64(request_id, 0, UINT64_MAX)
	F_HASH(plan_hash)
	F_U64(first_row, 0, UINT64_MAX)
	F_ROWS(rows, row)
	F_LOSS(heldout_loss_nats)
END(rows)

STRUCT(checkpointed, Checkpointed)
	F_U64(request_id, 0, UINT64_MAX)
	F_HASH(plan_hash)
	F_U64(step, 0, UINT64_MAX)
END(checkpointed)

STRUCT(release, Release)
	F_U64(request_id, 0, UINT64_MAX)
	F_HASH(plan_hash)
	F_U64(step, 0, UINT64_MAX)
END(release)

STRUCT(ack, Ack)
	F_U64(request_id, 0, UINT64_MAX)
END(ack)

STRUCT(ping, Ping)
	F_U64(nonce, 0, UINT64_MAX)
END(ping)

STRUCT(bye, Bye)
	F_TEXT(reason, WIRE_TEXT_MAX, OPTIONAL)
END(bye)

STRUCT(drop_labels, DropLabels)
	F_U64(request_id, 0, UINT64_MAX)
	F_BOOL(released_too)
END(drop_labels)

STRUCT(dropped, Dropped)
	F_U64(request_id, 0, UINT64_MAX)
	F_U64(labels, 0, UINT64_MAX)
	F_U64(bytes, 0, UINT64_MAX)
	F_U64(kept, 0, UINT64_MAX)
END(dropped)

#undef PART
#undef STRUCT
#undef END
#undef F_U32
#undef F_U64
#undef F_I32
#undef F_F32
#undef F_F64
#undef F_LOSS
#undef F_ENUM
#undef F_BOOL
#undef F_VERSION
#undef F_TEXT
#undef F_HASH
#undef F_ID
#undef F_BYTES
#undef F_PART
#undef F_ITEMS
#undef F_ROWS
#undef F_SEQS
#undef F_TOKENS
