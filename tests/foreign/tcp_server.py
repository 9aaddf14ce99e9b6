"""A server that speaks first, as SMTP and MySQL do: greets, then echoes lines in capitals, then says how many there were.

usage: tcp_server.py ADDRESS:PORT NAME
"""

import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(f"220 {sys.argv[2]} ready\r\n".encode())
        lines = 0
        for line in self.rfile:
            lines += 1
            self.wfile.write(line.upper())
        # The client has closed its half; ours is still open.
        self.wfile.write(f"bye {lines}\r\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


host, port = sys.argv[1].rsplit(":", 1)
Server((host, int(port)), Handler).serve_forever()
