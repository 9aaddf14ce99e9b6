"""A switch in user space: every frame between its ports passes here, and is delayed or lost as it was told.

Commands on standard input, one a line, each answered by "ok" or "error WHY":
  port NAME                       a tap interface of this name, to be moved to where it is needed
  line NAME DELAY JITTER LOSS     what happens to frames from and to this port: milliseconds, milliseconds, 0 to 1
"""
import fcntl, heapq, os, random, selectors, struct, sys, time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
# More than that waiting for a port is lost, as in any switch.
ROOM = 4096

ports, lines, homes, waiting, order = {}, {}, {}, [], 0
select = selectors.DefaultSelector()


def port(name):
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    ports[name], lines[name] = tap, (0.0, 0.0, 0.0)
    select.register(tap, selectors.EVENT_READ, name)


def line(name, delay, jitter, loss):
    if name not in ports:
        raise KeyError(name)
    lines[name] = (float(delay) / 1000, float(jitter) / 1000, float(loss))


def command(words):
    try:
        {"port": port, "line": line}[words[0]](*words[1:])
        return "ok"
    except Exception as error:
        return f"error {error!r}"


def forward(source, frame):
    global order
    target, sender = frame[:6], frame[6:12]
    homes[sender] = source
    home = homes.get(target)
    for name in [home] if home else [other for other in ports if other != source]:
        delay = 0.0
        for end in (source, name):
            more, jitter, loss = lines[end]
            if loss and random.random() < loss:
                break
            delay += more + random.random() * jitter
        else:
            if len(waiting) < ROOM:
                order += 1
                heapq.heappush(waiting, (time.monotonic() + delay, order, name, frame))


def deliver(now):
    while waiting and waiting[0][0] <= now:
        _, _, name, frame = heapq.heappop(waiting)
        try:
            os.write(ports[name], frame)
        except OSError:
            pass  # the interface is down, or its queue is full: lost


select.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
text = b""
while True:
    pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
    for key, _ in select.select(pause):
        if key.data is None:
            more = os.read(sys.stdin.fileno(), 65536)
            if not more:
                sys.exit(0)
            text += more
            while b"\n" in text:
                one, text = text.split(b"\n", 1)
                print(command(one.decode().split()), flush=True)
            continue
        try:
            for _ in range(64):
                forward(key.data, os.read(key.fd, 65536))
        except OSError:
            pass  # nothing more to read
    deliver(time.monotonic())
