"""Run a mail server on loopback that keeps all received mail."""

import socketserver
import threading


class MailServer(socketserver.ThreadingTCPServer):
    """A server that accepts every mail while the `with` block runs. `received` holds their texts."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.port, self.received = int(self.server_address[1]), list[str]()

    def __enter__(self) -> "MailServer":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._reply("220 ready")
        for line in self.rfile:
            command = line[:4].upper().strip()
            if command == b"DATA":
                self._reply("354 go on")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.received.append(text.decode())
            self._reply("221 bye" if command == b"QUIT" else "250 OK")
            if command == b"QUIT":
                return

    def _reply(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
