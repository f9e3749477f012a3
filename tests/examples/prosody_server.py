"""A real Prosody on loopback, out of Debian's package, and what stands before geolookup."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
from servers import PATIENCE, ROOT

T = TypeVar("T")

EXAMPLE = ROOT / "examples" / "prosody"
PACKAGES = (
    "prosody", "lua5.4", "liblua5.4-0", "lua-bitop", "lua-expat", "lua-filesystem", "lua-sec",
    "lua-socket", "libicu72",
)  # fmt: skip
"""Of Debian 12. Beside them it needs libexpat1 and libssl3, which Python needs, too."""
CHAT, ANONYMOUS, NAMED = "conference.meet.example.org", "meet.example.org", "staff.example.org"
IMPATIENT = "impatient.meet.example.org"
"""As CHAT; it waits for a fifth of a second, has one room in memory, and measures of its own."""
MEASURES = {CHAT: "measures.json", IMPATIENT: "impatient.json"}
BRIDGE = "bridge.example.org"
"""A server's component with a connection of its own."""
CLIENTS, HTTP, COMPONENTS = "127.0.0.1", "127.0.0.2", "127.0.0.3"
"""Where it listens for whom: by the address a test finds the port."""


LUA = f"""
function part(name) return dofile("{EXAMPLE}/mod_muc_geolookup/" .. name .. ".lib.lua") end
"""
"""Reads a part of the module by its name."""


def run_lua(root: Path, script: str, *arguments: str, text: str = "") -> str:
    """Run Lua with the example's and Prosody's modules; return what it prints."""
    done = subprocess.run(
        [str(root / "usr/bin/lua5.4"), "-e", LUA + script, "-", *arguments],
        env=environment(root),
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(root: Path) -> dict[str, str]:
    """Return the variables by which programs under *root* find their libraries."""
    (libraries,) = root.glob("usr/lib/*-linux-gnu")
    ours = root / "usr/lib/prosody"
    return os.environ | {
        "LD_LIBRARY_PATH": str(libraries),
        "LUA_PATH": f"{ours}/?.lua;{root}/usr/share/lua/5.4/?.lua",
        "LUA_CPATH": f"{ours}/?.so;{libraries}/lua/5.4/?.so",
    }


def unpack(folder: Path) -> Path:
    """Unpack Debian's package and what it needs, or skip the test.

    Nothing is installed, since that would start a Prosody for all.
    """
    given = os.environ.get("PROSODY_ROOT")
    if given:
        return Path(given)
    if os.environ.get("GEOLOOKUP_FETCH") != "1":
        pytest.skip("fetches Debian's package prosody; GEOLOOKUP_FETCH=1 allows it")
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get to fetch Debian's package prosody with")
    fetched = subprocess.run(
        ["apt-get", "-qq", "download", *PACKAGES],  # noqa: S607
        cwd=folder, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    if fetched.returncode:
        pytest.skip("Debian 12's package prosody, or one that it needs, is not to be had")
    root = folder / "root"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)  # noqa: S607
    return root


class Background:
    """An event loop in a thread, in which clients live while tests wait for what they see."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], patience: float = PATIENCE) -> T:
        """Return what a coroutine returns."""
        running: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return running.result(patience)

    def close(self) -> None:
        """End what still runs, and the thread."""
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class History:
    """What was seen, in order, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._changed = asyncio.Condition()

    async def add(self, item: Any) -> None:
        async with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    async def find(self, is_sought: Callable[[Any], object], after: int = 0) -> Any:
        """Return the first item of that kind, however late it comes."""
        async with asyncio.timeout(PATIENCE), self._changed:
            while True:
                for item in self.items[after:]:
                    if is_sought(item):
                        return item
                after = len(self.items)
                await self._changed.wait()


class Relay:
    """Between Prosody and geolookup: passes calls on, keeps them, and holds or drops them.

    Attributes:
        calls: of each call, the head and the body that Prosody sent.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.calls = History()
        self._held = History()
        self._open = asyncio.Event()
        self._open.set()
        self._refuses = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Listen; return where."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Listen no more."""
        self._server.close()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Let calls wait, until `release` or the end of the block."""
        self._held.items.clear()
        self._open.clear()
        try:
            yield
        finally:
            self.release()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """End connections unanswered, until `release` or the end of the block."""
        self._refuses = True
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Pass on the calls that wait, and all later ones."""
        self._refuses = False
        self._open.set()

    async def holds(self, count: int) -> None:
        """Wait until so many lookups wait."""
        await self._held.find(lambda number: number >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._pass_on(reader, writer)
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = re.search(r"^content-length: (\d+)\r$", head, re.M | re.I)
        assert size
        body = await reader.readexactly(int(size[1]))
        await self.calls.add((head, body.decode()))
        if self._refuses:
            return
        if not self._open.is_set():
            if "/Lookup " in head:
                await self._held.add(len(self._held.items) + 1)
            await self._open.wait()
        host, port = self._target.rsplit(":", 1)
        answers, requests = await asyncio.open_connection(host, int(port))
        requests.write(head.encode() + body)
        # Prosody ends the connection when it has the answer, or has waited for long enough.
        ended = asyncio.ensure_future(reader.read())
        copied = asyncio.ensure_future(self._copy(answers, writer))
        await asyncio.wait({ended, copied}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, copied):
            task.cancel()
        requests.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()


class Prosody:
    """A running Prosody.

    Attributes:
        ports: by the address on which it listens.
        log: its lines.
        folder: its configuration and data.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self.folder = folder
        self.records = folder / "records.jsonl"
        self.log = History()

    async def impose(self, *measures: dict[str, str], chat: str = CHAT) -> None:
        """Have these measures in force in a chat, and no other."""
        await self.reload(json.dumps({"measures": measures}), chat)

    async def reload(self, text: str, chat: str = CHAT) -> None:
        """Have this file of measures read, and wait for it."""
        written = self.folder / "written.json"
        written.write_text(text)
        written.replace(self.folder / MEASURES[chat])
        before = len(self.log.items)
        self._process.send_signal(signal.SIGHUP)
        for name in MEASURES:  # each chat reads its own again
            await self.log.find(re.compile(rf"{re.escape(name)}:.* in force").match, before)

    async def start(self, geolookup: str) -> None:
        """Start it, and wait until it listens."""
        for name in ("data", "certs"):
            (self.folder / name).mkdir()
        for name in MEASURES.values():
            (self.folder / name).write_text('{"measures": []}')
        # An option that is set twice is an error in a file of a long name, and else a warning.
        sample = re.sub(
            r"^\s*(plugin_paths|geolookup_(url|timeout|interval|records|exempt)) = .*\n",
            "",
            (EXAMPLE / "prosody.cfg.lua").read_text(),
            flags=re.M,
        )
        config = self.folder / "prosody.cfg.lua"
        config.write_text(sample + SETTINGS.format(
            modules=self._root / "usr/lib/prosody/modules", example=EXAMPLE, folder=self.folder,
            anonymous=ANONYMOUS, named=NAMED, chat=CHAT, impatient=IMPATIENT, bridge=BRIDGE,
            clients=CLIENTS, http=HTTP, components=COMPONENTS, geolookup=geolookup,
            patience=PATIENCE,
            root=str(os.getuid() == 0).lower(),
        ))  # fmt: skip
        program = self.folder / "prosody"
        # The package's folders are written into it.
        text = (self._root / "usr/bin/prosody").read_text()
        program.write_text(text.replace("'/usr/lib/prosody", f"'{self._root}/usr/lib/prosody"))
        self._process = await asyncio.create_subprocess_exec(
            self._root / "usr/bin/lua5.4", program, "--config", config, "-F",
            env=environment(self._root), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, limit=1 << 20,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        ready = asyncio.create_task(self._listens())
        # What it prints ends when it does.
        await asyncio.wait({ready, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            pytest.fail("Prosody did not start:\n" + "\n".join(self.log.items))
        await ready

    async def _listens(self) -> None:
        for service in ("c2s", "component", "http"):
            await self.log.find(re.compile(f".*Activated service '{service}'").match)
        self.ports = self._ports()
        # It answers when all of its modules are there, such as the one that handles signals.
        reader, writer = await asyncio.open_connection(CLIENTS, self.ports[CLIENTS])
        writer.write(b"<?xml version='1.0'?><ready/>")
        await asyncio.wait_for(reader.read(1), PATIENCE)
        writer.close()

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            await self.log.add(line.decode(errors="replace").rstrip("\n"))

    def _ports(self) -> dict[str, int]:
        """Return the port on which it listens, for each of its addresses."""
        pid = self._process.pid
        links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = {link.removeprefix("socket:[").rstrip("]") for link in links}
        found = {}
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets:  # it listens
                address, port = local.split(":")
                packed = bytes.fromhex(address)[::-1]  # in host order, which is little-endian
                found[str(ipaddress.IPv4Address(packed))] = int(port, 16)
        return found

    async def stop(self) -> int:
        """Stop it, and return its exit code."""
        self._process.terminate()
        code = await asyncio.wait_for(self._process.wait(), PATIENCE)
        await self._reading
        return code


SETTINGS = """
Host "*"
daemonize = false
run_as_root = {root}
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
log = {{ {{ levels = {{ min = "debug" }}; to = "console" }} }}
plugin_paths = {{ "{example}"; "{modules}" }}
modules_disabled = {{ "s2s"; "s2s_auth_certs"; "tls" }}
c2s_ports = {{ 0 }}
c2s_interfaces = {{ "{clients}" }}
component_ports = {{ 0 }}
component_interfaces = {{ "{components}" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
consider_bosh_secure = true
http_ports = {{ 0 }}
http_interfaces = {{ "{http}" }}
https_ports = {{}}
http_default_host = "{anonymous}"
VirtualHost "{named}"
	authentication = "insecure"
	insecure_open_authentication = "Yes please, I know what I'm doing!"
Component "{chat}" "muc"
	geolookup_url = "http://{geolookup}"
	geolookup_timeout = {patience}
	geolookup_interval = 0.2
	geolookup_records = "{folder}/records.jsonl"
	geolookup_exempt = {{ "focus@{named}" }}
Component "{impatient}" "muc"
	modules_enabled = {{ "muc_geolookup" }}
	muc_room_locking = false
	geolookup_url = "http://{geolookup}"
	geolookup_timeout = 0.2
	geolookup_interval = 0.2
	geolookup_measures = "impatient.json"
	muc_room_cache_size = 1
Component "{bridge}"
	component_secret = "any"
"""
