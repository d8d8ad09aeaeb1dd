/* Lets a program built with a new glibc run on an old one: 2.17 and later, x86-64.
 *
 * A linker binds each symbol to its newest version. Most of those newer than 2.17 are in every
 * glibc under their first version too, and WRAP binds them to that. What an old glibc has not got
 * at all is written out below, or left undefined (WEAK), which the Rust library copes with.
 * packaging/rpm/link-args makes the linker's --wrap options from the lines that begin with either
 * word, and the spec checks the outcome: a symbol that is missing here fails the build. */

#define WRAP(name, version)                                                                        \
	__asm__(".symver first_" #name ", " #name "@" version "\n"                                     \
	        ".globl __wrap_" #name "\n"                                                            \
	        ".hidden __wrap_" #name "\n"                                                           \
	        ".type __wrap_" #name ", @function\n"                                                  \
	        "__wrap_" #name ": jmp *first_" #name "@GOTPCREL(%rip)\n");
#define WEAK(name)

WRAP(dlsym, "GLIBC_2.2.5")
WRAP(pthread_attr_destroy, "GLIBC_2.2.5")
WRAP(pthread_attr_getguardsize, "GLIBC_2.2.5")
WRAP(pthread_attr_getstack, "GLIBC_2.2.5")
WRAP(pthread_attr_init, "GLIBC_2.2.5")
WRAP(pthread_attr_setguardsize, "GLIBC_2.2.5")
WRAP(pthread_attr_setstacksize, "GLIBC_2.2.5")
WRAP(pthread_create, "GLIBC_2.2.5")
WRAP(pthread_detach, "GLIBC_2.2.5")
WRAP(pthread_getattr_np, "GLIBC_2.2.5")
WRAP(pthread_getspecific, "GLIBC_2.2.5")
WRAP(pthread_join, "GLIBC_2.2.5")
WRAP(pthread_key_create, "GLIBC_2.2.5")
WRAP(pthread_key_delete, "GLIBC_2.2.5")
WRAP(pthread_setname_np, "GLIBC_2.12")
WRAP(pthread_setspecific, "GLIBC_2.2.5")
WRAP(pthread_sigmask, "GLIBC_2.2.5")

WEAK(__cxa_thread_atexit_impl)
WEAK(__pthread_get_minstack)
WEAK(getrandom)
WEAK(gettid)
WEAK(posix_spawn_file_actions_addchdir_np)
WEAK(statx)

/* Inline in the headers until 2.33, over these. The 1 is the layout of struct stat. */
struct stat64;
int __xstat64(int layout, const char *path, struct stat64 *stat);
int __lxstat64(int layout, const char *path, struct stat64 *stat);
int __fxstat64(int layout, int fd, struct stat64 *stat);
int __fxstatat64(int layout, int fd, const char *path, struct stat64 *stat, int flags);

int __wrap_stat64(const char *path, struct stat64 *stat) { return __xstat64(1, path, stat); }
int __wrap_lstat64(const char *path, struct stat64 *stat) { return __lxstat64(1, path, stat); }
int __wrap_fstat64(int fd, struct stat64 *stat) { return __fxstat64(1, fd, stat); }
int __wrap_fstatat64(int fd, const char *path, struct stat64 *stat, int flags)
{
	return __fxstatat64(1, fd, path, stat, flags);
}

/* Until 2.34 the program itself, and not glibc, ran its constructors. */
typedef void (*constructor)(int, char **, char **);
extern constructor __init_array_start[] __attribute__((visibility("hidden")));
extern constructor __init_array_end[] __attribute__((visibility("hidden")));

static void run_constructors(int argc, char **argv, char **envp)
{
	for (constructor *each = __init_array_start; each < __init_array_end; each++)
		(*each)(argc, argv, envp);
}

typedef int (*main_function)(int, char **, char **);
int first_start(main_function main, int argc, char **argv, constructor init, void (*fini)(void),
                void (*rtld_fini)(void), void *stack_end);
__asm__(".symver first_start, __libc_start_main@GLIBC_2.2.5");

int __wrap___libc_start_main(main_function main, int argc, char **argv, constructor init,
                             void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
	(void)init;
	return first_start(main, argc, argv, run_constructors, fini, rtld_fini, stack_end);
}
