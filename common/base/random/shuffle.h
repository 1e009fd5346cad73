/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shuffle - the shuffle order of sequences, a pure function of seed and position. Stored caches depend on it.
 */
#ifndef SALT_SHUFFLE_H
#define SALT_SHUFFLE_H

#include <stdint.h>

/*
 * shuffle_order - the sequence at stream position p: epoch = p div n, then a bijection of 0..n-1 applied to
 * p mod n. The bijection is a keyed 4-round balanced Feistel network over 2h bits (the smallest h with
 * 4^h >= n) with cycle walking. n > 0. docs/formats.md gives the rounds.
 * shuffle_position - the inverse: the position of seq within the epoch, so that
 * shuffle_order(seed, n, epoch*n + position) == seq.
 */
uint64_t shuffle_order(uint32_t seed, uint64_t n, uint64_t p);
uint64_t shuffle_position(uint32_t seed, uint64_t n, uint64_t epoch, uint64_t seq);

#endif
