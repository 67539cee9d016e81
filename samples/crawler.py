"""A crawler that is polite: each page once, at most ten requests at once to each host, however many workers there are.

Run: python samples/crawler.py

`fetch` is async, so one process waits for many pages. `max_concurrency=10` with a `concurrency_key` limits its nodes
for each host, on all workers together. A page may ask to come back later (`RetryLater`), and a dead link is an
`outcome`, so it does not stop the crawl. Two small web sites are served here on 127.0.0.1, and count their visitors.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import sleep
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from dagorama import DAGDefinition, Failure, RetryLater, StaticRetry, aresolve, dagorama, outcome
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

AT_ONCE = 10
RETRY = StaticRetry(max_attempts=5, interval=1, give_up_on=(LookupError,))  # a dead link stays dead


# --- the crawler ------------------------------------------------------------------------------------------


class Page(NamedTuple):
    url: str
    links: list[str]


class Found(NamedTuple):
    pages: list[str]
    dead: list[str]


def host_of(url: str) -> str:
    return urlsplit(url).netloc


class Crawl(DAGDefinition):
    @dagorama
    async def entrypoint(self, urls: list[str]) -> Found:
        return await self.follow(urls, [outcome(await self.fetch(url)) for url in urls], Found([], []))

    @dagorama(max_concurrency=AT_ONCE, concurrency_key=host_of, retry=RETRY)
    async def fetch(self, url: str) -> Page:
        status, text = await get(url)
        if status == 503:
            raise RetryLater(0.2, f"{host_of(url)} is busy")
        if status != 200:
            raise LookupError(f"{url} answers {status}")
        return Page(url, [urljoin(url, link) for link in re.findall(r'href="([^"]+)"', text)])

    @dagorama
    async def follow(self, urls: list[str], visited: list[Page | Failure], before: Found) -> Found:
        """Take the pages of this round into account, and start the next one with the links that are new."""
        pages = [page for page in visited if not isinstance(page, Failure)]
        dead = [url for url, page in zip(urls, visited, strict=True) if isinstance(page, Failure)]
        found = Found([*before.pages, *(page.url for page in pages)], [*before.dead, *dead])
        links = {link for page in pages for link in page.links}.difference(found.pages, found.dead)
        if not links:
            return found
        urls = sorted(links)
        return await self.follow(urls, [outcome(await self.fetch(url)) for url in urls], found)


async def get(url: str) -> tuple[int, str]:
    """Return the status and the body of a page; a real crawler would have a session of httpx as a resource."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return int(head.split()[1]), body.decode()


# --- the sites --------------------------------------------------------------------------------------------


class Site(ThreadingHTTPServer):
    """Pages /0 to /60 with links to one another, to the same page of the neighbour, and to a dead page.

    Page /7 is busy at its first visit.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.neighbour = self.url
        self.lock = Lock()
        self.visitors = self.most_visitors = self.visits = 0
        self.is_busy = True

    def answer(self, path: str) -> tuple[int, str]:
        number = int(path.strip("/"))
        if number == 7 and self.is_busy:
            self.is_busy = False
            return 503, ""
        if number > 60:
            return 404, ""
        others = [f"/{4 * number + i}" for i in range(1, 5)] if number < 15 else []
        links = [*others, f"{self.neighbour}/{number}", "/404"]
        return 200, "".join(f'<a href="{link}">' for link in links)

    @contextmanager
    def visitor(self) -> Iterator[None]:
        with self.lock:
            self.visits += 1
            self.visitors += 1
            self.most_visitors = max(self.most_visitors, self.visitors)
        try:
            yield
        finally:
            with self.lock:
                self.visitors -= 1


class Visit(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site = self.server
        assert isinstance(site, Site)
        with site.visitor():
            sleep(0.05)  # stands for the work of a server
            status, text = site.answer(self.path)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal for the crawler."""


@contextmanager
def two_sites() -> Iterator[list[Site]]:
    sites = [Site(), Site()]
    sites[0].neighbour, sites[1].neighbour = sites[1].url, sites[0].url
    for site in sites:
        Thread(target=site.serve_forever, daemon=True).start()
    try:
        yield sites
    finally:
        for site in sites:
            site.shutdown()
            site.server_close()


# --- the program ------------------------------------------------------------------------------------------


async def crawl(url: str) -> Found:
    instance, found = await Crawl()([url])
    return await aresolve(instance, found, timeout=60)


def main() -> None:
    with two_sites() as sites, launch_broker(port=0), launch_workers(2):
        found = asyncio.run(crawl(f"{sites[0].url}/0"))

    print(f"{len(found.pages)} pages, {len(found.dead)} dead links")
    for number, site in enumerate(sites, 1):
        print(f"site {number}: {site.visits} requests, at most {site.most_visitors} at once")
        assert site.most_visitors <= AT_ONCE
    assert len(set(found.pages)) == len(found.pages)


if __name__ == "__main__":
    main()
