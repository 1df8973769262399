"""Looks at the admin page with a headless Chromium, over its debugging pipe.

usage: page.py CHROMIUM URL FOLDER

Writes screenshots into FOLDER, prints one line of JSON with what it saw, reads one line from its
standard input, waits until the page says that a server is down, and prints "down".
"""

import base64
import json
import os
import subprocess
import sys
import time

PATIENCE = 30


class Browser:
    def __init__(self, program, folder):
        # The browser reads commands from its descriptor 3 and writes replies to 4.
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()

        def place():
            high_in, high_out = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        self.process = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                f"--user-data-dir={folder}/profile",
                "--remote-debugging-pipe",
            ],
            close_fds=False,
            preexec_fn=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest = b""
        self.count = 0
        self.session = None
        self.complaints = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.ask(f"{domain}.enable")

    def hear(self):
        while b"\0" not in self.rest:
            more = os.read(self.back, 1 << 16)
            if not more:
                raise SystemExit("the browser has gone")
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(message)
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"].get("exception")))
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(message["params"]["entry"]["text"])
        return message

    def ask(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self.hear()
            if reply.get("id") == self.count:
                if "error" in reply:
                    raise SystemExit(f"{method}: {reply['error']}")
                return reply["result"]

    def value(self, expression):
        reply = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return reply["result"].get("value")

    def wait_for(self, expression):
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            if time.monotonic() > end:
                text = self.value("document.body.innerText")
                raise SystemExit(f"in vain: {expression}\n{text}\n{self.complaints}")
            time.sleep(0.1)

    def press(self, key):
        for kind in ("rawKeyDown", "keyUp"):
            code = {"Tab": 9, "Enter": 13}[key]
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )


def main():
    program, url, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    browser = Browser(program, folder)
    seen = {"overflows": []}
    for name, width, scheme in (
        ("desk-light", 1280, "light"),
        ("desk-dark", 1280, "dark"),
        ("phone-light", 390, "light"),
        ("phone-dark", 390, "dark"),
    ):
        browser.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.ask("Emulation.setEmulatedMedia", features=features)
        browser.ask("Page.navigate", url=url)
        browser.wait_for("document.readyState === 'complete'")
        browser.wait_for("document.getElementById('ready')?.textContent === 'ready'")
        browser.wait_for("document.getElementById('live').textContent === 'live'")
        browser.wait_for("document.querySelectorAll('#pools tbody tr').length > 0")
        browser.wait_for("/[1-9]/.test(document.querySelector('#tiles dd').textContent)")
        if browser.value("document.documentElement.scrollWidth > innerWidth"):
            seen["overflows"].append(name)
        shot = browser.ask("Page.captureScreenshot", captureBeyondViewport=True)
        with open(f"{folder}/{name}.png", "wb") as file:
            file.write(base64.b64decode(shot["data"]))
    seen["title"] = browser.value("document.title")
    seen["text"] = browser.value("document.body.innerText")
    seen["back"] = browser.value("getComputedStyle(document.body).backgroundColor")
    stops = []
    for _ in range(8):
        browser.press("Tab")
        stops.append(browser.value("document.activeElement.textContent.trim().slice(0, 40)"))
    seen["stops"] = stops
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    seen["roles"] = [
        [node["role"]["value"], node.get("name", {}).get("value", "")]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in ("heading", "table", "region", "main", "banner", "image", "status")
    ]
    seen["complaints"] = browser.complaints
    print(json.dumps(seen), flush=True)
    sys.stdin.readline()
    browser.wait_for("document.querySelector('#pools .state.bad')?.textContent === 'down'")
    print("down", flush=True)
    browser.process.kill()


main()
