/* SPDX-License-Identifier: Apache-2.0 */
#include "data/labels/labels.h"

#include <stdint.h>
#include "base/random/random.h"
#include "check.h"

static struct err_note note;

static void
encoder_refuses(void)
{
	struct labels_spec s = {.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 2, .vocab = 10, .n_samples = 3, .tau = 1};
	struct labels_spec k = {.kind = LABELS_KIND_TOPK, .version = LABELS_VERSION, .context = 1, .vocab = 10, .k = 2, .tau = 1};
	struct labels_spec d = {.kind = LABELS_KIND_DENSE, .version = LABELS_VERSION, .context = 1, .vocab = 2, .tau = 1};
	static const struct {
		const char *what;
		int32_t n_unique, ids[3], counts[3];
		int want;
	} sampled[] = {
		{"fine", 2, {1, 9}, {1, 2}, 0}, {"id = V", 2, {1, 10}, {1, 2}, ERR_RANGE}, {"id < 0", 2, {-1, 9}, {1, 2}, ERR_RANGE},
		{"not ascending", 2, {9, 1}, {1, 2}, ERR_RANGE}, {"twice", 2, {1, 1}, {1, 2}, ERR_RANGE},
		{"sum N-1", 2, {1, 9}, {1, 1}, ERR_RANGE}, {"sum N+1", 2, {1, 9}, {2, 2}, ERR_RANGE},
		{"count 0", 2, {1, 9}, {0, 3}, ERR_RANGE}, {"none", 0, {1, 9}, {1, 2}, ERR_RANGE}, {"over N", 4, {1, 2, 3}, {1, 1, 1}, ERR_RANGE},
	};
	static const struct {
		const char *what;
		int32_t ids[2];
		float log_p[2];
		int want;
	} topk[] = {
		{"fine", {3, 1}, {-1, -1}, 0}, {"rounding", {3, 1}, {1e-5f, -20}, 0}, {"id = V", {3, 10}, {-1, -1}, ERR_RANGE},
		{"twice", {3, 3}, {-1, -2}, ERR_RANGE}, {"NaN", {3, 1}, {-1, NAN}, ERR_NONFINITE}, {"over 1", {3, 1}, {0.1f, -9}, ERR_RANGE},
		{"sum over 1", {3, 1}, {-0.5f, -0.5f}, ERR_RANGE}, {"infinite", {3, 1}, {INFINITY, -1}, ERR_RANGE},
	};
	struct labels_buf buf = {0};
	struct hash128 tokens = {1, 2};
	int32_t draws[6] = {9, 9, 0, 1, 2, 3};
	float log_p[2] = {-0.69314718f, -0.69314718f};
	struct labels_unigram *u, *five;
	uint8_t codes[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == ERR_MISMATCH && strcmp(note.place, "unigram") == 0);
	REQUIRE(labels_unigram_new(&five, codes, 5, &note) == 0);
	s.unigram = five;
	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == ERR_MISMATCH && strcmp(note.found, "5") == 0);
	labels_unigram_destroy(&five);
	CHECK(labels_unigram_new(&u, codes, 0, &note) == ERR_RANGE && u == NULL);
	codes[3] = 0;
	CHECK(labels_unigram_new(&u, codes, 10, &note) == ERR_RANGE && u == NULL);
	codes[3] = 1;
	REQUIRE(labels_unigram_new(&u, codes, 10, &note) == 0);
	s.unigram = u;

	for (size_t i = 0; i < sizeof(sampled) / sizeof(sampled[0]); i++) {
		int32_t n_unique[2] = {1, sampled[i].n_unique}, ids[6] = {5}, counts[6] = {3};

		memcpy(ids + 3, sampled[i].ids, sizeof(sampled[i].ids));
		memcpy(counts + 3, sampled[i].counts, sizeof(sampled[i].counts));
		CHECK_ROW(sampled[i].what, labels_encode_sampled(&s, tokens, n_unique, ids, counts, &buf, &note) == sampled[i].want);
		CHECK_ROW(sampled[i].what, sampled[i].want == 0 ? buf.len > 0 : buf.len == 0 && strstr(note.place, "row 1") != NULL);
	}
	for (size_t i = 0; i < sizeof(topk) / sizeof(topk[0]); i++) {
		CHECK_ROW(topk[i].what, labels_encode_topk(&k, tokens, topk[i].ids, topk[i].log_p, &buf, &note) == topk[i].want);
		CHECK_ROW(topk[i].what, (topk[i].want == 0) == (buf.len > 0));
	}
	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == 0);
	draws[4] = 10;
	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == ERR_RANGE && strstr(note.place, "row 1") != NULL);
	draws[4] = -1;
	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == ERR_RANGE);
	CHECK(labels_encode_draws(&k, tokens, draws, &buf, &note) == ERR_MISMATCH);
	CHECK(labels_encode_dense(&d, tokens, log_p, &buf, &note) == 0);
	log_p[1] = -1;
	CHECK(labels_encode_dense(&d, tokens, log_p, &buf, &note) == ERR_RANGE && buf.len == 0);
	d.context = LABELS_CONTEXT_MAX;		/* 2^24 * 2^31 * 2 bytes: rejected before anything is read */
	d.vocab = INT32_MAX;
	CHECK(labels_encode_dense(&d, tokens, log_p, &buf, &note) == ERR_RANGE);
	labels_unigram_destroy(&u);
	labels_buf_free(&buf);
}

/* The weight that a byte of a unigram table represents, as defined in labels.h. */
static double
weight_of(uint8_t c)
{
	return c < 16 ? c : (8 + c % 8) * pow(2, c / 8 - 1);
}

/*
 * The unigram table of counts. The weights are the counts if tau is below 0.5, else counts^(3/4); codes keep
 * 4 significant bits of them. Every id has a probability near its weight's share, and their sum is 1.
 * Vocabularies of one id up to 200,000.
 */
static void
unigram_of_counts(void)
{
	static const uint32_t sizes[3] = {1, 1000, 200000};
	uint64_t *counts = malloc(200000 * sizeof(*counts));

	for (int i = 0; i < 6; i++) {
		uint32_t vocab = sizes[i / 2];
		double tau = i % 2 ? 0.25 : 1, power = i % 2 ? 1 : 0.75, total = 0, sum = 0;
		struct labels_unigram *u;

		for (uint32_t v = 0; v < vocab; v++) {
			counts[v] = 1 + 100000000 / (1 + (uint64_t)v * 7 % vocab);
			total += pow((double)counts[v], power);
		}
		REQUIRE(labels_unigram_from_counts(&u, counts, vocab, tau, &note) == 0);
		CHECK(labels_unigram_vocab(u) == vocab);
		for (uint32_t v = 0; v < vocab; v++)
			sum += weight_of(labels_unigram_bytes(u)[v]);
		for (uint32_t v = 0; v < vocab; v++) {
			double p = weight_of(labels_unigram_bytes(u)[v]) / sum, want = pow((double)counts[v], power) / total;

			CHECK(p > 0);
			/* weights are truncated to 4 bits: their sum may be too small by up to an eighth */
			if (want > 1e-3)
				CHECK_ROW("probability", p > 0.85 * want && p < 1.16 * want);
		}
		labels_unigram_destroy(&u);
	}
	free(counts);
}

/* Rows drawn from few pools, so that many are similar: small and large rows, with expensive and cheap ids. */
static void
round_trip_of_likes(void)
{
	enum { L = 300, N_MAX = 200, V = 3000 };
	static const uint32_t samples[4] = {1, 50, 64, N_MAX};
	static int32_t draws[L * N_MAX], seen[V];
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	struct hash128 tokens = {3, 4};
	struct labels_unigram *u;
	uint8_t codes[V];

	for (int v = 0; v < V; v++)
		codes[v] = (uint8_t)(1 + v * 89 % 255);
	REQUIRE(labels_unigram_new(&u, codes, V, &note) == 0);
	for (int s = 0; s < 4; s++) {
		uint32_t N = samples[s];
		struct labels_spec spec = {.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = L, .vocab = V, .n_samples = N, .tau = 1,
		    .unigram = u};

		for (uint32_t t = 0; t < L; t++)
			for (uint32_t d = 0; d < N; d++) {
				uint32_t r[4];

				random_words(8, RANDOM_PURPOSE_GENERATE, t, d, N, r);
				draws[t * N + d] = (int32_t)(t % 7 * 400 + (uint32_t)((uint64_t)(r[0] >> 20) * (r[1] >> 20) * 500 >> 24));
			}
		labels_batch_clear(&batch);
		REQUIRE(labels_encode_draws(&spec, tokens, draws, &buf, &note) == 0);
		REQUIRE(labels_decode(&spec, tokens, buf.bytes, buf.len, &batch, &note) == 0);
		for (uint32_t t = 0; t < L; t++) {
			for (uint32_t d = 0; d < N; d++)
				seen[draws[t * N + d]]++;
			for (int64_t e = batch.row_offsets[t]; e < batch.row_offsets[t + 1]; e++) {
				CHECK(lrint((double)batch.weights[e] * N) == seen[batch.ids[e]]);
				seen[batch.ids[e]] = 0;
			}
			for (uint32_t d = 0; d < N; d++)
				CHECK(seen[draws[t * N + d]] == 0);
		}
	}
	labels_unigram_destroy(&u);
	labels_batch_free(&batch);
	labels_buf_free(&buf);
}

/* Random rows are decoded as they were encoded; for topk t is within a factor exp(1/4096). */
static void
round_trip(void)
{
	enum { L = 17, N = 50, K = 20, V = 1000 };
	static int32_t draws[L * N], ids[L * K];
	static float log_p[L * K], dense[L * V];
	struct labels_spec spec = {.version = LABELS_VERSION, .context = L, .vocab = V, .n_samples = N, .k = K, .tau = 1};
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	struct hash128 tokens = {3, 4};
	struct labels_unigram *u;
	uint8_t codes[V];
	double worst = 0;

	for (uint32_t i = 0; i < L * N; i++) {
		uint32_t r[4];

		random_words(7, RANDOM_PURPOSE_GENERATE, 0, i, 0, r);
		/* small ids are frequent */
		draws[i] = (int32_t)((uint64_t)(r[0] >> 20) * (r[1] >> 20) * V >> 24);
	}
	spec.kind = LABELS_KIND_SAMPLED;
	memset(codes, 9, sizeof(codes));
	REQUIRE(labels_unigram_new(&u, codes, V, &note) == 0);
	spec.unigram = u;
	REQUIRE(labels_encode_draws(&spec, tokens, draws, &buf, &note) == 0);
	REQUIRE(labels_decode(&spec, tokens, buf.bytes, buf.len, &batch, &note) == 0);
	for (int t = 0; t < L; t++) {
		int seen = 0;

		for (int64_t e = batch.row_offsets[t]; e < batch.row_offsets[t + 1]; e++) {
			int count = 0;

			for (int d = 0; d < N; d++)
				count += draws[t * N + d] == batch.ids[e];
			CHECK(count > 0 && batch.weights[e] == (float)count / N);
			CHECK(e == batch.row_offsets[t] || batch.ids[e] > batch.ids[e - 1]);
			seen += count;
		}
		CHECK(seen == N);
	}
	labels_batch_clear(&batch);

	spec.kind = LABELS_KIND_TOPK;
	for (int t = 0; t < L; t++)
		for (int i = 0; i < K; i++) {
			uint32_t r[4];

			random_words(8, RANDOM_PURPOSE_GENERATE, 0, (uint32_t)(t * K + i), 0, r);
			ids[t * K + i] = (i * 389 + t) % V;
			log_p[t * K + i] = -3.5f - 0.8f * (float)i - 0.5f * (float)random_uniform53(r[0], r[1]);
		}
	REQUIRE(labels_encode_topk(&spec, tokens, ids, log_p, &buf, &note) == 0);
	CHECK(buf.len == LABELS_OVERHEAD_BYTES + L * K * 4);
	REQUIRE(labels_decode(&spec, tokens, buf.bytes, buf.len, &batch, &note) == 0);
	CHECK(batch.row_offsets[L] == L * K);
	for (int t = 0; t < L; t++) {
		double left = 1;

		for (int i = 0; i < K; i++) {
			for (int64_t e = batch.row_offsets[t]; e < batch.row_offsets[t + 1]; e++)
				if (batch.ids[e] == ids[t * K + i]) {
					worst = fmax(worst, fabs(log((double)batch.weights[e]) - (double)log_p[t * K + i]));
					left -= (double)batch.weights[e];
				}
		}
		CHECK_NEAR(batch.tail[t], left, 1e-6);
	}
	CHECK(worst > 1.0 / 5000 && worst <= 1.0 / 4096 + 1e-6);
	labels_batch_clear(&batch);

	spec.kind = LABELS_KIND_DENSE;
	for (int t = 0; t < L; t++) {
		double sum = 0;

		for (int v = 0; v < V; v++)
			sum += exp(-0.01 * ((v * 7 + t) % V));
		for (int v = 0; v < V; v++)
			dense[t * V + v] = (float)(-0.01 * ((v * 7 + t) % V) - log(sum));
	}
	REQUIRE(labels_encode_dense(&spec, tokens, dense, &buf, &note) == 0);
	REQUIRE(labels_decode(&spec, tokens, buf.bytes, buf.len, &batch, &note) == 0);
	for (int i = 0; i < L * V; i++)
		CHECK(fabs(log((double)batch.dense[i]) - (double)dense[i]) <= 1.0 / 2048);
	labels_unigram_destroy(&u);
	labels_batch_free(&batch);
	labels_buf_free(&buf);
}

static void
spec_ranges(void)
{
	static const struct labels_spec good = {.kind = LABELS_KIND_TOPK, .version = LABELS_VERSION, .context = 8, .vocab = 10, .k = 10, .tau = 1};
	static const struct {
		const char *field;
		struct labels_spec spec;
		int want;
	} rows[] = {
		{"kind", {.kind = 0, .version = LABELS_VERSION, .context = 8, .vocab = 10, .k = 3, .tau = 1}, ERR_RANGE},
		{"kind", {.kind = 4, .version = LABELS_VERSION, .context = 8, .vocab = 10, .k = 3, .tau = 1}, ERR_RANGE},
		{"version", {.kind = 2, .version = 1, .context = 8, .vocab = 10, .k = 3, .tau = 1}, ERR_VERSION},
		{"context", {.kind = 2, .version = LABELS_VERSION, .context = 0, .vocab = 10, .k = 3, .tau = 1}, ERR_RANGE},
		{"vocab", {.kind = 2, .version = LABELS_VERSION, .context = 8, .vocab = 1u << 31, .k = 3, .tau = 1}, ERR_RANGE},
		{"k", {.kind = 2, .version = LABELS_VERSION, .context = 8, .vocab = 10, .k = 11, .tau = 1}, ERR_RANGE},
		{"n_samples", {.kind = 1, .version = LABELS_VERSION, .context = 8, .vocab = 10, .n_samples = 0, .tau = 1}, ERR_RANGE},
		{"tau", {.kind = 2, .version = LABELS_VERSION, .context = 8, .vocab = 10, .k = 3, .tau = 0}, ERR_RANGE},
		{"tau", {.kind = 2, .version = LABELS_VERSION, .context = 8, .vocab = 10, .k = 3, .tau = NAN}, ERR_RANGE},
		{"tau", {.kind = 2, .version = LABELS_VERSION, .context = 8, .vocab = 10, .k = 3, .tau = INFINITY}, ERR_RANGE},
	};

	CHECK(labels_spec_check(&good, &note) == 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_ROW(rows[i].field, labels_spec_check(&rows[i].spec, &note) == rows[i].want);
		CHECK_STR(note.place, rows[i].field);
	}
}

/* Hashes from make.py. Every field of an identity changes its hash, except those that a kind does not use. */
static void
identities(void)
{
	const struct labels_set set = {.corpus = {1, 2}, .teacher = {3, 4}, .compute_class = "fp32/openblas",
	    .spec = {.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 128, .vocab = 4096, .n_samples = 50, .seed = 17, .tau = 0.25,
		.unigram_hash = {5, 6}}};
	const struct labels_scores_set scored = {.corpus = {1, 2}, .scorer = {3, 4}, .compute_class = "fp32/openblas", .context = 128,
	    .version = LABELS_SCORES_VERSION};
	struct labels_set other[12];
	struct labels_scores_set other_scored[5];
	char hex[HASH_HEX_BYTES], text[LABELS_TEXT_BYTES];
	enum labels_kind kind;

	CHECK_STR(hash_hex(labels_set_hash(&set), hex), "b805bce81cf1728c66476974041583fe");
	CHECK_STR(hash_hex(labels_scores_set_hash(&scored), hex), "6790a6296a4da309fde58afc0f53b950");
	CHECK_STR(labels_set_text(&set, text, sizeof(text)), "labels=b805bce81cf1728c66476974041583fe "
	    "corpus=00000000000000010000000000000002 L=128 vocab=4096 teacher=00000000000000030000000000000004 compute=fp32/openblas "
	    "tau=0.25 kind=sampled n=50 seed=17 version=3");
	CHECK(strstr(labels_scores_set_text(&scored, text, sizeof(text)), "compute=fp32/openblas version=1") != NULL);

	for (int i = 0; i < 12; i++)
		other[i] = set;
	other[1].corpus.lo++;
	other[2].teacher.hi++;
	strcpy(other[3].compute_class, "bf16/onednn");
	other[4].spec.kind = LABELS_KIND_DENSE;
	other[5].spec.context++;
	other[6].spec.vocab++;
	other[7].spec.n_samples++;
	other[8].spec.seed++;
	other[9].spec.tau = 0.5;
	other[10].spec.version++;
	other[11].spec.unigram_hash.lo++;
	for (int i = 0; i < 12; i++)
		for (int j = 0; j < i; j++)
			CHECK(!hash_equal(labels_set_hash(&other[i]), labels_set_hash(&other[j])));
	other[1] = set;
	other[1].spec.k = 9;
	CHECK(hash_equal(labels_set_hash(&set), labels_set_hash(&other[1])));
	other[4].spec.seed = 99;
	other[5] = set;
	other[5].spec.kind = LABELS_KIND_DENSE;
	CHECK(hash_equal(labels_set_hash(&other[4]), labels_set_hash(&other[5])));

	for (int i = 0; i < 5; i++)
		other_scored[i] = scored;
	other_scored[0].corpus.hi++;
	other_scored[1].scorer.lo++;
	strcpy(other_scored[2].compute_class, "fp32/openblat");
	other_scored[3].context++;
	other_scored[4].version++;
	for (int i = 0; i < 5; i++)
		CHECK(!hash_equal(labels_scores_set_hash(&scored), labels_scores_set_hash(&other_scored[i])));

	CHECK(labels_kind_from_name("topk", &kind) == 0 && kind == LABELS_KIND_TOPK);
	CHECK(labels_kind_from_name("?", &kind) == ERR_NOT_FOUND);
	CHECK_STR(labels_kind_name(LABELS_KIND_DENSE), "dense");
	CHECK_STR(labels_kind_name(9), "?");
}

int
main(void)
{
	encoder_refuses();
	round_trip();
	round_trip_of_likes();
	spec_ranges();
	identities();
	unigram_of_counts();
	return check_done();
}
