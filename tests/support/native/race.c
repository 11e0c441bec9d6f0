/* SPDX-License-Identifier: Apache-2.0 */
/*
 * race FORM NUMBER
 *
 * Makes one call of each kind, the first of them as the very first system calls of the program: there is no C library
 * that makes others before. Which kind comes first depends on NUMBER. Writes FORM, NUMBER and the errno of each kind
 * (0: it was let through) as one line to stdout. FORM "fork": a child does all this, and the program waits for it.
 * Exits with 0 if the line was written. Must not know policies.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define PORT 2222 /* nobody listens there */
#define BIND_PORTS 10000 /* + NUMBER is what it binds: two that are let through do not meet */
#define KINDS 6 /* connect by TCP, sendto by UDP, bind of TCP; of each IPv4, then IPv6 */

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "+a"(number)
			 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return number;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\nbl begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "system calls of this processor: not written yet"
#endif

static struct sockaddr_in v4;
static struct sockaddr_in6 v6;
static char line[256];
static int length;

static void put_word(const char *word)
{
	while (*word)
		line[length++] = *word++;
}

static void put_number(unsigned long number)
{
	char digits[24];
	int count = 0;

	do
		digits[count++] = (char)('0' + number % 10);
	while (number /= 10);
	line[length++] = ' ';
	while (count)
		line[length++] = digits[--count];
}

static unsigned long number_in(const char *digits)
{
	unsigned long found = 0;

	for (; *digits >= '0' && *digits <= '9'; digits++)
		found = found * 10 + (unsigned long)(*digits - '0');
	return found;
}

/* The errno of a call of this kind on a fresh socket, which stays open. */
static unsigned long errno_of(unsigned long kind, unsigned long number)
{
	int is_v6 = kind % 2, is_udp = kind / 2 == 1;
	long address = is_v6 ? (long)&v6 : (long)&v4, size = is_v6 ? sizeof(v6) : sizeof(v4);
	long fd = call(SYS_socket, is_v6 ? AF_INET6 : AF_INET, is_udp ? SOCK_DGRAM : SOCK_STREAM, 0, 0, 0, 0);
	long got = fd;

	v4.sin_port = v6.sin6_port = htons(kind < 4 ? PORT : (unsigned short)(BIND_PORTS + number));
	if (fd >= 0 && is_udp)
		got = call(SYS_sendto, fd, (long)"x", 1, 0, address, size);
	else if (fd >= 0)
		got = call(kind < 2 ? SYS_connect : SYS_bind, fd, address, size, 0, 0, 0);
	return got < 0 ? (unsigned long)-got : 0;
}

static void try_all(const char *form, unsigned long number)
{
	unsigned long got[KINDS];

	for (unsigned long turn = 0; turn < KINDS; turn++)
		got[(number + turn) % KINDS] = errno_of((number + turn) % KINDS, number);
	put_word(form);
	put_number(number);
	for (int kind = 0; kind < KINDS; kind++)
		put_number(got[kind]);
	line[length++] = '\n';
	long written = call(SYS_write, 1, (long)line, length, 0, 0, 0);
	call(SYS_exit_group, written != length, 0, 0, 0, 0, 0);
}

__attribute__((used, noreturn)) static void begin(const long *stack)
{
	const char *form = (const char *)stack[2];
	unsigned long number = number_in((const char *)stack[3]);
	int status = 1;

	v4.sin_family = AF_INET;
	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	v6.sin6_family = AF_INET6;
	v6.sin6_addr.s6_addr[15] = 1;
	if (form[0] != 'f' || form[1] != 'o') /* only "fork" begins so */
		try_all(form, number);
	long child = call(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
	if (!child)
		try_all(form, number);
	call(SYS_wait4, child, (long)&status, 0, 0, 0, 0);
	call(SYS_exit_group, status != 0, 0, 0, 0, 0, 0);
	__builtin_unreachable();
}
