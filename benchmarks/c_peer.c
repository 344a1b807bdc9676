/* The measure of the others: the same work in C, over pipes, by processes that do nothing else.
 *
 * It reads orders from standard input, five 32-bit numbers each: kind, bytes of a payload, how many
 * calls, how many of them outstanding, how many children; and writes to standard output 64-bit
 * nanoseconds: one for each call of the kinds 'r' and 'y', else one for all.
 *
 *   'r'  round trips, one outstanding; both sides block in read(2)
 *   'y'  the same; both sides poll with sched_yield(2) for 50 us before they block in poll(2)
 *   'n'  round trips, many outstanding; each call, and each answer, is a write(2) of its own
 *   'w'  the same; all calls go in one write, and what is there is answered in one write
 *   'f'  events to many children, each written to each; ends when all children have read all
 *
 * A frame is its length, 32 bits, and its payload; each is put together and taken apart by itself
 * on both sides, as by a program that has something to do with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 65536, POLL_NS = 50000, PIPE_BYTES = 1 << 20 };

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(void) { _exit(1); }

static void wait_for(int fd, short what) {
    struct pollfd p = {fd, what, 0};
    while (poll(&p, 1, -1) < 0)
        if (errno != EINTR) die();
}

/* Reads something. Where the descriptor does not block: first yields, then blocks in poll. */
static size_t read_some(int fd, char *into, size_t most) {
    uint64_t until = 0;
    for (;;) {
        ssize_t n = read(fd, into, most);
        if (n > 0) return (size_t)n;
        if (n == 0) _exit(0);
        if (errno == EINTR) continue;
        if (errno != EAGAIN) die();
        uint64_t t = now();
        if (until == 0) until = t + POLL_NS;
        if (t < until) sched_yield();
        else wait_for(fd, POLLIN);
    }
}

static void write_all(int fd, const char *from, size_t count) {
    while (count) {
        ssize_t n = write(fd, from, count);
        if (n < 0 && errno == EAGAIN) { wait_for(fd, POLLOUT); continue; }
        if (n < 0) { if (errno == EINTR) continue; die(); }
        from += n;
        count -= (size_t)n;
    }
}

static void read_all(int fd, char *into, size_t count) {
    while (count) {
        size_t n = read_some(fd, into, count);
        into += n;
        count -= n;
    }
}

enum manner { BLOCKING, YIELDING, SINGLY, COUNTING };

/* Answers whole frames: all that are there in one write, or one by one; or counts them, and says
 * when it has all. */
static void serve(int in, int out, enum manner manner, uint32_t expected) {
    size_t room = 2 * READ_BYTES, have = 0;
    uint32_t counted = 0;
    char *buffer = malloc(room), *answer = malloc(room);
    if (!buffer || !answer) die();
    for (;;) {
        have += read_some(in, buffer + have, room - have);
        size_t whole = 0;
        uint32_t length = 0;
        while (have - whole >= 4) {
            memcpy(&length, buffer + whole, 4);
            if (have - whole - 4 < length) break;
            if (length < READ_BYTES) memcpy(answer + whole, buffer + whole, 4 + (size_t)length);
            if (manner == SINGLY) write_all(out, answer + whole, 4 + (size_t)length);
            whole += 4 + (size_t)length;
            counted++;
        }
        if (have - whole >= 4 && (size_t)length + 4 > room) {
            room = (size_t)length + 4;
            if (!(buffer = realloc(buffer, room)) || !(answer = realloc(answer, room))) die();
        }
        /* A large payload is answered from where it is: copying it would not be the fastest way. */
        if (manner < SINGLY) write_all(out, length < READ_BYTES ? answer : buffer, whole);
        memmove(buffer, buffer + whole, have - whole);
        have -= whole;
        if (manner == COUNTING && counted >= expected) {
            write_all(out, "d", 1);
            counted -= expected;
        }
    }
}

struct child { pid_t pid; int to, from; };

static struct child start(enum manner manner, uint32_t expected) {
    int there[2], back[2];
    if (pipe2(there, O_CLOEXEC) || pipe2(back, O_CLOEXEC)) die();
    fcntl(there[1], F_SETPIPE_SZ, PIPE_BYTES);
    fcntl(back[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (manner == YIELDING) {
        fcntl(there[0], F_SETFL, O_NONBLOCK);
        fcntl(back[0], F_SETFL, O_NONBLOCK);
    }
    pid_t pid = fork();
    if (pid < 0) die();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(there[0], back[1], manner, expected);
    }
    close(there[0]);
    close(back[1]);
    return (struct child){pid, there[1], back[0]};
}

static void stop(struct child c) {
    kill(c.pid, SIGKILL);
    waitpid(c.pid, NULL, 0);
    close(c.to);
    close(c.from);
}

static char *frames(uint32_t size, uint32_t count) {
    size_t each = 4 + (size_t)size;
    char *all = malloc(each * count + 1);
    if (!all) die();
    for (uint32_t i = 0; i < count; i++) {
        memcpy(all + i * each, &size, 4);
        memset(all + i * each + 4, 'x', size);
    }
    return all;
}

static void round_trips(struct child c, uint32_t size, uint32_t calls) {
    char *frame = frames(size, 1), *answer = frames(size, 1);
    uint64_t *took = malloc(sizeof *took * calls);
    if (!took) die();
    for (uint32_t i = 0; i < calls; i++) {
        uint64_t start = now();
        write_all(c.to, frame, 4 + (size_t)size);
        read_all(c.from, answer, 4 + (size_t)size);
        took[i] = now() - start;
    }
    write_all(1, (char *)took, sizeof *took * calls);
    free(took);
    free(frame);
    free(answer);
}

static void windows(struct child c, uint32_t size, uint32_t calls, uint32_t window, int singly) {
    size_t each = 4 + (size_t)size;
    char *all = frames(size, window), *answers = frames(size, window), *frame = frames(size, 1);
    uint64_t start = now();
    for (uint32_t done = 0; done < calls; done += window) {
        for (uint32_t i = 0; i < window; i++) {
            memcpy(all + i * each, frame, each);
            if (singly) write_all(c.to, all + i * each, each);
        }
        if (!singly) write_all(c.to, all, each * window);
        read_all(c.from, answers, each * window);
        for (uint32_t i = 0; i < window; i++)
            if (memcmp(answers + i * each, frame, each)) die();
    }
    uint64_t took = now() - start;
    write_all(1, (char *)&took, sizeof took);
    free(all);
    free(answers);
    free(frame);
}

static void fan_out(uint32_t size, uint32_t events, uint32_t many) {
    struct child *children = malloc(sizeof *children * many);
    char *frame = frames(size, 1), done;
    if (!children) die();
    for (uint32_t k = 0; k < many; k++) children[k] = start(COUNTING, events);
    usleep(20000); /* so that all of them wait in read(2) */
    uint64_t begun = now();
    for (uint32_t i = 0; i < events; i++)
        for (uint32_t k = 0; k < many; k++) write_all(children[k].to, frame, 4 + (size_t)size);
    for (uint32_t k = 0; k < many; k++) read_all(children[k].from, &done, 1);
    uint64_t took = now() - begun;
    for (uint32_t k = 0; k < many; k++) stop(children[k]);
    write_all(1, (char *)&took, sizeof took);
    free(children);
    free(frame);
}

int main(void) {
    struct child blocking = start(BLOCKING, 0), yielding = start(YIELDING, 0);
    struct child singly = start(SINGLY, 0);
    uint32_t order[5];
    for (;;) {
        size_t have = 0;
        while (have < sizeof order) {
            ssize_t n = read(0, (char *)order + have, sizeof order - have);
            if (n <= 0) {
                stop(blocking);
                stop(yielding);
                stop(singly);
                return 0;
            }
            have += (size_t)n;
        }
        if (order[0] == 'r') round_trips(blocking, order[1], order[2]);
        else if (order[0] == 'y') round_trips(yielding, order[1], order[2]);
        else if (order[0] == 'w') windows(blocking, order[1], order[2], order[3], 0);
        else if (order[0] == 'n') windows(singly, order[1], order[2], order[3], 1);
        else if (order[0] == 'f') fan_out(order[1], order[2], order[4]);
        else return 1;
    }
}
