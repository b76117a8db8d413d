"""Headless Chromium, driven by its DevTools protocol through two pipes: no package is needed.

With --remote-debugging-pipe it reads JSON messages that end with a zero byte from descriptor 3, and
writes its own to 4. It resolves no name here, so that no page reaches a network.
"""

import base64
import fcntl
import json
import os
import selectors
import subprocess
import time
from pathlib import Path
from typing import Any

TIMEOUT = 60  # seconds for any answer


class Browser:
    """A running Chromium; ``with`` ends it."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        options = ['--headless=new', '--remote-debugging-pipe', f'--user-data-dir={profile}']
        options += ['--host-resolver-rules=MAP * ~NOTFOUND', '--no-first-run', '--disable-gpu']
        options += ['--disable-extensions', '--disable-background-networking', '--disable-sync']
        options += ['--disable-dev-shm-usage', '--hide-scrollbars']
        if os.geteuid() == 0:
            options.append('--no-sandbox')  # it refuses to run as root otherwise

        def take_pipes() -> None:
            # by way of numbers that are free, lest one overwrites the other
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
            for number, end in zip((3, 4), ends):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            ['chromium', *options, 'about:blank'],
            preexec_fn=take_pipes,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._in, selectors.EVENT_READ)
        self._rest, self._number = b'', 0
        self.events: list[dict] = []

    def __enter__(self) -> 'Browser':
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict:
        """The result of a method of the protocol; what happens meanwhile joins ``events``."""
        self._number += 1
        message = dict(id=self._number, method=method, params=params)
        if session:
            message['sessionId'] = session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._next()
            if answer.get('id') == self._number:
                assert 'error' not in answer, f'{method}: {answer["error"]}'
                return answer['result']
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        while not any(event.get('method') == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict:
        end = time.monotonic() + TIMEOUT
        while b'\0' not in self._rest:
            ready = self._selector.select(max(0, end - time.monotonic()))
            assert ready, 'Chromium does not answer'
            data = os.read(self._in, 1 << 20)
            assert data, 'Chromium has ended'
            self._rest += data
        message, _, self._rest = self._rest.partition(b'\0')
        return json.loads(message)


class Page:
    """A document in a tab of its own.

    Attributes:
        requested: what it asked for, itself first.
        complaints: what it wrote to the console, and errors that were logged of it.
    """

    def __init__(
        self, browser: Browser, path: Path, width: int = 1280, height: int = 900, dark: bool = False
    ) -> None:
        self._browser = browser
        browser.events.clear()
        target = browser.call('Target.createTarget', url='about:blank')['targetId']
        attached = browser.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self._call(f'{domain}.enable')
        screen = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self._call('Emulation.setDeviceMetricsOverride', **screen)
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        self._call('Emulation.setEmulatedMedia', features=[scheme])
        browser.events.clear()
        self._call('Page.navigate', url=path.resolve().as_uri())
        browser.wait_for('Page.loadEventFired')
        self.evaluate('0')  # what came before has been told by now
        said = {'Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded'}
        events = browser.events
        self.requested = [
            event['params']['request']['url']
            for event in events
            if event['method'] == 'Network.requestWillBeSent'
        ]
        self.complaints = [event for event in events if event['method'] in said]

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON has it."""
        result = self._call('Runtime.evaluate', expression=script, returnByValue=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def screenshot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = self._call('Page.getLayoutMetrics')['cssContentSize']
        clip = dict(x=0, y=0, width=size['width'], height=size['height'], scale=1)
        found = self._call('Page.captureScreenshot', captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found['data']))

    def _call(self, method: str, **params: Any) -> dict:
        return self._browser.call(method, self._session, **params)
