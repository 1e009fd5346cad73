/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_pre - the splits that the names in tokenizer.ggml.pre stand for. The names are llama.cpp's; the
 * expressions are those in the tokenizer.json of the models with these names. llama.cpp does not apply NFC;
 * it is set here where these models apply it.
 */
#include "engine/gguf/gguf_internal.h"

#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define ENDS "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define REST " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" ENDS
#define LLAMA3 CONTRACTIONS "|" WORDS "\\p{N}{1,3}|" REST
#define QWEN2 CONTRACTIONS "|" WORDS "\\p{N}|" REST

/* Words that begin with a capital letter, or consist of capital letters; `end` may follow a word. */
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED(end) "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" end "|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*" end "|"
#define SLASHES " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" ENDS

/* Chinese characters with kana, or with Korean as in DeepSeek's first models. */
#define KANA "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"
#define CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"
#define ASCII_PUNCTUATION "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define BLOOM " ?[^(\\s|.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c)]+"

static const struct gguf__pre pres[] = {
	{"gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 jais trillion granite-docling"},
	{"olmo mpt", .nfc = true},
	{"smollm refact starcoder codeshell exaone minerva-7b mellum2", .digits = true},
	{"falcon", .splits = {"[0-9][0-9][0-9]"}, .falcon = true},
	{"command-r", .digits = true, .nfc = true},
	{"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", .splits = {LLAMA3}, .ignore_merges = true, .bos = true},
	{"smaug-bpe dbrx glm4 chatglm-bpe", .splits = {LLAMA3}},
	{"qwen2 deepseek-r1-qwen megrez", .splits = {QWEN2}, .nfc = true},
	{"stablelm2 hunyuan solar-open grok-2 kormo f2llmv2", .splits = {QWEN2}},
	{"qwen35", .splits = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" ENDS}, .nfc = true},
	{"seed-coder", .splits = {CONTRACTIONS "|" WORDS "\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" ENDS}},
	{"bailingmoe bailingmoe2 llada-moe", .splits = {"'(?i:[sdmt]|ll|ve|re)|" WORDS "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|"
	    "\\s+(?!\\S)|\\s+"}},
	{"ufakzeka", .splits = {WORDS "\\p{N}|" REST}},
	{"tekken", .splits = {CASED("") "\\p{N}|" SLASHES}, .ignore_merges = true, .bos = true},
	{"gpt-4o llama4 kanana2 minimax-m2 talkie", .splits = {CASED(CONTRACTIONS "?") "\\p{N}{1,3}|" SLASHES}},
	{"deepseek-coder", .splits = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
	{"deepseek-v3 hunyuan-dense joyai-llm hy_v4", .splits = {"\\p{N}{1,3}", KANA, ASCII_PUNCTUATION "[A-Za-z]+|"
	    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" ENDS}},
	{"bloom gpt3-finnish poro-chat", .splits = {BLOOM}},
	{"viking", .splits = {BLOOM, "\\p{N}"}},
};

const struct gguf__pre *
gguf__pre(const struct gguf__text *name)
{
	for (size_t i = 0; i < sizeof(pres) / sizeof(pres[0]); i++) {
		const char *s = pres[i].names;

		for (size_t n; *s != '\0'; s += n + (s[n] == ' ')) {
			n = strcspn(s, " ");
			if (n == name->len && memcmp(s, name->s, n) == 0)
				return &pres[i];
		}
	}
	return NULL;
}

const char *
gguf__pre_names(size_t i)
{
	return i < sizeof(pres) / sizeof(pres[0]) ? pres[i].names : NULL;
}
