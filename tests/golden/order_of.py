# SPDX-License-Identifier: Apache-2.0
"""The seeded order, computed from the description in docs/formats.md, for tests.

    order_of.py SEED N FIRST COUNT    sequences at stream positions FIRST .. FIRST + COUNT - 1 of N
    order_of.py                       the C initialiser of test_hash.c
"""
import sys

M = 0xFFFFFFFF


def philox(key, ctr):
    k0, k1 = key
    c = list(ctr)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & M, (a >> 32) ^ c[3] ^ k1, a & M]
        k0, k1 = (k0 + 0x9E3779B9) & M, (k1 + 0xBB67AE85) & M
    return c


def order(seed, n, p):
    epoch, x = divmod(p, n)
    h = 1
    while 4 ** h < n:
        h += 1
    mask = 2 ** h - 1
    while True:
        left, right = x >> h, x & mask
        for r in range(4):
            left, right = right, left ^ (philox((seed, 1), (right, epoch & M, r, epoch >> 32))[0] & mask)
        x = left << h | right
        if x < n:
            return x


if __name__ == "__main__":
    if len(sys.argv) == 5:
        seed, n, first, count = map(int, sys.argv[1:])
        print(*(order(seed, n, first + i) for i in range(count)))
    else:
        print("{" + ", ".join(str(order(1234, 1000, 995 + p)) for p in range(8)) + "}")
