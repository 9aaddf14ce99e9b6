/* What the kernel takes for what proxies do all day, on loopback.
 *
 *   limits CORE OTHER_CORE
 *
 * Prints lines "name<TAB>nanoseconds". Each is the least of several rounds, each of which is a mean over many calls: what the machine can do,
 * not what else happened to run on it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PAIRS = 64, ROUNDS = 60, TIMES = 40, LARGE = 64 * 1024, PIPE = 1024 * 1024 };

struct pair {
  int a, b;
};

static struct pair pairs[PAIRS], ways[PAIRS];
static char bytes[LARGE], other[LARGE];
static int core, other_core;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1e9 + at.tv_nsec;
}

static void pin(int to) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(to, &set);
  if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity");
}

static void tell(const char *name, double ns) {
  printf("%s\t%.0f\n", name, ns);
  fflush(stdout);
}

/* A connected pair of TCP sockets. */
static struct pair connected(int listener, const struct sockaddr_in *at) {
  struct pair pair;
  int one = 1;
  pair.a = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(pair.a, (const struct sockaddr *)at, sizeof *at)) die("connect");
  pair.b = accept(listener, NULL, NULL);
  if (pair.b < 0) die("accept");
  setsockopt(pair.a, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(pair.b, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return pair;
}

static void must(ssize_t n, size_t expected, const char *what) {
  if (n != (ssize_t)expected) die(what);
}

/* Parts of what `work` does that are told as well. */
static double receive_spent, send_spent;

/* The least of several rounds of `work`, which returns the mean of one. */
static double least(double (*work)(size_t), size_t size) {
  double best = 1e18;
  receive_spent = send_spent = 1e18;
  for (int i = 0; i < ROUNDS; i++) {
    double took = work(size);
    if (took < best) best = took;
  }
  return best;
}

static double nothing(size_t n) {
  double begun = now();
  for (size_t i = 0; i < n; i++) syscall(SYS_getppid);
  return (now() - begun) / n;
}

static double empty_read(size_t n) {
  char byte;
  double begun = now();
  for (size_t i = 0; i < n; i++) recv(pairs[i % PAIRS].b, &byte, 1, MSG_DONTWAIT);
  return (now() - begun) / n;
}

static int poll_fd;

static double empty_wait(size_t n) {
  struct epoll_event events[8];
  double begun = now();
  for (size_t i = 0; i < n; i++) epoll_wait(poll_fd, events, 8, 0);
  return (now() - begun) / n;
}

static double copy(size_t size) {
  double begun = now();
  for (int i = 0; i < TIMES; i++) {
    memcpy(other, bytes, size);
    __asm__ volatile("" ::: "memory");
  }
  return (now() - begun) / TIMES;
}

/* Sends on every pair, then receives on every pair; the latter's time is kept aside. */
static double send_each(size_t size) {
  double sent = 0, received = 0;
  for (int i = 0; i < TIMES; i++) {
    double begun = now();
    for (int p = 0; p < PAIRS; p++) must(send(pairs[p].a, bytes, size, 0), size, "send");
    double between = now();
    for (int p = 0; p < PAIRS; p++) must(recv(pairs[p].b, other, size, MSG_WAITALL), size, "recv");
    sent += between - begun;
    received += now() - between;
  }
  received = received / TIMES / PAIRS;
  if (received < receive_spent) receive_spent = received;
  return sent / TIMES / PAIRS;
}

static double send_parts(size_t size) {
  struct iovec parts[2] = {{bytes, size / 2}, {bytes + size / 2, size - size / 2}};
  double sent = 0;
  for (int i = 0; i < TIMES; i++) {
    double begun = now();
    for (int p = 0; p < PAIRS; p++) must(writev(pairs[p].a, parts, 2), size, "writev");
    sent += now() - begun;
    for (int p = 0; p < PAIRS; p++) must(recv(pairs[p].b, other, size, MSG_WAITALL), size, "recv");
  }
  return sent / TIMES / PAIRS;
}

/* What a relay does with one message that is there: a read and a write. */
static double relay_copying(size_t size) {
  double took = 0;
  for (int i = 0; i < TIMES; i++) {
    for (int p = 0; p < PAIRS; p++) must(send(pairs[p].a, bytes, size, 0), size, "send");
    double begun = now();
    for (int p = 0; p < PAIRS; p++) {
      must(recv(pairs[p].b, other, size, MSG_WAITALL), size, "recv");
      must(send(ways[p].a, other, size, 0), size, "send");
    }
    took += now() - begun;
    for (int p = 0; p < PAIRS; p++) must(recv(ways[p].b, other, size, MSG_WAITALL), size, "recv");
  }
  return took / TIMES / PAIRS;
}

static int tube[2];

/* The same through a pipe. */
static double relay_splicing(size_t size) {
  double took = 0;
  for (int i = 0; i < TIMES; i++) {
    for (int p = 0; p < PAIRS; p++) must(send(pairs[p].a, bytes, size, 0), size, "send");
    double begun = now();
    for (int p = 0; p < PAIRS; p++) {
      size_t in = 0, out = 0;
      while (out < size) {
        if (in < size) {
          ssize_t n = splice(pairs[p].b, NULL, tube[1], NULL, size - in, SPLICE_F_MOVE);
          if (n <= 0) die("splice");
          in += n;
        }
        ssize_t n = splice(tube[0], NULL, ways[p].a, NULL, in - out, SPLICE_F_MOVE);
        if (n <= 0) die("splice");
        out += n;
      }
    }
    took += now() - begun;
    for (int p = 0; p < PAIRS; p++) must(recv(ways[p].b, other, size, MSG_WAITALL), size, "recv");
  }
  return took / TIMES / PAIRS;
}

static struct sockaddr_in listening;
static int listener;

static double open_and_close(size_t n) {
  double begun = now();
  for (size_t i = 0; i < n; i++) {
    struct pair pair = connected(listener, &listening);
    close(pair.a);
    close(pair.b);
  }
  return (now() - begun) / n;
}

static atomic_int stop;

static void *answer(void *unused) {
  char message[128];
  pin(other_core);
  while (!atomic_load(&stop)) {
    ssize_t n = read(pairs[0].b, message, sizeof message);
    if (n <= 0) break;
    if (write(pairs[0].b, message, n) != n) break;
  }
  return unused;
}

/* There and back; the time of the send, which wakes the other core up, is kept aside. */
static double ping(size_t n) {
  char message[100];
  memset(message, 'x', sizeof message);
  double begun = now(), sent = 0;
  for (size_t i = 0; i < n; i++) {
    double before = now();
    must(write(pairs[0].a, message, sizeof message), sizeof message, "write");
    sent += now() - before;
    must(read(pairs[0].a, message, sizeof message), sizeof message, "read");
  }
  if (sent / n < send_spent) send_spent = sent / n;
  return (now() - begun) / n;
}

/* io_uring without a library: as many sends as there are pairs with one call. */
static struct {
  int fd;
  _Atomic uint32_t *sq_tail, *cq_head, *cq_tail;
  uint32_t sq_mask, *array;
  struct io_uring_sqe *entries;
} ring;

static int ring_begin(void) {
  struct io_uring_params params = {.flags = 0};
  ring.fd = syscall(SYS_io_uring_setup, 2 * PAIRS, &params);
  if (ring.fd < 0) return 0;
  size_t size = params.sq_off.array + params.sq_entries * 4;
  size_t answers = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  if (answers > size) size = answers;
  char *both = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
  ring.entries = mmap(NULL, params.sq_entries * sizeof *ring.entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQES);
  if (both == MAP_FAILED || (void *)ring.entries == MAP_FAILED) return 0;
  ring.sq_tail = (_Atomic uint32_t *)(both + params.sq_off.tail);
  ring.sq_mask = *(uint32_t *)(both + params.sq_off.ring_mask);
  ring.array = (uint32_t *)(both + params.sq_off.array);
  ring.cq_head = (_Atomic uint32_t *)(both + params.cq_off.head);
  ring.cq_tail = (_Atomic uint32_t *)(both + params.cq_off.tail);
  return 1;
}

static double ring_send(size_t size) {
  double sent = 0;
  for (int i = 0; i < TIMES; i++) {
    double begun = now();
    uint32_t tail = atomic_load(ring.sq_tail);
    for (int p = 0; p < PAIRS; p++, tail++) {
      struct io_uring_sqe *entry = &ring.entries[tail & ring.sq_mask];
      memset(entry, 0, sizeof *entry);
      entry->opcode = IORING_OP_SEND;
      entry->fd = pairs[p].a;
      entry->addr = (uintptr_t)bytes;
      entry->len = size;
      ring.array[tail & ring.sq_mask] = tail & ring.sq_mask;
    }
    atomic_store(ring.sq_tail, tail);
    if (syscall(SYS_io_uring_enter, ring.fd, PAIRS, PAIRS, IORING_ENTER_GETEVENTS, NULL, 0) < 0) die("io_uring_enter");
    atomic_store(ring.cq_head, atomic_load(ring.cq_tail));
    sent += now() - begun;
    for (int p = 0; p < PAIRS; p++) must(recv(pairs[p].b, other, size, MSG_WAITALL), size, "recv");
  }
  return sent / TIMES / PAIRS;
}

int main(int count, char **words) {
  if (count < 3) return 2;
  core = atoi(words[1]);
  other_core = atoi(words[2]);
  pin(core);
  memset(bytes, 'x', sizeof bytes);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  socklen_t length = sizeof listening;
  listening.sin_family = AF_INET;
  listening.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&listening, length) || listen(listener, 128)) die("listen");
  getsockname(listener, (struct sockaddr *)&listening, &length);
  poll_fd = epoll_create1(0);
  for (int p = 0; p < PAIRS; p++) {
    pairs[p] = connected(listener, &listening);
    ways[p] = connected(listener, &listening);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, pairs[p].b, &event)) die("epoll_ctl");
  }
  if (pipe(tube)) die("pipe");
  fcntl(tube[1], F_SETPIPE_SZ, PIPE);

  tell("enter the kernel and leave it (getppid)", least(nothing, 5000));
  tell("read of an empty socket (EAGAIN)", least(empty_read, 5000));
  tell("epoll_wait with nothing to tell", least(empty_wait, 5000));
  tell("send 100 B, nobody waiting", least(send_each, 100));
  tell("receive 100 B that are there", receive_spent);
  tell("send 100 B from two places (writev)", least(send_parts, 100));
  if (ring_begin()) {
    tell("send 100 B, 64 at once by io_uring", least(ring_send, 100));
  }
  tell("send 4 KiB", least(send_each, 4096));
  tell("receive 4 KiB", receive_spent);
  tell("send 64 KiB", least(send_each, LARGE));
  tell("receive 64 KiB", receive_spent);
  tell("copy 64 KiB within this program (memcpy)", least(copy, LARGE));
  tell("relay 100 B by read and write", least(relay_copying, 100));
  tell("relay 100 B by splice", least(relay_splicing, 100));
  tell("relay 16 KiB by read and write", least(relay_copying, 16384));
  tell("relay 16 KiB by splice", least(relay_splicing, 16384));
  tell("relay 64 KiB by read and write", least(relay_copying, LARGE));
  tell("relay 64 KiB by splice", least(relay_splicing, LARGE));
  tell("open a connection, accept it, close both ends", least(open_and_close, 100));
  pthread_t thread;
  if (pthread_create(&thread, NULL, answer, NULL)) die("pthread_create");
  tell("100 B there and back between two cores, both asleep in read", least(ping, 500));
  tell("of that, the send that wakes the other core", send_spent);
  atomic_store(&stop, 1);
  ping(1);
  pthread_join(thread, NULL);
  return 0;
}
