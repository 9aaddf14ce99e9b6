/* The floor: a relay that only reads and writes, one thread, edge-triggered. What a proxy costs above it is what the proxy does.
 *
 *   relay LISTEN_IP PORT TO_IP PORT [splice]
 *
 * What is readable is read and written at once to the other side; a read that does not fill the buffer has emptied the socket, so that no
 * second one is needed to learn that. With `splice`, bytes go through a pipe and never enter this program. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, PIPE = 256 * 1024, EVENTS = 256 };

/* One socket of a connection, and what has been read from its other side and not been written to it yet. */
struct end {
  int fd;
  struct end *other;
  char *unsent;
  size_t from, to;
  int pipe[2];
  size_t piped;
  int dead;
};

static int use_splice;
static char buffer[BUFFER];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in address(const char *ip, const char *port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  if (inet_pton(AF_INET, ip, &at.sin_addr) != 1) die(ip);
  return at;
}

/* Writes what waits for `end`. 1: nothing waits any more; 0: the socket is full; -1: over. */
static int flush(struct end *end) {
  while (end->piped) {
    ssize_t n = splice(end->pipe[0], NULL, end->fd, NULL, end->piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    end->piped -= n;
  }
  while (end->from < end->to) {
    ssize_t n = write(end->fd, end->unsent + end->from, end->to - end->from);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    end->from += n;
  }
  return 1;
}

/* Carries bytes from `in` to the other side until one of the sockets has enough. -1: over. */
static int carry_copying(struct end *in) {
  struct end *out = in->other;
  for (;;) {
    int flushed = flush(out);
    if (flushed <= 0) return flushed;
    ssize_t n = read(in->fd, buffer, BUFFER);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    ssize_t sent = write(out->fd, buffer, n);
    if (sent < 0) {
      if (errno != EAGAIN) return -1;
      sent = 0;
    }
    if (sent < n) {
      if (!out->unsent && !(out->unsent = malloc(BUFFER))) die("malloc");
      memcpy(out->unsent, buffer + sent, n - sent);
      out->from = 0;
      out->to = n - sent;
    } else if (n < BUFFER) {
      return 0;
    }
  }
}

static int carry_splicing(struct end *in) {
  struct end *out = in->other;
  for (;;) {
    int flushed = flush(out);
    if (flushed <= 0) return flushed;
    ssize_t n = splice(in->fd, NULL, out->pipe[1], NULL, PIPE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    out->piped = n;
  }
}

static struct end *new_end(int fd) {
  struct end *end = calloc(1, sizeof *end);
  if (!end) die("calloc");
  end->fd = fd;
  if (use_splice) {
    if (pipe2(end->pipe, O_NONBLOCK)) die("pipe2");
    fcntl(end->pipe[1], F_SETPIPE_SZ, PIPE);
  }
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return end;
}

static void watch(int poll, struct end *end) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = end};
  if (epoll_ctl(poll, EPOLL_CTL_ADD, end->fd, &event)) die("epoll_ctl");
}

static void take(int poll, int listener, const struct sockaddr_in *to) {
  for (;;) {
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (client < 0) return;
    int upstream = socket(AF_INET, SOCK_STREAM, 0);
    if (upstream < 0) die("socket");
    /* Blocks, which on loopback takes no time; nobody to relay to: the client sees its connection close. */
    if (connect(upstream, (const struct sockaddr *)to, sizeof *to)) {
      close(upstream);
      close(client);
      continue;
    }
    fcntl(upstream, F_SETFL, O_NONBLOCK);
    struct end *a = new_end(client), *b = new_end(upstream);
    a->other = b;
    b->other = a;
    watch(poll, a);
    watch(poll, b);
  }
}

static void drop(struct end *end) {
  close(end->fd);
  if (use_splice) {
    close(end->pipe[0]);
    close(end->pipe[1]);
  }
  free(end->unsent);
  end->unsent = NULL;
  end->dead = 1;
}

int main(int count, char **words) {
  if (count < 5) {
    fprintf(stderr, "relay LISTEN_IP PORT TO_IP PORT [splice]\n");
    return 2;
  }
  use_splice = count > 5 && !strcmp(words[5], "splice");
  signal(SIGPIPE, SIG_IGN);
  struct sockaddr_in at = address(words[1], words[2]), to = address(words[3], words[4]);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&at, sizeof at)) die("bind");
  if (listen(listener, 4096)) die("listen");
  int poll = epoll_create1(0);
  struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(poll, EPOLL_CTL_ADD, listener, &listening)) die("epoll_ctl");
  struct epoll_event events[EVENTS];
  struct end *over[EVENTS];
  for (;;) {
    int n = epoll_wait(poll, events, EVENTS, -1), ended = 0;
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
      struct end *end = events[i].data.ptr;
      if (!end) {
        take(poll, listener, &to);
        continue;
      }
      if (end->dead) continue;
      int alive = 0;
      if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        alive = use_splice ? carry_splicing(end) : carry_copying(end);
      /* Room again for what waited, and for what the other side holds back meanwhile. */
      if (!alive && events[i].events & EPOLLOUT && (end->piped || end->from < end->to))
        alive = use_splice ? carry_splicing(end->other) : carry_copying(end->other);
      if (alive < 0) {
        drop(end);
        drop(end->other);
        over[ended++] = end;
      }
    }
    /* Only now: further events of this batch may name them. */
    for (int i = 0; i < ended; i++) {
      free(over[i]->other);
      free(over[i]);
    }
  }
}
