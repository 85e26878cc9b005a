/* Refuses and records every connection that would leave this machine, also those of libraries that are not Python.
 *
 * Loaded by LD_PRELOAD. Each refusal is one line in the file that SOFTAD_TEST_CONNECTS names:
 * "tried PID FUNCTION WHERE".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void record(const char *function, const char *where) {
    const char *path = getenv("SOFTAD_TEST_CONNECTS");
    char line[512];
    if (path == NULL) return;
    int length = snprintf(line, sizeof line, "tried %d %s %s\n", (int)getpid(), function, where);
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (file < 0) return;
    if (write(file, line, (size_t)length) < 0) abort();
    close(file);
}

static int leaves(const struct sockaddr *address, const char *function) {
    char text[INET6_ADDRSTRLEN] = "";
    if (getenv("SOFTAD_TEST_CONNECTS") == NULL || address == NULL) return 0;
    if (address->sa_family == AF_INET) {
        const struct in_addr *ip = &((const struct sockaddr_in *)address)->sin_addr;
        if ((ntohl(ip->s_addr) >> 24) == 127 || ip->s_addr == INADDR_ANY) return 0;
        inet_ntop(AF_INET, ip, text, sizeof text);
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *ip = &((const struct sockaddr_in6 *)address)->sin6_addr;
        if (IN6_IS_ADDR_LOOPBACK(ip) || IN6_IS_ADDR_UNSPECIFIED(ip)) return 0;
        if (IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr[12] == 127) return 0;
        inet_ntop(AF_INET6, ip, text, sizeof text);
    } else {
        return 0; /* a socket within the machine */
    }
    record(function, text);
    errno = ENETUNREACH;
    return 1;
}

int connect(int file, const struct sockaddr *address, socklen_t length) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "connect");
    return leaves(address, "connect") ? -1 : real(file, address, length);
}

ssize_t sendto(int file, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "sendto");
    return leaves(address, "sendto") ? -1 : real(file, data, size, flags, address, length);
}

ssize_t sendmsg(int file, const struct msghdr *message, int flags) {
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (real == NULL) real = dlsym(RTLD_NEXT, "sendmsg");
    return leaves(message->msg_name, "sendmsg") ? -1 : real(file, message, flags);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    unsigned char ip[sizeof(struct in6_addr)];
    if (real == NULL) real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (getenv("SOFTAD_TEST_CONNECTS") != NULL && name != NULL && strcmp(name, "localhost") != 0 &&
        inet_pton(AF_INET, name, ip) != 1 && inet_pton(AF_INET6, name, ip) != 1) {
        record("getaddrinfo", name); /* an address given by number is judged when it is connected to */
        return EAI_FAIL;
    }
    return real(name, service, hints, result);
}
