/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library for LD_PRELOAD with one of our programs: it counts the program's calls on files below a folder,
 * makes the n-th call of a kind fail, or records all calls with their bytes, to replay power cuts.
 *
 * System calls are caught in the kernel, with a seccomp filter that raises SIGSYS, because those of stdio and
 * LMDB do not go through the dynamic linker. mmap and malloc are caught by the dynamic linker, and only if
 * the program itself, LMDB, jansson or protobuf-c calls them.
 *
 *	SHIM_UNDER=DIR		absolute: only calls on files below it
 *	SHIM_STATE=FILE		struct state below: the counts, and what was made to fail
 *	SHIM_FAIL=KIND:N:ERRNO	the N-th call of this kind fails
 *	SHIM_LOG=FILE		records, see struct record
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <link.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

enum kind { K_READ, K_WRITE, K_PWRITE, K_FSYNC, K_FDATASYNC, K_RENAME, K_FTRUNCATE, K_OPEN, K_MKDIR, K_UNLINK, K_MMAP, K_MALLOC, KINDS };
static const char *const names[KINDS] = {"read", "write", "pwrite", "fsync", "fdatasync", "rename", "ftruncate", "open", "mkdir", "unlink", "mmap",
    "malloc"};

static struct state {			/* little-endian, read by the driver */
	uint64_t n[KINDS];
	uint64_t n_failed;
	char path[PATH_MAX];		/* file of the failed call; empty for malloc */
} *state;

/*
 * A successful call: this struct, followed by path and bytes. Kinds: W write, S sync of a file, D sync of a
 * folder, O created or truncated, R rename (bytes: the new name), U unlink or rmdir, M mkdir, T truncate (at:
 * the size), E text to standard output or error.
 */
struct record {
	char kind, dsync, pad[2];
	uint32_t n_path, n_bytes, pad2;
	uint64_t inode, at;
};

static char under[PATH_MAX];
static size_t n_under;
static enum kind fail_kind = KINDS;
static uint64_t fail_at;
static int fail_errno, log_fd = -1;
static char lock;

long shim_raw(long nr, long a, long b, long c, long d, long e, long f);
extern const char shim_raw_end[];
__asm__(".text\n.globl shim_raw\n.hidden shim_raw\n.type shim_raw,@function\nshim_raw:\n"
    "mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\nmov 8(%rsp),%r9\nsyscall\n"
    ".globl shim_raw_end\n.hidden shim_raw_end\nshim_raw_end:\nret\n.size shim_raw,.-shim_raw\n");

#define RAW(nr, a, b, c, d) shim_raw(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

static bool
below(const char *path)
{
	return n_under > 0 && strncmp(path, under, n_under) == 0 && (path[n_under] == '/' || path[n_under] == '\0');
}

/* The path of the file behind a descriptor; false: not below SHIM_UNDER. */
static bool
of_fd(int fd, char path[PATH_MAX])
{
	char link[40] = "/proc/self/fd/";
	char digits[12];
	size_t n = 0, at = 14;
	long len;

	if (fd < 0)
		return false;
	do
		digits[n++] = (char)('0' + fd % 10);
	while ((fd /= 10) > 0);
	while (n > 0)
		link[at++] = digits[--n];
	link[at] = '\0';
	if ((len = RAW(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1)) <= 0)
		return false;
	path[len] = '\0';
	return below(path);
}

/* The absolute path of a path argument; false: not below SHIM_UNDER. */
static bool
of_path(int dir, const char *name, char path[PATH_MAX])
{
	size_t n = strlen(name), at = 0;
	long len;

	if (name[0] != '/') {
		if (dir == AT_FDCWD) {
			if ((len = RAW(SYS_readlinkat, AT_FDCWD, "/proc/self/cwd", path, PATH_MAX - 1)) <= 0)
				return false;
			at = (size_t)len;
		} else {
			path[0] = '\0';
			of_fd(dir, path);
			at = strlen(path);
		}
		while (strncmp(name, "./", 2) == 0) {
			name += 2;
			n -= 2;
		}
		if (at + 1 < PATH_MAX)
			path[at++] = '/';
	}
	if (at + n >= PATH_MAX)
		return false;
	memcpy(path + at, name, n + 1);
	return below(path);
}

static bool
fails(enum kind kind, const char *path)
{
	if (state == NULL || __atomic_add_fetch(&state->n[kind], 1, __ATOMIC_RELAXED) != fail_at || kind != fail_kind)
		return false;
	__atomic_add_fetch(&state->n_failed, 1, __ATOMIC_RELAXED);
	strcpy(state->path, path);
	return true;
}

static void
note(char kind, const char *path, uint64_t inode, uint64_t at, bool dsync, const struct iovec *v, int n_v, size_t n_bytes)
{
	struct record r = {.kind = kind, .dsync = dsync, .n_path = (uint32_t)strlen(path), .n_bytes = (uint32_t)n_bytes, .inode = inode, .at = at};

	RAW(SYS_write, log_fd, &r, sizeof(r), 0);
	RAW(SYS_write, log_fd, path, r.n_path, 0);
	for (int i = 0; i < n_v && n_bytes > 0; i++) {
		size_t take = v[i].iov_len < n_bytes ? v[i].iov_len : n_bytes;

		RAW(SYS_write, log_fd, v[i].iov_base, take, 0);
		n_bytes -= take;
	}
}

static uint64_t
inode_of(int fd, bool *is_dir)
{
	struct stat st;

	if (RAW(SYS_fstat, fd, &st, 0, 0) != 0)
		return 0;
	*is_dir = S_ISDIR(st.st_mode);
	return st.st_ino;
}

static void
note_call(long nr, const long a[6], long rc, enum kind kind, const char *path, const char *second, bool was_there)
{
	struct iovec one = {(void *)a[1], (size_t)rc}, name = {(void *)second, strlen(second)};
	const struct iovec *v = &one;
	bool is_dir = false, dsync;
	uint64_t inode, at;
	int n_v = 1;

	switch (kind) {
	case K_WRITE:
	case K_PWRITE:
		if (nr == SYS_writev || nr == SYS_pwritev) {
			v = (const struct iovec *)a[1];
			n_v = (int)a[2];
		}
		inode = inode_of((int)a[0], &is_dir);
		dsync = (RAW(SYS_fcntl, a[0], F_GETFL, 0, 0) & O_DSYNC) != 0;
		at = kind == K_PWRITE ? (uint64_t)a[3] : (uint64_t)RAW(SYS_lseek, a[0], 0, SEEK_CUR, 0) - (uint64_t)rc;
		note('W', path, inode, at, dsync, v, n_v, (size_t)rc);
		break;
	case K_FSYNC:
	case K_FDATASYNC:
		inode = inode_of((int)a[0], &is_dir);
		note(is_dir ? 'D' : 'S', path, inode, 0, false, NULL, 0, 0);
		break;
	case K_OPEN: {
		long flags = nr == SYS_openat ? a[2] : a[1];

		if ((flags & O_TRUNC) != 0 || ((flags & O_CREAT) != 0 && !was_there))
			note('O', path, inode_of((int)rc, &is_dir), 0, false, NULL, 0, 0);
		break;
	}
	case K_RENAME:
		note('R', path, 0, 0, false, &name, 1, name.iov_len);
		break;
	case K_UNLINK:
		note('U', path, 0, 0, false, NULL, 0, 0);
		break;
	case K_MKDIR:
		note('M', path, 0, 0, false, NULL, 0, 0);
		break;
	case K_FTRUNCATE:
		note('T', path, inode_of((int)a[0], &is_dir), (uint64_t)a[1], false, NULL, 0, 0);
		break;
	default:
		break;
	}
}

/* Makes the trapped call fail, or executes and records it. Calls only async-signal-safe functions. */
static long
call(long nr, const long a[6])
{
	char path[PATH_MAX] = "", second[PATH_MAX] = "";
	bool ours = false, was_there = false, locked;
	struct stat st;
	enum kind kind = K_READ;
	long rc;

	switch (nr) {
	case SYS_read: case SYS_pread64: kind = K_READ; ours = of_fd((int)a[0], path); break;
	case SYS_write: case SYS_writev: kind = K_WRITE; ours = of_fd((int)a[0], path); break;
	case SYS_pwrite64: case SYS_pwritev: kind = K_PWRITE; ours = of_fd((int)a[0], path); break;
	case SYS_fsync: kind = K_FSYNC; ours = of_fd((int)a[0], path); break;
	case SYS_fdatasync: kind = K_FDATASYNC; ours = of_fd((int)a[0], path); break;
	case SYS_ftruncate: kind = K_FTRUNCATE; ours = of_fd((int)a[0], path); break;
	case SYS_open: kind = K_OPEN; ours = of_path(AT_FDCWD, (const char *)a[0], path); break;
	case SYS_openat: kind = K_OPEN; ours = of_path((int)a[0], (const char *)a[1], path); break;
	case SYS_mkdir: kind = K_MKDIR; ours = of_path(AT_FDCWD, (const char *)a[0], path); break;
	case SYS_mkdirat: kind = K_MKDIR; ours = of_path((int)a[0], (const char *)a[1], path); break;
	case SYS_unlink: case SYS_rmdir: kind = K_UNLINK; ours = of_path(AT_FDCWD, (const char *)a[0], path); break;
	case SYS_unlinkat: kind = K_UNLINK; ours = of_path((int)a[0], (const char *)a[1], path); break;
	case SYS_rename:
		kind = K_RENAME;
		ours = of_path(AT_FDCWD, (const char *)a[0], path);
		of_path(AT_FDCWD, (const char *)a[1], second);
		break;
	case SYS_renameat: case SYS_renameat2:
		kind = K_RENAME;
		ours = of_path((int)a[0], (const char *)a[1], path);
		of_path((int)a[2], (const char *)a[3], second);
		break;
	}
	if (ours && fails(kind, path))
		return -fail_errno;
	locked = log_fd >= 0 && ours && kind != K_READ;
	while (locked && __atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
		;
	if (locked && kind == K_OPEN)
		was_there = RAW(SYS_newfstatat, AT_FDCWD, path, &st, 0) == 0;
	if (log_fd >= 0 && nr == SYS_write && (a[0] == 1 || a[0] == 2) && !ours) {
		struct iovec text = {(void *)a[1], (size_t)a[2]};

		while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
			;
		locked = true;
		note('E', "", 0, 0, false, &text, 1, (size_t)a[2]);
	}
	rc = shim_raw(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (locked && ours && rc >= 0)
		note_call(nr, a, rc, kind, path, second, was_there);
	if (locked)
		__atomic_clear(&lock, __ATOMIC_RELEASE);
	return rc;
}

static void
on_sigsys(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	long a[6] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]};
	int saved = errno;

	(void)sig;
	r[REG_RAX] = call(info->si_syscall, a);
	errno = saved;
}

/* ---- calls through the dynamic linker ---- */

#define REAL(name) static __typeof__(name) *real; if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #name)

static struct { uintptr_t from, to; } callers[8];
static size_t n_callers;

static int
note_caller(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *slash = strrchr(info->dlpi_name, '/'), *name = slash == NULL ? info->dlpi_name : slash + 1;

	(void)size;
	(void)arg;
	if (n_callers == 8 || (name[0] != '\0' && strncmp(name, "liblmdb", 7) != 0 && strncmp(name, "libjansson", 10) != 0 &&
	    strncmp(name, "libprotobuf-c", 13) != 0))
		return 0;
	callers[n_callers].from = UINTPTR_MAX;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type != PT_LOAD || (p->p_flags & PF_X) == 0)
			continue;
		callers[n_callers].from = info->dlpi_addr + p->p_vaddr;
		callers[n_callers].to = callers[n_callers].from + p->p_memsz;
	}
	n_callers += callers[n_callers].from != UINTPTR_MAX;
	return 0;
}

static bool
memory_fails(enum kind kind, const void *from)
{
	for (size_t i = 0; i < n_callers; i++)
		if ((uintptr_t)from >= callers[i].from && (uintptr_t)from < callers[i].to)
			return fails(kind, "");
	return false;
}

#define MEMORY_FAILS memory_fails(K_MALLOC, __builtin_return_address(0))

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static void *
no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

void *
malloc(size_t n)
{
	return MEMORY_FAILS ? no_memory() : __libc_malloc(n);
}

void *
calloc(size_t n, size_t each)
{
	return MEMORY_FAILS ? no_memory() : __libc_calloc(n, each);
}

void *
realloc(void *p, size_t n)
{
	return MEMORY_FAILS ? no_memory() : __libc_realloc(p, n);
}

void *
aligned_alloc(size_t align, size_t n)
{
	return MEMORY_FAILS ? no_memory() : __libc_memalign(align, n);
}

int
posix_memalign(void **out, size_t align, size_t n)
{
	if (MEMORY_FAILS)
		return ENOMEM;
	*out = __libc_memalign(align, n);
	return *out == NULL ? ENOMEM : 0;
}

void *
mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
	char path[PATH_MAX] = "";

	of_fd(fd, path);
	if (memory_fails(K_MMAP, __builtin_return_address(0)) && (state != NULL)) {
		strcpy(state->path, path);
		errno = fail_errno;
		return MAP_FAILED;
	}
	REAL(mmap);
	return real(at, n, prot, flags, fd, from);
}

/* Removes SIGSYS from a mask: a thread that blocks it would be killed at its first trapped call. */
static const sigset_t *
without_sigsys(const sigset_t *set, sigset_t *copy)
{
	if (set == NULL)
		return NULL;
	*copy = *set;
	sigdelset(copy, SIGSYS);
	return copy;
}

int
pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t copy;

	REAL(pthread_sigmask);
	return real(how, without_sigsys(set, &copy), old);
}

int
sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t copy;

	REAL(sigprocmask);
	return real(how, without_sigsys(set, &copy), old);
}

static void
read_fail(const char *text)
{
	char name[16];
	int error;

	if (text == NULL || sscanf(text, "%15[a-z]:%lu:%d", name, &fail_at, &error) != 3)
		return;
	fail_errno = error;
	for (fail_kind = 0; fail_kind < KINDS && strcmp(names[fail_kind], name) != 0; fail_kind++)
		;
}

__attribute__((constructor)) static void
begin(void)
{
	static const unsigned calls[] = {SYS_read, SYS_pread64, SYS_write, SYS_writev, SYS_pwrite64, SYS_pwritev, SYS_fsync, SYS_fdatasync,
	    SYS_ftruncate, SYS_open, SYS_openat, SYS_mkdir, SYS_mkdirat, SYS_unlink, SYS_rmdir, SYS_unlinkat, SYS_rename, SYS_renameat, SYS_renameat2};
	enum { N = sizeof(calls) / sizeof(calls[0]) };
	const char *dir = getenv("SHIM_UNDER"), *file = getenv("SHIM_STATE"), *log = getenv("SHIM_LOG");
	uint64_t end = (uintptr_t)shim_raw_end;
	struct sock_filter code[N + 8], *p = code;
	struct sock_fprog program = {.filter = code};
	struct sigaction on = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
	int fd;

	if (dir == NULL || file == NULL || strlen(dir) >= sizeof(under))
		return;
	if ((fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0 || ftruncate(fd, sizeof(*state)) != 0)
		_exit(99);
	if (log != NULL && (log_fd = fcntl(open(log, O_WRONLY | O_CREAT | O_APPEND, 0666), F_DUPFD_CLOEXEC, 900)) < 0)
		_exit(99);
	dl_iterate_phdr(note_caller, NULL);
	read_fail(getenv("SHIM_FAIL"));
	n_under = strlen(strcpy(under, dir));
	/* calls made by shim_raw are allowed; other calls in the list are trapped */
	*p++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer));
	*p++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)end, 0, 3);
	*p++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
	*p++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(end >> 32), 0, 1);
	*p++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	*p++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < N; i++)
		*p++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], N - i, 0);
	*p++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	*p++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
	program.len = (unsigned short)(p - code);
	if (sigaction(SIGSYS, &on, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
		_exit(99);
	if ((state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
		_exit(99);
}
