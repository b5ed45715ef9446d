// Only for the library of a wheel, linked with --wrap=dlsym: what glibc has newly versioned since 2.28, in older words,
// so that the library also loads where glibc is older than on the machine that compiles it.
extern "C" {

// Read by libstdc++'s reference counts to leave out atomic operations; 0: there may be several threads.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

void* oldest_dlsym(void* handle, const char* name);
__asm__(".symver oldest_dlsym,dlsym@GLIBC_2.2.5");

__attribute__((visibility("hidden"))) void* __wrap_dlsym(void* handle, const char* name) {
  return oldest_dlsym(handle, name);
}
}
