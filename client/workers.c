/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <errno.h>
#include <stdlib.h>

STAILQ_HEAD(job_list, client__job);

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job_list jobs;
	bool stop;
	unsigned n;
	pthread_t threads[];
};

static void *
worker_main(void *arg)
{
	struct workers *w = arg;
	struct client__job *job;

	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		if ((job = STAILQ_FIRST(&w->jobs)) == NULL) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&w->jobs, next);
		pthread_mutex_unlock(&w->lock);
		job->run(job, false);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int
client__workers_new(struct workers **out, unsigned n_threads, struct err_note *note)
{
	struct workers *w = calloc(1, sizeof(*w) + n_threads * sizeof(w->threads[0]));
	int rc;

	if ((*out = w) == NULL)
		return err_note_set(note, ENOMEM, "worker threads");
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	STAILQ_INIT(&w->jobs);
	for (; w->n < n_threads; w->n++)
		if ((rc = pthread_create(&w->threads[w->n], NULL, worker_main, w)) != 0) {
			err_note_set(note, rc, "worker thread %u of %u", w->n + 1, n_threads);
			client__workers_free(out);
			return rc;
		}
	return 0;
}

void
client__workers_free(struct workers **workers)
{
	struct workers *w = *workers;
	struct client__job *job;

	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->n; i++)
		pthread_join(w->threads[i], NULL);
	while ((job = STAILQ_FIRST(&w->jobs)) != NULL) {
		STAILQ_REMOVE_HEAD(&w->jobs, next);
		job->run(job, true);
	}
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
	*workers = NULL;
}

void
client__work(struct workers *w, struct client__job *job)
{
	pthread_mutex_lock(&w->lock);
	STAILQ_INSERT_TAIL(&w->jobs, job, next);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}
