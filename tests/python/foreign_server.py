"""A server of OpenAI's API that is not ours: it has two paths and knows nothing else.

Says where it listens. Each answer counts up, so that one that was kept shows.
"""

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COUNT = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": "foreign", "object": "model"}]})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions":
            self.answer(404, {"detail": "Not Found"})
        elif body.get("temperature", 0) > 2:
            # Not in the form of OpenAI's errors.
            self.answer(422, {"detail": "temperature is too high"})
        elif body.get("stream"):
            self.stream(body)
        else:
            text = f"answer {next(COUNT)} to {body['messages'][-1]['content']}"
            self.answer(
                200,
                {
                    "id": "foreign-1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "foreign",
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                    ],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
                    "something_of_its_own": True,
                },
            )

    def stream(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for word in (f"answer {next(COUNT)} ", "in ", "pieces"):
            delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self.event(json.dumps({"id": "foreign-2", "model": "foreign", "choices": [delta]}))
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self.event(json.dumps({"id": "foreign-2", "model": "foreign", "choices": [end]}))
        self.event("[DONE]")
        self.close_connection = True

    def event(self, data):
        # With the line ends and the comments that some servers send.
        self.wfile.write(f": a comment\r\ndata: {data}\r\n\r\n".encode())
        self.wfile.flush()

    def answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
