"""A worker gone bad: `/take` serves the group's queue by itself from then on, with frames that ours never sends."""
import array
import os
import select
import socket
import struct

HEADER = struct.Struct("=IIBBH")
HEAD, BODY, END, LOG, SESSION = 1, 2, 3, 5, 8
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-Forged: yes\r\n\r\nforged\n"


def frame(number, kind, code=0, data=b"", length=None):
    return HEADER.pack(len(data) if length is None else length, number, kind, 0, code) + data


def head(number, *fields):
    pieces = [struct.pack("=HHH", 200, len(fields), 2) + b"OK"]
    pieces += [struct.pack("=H", len(name)) + name + struct.pack("=I", len(value)) + value for name, value in fields]
    return frame(number, HEAD, 0, b"".join(pieces))


def end(way, number, fd=None):
    given = array.array("i", [way.fileno() if fd is None else fd])
    way.sendmsg([frame(number, END)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])


def requests(queue):
    while True:
        select.select([queue], [], [])
        try:
            message, control, _, _ = queue.recvmsg(200000, socket.CMSG_SPACE(16), socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        fds = array.array("i")
        for _, _, data in control:
            fds.frombytes(data[: len(data) - len(data) % 4])
        with socket.socket(fileno=fds[0]) as way:
            yield struct.unpack_from("=I", message, 8)[0], message, way
        for fd in fds[1:]:
            os.close(fd)


def long_body(number, way):
    way.sendall(head(number, (b"Content-Length", b"6")) + frame(number, BODY, 0, b"first\n"))
    way.sendall(frame(number, BODY, 0, FORGED))
    end(way, number)


def short_body(number, way):
    way.sendall(head(number, (b"Content-Length", b"50000")) + frame(number, BODY, 0, b"first\n"))
    end(way, number)


def chunked(number, way):
    way.sendall(head(number, (b"Transfer-Encoding", b"chunked")) + frame(number, BODY, 0, b"0\r\n\r\n" + FORGED))
    end(way, number)


def two_lengths(number, way):
    way.sendall(head(number, (b"Content-Length", b"6"), (b"content-length", b"5")) + frame(number, BODY, 0, b"first\n"))
    end(way, number)


def many_fields(number, way):
    way.sendall(head(number, *[(b"X", b"y" * 7)] * 60000))


def questions(number, way):
    """Each is answered with a megabyte, and none of the answers is read."""
    key = struct.pack("=H", 1) + b"a"
    save = bytes([2, 2]) + struct.pack("=IQ", 600, 0) + key + struct.pack("=H", 0) + b"x" * 1000000
    way.sendall(frame(number, SESSION, 2, save))
    way.settimeout(5)
    try:
        way.sendall(frame(number, SESSION, 1, b"\0" + key) * 20000)
    except (socket.timeout, OSError):
        pass
    select.select([], [], [], 0.3)


def announced(number, way):
    """A frame that says that it is large and does not come."""
    way.sendall(frame(number, SESSION, 2, b"", 16 << 20))
    select.select([way], [], [], 60)


def lingering(number, way):
    """With END comes a socket whose close waits for what was never taken."""
    listener = socket.create_server(("127.0.0.1", 0))
    unread = socket.create_connection(listener.getsockname())
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
    unread.setblocking(False)
    try:
        while True:
            unread.send(b"x" * 65536)
    except BlockingIOError:
        pass
    way.sendall(head(number, (b"Content-Length", b"6")) + frame(number, BODY, 0, b"first\n"))
    end(way, number, unread.fileno())
    os.close(unread.detach())
    kept.append(listener)


def levels(number, way):
    for level in [0, 1, 2, 3, 60000]:
        way.sendall(frame(number, LOG, level, b"level %d of a bad worker" % level))
    way.sendall(head(number, (b"Content-Length", b"6")) + frame(number, BODY, 0, b"first\n"))
    end(way, number)


def pidfds(number, way):
    """Beside END and a frame before it come sockets for whose messages the kernel makes descriptors as they are read."""
    SO_PASSPIDFD = 76
    packed = []
    for _ in range(4):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        far.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
        near.setblocking(False)
        for _ in range(200):
            near.send(b"x")
        packed.append(far)
    first = frame(number, BODY, 0, b"first\n")
    fds = array.array("i", [s.fileno() for s in packed])
    way.sendmsg([head(number, (b"Content-Length", b"6"))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    way.sendmsg([first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    end(way, number, packed[0].fileno())


kept = []
ANSWERS = [levels, long_body, short_body, chunked, two_lengths, many_fields, questions, announced, lingering, pidfds]


def application(environ, start_response):
    if environ["PATH_INFO"] != "/take":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"good\n"]
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"taken\n")
    for request, message, way in requests(socket.socket(fileno=os.dup(int(argument("--queue"))))):
        wanted = [answer for answer in ANSWERS if b"/hostile/" + answer.__name__.encode() in message]
        if not wanted:
            way.sendall(head(request, (b"Content-Length", b"5")) + frame(request, BODY, 0, b"over\n"))
            end(way, request)
            return []
        try:
            wanted[0](request, way)
        except OSError:
            pass  # httpd has had enough


def argument(name):
    with open("/proc/self/cmdline", "rb") as line:
        words = line.read().split(b"\0")
    return words[words.index(name.encode()) + 1]
