/* A bare echo over epoll: what the system alone takes for a call's bytes. Listens on a free port of
 * 127.0.0.1, or at a unix path, prints where, and answers each REQUEST bytes with RESPONSE bytes.
 *
 * usage: echo REQUEST RESPONSE [PATH]
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listening(const char *path)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un there = {.sun_family = AF_UNIX};
    socklen_t size = sizeof at;
    int s = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);

    if (path) {
        snprintf(there.sun_path, sizeof there.sun_path, "%s", path);
        unlink(path);
        if (bind(s, (struct sockaddr *)&there, sizeof there) != 0)
            exit(1);
        printf("unix:%s\n", path);
    } else {
        if (bind(s, (struct sockaddr *)&at, sizeof at) != 0 ||
            getsockname(s, (struct sockaddr *)&at, &size) != 0)
            exit(1);
        printf("127.0.0.1:%d\n", ntohs(at.sin_port));
    }
    if (listen(s, 16) != 0)
        exit(1);
    fflush(stdout);
    return s;
}

int main(int argc, char **argv)
{
    size_t request = argc > 2 ? strtoul(argv[1], NULL, 10) : 0, response;
    static char buffer[1 << 16];
    static size_t have[1024];
    int listener, epoll = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN};

    if (request == 0)
        return 2;
    response = strtoul(argv[2], NULL, 10);
    listener = listening(argc > 3 ? argv[3] : NULL);
    event.data.fd = listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    while (epoll_wait(epoll, &event, 1, -1) >= 0) {
        int s = event.data.fd;
        ssize_t n;
        if (s == listener) {
            s = accept(listener, NULL, NULL);
            if (s < 0 || s >= 1024)
                return 1;
            setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            have[s] = 0;
            event = (struct epoll_event){.events = EPOLLIN, .data.fd = s};
            epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event);
            continue;
        }
        n = recv(s, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n <= 0) {
            close(s);
            continue;
        }
        for (have[s] += (size_t)n; have[s] >= request; have[s] -= request)
            if (send(s, buffer, response, MSG_NOSIGNAL) < 0)
                break;
    }
    return 0;
}
