"""Pages that a browser opens beside a node: of another origin, under a name rebound to the node, and of its own origin.

    python -m tests.support.hostile_pages

Runs as a process inside a network namespace that has the addresses below. A page that must be of the node's origin is
served by a forwarder, which answers the page itself and passes every other connection to the node as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

ATTACKER, NODE, OWN = "10.9.8.1", "10.9.8.2", "10.9.8.3"
"""Not loopback, so that a browser sends no Sec-Fetch headers to plain HTTP there."""
PAGE_PORT, ADMIN_PORT = 8000, 28101
REBOUND_NAME = "rebound.example"
ACTIONS = (
    "/v1/ctrl/trigger_snapshot",
    "/v1/ctrl/trigger_transfer_leader",
    "/v1/ctrl/trigger_backup",
    "/v1/features/set?feature=dummy&enable=true",
    "/debug/pprof/profile?seconds=1",
    "/debug/mem/pprof/profile?seconds=1",
)
HOSTILE_WAYS = (
    *("image", "script", "iframe", "redirect", "link", "form-get", "form-post", "form-post-redirect"),
    *("fetch-get", "fetch-post", "beacon", "headers-get", "headers-post"),
)
SAME_ORIGIN_WAYS = ("fetch-get", "headers-post")
"""What the page of the node's origin tries, and the one under a rebound name; profiles only in the second way."""

COMMON = """
const actions = %(actions)s;
const target = (action, way) => '%(base)s' + action + (action.includes('?') ? '&' : '?') + 'way=' + way;
const ignore = () => {};
const add = (name, attributes) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  document.body.append(element);
  return element;
};
let frames = 0;
const form = (method, url) => {
  const name = 'frame' + frames++;
  add('iframe', {name});
  const made = add('form', {method, action: url.split('?')[0], target: name});
  if (method === 'post') made.action = url;
  for (const [key, value] of new URL(url).searchParams) {
    const input = add('input', {type: 'hidden', name: key, value});
    made.append(input);
  }
  made.submit();
};
"""
HOSTILE = """
const there = (code, url) => '/redirect' + code + '?' + encodeURIComponent(url);
const ways = {
  'image': url => add('img', {src: url, referrerpolicy: 'no-referrer'}),
  'script': url => add('script', {src: url, referrerpolicy: 'no-referrer'}),
  'iframe': url => add('iframe', {src: url, referrerpolicy: 'no-referrer'}),
  'redirect': url => add('iframe', {src: there(302, url), referrerpolicy: 'no-referrer'}),
  'link': url => add('a', {href: url, rel: 'noreferrer', target: '_blank'}).click(),
  'form-get': url => form('get', url),
  'form-post': url => form('post', url),
  'form-post-redirect': url => form('post', new URL(there(307, url), location).href),
  'fetch-get': url => fetch(url, {mode: 'no-cors', credentials: 'include', referrerPolicy: 'no-referrer'}).catch(ignore),
  'fetch-post': url => fetch(url, {mode: 'no-cors', method: 'POST', body: 'x'}).catch(ignore),
  'beacon': url => navigator.sendBeacon(url, 'x'),
  'headers-get': url => fetch(url, {headers: {'X-Metasrv-Action': '1'}}).catch(ignore),
  'headers-post': url => fetch(url, {method: 'POST', headers: {'X-Metasrv-Action': '1'}}).catch(ignore),
};
for (const action of actions) for (const [way, run] of Object.entries(ways)) run(target(action, way));
window.open('http://%(rebound)s:%(port)d/page?rebound');
window.open('http://%(own)s:%(port)d/page?own');
"""
SAME_ORIGIN = """
(async () => {
  const prefix = location.search.slice(1) + '-';
  for (const action of actions) {
    // A profile lasts a second: one of each kind is enough.
    if (!action.startsWith('/debug/')) await fetch(target(action, prefix + 'fetch-get')).catch(ignore);
    const post = {method: 'POST', headers: {'X-Metasrv-Action': '1'}};
    await fetch(target(action, prefix + 'headers-post'), post).catch(ignore);
  }
})();
"""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def page(script: str, base: str) -> bytes:
    """An answer that has a page with this script; `base` is what the paths of actions are put behind."""
    values = {"rebound": REBOUND_NAME, "own": OWN, "port": ADMIN_PORT, "actions": json.dumps(ACTIONS), "base": base}
    body = f"<!doctype html><body><script>{(COMMON + script) % values}</script>".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve the hostile page and its redirects."""
    target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
    if target.startswith("/page"):
        writer.write(page(HOSTILE, f"http://{NODE}:{ADMIN_PORT}"))
    elif target.startswith("/redirect"):
        code, _, encoded = target.removeprefix("/redirect").partition("?")
        location = unquote(encoded)
        answer = f"HTTP/1.1 {code} There\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(answer.encode())
    writer.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a page of the origin at which the browser looks, or pass the connection to the node."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.split(b" ")[1].startswith(b"/page"):
        writer.write(page(SAME_ORIGIN, ""))
        writer.close()
        return
    node_reader, node_writer = await asyncio.open_connection(NODE, ADMIN_PORT)
    node_writer.write(head)
    await asyncio.gather(_copy(reader, node_writer), _copy(node_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


def _quietly(handler: Handler) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)

    return handle


async def main() -> None:
    """Serve until the process is killed; says so on standard output once it does."""
    served = ((attack, ATTACKER, PAGE_PORT), (forward, ATTACKER, ADMIN_PORT), (forward, OWN, ADMIN_PORT))
    servers = [await asyncio.start_server(_quietly(handler), host, port) for handler, host, port in served]
    print("serving", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
